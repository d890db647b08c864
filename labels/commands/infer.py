"""`infer`: a file of chats to raw answers in one file."""

from __future__ import annotations

from engine.signals import Signals
from labels.ending import ended
from labels.flags import ConfigFile
from labels.infer.flags import InferFlags
from labels.infer.job import infer_job, run_folder
from labels.job import run_job
from labels.terminal import give_up, say


def infer(flags: InferFlags, *, config: ConfigFile = None) -> int:
    """Ask a model every chat of a JSONL file, and write its raw answers into one file, as they come.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    signals = Signals(overdue=give_up)
    signals.install()
    told = infer_job(flags)
    for note in told.notes:
        say(note)
    last = run_job(told.job, say=say, signals=signals)
    return ended(
        last,
        folder=str(run_folder(flags.out)),
        output=f"  raw       {flags.out}",
        failed="chats failed; their lines say why",
    )
