"""`build`: a table to a file of chats, and the audit of one."""

from __future__ import annotations

import os
import shlex
import sys

import orjson

from engine.signals import Interrupted, Signals
from labels.build.audit import audit
from labels.build.plan import asked_codebook, planned
from labels.build.stream import Stopped
from labels.build.write import build as build_file
from labels.commands.build_flags import BuildFlags
from labels.flags import ConfigFile
from labels.terminal import EXIT_INPUT, EXIT_RESUMABLE, EXIT_SOME_FAILED, program, say

NOTHING_TOLD = BuildFlags()


def build(flags: BuildFlags = NOTHING_TOLD, *, config: ConfigFile = None) -> int:
    """Rows to a JSONL file of chats: with gold labels to fine-tune on, or without to be answered by `infer`.

    Rows whose gold is wrong or incomplete are left out and counted; nothing is guessed. Sends nothing.
    """
    del config  # read by `flags_from_file`
    if flags.check is not None:
        return _check(flags)
    signals = Signals(overdue=_give_up)
    signals.install()
    try:
        told = planned(flags)
        for note in told.notes:
            say(note)
        tally = build_file(told.plan, signals=signals)
    except (Interrupted, Stopped) as stop:
        say(_stopped(str(stop)))
        return EXIT_RESUMABLE
    plan = told.plan
    merged = None if plan.merged is None else str(plan.merged)
    say(tally.text(wanted_frames=plan.pictures is not None, output=str(plan.output), merged=merged))
    return EXIT_SOME_FAILED if tally.has_failed else 0


def _check(flags: BuildFlags) -> int:
    assert flags.check is not None
    told = flags.codebook or flags.comprehensive or flags.numeric_labels
    found = audit(flags.check, asked_codebook(flags) if told else None)
    print(orjson.dumps(found.as_json()).decode() if flags.json else found.text())
    return 0 if found.sound else EXIT_INPUT


def _stopped(name: str) -> str:
    again = f"{program()} {shlex.join(sys.argv[1:])}"
    return f"Stopped by {name}; no file was made or changed. To build it, type the command again:\n  {again}"


def _give_up() -> None:
    """End the process from another thread, whatever the others wait for."""
    os.write(2, b"Not everything ended in time. No file was made or changed; type the command again.\n")
    os._exit(EXIT_RESUMABLE)
