"""Figures as text: three decimals, `n/a` where there is none, intervals in brackets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labels.codebook import Dimension
from labels.score.options import R2
from labels.score.predictions import ABSENT, ANSWERED, FAILED, SHOWN_IDS, Predictions
from labels.score.report import Estimate, Report, Scores
from labels.score.slots import (
    ACCURACY,
    ALL,
    COVERAGE,
    EXACT,
    KAPPA,
    MACRO,
    MAE,
    R2_SCORE,
    SPEARMAN,
    WHOLE,
    Metric,
    Slot,
    takes_soft,
)
from labels.score.slots import ANSWERED as ANSWERED_ONLY

NOT_DEFINED = "n/a"
GAP = "  "
SHOWN = 3
"""Different problems that are told, of each kind."""
BRIEF = {"categorical": (ACCURACY, MACRO, KAPPA), "number": (R2_SCORE, MAE, SPEARMAN), "list": (EXACT, MACRO)}
"""What of a dimension is shown at the terminal; files have every measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: a head, and rows of as many cells."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals; no minus before nothing."""
    if math.isnan(value):
        return NOT_DEFINED
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "+" if signed else "", 1) if text == "-0.000" else text


def cell(estimate: Estimate, *, signed: bool = False) -> str:
    """A figure, with its interval if it has one."""
    value = number(estimate.value, signed=signed)
    if math.isnan(estimate.low):
        return value
    return f"{value} [{number(estimate.low, signed=signed)}, {number(estimate.high, signed=signed)}]"


