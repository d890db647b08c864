"""`finetune`: teach a model by the chats that `build` wrote."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import orjson
from cyclopts import Group, Parameter

from engine import errors
from engine.config import ApiConfig
from engine.signals import Signals
from labels.finetune import api
from labels.finetune.http import Provider
from labels.finetune.job import Desk, UnheardError, start
from labels.finetune.order import Order, extra_of
from labels.finetune.plan import Plan, checked_id, plan, summary
from labels.finetune.state import State, alone, state_path
from labels.finetune.watch import Pace, follow, look_at, passes_with_time
from labels.flags import ConfigFile, Switch
from labels.keys import DEFAULT_URL, address, key_for
from labels.terminal import (
    EXIT_FOLDER,
    EXIT_INPUT,
    EXIT_IO,
    EXIT_PROVIDER,
    EXIT_RESUMABLE,
    EXIT_SOME_FAILED,
    program,
    say,
)

CALL_S = 120.0
"""Until an answer that is no upload's is given up."""
DATA = Group("What to teach", sort_key=0)
TRAINING = Group("How", sort_key=1)
PROVIDER = Group("Whom to ask", sort_key=2)
JOB = Group("The job", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneFlags:
    """What `finetune` is told."""

    train: Annotated[Path | None, Parameter(group=DATA)] = None
    """Chats with answers, as build writes them: JSONL."""
    val: Annotated[Path | None, Parameter(group=DATA)] = None
    """Chats to evaluate with; none that are in --train."""
    train_id: Annotated[str | None, Parameter(group=DATA)] = None
    """In the place of --train: the provider's id of a file that was uploaded."""
    val_id: Annotated[str | None, Parameter(group=DATA)] = None
    """In the place of --val."""
    model: Annotated[str | None, Parameter(group=TRAINING)] = None
    """The model to start from, as the provider spells it."""
    n_epochs: Annotated[int, Parameter(group=TRAINING)] = 2
    """Times through the training file."""
    batch_size: Annotated[int | Literal["auto", "max"], Parameter(group=TRAINING)] = 8
    """Examples a step; auto (OpenAI) and max (Together) leave it to the provider."""
    learning_rate: Annotated[float | None, Parameter(group=TRAINING)] = None
    """Together: otherwise 1e-4. OpenAI takes a multiplier instead: see --extra."""
    n_evals: Annotated[int | None, Parameter(group=TRAINING)] = None
    """Together: times through --val; otherwise 10, without --val none."""
    suffix: Annotated[str | None, Parameter(group=TRAINING)] = None
    """Stands in the name of the trained model."""
    lora: Annotated[bool, Parameter(group=TRAINING)] = True
    """Together: train an adapter; without, every weight."""
    extra: Annotated[tuple[str, ...], Parameter(group=TRAINING, negative=(), consume_multiple=True)] = ()
    """Further fields of the job, each as "key=value"; the value is JSON or text, a dot leads into an object, as in
    method.supervised.hyperparameters.learning_rate_multiplier=0.5."""
    base_url: Annotated[str, Parameter(group=PROVIDER)] = DEFAULT_URL
    """The provider's address, up to and with /v1."""
    api: Annotated[Literal["auto", "openai", "together"], Parameter(group=PROVIDER)] = "auto"
    """What is spoken there; auto takes Together's at its own addresses, and OpenAI's at all others."""
    api_key_env: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The environment variable that holds the key; otherwise TOGETHER_API_KEY, then OPENAI_API_KEY."""
    api_key_file: Annotated[Path | None, Parameter(group=PROVIDER)] = None
    """A file that holds the key, readable by you alone."""
    allow_plaintext: Annotated[bool, Switch, Parameter(group=PROVIDER)] = False
    """Let an http:// address leave this machine."""
    watch: Annotated[bool, Switch, Parameter(group=JOB)] = False
    """Stay until the job has ended, tell what happens, and print the name of the trained model."""
    poll_sec: Annotated[float, Parameter(group=JOB)] = 10.0
    """Seconds between two looks at the job."""
    job: Annotated[str | None, Parameter(group=JOB)] = None
    """In the place of files: a job that was started before; says how it stands, or follows it with --watch."""
    cancel: Annotated[bool, Switch, Parameter(group=JOB)] = False
    """With --job: end it, and print how it stands then. What it took until then may be charged."""
    new_job: Annotated[bool, Switch, Parameter(group=JOB)] = False
    """Create another job, and pay for it, although one with the same files and settings was created before."""
    dry_run: Annotated[bool, Switch, Parameter(group=JOB)] = False
    """Check the files, and print the job that would be asked for; send and write nothing."""


NOTHING_TOLD = FinetuneFlags()


def finetune(flags: FinetuneFlags = NOTHING_TOLD, *, config: ConfigFile = None) -> int:
    """Teach a model by chats with answers: check the files, upload them, start a fine-tuning job, follow it.

    The id of the job is printed, and with --watch the name of the trained model at the end. A command that is typed
    again uploads and pays nothing twice. Ends with 0 if the job was started, or with --watch is done; with 1 if it
    failed or was cancelled; with 69 if the provider refuses; with 75 if typing it again goes on.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    Signals().install()
    job_id = flags.job
    try:
        _check(flags)
        dialect = api.dialect_of(address(flags.base_url), flags.api)
        if job_id is None:
            job_id = _start(flags, dialect)
            if job_id is None:
                return 0
        elif not flags.watch:
            return _stand(flags, dialect, job_id)
        return _followed(flags, dialect, job_id) if flags.watch else 0
    except errors.InputError as error:
        say(f"error: {error}\nNo job was created. Mend the file and type the command again.")
        return EXIT_INPUT
    except UnheardError as error:
        say(
            f"error: {error}. Whether the job was created is not known, and it costs: so it is not asked for again now."
        )
        say(f"Typed again, the command looks for it once more, and asks for it only if it is not there:\n  {_again()}")
        return EXIT_RESUMABLE
    except (errors.ApiError, errors.RunError) as error:
        return _ended_by(error, flags, job_id)
    except KeyboardInterrupt as error:
        return _stopped(str(error) or "SIGINT", flags, job_id)


def _check(flags: FinetuneFlags) -> None:
    if flags.poll_sec <= 0:
        raise errors.ConfigError(f"--poll-sec must be above 0, not {flags.poll_sec}")
    files = (flags.train, flags.val, flags.train_id, flags.val_id)
    if flags.job is not None:
        checked_id(flags.job, "--job")
        if any(told is not None for told in files) or flags.dry_run or flags.new_job:
            raise errors.ConfigError(
                "--job is one that was started before: leave the files, --new-job and --dry-run out"
            )
        if flags.cancel and flags.watch:
            raise errors.ConfigError("--cancel ends the job: leave --watch out")
        return
    if flags.cancel:
        raise errors.ConfigError("--cancel goes with --job")
    if (flags.train is None) is (flags.train_id is None):
        raise errors.ConfigError("name the examples: --train FILE, or --train-id of a file that was uploaded")
    if flags.val is not None and flags.val_id is not None:
        raise errors.ConfigError("--val and --val-id are two ways to say the same: leave one of them out")
    if not flags.model:
        raise errors.ConfigError("--model is missing: name the model to start from, as the provider spells it")


def _start(flags: FinetuneFlags, dialect: api.Dialect) -> str | None:
    """The id of the job; None where nothing was to be sent."""
    order = Order(
        model=str(flags.model),
        n_epochs=flags.n_epochs,
        batch_size=flags.batch_size,
        learning_rate=flags.learning_rate,
        n_evals=flags.n_evals,
        suffix=flags.suffix,
        lora=flags.lora,
        extra=tuple(map(extra_of, flags.extra)),
    )
    provider = None if flags.dry_run else _provider(flags)
    with alone(flags.train):
        found = plan(order, dialect, training=flags.train or str(flags.train_id), validation=flags.val or flags.val_id)
        say(summary(found))
        if provider is None:
            _show(found, flags)
            return None
        path = state_path(flags.train, flags.train_id)
        state = State(path, base_url=provider.base_url)
        desk = Desk(provider=provider, state=state, pace=_pace(flags), say=say)
        started = start(found, desk, new_job=flags.new_job)
    print(started.id, flush=True)
    if started.earlier:
        say(f"{started.id} was created by an earlier command with the same files and settings; no other was created.")
        say("--new-job creates another, which is paid for as well.")
    else:
        say(f"{started.id} was created; {path} remembers it.")
    if not flags.watch:
        say(f"Follow it with:\n  {_watch_command(flags, started.id)}")
    return started.id


def _show(found: Plan, flags: FinetuneFlags) -> None:
    training = flags.train_id or f"<id of {flags.train}>"
    validation = f"<id of {flags.val}>" if flags.val else flags.val_id
    print(orjson.dumps(found.body(training, validation), option=orjson.OPT_INDENT_2).decode())
    say("Nothing was sent. Without --dry-run the files are uploaded, and this, with their ids, creates the job.")


def _stand(flags: FinetuneFlags, dialect: api.Dialect, job_id: str) -> int:
    """Say how a job stands, or end it."""
    provider = _provider(flags)
    if flags.cancel:
        provider.post(f"{dialect.jobs_path}/{job_id}/cancel")
        print(look_at(provider, dialect, job_id).status, flush=True)
        say(f"{job_id}: the provider was asked to end it")
        return 0
    return _told(look_at(provider, dialect, job_id))


def _followed(flags: FinetuneFlags, dialect: api.Dialect, job_id: str) -> int:
    return _told(follow(_provider(flags), dialect, job_id, pace=_pace(flags), say=say))


def _told(job: api.Job) -> int:
    """What became of a job, and the code for it."""
    if job.phase == "done":
        say(f"{job.id} is done." if job.model else f"{job.id} is done; the provider does not name the trained model.")
        if job.model:
            print(job.model, flush=True)
        return 0
    if job.phase == "going":
        print(job.status, flush=True)
        return 0
    why = f": {job.error}" if job.error else ""
    say(f"{job.id} {'failed' if job.phase == 'failed' else 'was cancelled'}{why}")
    say("What was uploaded is still there; the same command with --new-job creates another job.")
    return EXIT_SOME_FAILED


def _ended_by(error: errors.ApiError | errors.RunError, flags: FinetuneFlags, job_id: str | None) -> int:
    say(f"error: {error}")
    if isinstance(error, errors.FolderInUse):
        return EXIT_FOLDER
    if isinstance(error, errors.SinkBroken):
        say(f"With room on the disk, type the command again; no job is started twice:\n  {_again()}")
        return EXIT_IO
    refused = isinstance(error, errors.ApiError) and not passes_with_time(error)
    if job_id is not None:
        say(f"The job is as it was at the provider. Ask again with:\n  {_watch_command(flags, job_id)}")
    elif refused:
        say("The provider refuses, and no job was created by this; uploads are remembered. With the cause gone:")
        say(f"  {_again()}")
    else:
        say(f"The provider gives no answer, and no job was created by this. Go on with:\n  {_again()}")
    return EXIT_PROVIDER if refused else EXIT_RESUMABLE


def _stopped(name: str, flags: FinetuneFlags, job_id: str | None) -> int:
    if job_id is None:
        say(f"Stopped by {name}. Typed again, the command goes on; no job is started twice:\n  {_again()}")
    else:
        say(f"Stopped by {name}. The job goes on at the provider. Watch it again with:")
        say(f"  {_watch_command(flags, job_id)}")
    return EXIT_RESUMABLE


def _provider(flags: FinetuneFlags) -> Provider:
    url = address(flags.base_url)
    return Provider(
        ApiConfig(
            base_url=url,
            model=flags.model or "any",
            key=key_for(url, variable=flags.api_key_env, file=flags.api_key_file),
            allow_plaintext=flags.allow_plaintext,
            call_timeout_s=CALL_S,
        )
    )


def _pace(flags: FinetuneFlags) -> Pace:
    return Pace(poll_s=flags.poll_sec, first_wait_s=min(1.0, flags.poll_sec))


def _again() -> str:
    return f"{program()} {shlex.join(sys.argv[1:])}"


def _watch_command(flags: FinetuneFlags, job_id: str) -> str:
    """The command that follows a job."""
    words = ["finetune", "--job", job_id, "--watch", "--base-url", flags.base_url]
    words += ["--api", flags.api] if flags.api != "auto" else []
    words += ["--api-key-env", flags.api_key_env] if flags.api_key_env else []
    words += ["--api-key-file", str(flags.api_key_file)] if flags.api_key_file else []
    words += ["--allow-plaintext"] if flags.allow_plaintext else []
    return f"{program()} {shlex.join(words)}"
