"""The suite `peers`: what could be picked instead, each through its own public interface, on the same server and rows.

Every measurement has a server of its own and runs under `bench.peers.guard`, so that CPU time and memory are those of
all processes a subject starts. Each is measured over two numbers of rows: what lies between them is free of start-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bodies import CODEBOOK
from bench.peers.environments import Absent, peers
from bench.peers.errands import SIZES, Errand, Inputs, Taken, run
from bench.peers.subjects import Subject, subjects
from bench.suite import Case, Figures, Told
from bench.throughput import provider

CONCURRENCY = (64, 512)
START_SHARE = 5
"""The smaller number of rows is this part of the larger."""
LATENCY_S = 0.1
QUICK_ROWS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A part of the suite."""

    only: Sequence[str] | None = None
    """Beginnings of names; None takes all."""
    rows: int | None = None
    """For all; None takes so many that one measurement takes 5 to 20 seconds."""
    sizes: Sequence[str] = tuple(SIZES)
    concurrency: Sequence[int] = CONCURRENCY


ALL = Wanted()
QUICK = Wanted(rows=QUICK_ROWS, sizes=("2KB",), concurrency=(64,))


def cases(told: Told, wanted: Wanted | None = None, *, among: Sequence[Subject] | None = None) -> list[Case]:
    """Every subject at every size and concurrency; those that cannot be measured say why.

    Args:
        told: where, and whether a small measurement will do.
        wanted: which part; otherwise all, or little where a small measurement will do.
        among: whom to measure; otherwise everybody.
    """
    part = wanted or (QUICK if told.quick else ALL)
    bench = _Bench(told.folder)
    chosen = [subject for subject in (subjects() if among is None else among) if _is_chosen(subject.name, part)]
    found = [
        _Measured(bench, subject, size, concurrency=concurrency, rows=part.rows or subject.rows[size]).case()
        for size in part.sizes
        for concurrency in part.concurrency
        for subject in chosen
    ]
    return found + [_absent(absent) for absent in peers()[1] if _is_chosen(absent.name, part)]


def _absent(absent: Absent) -> Case:
    return Case(name=absent.name, about={"subject": absent.name}, once=lambda _: {"why_not": absent.why_not})


def _is_chosen(name: str, part: Wanted) -> bool:
    return part.only is None or any(name.startswith(words) for words in part.only)


class _Bench:
    """What all measurements share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._book = folder / "codebook.toml"
        self._book.write_text(CODEBOOK, encoding="utf-8")
        self._inputs: dict[tuple[str, int], Inputs] = {}

    def ask(self, subject: Subject, size: str, *, concurrency: int, rows: int) -> Taken:
        """Have so many rows sent, to a fresh server."""
        inputs = self._inputs.setdefault((size, rows), Inputs(self._folder / f"{size}-{rows}", size=size, rows=rows))
        inputs.make()
        scenario = {"latency": {"kind": "fixed", "median": LATENCY_S}}
        with provider(self._folder, scenario, codebook=self._book) as server:
            errand = Errand(inputs=inputs, url=server.url, out=self._folder / "out", concurrency=concurrency)
            return run(subject.command(errand), subject.answered, errand)


class _Measured:
    """One subject at one size and concurrency."""

    def __init__(self, bench: _Bench, subject: Subject, size: str, *, concurrency: int, rows: int) -> None:
        self._bench = bench
        self._subject = subject
        self._size = size
        self._concurrency = concurrency
        self._rows = rows
        self._why_not = subject.missing

    def case(self) -> Case:
        subject = self._subject
        asked = {"size": self._size, "concurrency": self._concurrency, "rows": self._rows}
        about = {"subject": subject.name, "version": subject.version, "licence": subject.licence, **asked}
        name = f"{self._size}, {self._concurrency} at once, {subject.name}"
        return Case(name=name, about=about, once=lambda _: self.once())

    def once(self) -> Figures:
        """Its figures, or `why_not`; what failed once is not tried again."""
        if self._why_not is None:
            fewer, more = self._ask(self._rows // START_SHARE), self._ask(self._rows)
            self._why_not = fewer.why_not or more.why_not
            if self._why_not is None:
                return figures(fewer, more)
        return {"why_not": self._why_not}

    def _ask(self, rows: int) -> Taken:
        return self._bench.ask(self._subject, self._size, concurrency=self._concurrency, rows=rows)


def figures(fewer: Taken, more: Taken) -> dict[str, float]:
    """What the rows cost that the second run had more, and the whole second run."""
    rows, wall_s = more.rows - fewer.rows, more.wall_s - fewer.wall_s
    found = {
        "cpu_s_per_1000": (more.cpu_s - fewer.cpu_s) / rows * 1000,
        "cpu_s_per_1000_whole": more.cpu_s / more.rows * 1000,
        "rows_per_s": rows / wall_s if wall_s > 0 else 0.0,
        "rows_per_s_whole": more.rows / more.wall_s,
        "rss_mb": more.rss_mb,
        "most_in_flight": more.most_in_flight,
        "requests": more.requests,
    }
    if more.main_cpu_s is not None and fewer.main_cpu_s is not None:
        main_s = more.main_cpu_s - fewer.main_cpu_s
        found["main_cpu_s_per_1000"] = main_s / rows * 1000
    return found
