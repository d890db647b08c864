"""What a command says to the person who typed it, the command it tells to type next, and the codes it ends with."""

from __future__ import annotations

import os
import select
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.errors import ConfigError
from engine.printable import printable

EXIT_SOME_FAILED = 1
EXIT_USAGE, EXIT_INPUT, EXIT_PROVIDER, EXIT_FOLDER, EXIT_IO, EXIT_RESUMABLE, EXIT_MISMATCH = 64, 65, 69, 73, 74, 75, 78
EXIT_BUG = 70
DEBUG = "REELBATCH_DEBUG"
"""In the environment: whether a bug is shown with the place where it happened."""


def say(text: str) -> None:
    """A message for the person at the terminal; what strangers wrote cannot drive it."""
    # Whoever read it may have gone, which ends no run.
    with suppress(OSError):
        sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")
        sys.stderr.flush()


def without_traceback(main: Callable[[], int]) -> int:
    """The exit code of a program; what nobody foresaw is told in words."""
    try:
        return main()
    except Exception as error:  # noqa: BLE001 - the last border: a user is shown no traceback
        say(f"This is a bug in Reelbatch: {type(error).__name__}: {error}\nWhat was counted as done is safe.")
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
        else:
            say(f"{DEBUG}=1 shows where it happened; please report it.")
        return EXIT_BUG


def program() -> str:
    """How this program was called, for a command to type next."""
    # As it was typed: `python` may be another one, and cli.py in another folder.
    return shlex.join(sys.orig_argv[: 1 - len(sys.argv) or None]) if sys.argv[0].endswith("cli.py") else "reelbatch"


def resume_command(*more: str) -> str:
    """The command that goes on with what this one began."""
    arguments = [argument for argument in sys.argv[1:] if argument not in {"--resume", *more}]
    return f"{program()} {shlex.join([*arguments, '--resume', *more])}"


def give_up() -> None:
    """End the process from another thread, whatever the others wait for."""
    words = f"Not everything ended in time. What was counted as done is safe. Go on with:\n  {resume_command()}\n"
    # Not `say`: somebody may hold its lock, and a terminal that takes no more text may be what hangs.
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, words.encode())
    os._exit(EXIT_RESUMABLE)


def read_text(path: Path, flag: str) -> str:
    """The text of a file that a flag names.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: {error.strerror if isinstance(error, OSError) else error}") from error
