"""The command line: flags and a config file become frozen configs, the parts are put together, errors exit codes.

It knows every room and does nothing itself.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import stat
import sys
import traceback
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import cyclopts
import orjson
from cyclopts import App, Group, Parameter

from bench.demo import show_demo
from bench.provider import serve
from bench.scenario import Scenario, scenario_from_dict
from encoders.chat import ChatEncoder, recipe_of
from encoders.image import parse_fit
from engine import errors
from engine.config import (
    LOOPBACK,
    ApiConfig,
    BrakeConfig,
    LimitConfig,
    PriceConfig,
    RetryConfig,
    RunConfig,
    WriteConfig,
)
from engine.console import closing_summary, printable
from engine.encode import EncodeConfig
from engine.secret import Secret
from engine.source import SourceConfig
from labels.codebook import load_codebook
from labels.job import Job, Questions, ask_by_codebook, ask_by_prompt, on_loop, run_job
from sinks.summary import summarise

KEY_VARIABLES = ("TOGETHER_API_KEY", "OPENAI_API_KEY")
AUTO_MAX_TOKENS = 512

EXIT_USAGE, EXIT_INPUT, EXIT_PROVIDER, EXIT_FOLDER, EXIT_IO, EXIT_RESUMABLE, EXIT_MISMATCH = 64, 65, 69, 73, 74, 75, 78
EXIT_SOME_FAILED = 1
EXIT_BUG = 70

EXIT_CODES: tuple[tuple[type[errors.EngineError], int], ...] = (
    (errors.InputError, EXIT_INPUT),
    (errors.ConfigError, EXIT_USAGE),
    (errors.AuthRejected, EXIT_PROVIDER),
    (errors.FolderInUse, EXIT_FOLDER),
    (errors.ResumeMismatch, EXIT_MISMATCH),
    (errors.TooManyFailures, EXIT_RESUMABLE),
    (errors.BudgetSpent, EXIT_RESUMABLE),
    (errors.SinkBroken, EXIT_IO),
    (errors.EncoderBroken, EXIT_IO),
)
"""The first line that fits decides."""

INPUT = Group("What to read", sort_key=1)
MEDIA = Group("Frames", sort_key=2)
QUESTIONS = Group("What to ask", sort_key=3)
PROVIDER = Group("Whom to ask", sort_key=4)
SPEED = Group("How fast", sort_key=5)
TOKENS = Group("Tokens and retries", sort_key=6)
BRAKES = Group("When to stop", sort_key=7)
OUTPUT = Group("What to write", sort_key=0)

Switch = Parameter(negative=())


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """What `run` is told."""

    input: Annotated[Path, Parameter(group=INPUT)]
    """The rows: .csv, .tsv, .parquet or .jsonl; text also .gz and .zst."""
    out: Annotated[Path, Parameter(group=OUTPUT)]
    """The run folder; created if missing."""
    model: Annotated[str, Parameter(group=PROVIDER)]
    """The model's name, as the provider spells it."""
    base_url: Annotated[str, Parameter(group=PROVIDER)] = "https://api.together.xyz/v1"
    """Any OpenAI-compatible address, up to and with /v1."""
    api_key_env: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The environment variable that holds the key; otherwise TOGETHER_API_KEY, then OPENAI_API_KEY."""
    api_key_file: Annotated[Path | None, Parameter(group=PROVIDER)] = None
    """A file that holds the key, readable by you alone."""
    allow_plaintext: Annotated[bool, Switch, Parameter(group=PROVIDER)] = False
    """Let an http:// address leave this machine."""
    id_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """The column of ids; otherwise meta_id, id, tt_video_id, yt_video_id or video_id."""
    transcript_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise the last column whose name holds "transcript" or "subtitle"."""
    description_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise meta_desc, description, processed_desc, or the first whose name holds "desc"."""
    embedded_text_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise embedded_text or stickersonitem_stickertext."""
    skip: Annotated[int, Parameter(group=INPUT)] = 0
    """Leave out so many rows at the beginning."""
    limit: Annotated[int, Parameter(group=INPUT)] = 0
    """Read at most so many rows; 0 reads all."""
    frames_dir: Annotated[Path | None, Parameter(group=MEDIA)] = None
    """Holds one folder of frame_0.jpg, frame_1.jpg ... per id. Without it only text is sent."""
    max_frames: Annotated[int, Parameter(group=MEDIA)] = 16
    """At most so many frames a row, evenly thinned."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """tokens: the largest size that costs no further image tile; WxH in pixels; none: bytes untouched."""
    codebook: Annotated[str, Parameter(group=QUESTIONS)] = "comprehensive"
    """The questions: standard, numeric, comprehensive, numeric-comprehensive, or a TOML file."""
    system_prompt: Annotated[Path | None, Parameter(group=QUESTIONS)] = None
    """A text file to ask with instead of a codebook; answers are then kept as text, without labels."""
    temperature: Annotated[float, Parameter(group=QUESTIONS)] = 0.0
    """Sampling temperature."""
    top_p: Annotated[float | None, Parameter(group=QUESTIONS)] = None
    """Nucleus sampling; not sent unless given."""
    seed: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """Sampling seed; not sent unless given."""
    effort: Annotated[Literal["none", "low", "medium", "high"] | None, Parameter(group=QUESTIONS)] = None
    """Reasoning effort; not sent unless given."""
    response_format: Annotated[Literal["auto", "json_schema", "json_object", "none"], Parameter(group=QUESTIONS)] = (
        "auto"
    )
    """How the answer's form is asked for besides the prompt; auto sends none, which every provider accepts."""
    concurrency: Annotated[int | Literal["auto"], Parameter(group=SPEED)] = "auto"
    """Requests in flight; auto adapts."""
    rpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many requests a minute."""
    tpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many tokens a minute."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Encoder processes; otherwise one a core."""
    max_open_mb: Annotated[int, Parameter(group=SPEED)] = 512
    """Encoded requests held at once, in MB."""
    max_tokens: Annotated[int | Literal["auto"], Parameter(group=TOKENS)] = "auto"
    """What a first answer may take; auto starts at 512."""
    retry_on_trunc: Annotated[bool, Parameter(group=TOKENS)] = True
    """Ask again with more tokens when an answer was cut off."""
    growth: Annotated[float, Parameter(group=TOKENS)] = 2.0
    """Next max_tokens = max(now, min(int(now * growth), cap))."""
    max_tokens_cap: Annotated[int, Parameter(group=TOKENS)] = 4096
    """The most an answer may take."""
    retries: Annotated[int, Parameter(group=TOKENS)] = 6
    """Calls a row at most; being told to slow down is not counted."""
    row_deadline_seconds: Annotated[float, Parameter(group=TOKENS)] = 1800.0
    """No further attempt of a row after so many seconds."""
    per_call_timeout: Annotated[float, Parameter(group=TOKENS)] = 600.0
    """Seconds until a call is given up."""
    price_in: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million prompt tokens."""
    price_out: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million completion tokens."""
    max_failed: Annotated[str, Parameter(group=BRAKES)] = "5%"
    """Stop when more rows than this have failed: a number, or a share of the rows ended."""
    drain_seconds: Annotated[float, Parameter(group=BRAKES)] = 20.0
    """How long answers in flight are waited for after the first signal."""
    shards: Annotated[int, Parameter(group=OUTPUT)] = 64
    """Output files; row modulo shards names the file."""
    resume: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Go on with the run in --out; without it a folder that holds a run is refused."""
    retry_failed: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """With --resume: try the rows in failures/ again."""


ConfigFile = Annotated[Path | None, Parameter(help="A TOML file whose keys are the flag names; flags beat it.")]


def flags_from_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Fill in what `--config FILE` says and the command line does not."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            path = Path(argument.tokens[-1].value)
            try:
                path.read_bytes()
                cyclopts.config.Toml(path, must_exist=True, use_commands_as_keys=False)(app, commands, arguments)
            except OSError as error:
                raise errors.ConfigError(f"--config {path}: {error.strerror}") from error
            except ValueError as error:
                raise errors.ConfigError(f"--config {path}: {error}") from error


def _version() -> str:
    try:
        return version("reelbatch")
    except PackageNotFoundError:
        return "not installed"


app = App(
    name="reelbatch",
    help="Label millions of short videos with any OpenAI-compatible vision model.",
    version=_version,
    config=flags_from_file,
    result_action="return_value",
)


@app.command
def run(flags: RunFlags, *, config: ConfigFile = None) -> int:
    """Label rows: frames and texts out, one result line a row back, in one streaming pass.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    questions = ask_by_prompt(flags.system_prompt) if flags.system_prompt else ask_by_codebook(flags.codebook)
    encoder = _encoder(flags, questions)
    job = Job(
        settings=_run_config(flags, recipe={**recipe_of(encoder), **questions.recipe}),
        encoder=encoder,
        reader=questions.reader,
        out=flags.out,
        shards=flags.shards,
        resume=flags.resume,
        retry_failed=flags.retry_failed,
    )
    last = run_job(job, say=_say)
    _say(closing_summary(last, out=str(flags.out)))
    if last.stopping is not None:
        _say(f"Stopped by {last.stopping}; everything counted as done is safe. Go on with:\n  {_resume_command()}")
        return EXIT_RESUMABLE
    if last.sink.failed:
        _say(f"{last.sink.failed:,} rows failed; failures/ says why. Try them again with:")
        _say(f"  {_resume_command('--retry-failed')}")
        return EXIT_SOME_FAILED
    return 0


