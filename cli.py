"""The command line: flags and a config file become frozen configs, the parts are put together, errors exit codes.

It knows every room and does nothing itself.
"""

from __future__ import annotations

import dataclasses
import os
import select
import shlex
import sys
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import cyclopts
import orjson
from cyclopts import App, Parameter

from bench.demo import show_demo
from bench.provider import serve
from bench.scenario import Scenario, scenario_from_dict
from engine import errors
from engine.console import closing_summary, printable
from engine.signals import Signals, leave
from labels.codebook import load_codebook
from labels.estimate import estimate as estimated
from labels.estimate_text import as_json, as_text
from labels.export import ExportOptions
from labels.export import export as export_table
from labels.flags import NOTHING_TOLD, EstimateFlags, RunFlags, Switch
from labels.forecast import forecast
from labels.job import on_loop, run_job
from labels.told import job_of
from sinks.folder import MANIFEST
from sinks.reshard import reshard as reshard_folder
from sinks.summary import summarise
from sinks.verify import verify as verify_folder

EXIT_USAGE, EXIT_INPUT, EXIT_PROVIDER, EXIT_FOLDER, EXIT_IO, EXIT_RESUMABLE, EXIT_MISMATCH = 64, 65, 69, 73, 74, 75, 78
EXIT_SOME_FAILED = 1
EXIT_BUG = 70

TOOLS = frozenset({"status", "verify", "export", "reshard"})
"""Commands about a run folder that have nothing to go on with."""

EXIT_CODES: tuple[tuple[type[errors.EngineError], int], ...] = (
    (errors.InputError, EXIT_INPUT),
    (errors.ConfigError, EXIT_USAGE),
    (errors.AuthRejected, EXIT_PROVIDER),
    (errors.FolderInUse, EXIT_FOLDER),
    (errors.ResumeMismatch, EXIT_MISMATCH),
    (errors.TooManyFailures, EXIT_RESUMABLE),
    (errors.BudgetSpent, EXIT_RESUMABLE),
    (errors.ProviderDown, EXIT_RESUMABLE),
    (errors.SinkBroken, EXIT_IO),
    (errors.EncoderBroken, EXIT_IO),
)
"""The first line that fits decides."""

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
    suppress_keyboard_interrupt=False,  # `call` has its own words and code for it
)


