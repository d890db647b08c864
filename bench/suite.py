"""What a suite of `python cli.py bench` is made of: cases that are measured in turns, and so meet the same weather.

A suite is a module with `cases(told)`. What its cases share (a simulated provider, inputs) it opens on `told.opened`.
Every figure of every round is kept: medians, spreads and ratios of one round are reckoned where they are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]
"""Numbers by name, the unit at the end of the name; what is no number (a curve) is kept of the last round alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a suite is told."""

    folder: Path
    """For inputs and run folders; gone when the suite ends."""
    opened: ExitStack
    """Closed when the suite ends."""
    rounds: int
    quick: bool
    """Whether a small measurement will do that shows that all works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure."""

    name: str
    """Of its own within the suite."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What sets it apart, as JSON values."""
    once: Callable[[int], Figures]
    """Measures it; given the number of the round, from 0."""
    most_rounds: int | None = None
    """For what takes long or cannot differ."""


Taken = list[dict[str, Any]]
"""Of each case its name, what it is about, the `figures` of all rounds that have them, and under `last` what is no
number."""
Keep = Callable[[int, Taken], object]
"""Takes the number of rounds that have ended, and what they gave."""


def in_turns(
    cases: Sequence[Case], *, rounds: int, say: Callable[[str], None], keep: Keep = lambda _, __: None
) -> Taken:
    """Measure A B C A B C ...

    Args:
        cases: what to measure, in this order in each round.
        rounds: how often; fewer for a case that says so.
        say: takes a line for each measurement.
        keep: called after each round, for what is stopped later.
    """
    taken: dict[str, list[Figures]] = {case.name: [] for case in cases}
    for at in range(rounds):
        for case in cases:
            if case.most_rounds is None or at < case.most_rounds:
                found = case.once(at)
                taken[case.name].append(found)
                say(f"{at + 1}/{rounds} {case.name}: {_said(found)}")
        keep(at + 1, [_kept(case, taken[case.name]) for case in cases])
    return [_kept(case, taken[case.name]) for case in cases]


def _kept(case: Case, rounds: Sequence[Figures]) -> dict[str, Any]:
    figures: dict[str, list[Any]] = {}
    last: dict[str, Any] = {}
    for found in rounds:
        for name, value in found.items():
            if isinstance(value, (int, float)):
                figures.setdefault(name, []).append(value)
            else:
                last[name] = value
    return {"name": case.name, **case.about, "figures": figures, "last": last}


def _said(found: Figures) -> str:
    shown = {name: f"{value:,.4g}" for name, value in found.items() if isinstance(value, (int, float))}
    shown |= {name: value for name, value in found.items() if isinstance(value, str)}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and how far they lie apart."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
