"""A process of ours from outside: how long it runs, what CPU time it and its children take, what memory they hold."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

SAMPLE_S = 0.1
STEADY = (0.5, 0.85)
"""The part of the rows over which a client is taken to be at its pace: it has found how fast the server is by then, and
there are rows left to send, so that it sends as many as it receives."""
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A process and all below it at a moment. Pages that they share count once for each."""

    at_s: float
    """Since the process was started."""
    main_mb: float
    tree_mb: float
    main_cpu_s: float
    tree_cpu_s: float
    """With that of children that have ended."""
    peak_mb: float
    """The most the process itself ever held."""
    rows: int
    """What the progress that was asked for said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """The pace between two parts of the rows."""

    rows_per_s: float
    main_cpu_s_per_1000: float
    workers_cpu_s_per_1000: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a process took."""

    code: int
    wall_s: float
    cpu_s: float
    """User and system, of the process and of its children."""
    points: Sequence[Point]

    @property
    def main_peak_mb(self) -> float:
        return max((point.peak_mb for point in self.points), default=0.0)

    @property
    def tree_peak_mb(self) -> float:
        return max((point.tree_mb for point in self.points), default=0.0)

    def steady(self, rows: int) -> Steady | None:
        """The pace over the part `STEADY` of so many rows; None if it was over too soon to be seen."""
        first, last = (reached(self.points, share * rows) for share in STEADY)
        if first is None or last is None or last.at_s <= first.at_s:
            return None
        done = (STEADY[1] - STEADY[0]) * rows
        main_s, tree_s = last.main_cpu_s - first.main_cpu_s, last.tree_cpu_s - first.tree_cpu_s
        return Steady(
            rows_per_s=done / (last.at_s - first.at_s),
            main_cpu_s_per_1000=main_s / done * 1000,
            workers_cpu_s_per_1000=(tree_s - main_s) / done * 1000,
        )


def reached(points: Sequence[Point], rows: float) -> Point | None:
    """When so many rows were done, times in between two samples interpolated; None if that was never seen."""
    for before, after in itertools.pairwise(points):
        if before.rows <= rows <= after.rows and after.rows > before.rows:
            share = (rows - before.rows) / (after.rows - before.rows)
            return replace(
                after,
                at_s=before.at_s + share * (after.at_s - before.at_s),
                main_cpu_s=before.main_cpu_s + share * (after.main_cpu_s - before.main_cpu_s),
                tree_cpu_s=before.tree_cpu_s + share * (after.tree_cpu_s - before.tree_cpu_s),
            )
    return None


Look = Callable[[subprocess.Popen[bytes], Point], None]


def watched(
    command: Sequence[object],
    *,
    said: Path,
    cwd: Path | None = None,
    progress: Callable[[], int] = lambda: 0,
    look: Look = lambda _, __: None,
) -> Watched:
    """Run a command to its end.

    Args:
        command: words.
        said: a file for what it writes to stdout and stderr.
        cwd: where it runs.
        progress: how many rows are done; asked, in a thread, with every sample.
        look: is shown the process and each sample of it, in that thread.
    """
    points: list[Point] = []
    ended = threading.Event()
    started = time.monotonic()
    before = progress()

    def sample(process: subprocess.Popen[bytes]) -> None:
        while not ended.wait(SAMPLE_S):
            # A moment of which nobody knows how far it is tells nothing.
            with suppress(OSError):
                for point in _points(process.pid, at_s=time.monotonic() - started, rows=progress() - before):
                    points.append(point)
                    look(process, point)

    with said.open("wb") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, cwd=cwd)
        watcher = threading.Thread(target=sample, args=(process,))
        watcher.start()
        try:
            # It stays, dead, until what it took has been read.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            wall_s = time.monotonic() - started
            ended.set()
            watcher.join()
            with suppress(OSError):
                points.extend(_end(points[-1:], process.pid, at_s=wall_s, rows=progress() - before))
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                ended.set()
                watcher.join()
    return Watched(code=process.returncode, wall_s=wall_s, cpu_s=used.ru_utime + used.ru_stime, points=points)


def _points(pid: int, *, at_s: float, rows: int) -> Iterator[Point]:
    """One; none if the process is gone."""
    main_mb, (own_s, ended_s) = _resident_mb(pid), _cpu_s(pid)
    if not main_mb:
        return
    below = list(_below(pid))
    yield Point(
        at_s=at_s,
        main_mb=main_mb,
        tree_mb=main_mb + sum(map(_resident_mb, below)),
        main_cpu_s=own_s,
        tree_cpu_s=own_s + ended_s + sum(sum(_cpu_s(child)) for child in below),
        peak_mb=_peak_mb(pid),
        rows=rows,
    )


def _end(last_seen: Sequence[Point], pid: int, *, at_s: float, rows: int) -> Iterator[Point]:
    """What a process that has ended had taken, with the memory it was last seen to hold; nothing if it never was."""
    own_s, ended_s = _cpu_s(pid)
    for last in last_seen:
        yield replace(last, at_s=at_s, main_cpu_s=own_s, tree_cpu_s=own_s + ended_s, rows=rows)


def _below(pid: int) -> Iterator[int]:
    """All descendants."""
    for task in _texts(Path("/proc").glob(f"{pid}/task/*/children")):
        for child in map(int, task.split()):
            yield child
            yield from _below(child)


def cpu_s_of(pid: int) -> float:
    """User and system time of a process, to the hundredth of a second, without its children; 0 if it is gone."""
    return _cpu_s(pid)[0]


def _cpu_s(pid: int) -> tuple[float, float]:
    """Of the process, and of its children that have ended; nothing if it is gone."""
    for text in _texts([Path(f"/proc/{pid}/stat")]):
        user, system, children_user, children_system = map(int, text.rpartition(")")[2].split()[11:15])
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        return (user + system) * tick_s, (children_user + children_system) * tick_s
    return 0.0, 0.0


def _resident_mb(pid: int) -> float:
    """0 if it is gone."""
    for text in _texts([Path(f"/proc/{pid}/statm")]):
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _peak_mb(pid: int) -> float:
    """0 if it is gone."""
    for text in _texts([Path(f"/proc/{pid}/status")]):
        if found := _PEAK.search(text):
            return int(found[1]) / 1024
    return 0.0


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    """Of those files that are still there."""
    for path in paths:
        try:
            yield path.read_text(encoding="ascii")
        except OSError:
            continue
