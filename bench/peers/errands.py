"""The same rows for everybody, and one run of one subject over them, watched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bodies import BODIES, Body, make_rows, requests
from bench.peers.environments import ROOT
from bench.peers.guard import TOO_LONG
from bench.throughput import ledger
from bench.watching import Watched, watched

SIZES = {"2KB": "2 KB", "300KB": "300 KB"}
"""How bodies are named here and in `bench.bodies`."""
MOST_S = 120.0
"""What takes longer is ended."""
SAID_CHARS = 300
"""Of what a subject said last, if it did not answer every row."""


class Inputs:
    """Rows of one size, as a table with frames and as request bodies; made when they are first needed.

    Args:
        folder: for them alone.
        size: one of `SIZES`.
        rows: how many.
    """

    def __init__(self, folder: Path, *, size: str, rows: int) -> None:
        self.folder = folder
        self.body: Body = BODIES[SIZES[size]]
        self.rows = rows
        self.bodies = folder / "bodies.jsonl"
        """What Reelbatch would send, a body a line, and a `meta_id` in each, which no provider minds."""

    def make(self) -> None:
        if self.bodies.exists():
            return
        make_rows(self.folder, self.body, rows=self.rows)
        with self.bodies.open("wb") as file:
            for row, body in enumerate(requests(self.folder, self.body, count=self.rows)):
                file.write(b'{"meta_id":"%d",%b\n' % (row, body.removeprefix(b"{")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a subject is to do."""

    inputs: Inputs
    url: str
    """Up to and with /v1."""
    out: Path
    """A folder that is empty; what was left there is deleted."""
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a subject left of an errand."""

    rows: int
    """Of their own, with an answer."""
    main_cpu_s: float | None = None
    """Where it says so, what its main process took of the CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one run took, of all processes together."""

    rows: int
    wall_s: float
    cpu_s: float
    rss_mb: float
    """The most at a moment. Pages that processes share count once for each."""
    requests: int
    """That reached the server."""
    most_in_flight: int
    main_cpu_s: float | None
    why_not: str | None
    """Why this is no measurement; None if it is one."""


def run(
    command: Sequence[object], answered: Callable[[Path], Answered], errand: Errand, *, most_s: float = MOST_S
) -> Taken:
    """Run a command to its end and look at what it left.

    Args:
        command: words.
        answered: looks at the folder of the errand.
        errand: whose rows are to be answered.
        most_s: when it is ended.
    """
    shutil.rmtree(errand.out, ignore_errors=True)
    home = errand.out / "home"
    home.mkdir(parents=True)
    said = errand.out.with_suffix(".txt")
    guard = (sys.executable, "-m", "bench.peers.guard", "--most-s", most_s, "--home", home, "--")
    seen = watched((*guard, *command), said=said, cwd=ROOT)
    found, received = answered(errand.out), ledger(errand.url)
    return Taken(
        rows=errand.inputs.rows,
        wall_s=seen.wall_s,
        # The time of a process whose parent ignores its end is counted nowhere: what was seen of it, at least.
        cpu_s=max([seen.cpu_s, *(point.tree_cpu_s - point.main_cpu_s for point in seen.points)]),
        rss_mb=max((point.tree_mb - point.main_mb for point in seen.points), default=0.0),
        requests=received["requests"],
        most_in_flight=received["most_in_flight"],
        main_cpu_s=found.main_cpu_s,
        why_not=_why_not(seen, found, errand, most_s=most_s, said=said),
    )


def _why_not(seen: Watched, found: Answered, errand: Errand, *, most_s: float, said: Path) -> str | None:
    if seen.code == TOO_LONG:
        return f"ended after {most_s:g} s with {found.rows} of {errand.inputs.rows} rows answered"
    if seen.code == 0 and found.rows == errand.inputs.rows:
        return None
    last = said.read_text(encoding="utf-8", errors="replace")[-SAID_CHARS:]
    return f"ended with {seen.code}, {found.rows} of {errand.inputs.rows} rows answered: {' '.join(last.split())}"
