"""Every call of a scripted run made to fail in turn, as the system may fail it; the run is gone on with afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from engine.errors import FolderInUse, SinkBroken
from tests.fakes.disk import Disk, Fault
from tests.soak.explore import Tally, noting, scratch
from tests.soak.lives import Story, assert_survived, gone_on

KINDS = (
    *("make_folder", "open_append", "open_update", "open_new", "write", "write_at", "sync_data", "sync_folder"),
    *("rename", "truncate", "close", "size", "read"),
)
"""Of calls a plain run makes; `unlink` and `open_read` come with a withdrawal."""
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EROFS)
THINNED_AFTER = 3
HELPFUL = ("go on with --resume", "cannot be brought in order", "cannot be written", "cannot be opened")


def descriptors() -> int:
    """How many this process has open, the one to look with not counted."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names alone


def fail(fault: Fault, tally: Tally) -> bool:
    """Let one call fail, go on with the run on the same machine, then cut the power; whether the call was made.

    Raises:
        AssertionError: the error is not the promised one, a descriptor leaks, or something was lost or doubled.
    """
    with scratch() as folder:
        out, disk, opened = folder / "run", Disk(fault=fault), descriptors()
        story = Story(out, disk)
        with noting(f"{errno.errorcode[fault.error]} at {fault.kind} number {fault.nth}"):
            _tell(story)
            assert descriptors() == opened, "a descriptor leaks"
            assert not disk.retried_syncs, "a file that failed to sync was synced again"
            met = disk.calls[str(fault.kind)] >= fault.nth
            disk.well()
            promise = gone_on(out, disk, story.promise)
            for seed, damage in ((1, "drop"), (2, "half"), (3, "nothing")):
                disk.leave(out, folder / damage, damage, seed=seed)
                assert_survived(folder / damage, promise)
        tally.states += 1
        tally.steps[f"{fault.kind} {errno.errorcode[fault.error]}"] += met
        return met


def _tell(story: Story) -> None:
    failed = _end_of(story)
    if isinstance(failed, FolderInUse):
        assert not story.promise.rows, "rows are done in a folder that could not be made"
    assert failed is None or any(words in str(failed) for words in HELPFUL), f"the words do not help: {failed}"


def _end_of(story: Story) -> FolderInUse | SinkBroken | None:
    """The promised errors alone; any other is raised."""
    try:
        story.run()
    except (FolderInUse, SinkBroken) as error:
        assert not story.disk.held(), "a descriptor leaks"
        return error
    finally:
        story.die()
    return None


def fail_each(tally: Tally, *, kinds: Iterable[str] = KINDS, errors: Iterable[int] = ERRORS, thin: bool) -> None:
    """Fail the first call of each kind, the second, and so on until a run is clean.

    Args:
        tally: what was tried is counted here.
        kinds: methods of `Files`.
        errors: each in turn if `thin`, all of them otherwise.
        thin: whether, past the third, only every seventh call fails.
    """
    known = list(errors)
    for kind in kinds:
        nth, met = 1, True
        while met:
            for error in [known[nth % len(known)]] if thin else known:
                met = fail(Fault(kind=kind, nth=nth, error=error), tally)
            nth += 7 if thin and nth > THINNED_AFTER else 1