@app.command
def status(out: Path, *, json: Annotated[bool, Switch] = False) -> int:
    """What a run folder holds: rows done, rows failed by kind, rows left, tokens and dollars.

    Args:
        out: the run folder; a run may be going on in it.
        json: print one JSON object instead of text.
    """
    summary = summarise(out)
    print(orjson.dumps(summary).decode() if json else summary.text())
    return 0


@app.command
def simulate(
    *, port: int = 8000, codebook: str = "comprehensive", scenario: Path | None = None, ledger: Path | None = None
) -> int:
    """The simulated provider, on loopback: made-up answers in the form of a real one's. Ends on Ctrl-C.

    Args:
        port: where to listen; 0 takes a free port.
        codebook: what to answer under when a request brings no schema; its labels are valid, and made up.
        scenario: a JSON file with latency, limits and faults; docs/simulate.md describes it.
        ledger: append a JSON line per received request to this file.
    """
    told = _scenario(scenario, codebook=codebook)
    try:
        on_loop(serve(told, port=port, ready=_announce, ledger_path=ledger))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise errors.ConfigError(f"--port {port}: {error.strerror}") from error
    return 0


@app.command
def demo(*, out: Path = Path("out/demo"), rows: int = 24) -> int:
    """The main job on generated sample videos against the simulated provider: no key, no network, no cost.

    Args:
        out: where samples and results go; what an earlier demo left there is replaced.
        rows: how many sample videos.
    """
    return show_demo(out, rows=rows, say=_say)


