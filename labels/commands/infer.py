"""`infer`: a file of chats to raw answers in one file."""

from __future__ import annotations

from engine.console import closing_summary
from engine.signals import Signals
from labels.flags import ConfigFile
from labels.infer.flags import InferFlags
from labels.infer.job import infer_job, run_folder
from labels.job import run_job
from labels.terminal import EXIT_RESUMABLE, EXIT_SOME_FAILED, give_up, resume_command, say


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
    say(closing_summary(last, out=str(run_folder(flags.out))))
    say(f"  raw       {flags.out}")
    if last.stopping is not None:
        say(f"Stopped by {last.stopping}; everything counted as done is safe. Go on with:\n  {resume_command()}")
        return EXIT_RESUMABLE
    if last.sink.failed:
        say(f"{last.sink.failed:,} chats failed; their lines say why, and all others are safe. Try them again with:")
        say(f"  {resume_command()}")
        return EXIT_SOME_FAILED
    return 0