def text_of(grid: Grid) -> str:
    """For the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(grid.head, *grid.rows, strict=True)]
    lines = [
        GAP.join(text.ljust(width) if not at else text.rjust(width) for at, (text, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in (grid.head, *grid.rows))
    ]
    return "\n".join([grid.title, "", *(line.rstrip() for line in lines)])


def names(report: Report) -> list[str]:
    return [scores.predictions.name for scores in report.models]


def headline_grid(report: Report) -> Grid:
    return _metric_grid(report, "Metrics" + _interval_words(report), report.headlines)


def detail_grid(report: Report) -> Grid:
    return _metric_grid(report, "Every measure in both readings" + _interval_words(report), report.details)


def _metric_grid(report: Report, title: str, metrics: Sequence[Metric]) -> Grid:
    rows = [(metric.name, *(cell(scores.of(metric)) for scores in report.models)) for metric in metrics]
    return Grid(title=title, head=("metric", *names(report)), rows=tuple(rows))


def _interval_words(report: Report) -> str:
    if report.resampling is None:
        return ""
    resampling = report.resampling
    share = f"{100 * (1 - resampling.alpha):.4g} %"
    return f", {share} intervals from {resampling.n:,} replicates (seed {resampling.seed})"


def difference_grid(report: Report) -> Grid | None:
    """How far each model is from the first; None for one model."""
    first, *others = report.models
    if not others:
        return None
    rows = [
        (metric.name, *(cell(scores.differences[metric.key, metric.slot], signed=True) for scores in others))
        for metric in report.headlines
    ]
    title = f"Differences to {first.predictions.name}" + _interval_words(report)
    return Grid(title=title, head=("metric", *names(report)[1:]), rows=tuple(rows))


def count_grid(report: Report) -> Grid:
    """How many rows there are, and what became of them."""
    models = [scores.predictions for scores in report.models]
    rows = [
        ("rows with gold", *(f"{len(report.truth):,}" for _ in models)),
        ("answered", *(f"{model.count(ANSWERED):,}" for model in models)),
        ("without labels", *(f"{model.count(FAILED):,}" for model in models)),
        ("without a record", *(f"{model.count(ABSENT):,}" for model in models)),
        ("records of other rows", *(f"{model.unmatched:,}" for model in models)),
        ("values refused", *(f"{refused(model):,}" for model in models)),
        ("coverage", *(cell(scores.estimates[WHOLE, Slot(ALL, COVERAGE)]) for scores in report.models)),
        ("exact match, all", *(cell(scores.estimates[WHOLE, Slot(ALL, EXACT)]) for scores in report.models)),
        (
            "exact match, answered",
            *(cell(scores.estimates[WHOLE, Slot(ANSWERED_ONLY, EXACT)]) for scores in report.models),
        ),
    ]
    return Grid(
        title=f"Rows, by the codebook {report.truth.codebook.name}", head=("", *names(report)), rows=tuple(rows)
    )


def refused(model: Predictions) -> int:
    """Values that are no label of their dimension, or out of its range."""
    return sum(column.refused.total() for column in model.columns.values())


def brief_grid(report: Report) -> Grid:
    """A few measures of each dimension, missing answers wrong, and without them."""
    rows = [
        (f"{coder.dimension.key} {measure}", *cells)
        for coder in report.truth.scored
        for measure, *cells in brief_rows(report, coder.dimension)
    ]
    title = "Each dimension: missing answers wrong / answered rows only"
    return Grid(title=title, head=("measure", *names(report)), rows=tuple(rows))


def brief_rows(report: Report, dimension: Dimension) -> list[tuple[str, ...]]:
    """A few measures of one dimension in both readings."""
    return [
        (measure, *(_both(dimension, measure, scores) for scores in report.models)) for measure in BRIEF[dimension.kind]
    ]


def detail_rows(report: Report, key: str) -> list[tuple[str, ...]]:
    """Every measure of one dimension, without the key in its name."""
    metrics = (metric for metric in report.details if metric.key == key)
    return [
        (metric.name.removeprefix(f"{key}."), *(cell(scores.of(metric)) for scores in report.models))
        for metric in metrics
    ]


def _both(dimension: Dimension, measure: str, scores: Scores) -> str:
    return " / ".join(
        number(scores.estimates[dimension.key, Slot(reading, measure)].value) for reading in (ALL, ANSWERED_ONLY)
    )


def notes(report: Report) -> Iterator[str]:
    """What a careful reader has to know besides the figures."""
    truth = report.truth
    yield from report.notes
    if report.options.yn_metric == R2 and not takes_soft(truth.codebook, report.options):
        yield f"--yn-metric r2 has no meaning for {truth.codebook.name}, so yes-or-no questions are scored by F1"
    if truth.without:
        yield f"{truth.path}: {truth.without:,} rows carry no gold and are left out"
    if truth.short:
        yield f"{truth.path}: {truth.short:,} rows are left out by --min-text-len {report.options.min_text_len}"
    if truth.broken:
        yield f"{truth.path}: {len(truth.broken):,} lines are no rows, the first: {truth.broken[0]}"
    for problem, count in truth.problems.most_common(SHOWN):
        yield f"{truth.path}: gold not taken: {problem}, {count:,} times"
    for scores in report.models:
        yield from _of_model(scores.predictions, report)


def _of_model(model: Predictions, report: Report) -> Iterator[str]:
    book = report.truth.codebook.name
    if model.unmatched:
        shown = ", ".join(model.unmatched_ids)
        yield f"{model.path}: {model.unmatched:,} records answer rows that have no gold here, the first: {shown}"
    if model.count(ABSENT):
        shown = ", ".join(_absent(model, report))
        yield f"{model.path}: {model.count(ABSENT):,} rows with gold have no record, the first: {shown}"
    for key, column in model.columns.items():
        for value, count in column.refused.most_common(SHOWN):
            yield f"{model.path}: {key} {value}, {count:,} times: no label of {book}, so it counts as missing"
    for key, count in model.unknown_keys.most_common(SHOWN):
        yield f"{model.path}: {key}, {count:,} times: no key of {book}, so it was not looked at"


def _absent(model: Predictions, report: Report) -> list[str]:
    rows = itertools.islice((row for row, state in enumerate(model.states) if state == ABSENT), SHOWN_IDS)
    names = report.truth.names()
    return [names[row] for row in rows]
