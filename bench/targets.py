"""What speed is wanted, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.suite import spread

Cases = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing that is wanted of a suite."""

    what: str
    most: float
    unit: str
    measured: Callable[[Cases], float | None]
    """None if the suite, as it was measured, says nothing of it."""


def median(cases: Cases, figure: str, **about: Any) -> float | None:
    """Of a figure of the first case that is about this; None if there is none."""
    for case in cases:
        if figure in case["figures"] and all(case.get(key) == value for key, value in about.items()):
            return spread(case["figures"][figure]).median
    return None


def _of(figure: str, **about: Any) -> Callable[[Cases], float | None]:
    return lambda cases: median(cases, figure, **about)


def _loss(cases: Cases) -> float | None:
    """Of rate from 512 to 2,000 in flight, in percent; below 0 where it grew."""
    rates = [median(cases, "rows_per_s", who="Reelbatch", body="2 KB", concurrency=at_once) for at_once in (512, 2000)]
    few, many = rates
    return None if few is None or many is None else 100 * (1 - many / few)


def _growth(cases: Cases) -> float | None:
    """Of the main process's memory from the fewest rows to the most, in percent; None if there is one number alone."""
    sizes = sorted(case["rows"] for case in cases)
    if len(sizes) < 2:  # noqa: PLR2004 - growth takes two
        return None
    small, large = (median(cases, "main_peak_rss_mb", rows=rows) for rows in (sizes[0], sizes[-1]))
    assert small is not None
    assert large is not None
    return 100 * (large / small - 1)


CPU = "main_cpu_s_per_1000"
TARGETS: Mapping[str, Sequence[Target]] = {
    "engine": (
        Target(
            what="main process at 2 KB, up to 512 in flight",
            most=0.20,
            unit="CPU-s per 1,000 rows",
            measured=_of(CPU, who="Reelbatch", body="2 KB", concurrency=512),
        ),
        Target(
            what="main process at 300 KB, up to 512 in flight",
            most=0.35,
            unit="CPU-s per 1,000 rows",
            measured=_of(CPU, who="Reelbatch", body="300 KB", concurrency=512),
        ),
        Target(
            what="main process at 2 KB, up to 512 in flight, peak RSS",
            most=200,
            unit="MB",
            measured=_of("main_peak_rss_mb", who="Reelbatch", body="2 KB", concurrency=512),
        ),
        Target(
            what="main process at 300 KB, up to 512 in flight, peak RSS",
            most=200,
            unit="MB",
            measured=_of("main_peak_rss_mb", who="Reelbatch", body="300 KB", concurrency=512),
        ),
        Target(what="loss of rate from 512 to 2,000 allowed in flight, 2 KB", most=5, unit="%", measured=_loss),
    ),
    "memory": (
        Target(what="growth of the main process from the fewest rows to the most", most=5, unit="%", measured=_growth),
    ),
    "resume": (
        Target(
            what="start to first request, fresh run of 110,000 rows",
            most=1.0,
            unit="s",
            measured=_of("first_request_s", what="fresh run", rows=100_000),
        ),
        Target(what="`--help`", most=0.3, unit="s", measured=_of("whole_s", what="--help")),
    ),
}
"""By suite."""


def verdicts(suite: str, cases: Cases) -> list[str]:
    """A sentence for each target of the suite that the cases say something of."""
    said = []
    for target in TARGETS.get(suite, ()):
        found = target.measured(cases)
        if found is not None:
            by = f"by {_number(abs(found - target.most))} {target.unit}"
            judged = f"{'met' if found <= target.most else 'missed'} {by}"
            said.append(
                f"{target.what}: {_number(found)} {target.unit}, at most {_number(target.most)} wanted: {judged}"
            )
    return said


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"  # noqa: PLR2004 - from three digits on, no fraction
