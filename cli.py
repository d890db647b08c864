"""The command line: which command is meant, where its flags come from, and the code an error ends with.

It knows every room and does nothing itself. Each command stands in a file of its own, read when it is typed.
"""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cyclopts
from cyclopts import App

from engine import errors
from engine.signals import leave
from labels.terminal import (
    EXIT_FOLDER,
    EXIT_INPUT,
    EXIT_IO,
    EXIT_MISMATCH,
    EXIT_PROVIDER,
    EXIT_RESUMABLE,
    EXIT_USAGE,
    program,
    resume_command,
    say,
    without_traceback,
)
from sinks.folder import MANIFEST

COMMANDS = {
    "run": (
        "labels.commands.run:run",
        "Label rows: frames and texts out, one result line a row back, in one streaming pass.",
    ),
    "estimate": (
        "labels.commands.run:estimate",
        "What a run would take in tokens, dollars and time, and what other sizes and numbers of frames would.",
    ),
    "build": (
        "labels.commands.build:build",
        "Rows to a JSONL file of chats: with gold labels to fine-tune on, or without to be answered by `infer`.",
    ),
    "infer": (
        "labels.commands.infer:infer",
        "Ask a model every chat of a JSONL file, and write its raw answers into one file, as they come.",
    ),
    "generate": (
        "labels.commands.generate:generate",
        "Ask a model every prompt of a file about its video or image, and write the answers into one file.",
    ),
    "parse": (
        "labels.commands.parse:parse",
        "Read raw answers: one line an answer, with its labels or the reason why there are none.",
    ),
    "score": (
        "labels.commands.score:score",
        "Hold labels against gold: every metric with its support, both readings of missing answers, and intervals.",
    ),
    "judge": (
        "labels.commands.judge:judge",
        "Have a model judge the answers of two others to the same questions, and show which is better, and how surely.",
    ),
    "codebook": (
        "labels.commands.codebook:codebook",
        "What a codebook asks, whether it is sound, and the prompt it gives.",
    ),
    "finetune": (
        "labels.commands.finetune:finetune",
        "Teach a model by chats with answers: check the files, upload them, start a fine-tuning job, follow it.",
    ),
    "status": (
        "labels.commands.folder:status",
        "What a run folder holds: rows done, rows failed by kind, rows left, tokens and dollars.",
    ),
    "verify": (
        "labels.commands.folder:verify",
        "Check every committed line of a run folder, and its checkpoint against them. Changes nothing.",
    ),
    "export": (
        "labels.commands.folder:export",
        "Write the results of a run as one table, in the order of the input, each label a column of its own.",
    ),
    "reshard": (
        "labels.commands.folder:reshard",
        "Write a run into a new folder with another number of shards, lines in the order of rows.",
    ),
    "bench": (
        "bench.command:bench",
        "Measure: whole runs beside the least a client can do, each stage alone, memory, start-up, limits, peers.",
    ),
    "simulate": (
        "bench.simulate:simulate",
        "The simulated provider, on loopback: made-up answers in the form of a real one's. Ends on Ctrl-C.",
    ),
    "demo": (
        "bench.demo:demo",
        "The main job on generated sample videos against the simulated provider: no key, no network, no cost.",
    ),
}
"""Where each command stands, and the first line of what it says of itself."""

BEGUN_AGAIN = frozenset({"build", "parse", "score"})
"""Commands that make one file: what was cut short is made anew."""

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
    (errors.MemberLost, EXIT_RESUMABLE),
)
"""The first line that fits decides."""


def flags_from_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Fill in what `--config FILE` says and the command line does not."""
    del commands  # a file holds the flags of one command
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            path = Path(argument.tokens[-1].value)
            try:
                path.read_bytes()
                # No commands, or a flag that is called like one of them, such as --codebook, would be passed over.
                cyclopts.config.Toml(path, must_exist=True)(app, (), arguments)
            except OSError as error:
                raise errors.ConfigError(f"--config {path}: {error.strerror}") from error
            except ValueError as error:
                raise errors.ConfigError(f"--config {path}: {error}") from error


def _version() -> str:
    try:
        return version("reelbatch")
    except PackageNotFoundError:
        return "not installed"


def command_line(typed: list[str]) -> App:
    """The program for these words."""
    app = App(
        name="reelbatch",
        help="Label millions of short videos with any OpenAI-compatible vision model.",
        version=_version,
        config=flags_from_file,
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `call` has its own words and code for it
    )
    for name, (place, summary) in COMMANDS.items():
        # A summary given here would take the place of all the command says of itself.
        app.command(place, name=name, help=None if typed[:1] == [name] else summary)
    return app


def main() -> None:
    """Entry point of `reelbatch` and `python cli.py`."""
    _hold_standard_streams()
    leave(without_traceback(lambda: call(sys.argv[1:])))


def call(arguments: list[str]) -> int:
    """Run one command line; its exit code. Every error of ours becomes one message."""
    try:
        code = command_line(arguments)(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        say(f"{error}\n{_nothing_done()}")
        return EXIT_USAGE
    except errors.EngineError as error:
        return _explain(error)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing of the run depends on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        name = str(error) or "SIGINT"
        if BEGUN_AGAIN.intersection(arguments[:1]):
            say(f"Stopped by {name}; no file was made or changed. Type the command again:\n  {_same_command()}")
            return EXIT_RESUMABLE
        say(f"Stopped by {name}; everything counted as done is safe. Go on with:\n  {resume_command()}")
        return EXIT_RESUMABLE
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


def _explain(error: errors.EngineError) -> int:
    code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    say(f"error: {error}")
    of_tool = bool(TOOLS.intersection(sys.argv[1:2]))
    match error:
        case errors.InputError():
            say("Everything counted as done is safe. Mend the input and type the command again; where a run had begun")
            say("with the broken one, with another --out.")
        case errors.ConfigError():
            say(_nothing_done())
        case errors.ResumeMismatch():
            pass  # It names what is safe, and which of two ways to go is not ours to say.
        case errors.FolderInUse():
            more = "" if of_tool else f" With that settled, or another --out:\n  {resume_command()}"
            say(f"Nothing was sent and nothing changed.{more}")
        case _ if BEGUN_AGAIN.intersection(sys.argv[1:2]):
            say(f"With the cause gone, type the command again:\n  {_same_command()}")
        case _ if of_tool:
            out = next((word for word in sys.argv[2:] if (Path(word) / MANIFEST).exists()), "OUT")
            say(f"What is damaged, if anything, and what is not, says:\n  {program()} {shlex.join(['verify', out])}")
        case _:
            say(f"What was counted as done and is not named here is safe. With the cause gone:\n  {resume_command()}")
    return code


def _same_command() -> str:
    return f"{program()} {shlex.join(sys.argv[1:])}"


def _nothing_done() -> str:
    """For a command that did not begin."""
    command = [word for word in sys.argv[1:2] if word in COMMANDS]
    return f"Nothing was sent and nothing changed. See:\n  {program()} {shlex.join([*command, '--help'])}"


if __name__ == "__main__":
    main()
