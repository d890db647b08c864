"""The named checks of the store, in the form that takes a second or two."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from engine.errors import SinkBroken
from sinks.checkpoint import SLOTS, decode_snapshot
from tests.fakes.disk import Disk
from tests.faults import test_withdrawal_crashes as withdrawals
from tests.soak.explore import Tally, chosen, crashed_recoveries, kills, noting, points, power_losses, scratch
from tests.soak.failing import fail_each
from tests.soak.lives import COMPLETE, ROWS, Promise, Story, assert_survived, content, open_run, record, told

START = 20
"""Operations within which a run begins."""


def power_loss(tally: Tally) -> None:
    """After every kind of step, with every damage in turn."""
    power_losses(chosen(points()), tally, damages=2)


def kill_then_power_loss(tally: Tally) -> None:
    """A life that goes on with what the page cache holds, and then the power fails."""
    found = points()
    kills(found[:START] + found[START::5], tally, damages=("drop", "half"))


def crashed_recovery(tally: Tally) -> None:
    """A recovery that is itself cut off at each of its operations."""
    found = points()
    crashed_recoveries(found[len(found) // 3 :: len(found) // 4], tally, damages=("half",))


def failing_calls(tally: Tally) -> None:
    """Every kind of call fails in turn, with every error in turn."""
    fail_each(tally, thin=True)


def writes_of_a_few_bytes(tally: Tally) -> None:
    """The system takes seven bytes at a time."""
    with scratch() as folder:
        disk = Disk()
        disk.most_bytes = 7
        story = Story(folder / "run", disk)
        story.run()
        assert_survived(folder / "run", story.promise)
    tally.states += 1


def lost_snapshot(tally: Tally) -> None:
    """The newest snapshot is gone: the older one and the log say the same, and no committed line is read as new."""
    for point in points()[::9]:
        with scratch() as folder:
            disk = Disk(crash_at=point.at, half=point.half)
            promise = told(folder / "run", disk).promise
            slots = content(folder / "run", "checkpoint")
            states = {slot: decode_snapshot(slots.get(f"checkpoint/{slot}", b"")) for slot in SLOTS}
            known = [(state.seq, slot) for slot, state in states.items() if state is not None]
            if not known:
                continue
            newest = max(known)[1]
            (folder / "run" / "checkpoint" / newest).unlink()
            with noting(f"{newest} lost at {point}"):
                assert_survived(folder / "run", promise)
            tally.states += 1


def damaged_committed_bytes(tally: Tally) -> None:
    """A run whose committed bytes are short is refused; so is one where a bit is wrong since the last snapshot."""
    for closed in (True, False):
        with scratch() as folder:
            out = folder / "run"
            promise = _committed(out, closed=closed)
            for damage in (_short, _gone) if closed else (_short, _gone, _flipped):
                for name in sorted(content(out, "results")):
                    _refused(out, out / name, damage)
                    tally.states += 1
            assert_survived(out, promise)


def _committed(out: Path, *, closed: bool) -> Promise:
    """A run whose newest rows are in a snapshot, or in the commit log alone."""
    promise = Promise()
    for rows in (range(ROWS // 2), range(ROWS // 2, ROWS)):
        sink = open_run(out, Disk())
        for row in rows:
            sink.put(record(row, again=True))
        promise.lines += sink.commit()
        if not closed and rows.stop == ROWS:
            sink._broken = "killed"
        sink.close()
    promise.rows |= COMPLETE
    return promise


def _short(data: bytes) -> bytes:
    return data[:-1]


def _gone(_: bytes) -> None:
    """Nothing is left."""


def _flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def _refused(out: Path, path: Path, damage: Callable[[bytes], bytes | None]) -> None:
    whole, damaged = path.read_bytes(), damage(path.read_bytes())
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    before = content(out, "results", "failures", "checkpoint", "quarantine")
    with pytest.raises(SinkBroken, match=path.name):
        open_run(out, Disk())
    assert content(out, "results", "failures", "checkpoint", "quarantine") == before, "a refused run was changed"
    path.write_bytes(whole)


def withdrawal(tally: Tally) -> None:
    """The power fails at every operation of a life that takes cut answers out of `results/`."""
    with scratch() as folder:
        base, kept = withdrawals.prepare(folder / "base"), folder / "kept"
        shutil.copytree(base, kept)
        withdrawals.open_run(kept).close()
        paid = withdrawals.paid_before(kept)
        damages = withdrawals.DAMAGES
        withdrawals.assert_young_log_forgets(folder / "young")
        for at in range(withdrawals.operations()):
            damage = damages[at % len(damages)]
            with noting(f"{damage} {at} at operation {at} of a withdrawal"):
                withdrawals.survive_crash(base, folder, paid, at=at, damage=damage, seed=at)
            tally.states += 1


CHECKS: dict[str, Callable[[Tally], None]] = {
    check.__name__: check
    for check in (
        *(power_loss, kill_then_power_loss, crashed_recovery, failing_calls, writes_of_a_few_bytes),
        *(lost_snapshot, damaged_committed_bytes, withdrawal),
    )
}


@cache
def passed(check: str) -> Tally:
    """What a check tried on the store as it is; run once, since several tests ask.

    Raises:
        AssertionError: the store failed it.
    """
    tally = Tally()
    CHECKS[check](tally)
    return tally
