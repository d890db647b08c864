"""Every way a scripted run can be ended: the points, the states after them, the calls that fail."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.disk import CHANGING, MORE_DAMAGES, Disk, PowerCutError
from tests.soak.lives import Story, assert_survived, gone_on, open_run, told

MEMORY = Path("/dev/shm")
OCCURRENCES = (0, 1, 2, -1)
"""Of each step: the first, the second, the third and the last."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where a run is ended."""

    at: int
    half: bool
    """Halfway through the write, not before it."""
    step: str
    """What the sink was about to do, or halfway through."""


@dataclass(slots=True)
class Tally:
    """What was tried."""

    states: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    damages: Counter[str] = field(default_factory=Counter)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is such a thing."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def step_of(phase: str, kind: str, path: Path, out: Path) -> str:
    """One name for what is done to one file of many like it."""
    name = "the run folder" if path == out else str(path.relative_to(out)) if out in path.parents else "folders above"
    for whole, short in (("results/shard", "results"), ("failures/shard", "failures"), ("quarantine/", "quarantine")):
        if name.startswith(whole):
            name = short + ("/partial" if name.endswith(".partial") else "/shard")
    return f"{phase}: {kind} {name.replace('snapshot-a', 'snapshot').replace('snapshot-b', 'snapshot')}"


def points() -> list[Point]:
    """Every operation of the story that changes something, and the middle of every write."""
    with scratch() as folder:
        out, disk = folder / "run", Disk()
        Story(out, disk).run()
        found = []
        for at, (phase, kind, path) in enumerate(disk.journal):
            step = step_of(phase, kind, path, out)
            if kind in CHANGING:
                found.append(Point(at, half=False, step=step))
            if kind in {"write", "write_at"}:
                found.append(Point(at, half=True, step=step + " half"))
    return found


def chosen(of: Iterable[Point]) -> list[Point]:
    """The first, second, third and last occurrence of every step."""
    steps: dict[str, list[Point]] = {}
    for point in of:
        steps.setdefault(point.step, []).append(point)
    return sorted({found[number] for found in steps.values() for number in OCCURRENCES if number < len(found)})


def power_losses(where: Iterable[Point], tally: Tally, *, damages: int, seeds: int = 1) -> None:
    """Cut the power at each point, and look at what each of so many damages leaves; which ones takes turns.

    Raises:
        AssertionError: something was lost or doubled; a note says where.
    """
    for turn, point in enumerate(where):
        with scratch() as folder:
            disk = Disk(crash_at=point.at, half=point.half)
            story = told(folder / "run", disk)
            assert disk.cut, "the story did not come to this point"
            for number in range(damages):
                damage = MORE_DAMAGES[(turn + number) % len(MORE_DAMAGES)]
                for seed in range(seeds):
                    left = folder / "left"
                    disk.leave(folder / "run", left, damage, seed=turn + number + seed)
                    with noting(f"{damage} {turn + number + seed} at {point}"):
                        assert_survived(left, story.promise, exact=damage != "flip")
                    shutil.rmtree(left)
                    tally.states += 1
                    tally.damages[damage] += 1
            tally.steps[point.step] += 1


def kills(where: Iterable[Point], tally: Tally, *, damages: Iterable[str]) -> None:
    """Kill the process at each point, let the next one go on for a commit on the same machine, then cut the power.

    Raises:
        AssertionError: something was lost or doubled; a note says where.
    """
    for turn, point in enumerate(where):
        with scratch() as folder:
            disk = Disk(crash_at=point.at, half=point.half)
            story = told(folder / "run", disk)
            disk.well()
            promise = gone_on(folder / "run", disk, story.promise)
            for seed, damage in enumerate(damages, turn):
                with noting(f"killed at {point}, gone on, then {damage} {seed}"):
                    disk.leave(folder / "run", folder / damage, damage, seed=seed)
                    assert_survived(folder / damage, promise, exact=damage != "flip")
                tally.states += 1
            tally.steps[point.step] += 1


def crashed_recoveries(where: Iterable[Point], tally: Tally, *, damages: Iterable[str]) -> None:
    """Cut the power at each point, then at each operation of the recovery, and recover from that.

    Raises:
        AssertionError: something was lost or doubled; a note says where.
    """
    for turn, point in enumerate(where):
        for damage in damages:
            with scratch() as folder:
                first = Disk(crash_at=point.at, half=point.half)
                story = told(folder / "run", first)
                first.leave(folder / "run", folder / "left", damage, seed=turn)
                _crash_recovery(folder, story, tally, f"{damage} {turn} at {point}", damage=damage)


def _crash_recovery(folder: Path, story: Story, tally: Tally, where: str, *, damage: str) -> None:
    at, half, completed = 0, False, False
    while not completed:
        shutil.copytree(folder / "left", folder / "again")
        disk = Disk(crash_at=at, half=half)
        disk.take_in(folder / "again")
        completed = _recovers(folder / "again", disk)
        disk.abandon()
        changed = not disk.journal or disk.journal[-1][1] in CHANGING
        if changed or completed:
            disk.leave(folder / "again", folder / "last", damage, seed=at)
            with noting(f"recovery crashed at {at}{' (half)' if half else ''} after {where}"):
                assert_survived(folder / "last", story.promise, exact=damage != "flip")
            shutil.rmtree(folder / "last")
            tally.states += 1
        shutil.rmtree(folder / "again")
        at, half = (at, True) if not half else (at + 1, False)


def _recovers(out: Path, disk: Disk) -> bool:
    """Whether a life that only opens and closes comes to its end."""
    try:
        open_run(out, disk).close()
    except PowerCutError:
        return False
    return True


@contextmanager
def noting(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise
