"""How a command that makes calls ends: what became of it, and what to type next."""

from __future__ import annotations

from engine.console import closing_summary
from engine.stats import Snapshot
from labels.terminal import EXIT_RESUMABLE, EXIT_SOME_FAILED, resume_command, say


def ended(last: Snapshot, *, folder: str, output: str = "", failed: str, again: tuple[str, ...] = ()) -> int:
    """Tell how a run ended; its exit code.

    Args:
        last: its last snapshot.
        folder: where it is kept.
        output: a line on the file it made besides.
        failed: what is said of what failed, after how many.
        again: flags that have those tried again, besides --resume.
    """
    say(closing_summary(last, out=folder))
    if output:
        say(output)
    if last.stopping is not None:
        say(f"Stopped by {last.stopping}; everything counted as done is safe. Go on with:\n  {resume_command()}")
        return EXIT_RESUMABLE
    if last.sink.failed:
        say(f"{last.sink.failed:,} {failed}, and all others are safe. Try them again with:")
        say(f"  {resume_command(*again)}")
        return EXIT_SOME_FAILED
    return 0