def main() -> None:
    """Entry point of `reelbatch` and `python cli.py`."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; its exit code. Every error of ours becomes one message."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _say(f"{error}\nSee `{_program()} {arguments[0] if arguments else ''} --help`.")
        return EXIT_USAGE
    except errors.EngineError as error:
        return _explain(error)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing of the run depends on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _say("Interrupted.")
        return EXIT_RESUMABLE
    except Exception as error:  # noqa: BLE001 - the last border: a user is shown no traceback
        _say(f"This is a bug in Reelbatch: {type(error).__name__}: {error}\nWhat was counted as done is safe.")
        if os.environ.get("REELBATCH_DEBUG"):
            traceback.print_exception(error)
        else:
            _say("REELBATCH_DEBUG=1 shows where it happened; please report it.")
        return EXIT_BUG
    return code if isinstance(code, int) else 0


def _explain(error: errors.EngineError) -> int:
    code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    _say(f"error: {error}")
    if isinstance(error, errors.RunError) and not isinstance(error, errors.FolderInUse | errors.ResumeMismatch):
        _say(f"Everything counted as done is safe. When the cause is gone, go on with:\n  {_resume_command()}")
    return code


def _encoder(flags: RunFlags, questions: Questions) -> ChatEncoder:
    if flags.frames_dir is not None and not flags.frames_dir.is_dir():
        raise errors.ConfigError(
            f"--frames-dir {flags.frames_dir}: no such folder; it holds one folder of frames per id"
        )
    if flags.max_frames < 1:
        raise errors.ConfigError("--max-frames must be at least 1; leave --frames-dir out to send text alone")
    extra: dict[str, object] = {"temperature": flags.temperature}
    if flags.top_p is not None:
        extra["top_p"] = flags.top_p
    if flags.seed is not None:
        extra["seed"] = flags.seed
    if flags.effort is not None:
        extra["reasoning"] = {"effort": flags.effort}
    if flags.response_format == "json_object":
        extra["response_format"] = {"type": "json_object"}
    elif flags.response_format == "json_schema":
        if questions.codebook is None:
            raise errors.ConfigError("--response-format json_schema needs a codebook, not --system-prompt")
        extra["response_format"] = questions.codebook.response_format()
    return ChatEncoder(
        model=flags.model,
        system_prompt=questions.system_prompt,
        fit=parse_fit(flags.fit, model=flags.model),
        frames_dir=flags.frames_dir,
        max_frames=flags.max_frames,
        extra=tuple(extra.items()),
    )


def _run_config(flags: RunFlags, *, recipe: dict[str, object]) -> RunConfig:
    if flags.shards < 1:
        raise errors.ConfigError("--shards must be at least 1")
    if flags.retry_failed and not flags.resume:
        raise errors.ConfigError("--retry-failed goes with --resume")
    share, count = _max_failed(flags.max_failed)
    return RunConfig(
        source=SourceConfig(
            path=flags.input,
            id_column=flags.id_column,
            transcript_column=flags.transcript_column,
            description_column=flags.description_column,
            embedded_text_column=flags.embedded_text_column,
            skip=flags.skip,
            limit=flags.limit,
        ),
        encode=EncodeConfig(workers=flags.workers if flags.workers is not None else _cores()),
        api=ApiConfig(
            base_url=flags.base_url,
            model=flags.model,
            key=_key(flags),
            allow_plaintext=flags.allow_plaintext,
            call_timeout_s=flags.per_call_timeout,
        ),
        recipe=recipe,
        limits=LimitConfig(
            concurrency=None if flags.concurrency == "auto" else flags.concurrency,
            requests_per_min=flags.rpm,
            tokens_per_min=flags.tpm,
            max_open_bytes=flags.max_open_mb << 20,
        ),
        retry=RetryConfig(
            attempts=flags.retries,
            row_deadline_s=flags.row_deadline_seconds,
            max_tokens=AUTO_MAX_TOKENS if flags.max_tokens == "auto" else flags.max_tokens,
            on_truncation=flags.retry_on_trunc,
            growth=flags.growth,
            max_tokens_cap=flags.max_tokens_cap,
        ),
        brake=BrakeConfig(max_failed_share=share, max_failed_rows=count),
        price=PriceConfig(input_usd_per_m=flags.price_in, output_usd_per_m=flags.price_out),
        write=WriteConfig(drain_s=flags.drain_seconds),
    )


def _max_failed(text: str) -> tuple[float | None, int | None]:
    """`5%` as a share, `100` as a count."""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 <= share <= 1:
                return share, None
        elif int(text) >= 0:
            return None, int(text)
    except ValueError:
        pass
    raise errors.ConfigError(f"--max-failed {text!r}: give a number of rows such as 100, or a share such as 5%")


def _key(flags: RunFlags) -> Secret | None:
    """The key, or None where a server on this machine needs none."""
    if flags.api_key_file is not None:
        path = flags.api_key_file
        text = _read_text(path, "--api-key-file").strip()
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise errors.ConfigError(
                f"--api-key-file {path} can be read by others; run: chmod 600 {shlex.quote(str(path))}"
            )
        return Secret(text)
    names = (flags.api_key_env,) if flags.api_key_env else KEY_VARIABLES
    value = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if value is None and (flags.api_key_env or urlsplit(flags.base_url).hostname not in LOOPBACK):
        raise errors.ConfigError(
            f"no API key: set {' or '.join(names)} in the environment, or name a file with --api-key-file"
        )
    return None if value is None else Secret(value.strip())


def _read_text(path: Path, flag: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{flag} {path}: {error.strerror if isinstance(error, OSError) else error}") from error


def _scenario(path: Path | None, *, codebook: str) -> Scenario:
    try:
        told = Scenario() if path is None else scenario_from_dict(orjson.loads(_read_text(path, "--scenario")))
    except orjson.JSONDecodeError as error:
        raise errors.ConfigError(f"--scenario {path}: {error}") from error
    if told.answer_schema is not None:
        return told
    return dataclasses.replace(told, answer_schema=load_codebook(codebook).json_schema())


def _announce(port: int) -> None:
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    _say("Simulated provider: its answers are made up. Any key and any model will do. Ctrl-C ends it.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _program() -> str:
    return "python cli.py" if sys.argv[0].endswith("cli.py") else "reelbatch"


def _resume_command(*more: str) -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in {"--resume", *more}]
    return f"{_program()} {shlex.join([*arguments, '--resume', *more])}"


def _say(text: str) -> None:
    """A message for the person at the terminal; what strangers wrote cannot drive it."""
    sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