@app.command
def run(flags: RunFlags, *, config: ConfigFile = None) -> int:
    """Label rows: frames and texts out, one result line a row back, in one streaming pass.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    signals = Signals(overdue=_give_up)
    signals.install()
    told = job_of(flags)
    for note in told.notes:
        _say(note)
    if flags.dry_run:
        print(on_loop(forecast(told.job)).text())
        return 0
    last = run_job(told.job, say=_say, signals=signals)
    _say(closing_summary(last, out=str(flags.out)))
    if last.stopping is not None:
        _say(f"Stopped by {last.stopping}; everything counted as done is safe. Go on with:\n  {_resume_command()}")
        return EXIT_RESUMABLE
    if last.sink.failed:
        _say(f"{last.sink.failed:,} rows failed; failures/ says why, and all others are safe. Try them again with:")
        _say(f"  {_resume_command('--retry-failed')}")
        return EXIT_SOME_FAILED
    return 0


@app.command
def estimate(flags: EstimateFlags = NOTHING_TOLD, *, config: ConfigFile = None) -> int:
    """What a run would take in tokens, dollars and time, and what other sizes and numbers of frames would.

    Looks at a sample of the rows; sends nothing, unless --probe-tokens asks for two small calls, and writes nothing.
    """
    del config  # read by `flags_from_file`
    told = job_of(dataclasses.replace(flags, dry_run=True), key_needed=flags.probe_tokens)
    for note in told.notes:
        _say(note)
    found = on_loop(estimated(told.job, flags))
    print(orjson.dumps(as_json(found)).decode() if flags.json else as_text(found, sent=flags.probe_tokens))
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
def verify(out: Path, *, json: Annotated[bool, Switch] = False) -> int:
    """Check every committed line of a run folder, and its checkpoint against them. Changes nothing.

    Ends with 0 if all is as promised, with 74 if something is not; it is named by file and byte.

    Args:
        out: the run folder; a run may be going on in it.
        json: print one JSON object instead of text.
    """
    verdict = verify_folder(out)
    print(orjson.dumps(verdict).decode() if json else verdict.text())
    if verdict.sound:
        return 0
    _say(
        f"{out} is not as it was committed. Nothing was changed, and whatever is not named here is safe.\n"
        "If the machine crashed while the run was writing, let it set torn bytes aside: start the `run` command again\n"
        "with --resume. Otherwise restore the files that are named from a copy. Then:\n"
        f"  {_program()} {shlex.join(['verify', str(out)])}"
    )
    return EXIT_IO


@app.command
def export(
    out: Path,
    *,
    to: Path,
    failures: Annotated[bool, Switch] = False,
    csv_raw: Annotated[bool, Switch] = False,
    force: Annotated[bool, Switch] = False,
) -> int:
    """Write the results of a run as one table, in the order of the input, each label a column of its own.

    Args:
        out: the run folder; a run may be going on in it.
        to: the file to write: .parquet, .csv or .jsonl.
        failures: include rows that failed, with kind, status and message.
        csv_raw: write CSV cells to the letter; otherwise text that a spreadsheet might run gets a leading apostrophe.
        force: replace the file if it is there.
    """
    options = ExportOptions(failures=failures, csv_raw=csv_raw, force=force)
    written = export_table(out, to, options=options)
    failed = f", {written.failed:,} of them failed" if failures else ""
    _say(f"{to}: {written.rows:,} rows{failed}, {len(written.columns)} columns")
    return 0


@app.command
def reshard(out: Path, new: Path, *, shards: int) -> int:
    """Write a run into a new folder with another number of shards, lines in the order of rows.

    The old folder stays as it is. The new one gets its run.json last, after every line was read back: if this is
    killed, what it leaves is no run, and is to be deleted.

    Args:
        out: the run folder; no run may be going on in it.
        new: the new folder; it must not exist, or be empty.
        shards: output files; row modulo shards names the file.
    """
    done = reshard_folder(out, new, shards=shards, say=_say)
    for note in done.notes:
        _say(f"{out}: {note}")
    _say(
        f"{new}: {done.results:,} results and {done.failures:,} failure lines, {done.shards_before} shards before, "
        f"{done.shards} now; every line was read back. Go on in it with the `run` command, --resume and:\n"
        f"  {shlex.join(['--out', str(new)])}"
    )
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
    _hold_standard_streams()
    leave(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; its exit code. Every error of ours becomes one message."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _say(f"{error}\n{_nothing_done()}")
        return EXIT_USAGE
    except errors.EngineError as error:
        return _explain(error)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing of the run depends on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        name = str(error) or "SIGINT"
        _say(f"Stopped by {name}; everything counted as done is safe. Go on with:\n  {_resume_command()}")
        return EXIT_RESUMABLE
    except Exception as error:  # noqa: BLE001 - the last border: a user is shown no traceback
        _say(f"This is a bug in Reelbatch: {type(error).__name__}: {error}\nWhat was counted as done is safe.")
        if os.environ.get("REELBATCH_DEBUG"):
            traceback.print_exception(error)
        else:
            _say("REELBATCH_DEBUG=1 shows where it happened; please report it.")
        return EXIT_BUG
    return code if isinstance(code, int) else 0


def _hold_standard_streams() -> None:
    """Give 0, 1 and 2 to nobody else where they were closed: what is said would go into a file of the run."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _give_up() -> None:
    """End the process from another thread, whatever the others wait for."""
    words = f"Not everything ended in time. What was counted as done is safe. Go on with:\n  {_resume_command()}\n"
    # Not `_say`: somebody may hold its lock, and a terminal that takes no more text may be what hangs.
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, words.encode())
    os._exit(EXIT_RESUMABLE)


def _explain(error: errors.EngineError) -> int:
    code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    _say(f"error: {error}")
    of_tool = bool(TOOLS.intersection(sys.argv[1:2]))
    match error:
        case errors.InputError():
            _say("Everything counted as done is safe. Mend the input and type the command again; where a run had begun")
            _say("with the broken one, with another --out.")
        case errors.ConfigError():
            _say(_nothing_done())
        case errors.ResumeMismatch():
            pass  # It names what is safe, and which of two ways to go is not ours to say.
        case errors.FolderInUse():
            more = "" if of_tool else f" With that settled, or another --out:\n  {_resume_command()}"
            _say(f"Nothing was sent and nothing changed.{more}")
        case _ if of_tool:
            out = next((word for word in sys.argv[2:] if (Path(word) / MANIFEST).exists()), "OUT")
            _say(f"What is damaged, if anything, and what is not, says:\n  {_program()} {shlex.join(['verify', out])}")
        case _:
            _say(f"What was counted as done and is not named here is safe. With the cause gone:\n  {_resume_command()}")
    return code


def _nothing_done() -> str:
    """For a command that did not begin."""
    command = [word for word in sys.argv[1:2] if word in list(app)]
    return f"Nothing was sent and nothing changed. See:\n  {_program()} {shlex.join([*command, '--help'])}"


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


def _program() -> str:
    # As it was typed: `python` may be another one, and cli.py in another folder.
    return shlex.join(sys.orig_argv[: 1 - len(sys.argv) or None]) if sys.argv[0].endswith("cli.py") else "reelbatch"


def _resume_command(*more: str) -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in {"--resume", *more}]
    return f"{_program()} {shlex.join([*arguments, '--resume', *more])}"


def _say(text: str) -> None:
    """A message for the person at the terminal; what strangers wrote cannot drive it."""
    # Whoever read it may have gone, which ends no run.
    with suppress(OSError):
        sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
