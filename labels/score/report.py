"""Every figure of every model, with intervals: one value that all forms of output show.

Rows are first gathered into distinct tuples of gold and answers, with how many rows are so. All measures are sums over
these, so a million rows cost what their distinct tuples cost. A bootstrap replicate draws as many rows with
replacement, which is one multinomial draw over the tuples: the same for all models, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from labels.score import points, replicas
from labels.score.columns import MISSING, Coder, Numbers
from labels.score.matrices import Matrix, matrices, support
from labels.score.options import Options, Resampling
from labels.score.predictions import ANSWERED, Predictions
from labels.score.slots import WHOLE, Metric, Slot, headlines, of_whole, ours
from labels.score.truth import Truth

CHUNK_CELLS = 2_000_000
"""Weights held at once: 16 MB, and a few times that while they are summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure; what is not defined is NaN."""

    value: float
    low: float = np.nan
    high: float = np.nan
    dropped: int = 0
    """Replicates in which it is not defined; the interval is that of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One model's."""

    predictions: Predictions
    estimates: Mapping[tuple[str, Slot], Estimate]
    """By key and slot."""
    differences: Mapping[tuple[str, Slot], Estimate]
    """To the first model; empty for the first."""
    matrices: Mapping[str, Matrix]
    """By key, of dimensions with one value or number a row."""
    exact_match: int
    """Rows on which every label equals the gold."""

    def of(self, metric: Metric) -> Estimate:
        return self.estimates[metric.key, metric.slot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All there is to show."""

    truth: Truth
    options: Options
    resampling: Resampling | None
    models: tuple[Scores, ...]
    headlines: tuple[Metric, ...]
    details: tuple[Metric, ...]
    supports: Mapping[str, Mapping[str, int]]
    """By key: how many rows of gold have each label; of numbers how many there are."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuples:
    """Distinct tuples of gold and every model's answer."""

    gold: npt.NDArray[Any]
    said: tuple[npt.NDArray[Any], ...]
    counts: npt.NDArray[np.int64]


def distinct(gold: npt.NDArray[Any], said: Sequence[npt.NDArray[Any]]) -> Tuples:
    """The distinct tuples of some columns, and how many rows are each."""
    key = np.zeros(len(gold), dtype=np.int64)
    for column in (gold, *said):
        values, place = np.unique(column, return_inverse=True)
        _, key = np.unique(key * len(values) + place, return_inverse=True)
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    return Tuples(gold=gold[first], said=tuple(column[first] for column in said), counts=counts.astype(np.int64))


Exactly = Callable[[Tuples, int], points.Points]
Often = Callable[[Tuples, int, Numbers], replicas.Measured]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How the slots of one key are found: once, and for many weightings."""

    key: str
    tuples: Tuples
    exactly: Exactly
    often: Often


@dataclass(slots=True, kw_only=True)
class _Found:
    """What has been measured of one model."""

    estimates: dict[tuple[str, Slot], Estimate] = field(default_factory=dict)
    differences: dict[tuple[str, Slot], Estimate] = field(default_factory=dict)


def report(truth: Truth, models: Sequence[Predictions], *, options: Options, resampling: Resampling | None) -> Report:
    """Measure everything.

    Args:
        truth: the gold.
        models: each model's answers; differences are to the first.
        options: how to score.
        resampling: how intervals are found; None finds none.
    """
    found = [_Found() for _ in models]
    exact = [exactness(truth, model, options.eps) for model in models]
    for number, measure in enumerate(_measures(truth, models, exact, options)):
        _estimate(measure, found, resampling, number)
    dimensions = [coder.dimension for coder in truth.scored]
    scored = {dimension.key for dimension in dimensions}
    return Report(
        truth=truth,
        options=options,
        resampling=resampling,
        models=tuple(
            Scores(
                predictions=model,
                estimates=each.estimates,
                differences=each.differences,
                matrices=matrices(truth, model.columns),
                exact_match=int((right == 1).sum()),
            )
            for model, each, right in zip(models, found, exact, strict=True)
        ),
        headlines=tuple(metric for metric in headlines(truth.codebook, options) if metric.key in scored),
        details=(*of_whole(), *(metric for dimension in dimensions for metric in ours(dimension, options))),
        supports={coder.dimension.key: support(coder, truth.columns) for coder in truth.scored},
        notes=tuple(_constants(truth)),
    )


def _measures(
    truth: Truth, models: Sequence[Predictions], exact: Sequence[npt.NDArray[np.int32]], options: Options
) -> Iterator[Measure]:
    yield Measure(
        key=WHOLE,
        tuples=distinct(np.zeros(len(truth), dtype=np.int32), exact),
        exactly=lambda rows, at: points.of_whole(rows.said[at], rows.counts),
        often=lambda rows, at, weights: replicas.of_whole(rows.said[at], weights),
    )
    for coder in truth.scored:
        key = coder.dimension.key
        yield _of_dimension(coder, truth, models, options)
        if truth.columns[key].soft is not None:
            yield Measure(
                key=key,
                tuples=distinct(truth.columns[key].soft_view(), [model.columns[key].soft_view() for model in models]),
                exactly=lambda rows, at: points.of_soft(rows.gold, rows.said[at], rows.counts),
                often=lambda rows, at, weights: replicas.of_soft(rows.gold, rows.said[at], weights),
            )


def _of_dimension(coder: Coder, truth: Truth, models: Sequence[Predictions], options: Options) -> Measure:
    key = coder.dimension.key
    return Measure(
        key=key,
        tuples=distinct(truth.columns[key].view(), [model.columns[key].view() for model in models]),
        exactly=lambda rows, at: points.measured(coder, rows.gold, rows.said[at], rows.counts, options),
        often=lambda rows, at, weights: replicas.measured(coder, rows.gold, rows.said[at], weights, options),
    )


def _estimate(measure: Measure, found: Sequence[_Found], resampling: Resampling | None, number: int) -> None:
    """Every slot of one key, for every model."""
    once = [measure.exactly(measure.tuples, at) for at in range(len(found))]
    drawn = [_resampled(measure, at, resampling, number) for at in range(len(found))] if resampling else []
    for at, each in enumerate(found):
        for slot, value in once[at].items():
            place, alpha = (measure.key, slot), resampling.alpha if resampling else 0.0
            each.estimates[place] = _with_interval(value, drawn[at][slot] if drawn else None, alpha)
            if at:
                off = drawn[at][slot] - drawn[0][slot] if drawn else None
                each.differences[place] = _with_interval(value - once[0][slot], off, alpha)


def _with_interval(value: float, drawn: Numbers | None, alpha: float) -> Estimate:
    if drawn is None or np.isnan(value):
        return Estimate(value=value)
    low, high, dropped = percentiles(drawn, alpha)
    return Estimate(value=value, low=low, high=high, dropped=dropped)


def percentiles(values: Numbers, alpha: float) -> tuple[float, float, int]:
    """The interval of the replicates that are defined, and how many are not."""
    kept = values[~np.isnan(values)]
    dropped = len(values) - len(kept)
    if not len(kept):
        return np.nan, np.nan, dropped
    low, high = np.quantile(kept, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high), dropped


def _resampled(measure: Measure, at: int, resampling: Resampling, number: int) -> dict[Slot, Numbers]:
    parts = [measure.often(measure.tuples, at, weights) for weights in draws(measure.tuples, resampling, number)]
    return {slot: np.concatenate([part[slot] for part in parts]) for slot in parts[0]}


def draws(tuples: Tuples, resampling: Resampling, number: int) -> Iterator[Numbers]:
    """Replicates as weights, a part at a time; the same whenever they are asked for.

    Args:
        tuples: what is drawn from.
        resampling: how many, and by which seed.
        number: of the measure; each has draws of its own.
    """
    rng = np.random.default_rng([resampling.seed, number])
    rows = int(tuples.counts.sum())
    step = max(1, CHUNK_CELLS // len(tuples.counts))
    for start in range(0, resampling.n, step):
        size = min(step, resampling.n - start)
        yield rng.multinomial(rows, tuples.counts / rows, size=size).astype(np.float64)


def exactness(truth: Truth, model: Predictions, eps: float) -> npt.NDArray[np.int32]:
    """For each row -1 without an answer, 1 if each label equals its gold, numbers within `eps`; else 0."""
    right = np.ones(len(truth), dtype=bool)
    for coder in truth.scored:
        gold, said = truth.columns[coder.dimension.key].view(), model.columns[coder.dimension.key].view()
        if coder.dimension.kind == "number":
            right &= np.isnan(gold) | (np.abs(gold - said) <= eps)
        else:
            right &= (gold == MISSING) | (gold == said)
    states = np.frombuffer(model.states, dtype=np.uint8)
    return np.where(states == ANSWERED, right.astype(np.int32), np.int32(MISSING)).astype(np.int32)


def _constants(truth: Truth) -> Iterator[str]:
    """Says of which dimensions nothing can be learnt, because all gold is the same."""
    for coder in truth.scored:
        cells = truth.columns[coder.dimension.key].view()
        cells = cells[~np.isnan(cells)] if cells.dtype.kind == "f" else cells[cells != MISSING]
        met = np.unique(cells)
        if len(met) == 1:
            key, label = coder.dimension.key, coder.label(met[0])
            yield f"{key}: the gold is {label!r} on all {len(cells):,} rows; kappa, MCC and R2 say nothing there"
