"""Every measure over many weightings of the rows at once, from sums alone.

A bootstrap replicate is a weight for each distinct pair of gold and answer. Weights stand in the rows of a matrix, so a
thousand replicates are a few matrix products. What is not defined is NaN: the F1 and the recall of a label that no
gold row has, the precision of one that is never said, kappa and MCC where the gold is constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labels.codebook import Dimension
from labels.score.columns import MISSING, Coder, Codes, Numbers, is_yes_no
from labels.score.options import Options
from labels.score.slots import (
    ACCURACY,
    ALL,
    ANSWERED,
    COVERAGE,
    EXACT,
    F1,
    KAPPA,
    MACRO,
    MAE,
    MCC,
    NEGATIVE,
    PEARSON,
    POSITIVE,
    PRECISION,
    R2_SCORE,
    READINGS,
    RECALL,
    RMSE,
    SPEARMAN,
    SPEC,
    YES,
    Slot,
    is_even,
    is_stance,
    thresholds,
)

Measured = dict[Slot, Numbers]
"""For each slot one value a weighting."""
Truths = npt.NDArray[np.bool_]


def measured(
    coder: Coder, gold: npt.NDArray[Any], said: npt.NDArray[Any], weights: Numbers, options: Options
) -> Measured:
    """Every slot of a dimension.

    Args:
        coder: of the dimension.
        gold: codes or numbers of the distinct pairs.
        said: likewise, the answers.
        weights: one weighting a row, one pair a column.
        options: how to score.
    """
    if coder.dimension.kind == "number":
        return of_numbers(coder.dimension, gold, said, weights, options)
    if coder.dimension.kind == "list":
        return of_sets(coder, gold, said, weights)
    return of_values(coder.dimension, gold, said, weights)


def of_values(dimension: Dimension, gold: Codes, said: Codes, weights: Numbers) -> Measured:
    """From the confusion matrix of each weighting: values, then not asked, then missing."""
    known = len(dimension.values)
    size = known + 2
    spread = np.zeros((len(gold), size * size))
    spread[np.arange(len(gold)), _at(gold, known) * size + _at(said, known)] = 1
    table = (weights @ spread).reshape(len(weights), size, size)
    found: Measured = {}
    if is_yes_no(dimension):
        yes = dimension.values.index(YES)
        found[Slot(SPEC, F1, YES)] = _f1_or_0(*_counts(table, yes))
    asked = table.copy()
    asked[:, known:, :] = 0
    if is_stance(dimension):
        each = [_f1_or_0(*_counts(asked, at)) for at in range(known)]
        found |= {Slot(SPEC, F1, value): values for value, values in zip(dimension.values, each, strict=True)}
        found[Slot(SPEC, MACRO)] = np.mean(each, axis=0)
    found[Slot(ALL, COVERAGE)] = _ratio(asked[:, :, : known + 1].sum(axis=(1, 2)), asked.sum(axis=(1, 2)))
    answered = asked.copy()
    answered[:, :, known + 1] = 0
    for reading, part in ((ALL, asked), (ANSWERED, answered)):
        found |= {Slot(reading, *slot): values for slot, values in _of_table(dimension, part).items()}
    return found


def _of_table(dimension: Dimension, table: Numbers) -> dict[tuple[str, str], Numbers]:
    found: dict[tuple[str, str], Numbers] = {}
    for at, value in enumerate(dimension.values):
        found |= {(measure, value): values for measure, values in _per_label(*_counts(table, at)).items()}
    each = np.stack([found[F1, value] for value in dimension.values])
    hits, golds, saids = np.trace(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1)
    rows = table.sum(axis=(1, 2))
    constant = golds.max(axis=1) == rows
    chance = (golds * saids).sum(axis=1)
    found[ACCURACY, ""] = _ratio(hits, rows)
    found[MACRO, ""] = _mean_of_defined(each)
    found[KAPPA, ""] = _ratio(hits * rows - chance, np.where(constant, 0, rows * rows - chance))
    spread = (rows**2 - (golds**2).sum(axis=1)) * (rows**2 - (saids**2).sum(axis=1))
    found[MCC, ""] = _ratio(hits * rows - chance, np.sqrt(np.where(constant, 0, spread)))
    return found


def of_sets(coder: Coder, gold: Codes, said: Codes, weights: Numbers) -> Measured:
    """Each value as a question of its own, and whole sets; a missing answer holds no value."""
    values = coder.dimension.values
    members = memberships(coder)
    has_gold = gold != MISSING
    found: Measured = {Slot(ALL, COVERAGE): _share(weights[:, has_gold], said[has_gold] != MISSING)}
    for reading in READINGS:
        kept = has_gold if reading == ALL else has_gold & (said != MISSING)
        part, golds, saids = weights[:, kept], members[gold[kept]], members[said[kept]]
        for at, value in enumerate(values):
            counts = part @ (golds[:, at] & saids[:, at]), part @ golds[:, at], part @ saids[:, at]
            found |= {Slot(reading, measure, value): each for measure, each in _per_label(*counts).items()}
        found[Slot(reading, MACRO)] = _mean_of_defined(np.stack([found[Slot(reading, F1, value)] for value in values]))
        found[Slot(reading, EXACT)] = _share(part, gold[kept] == said[kept])
    return found


def memberships(coder: Coder) -> Truths:
    """Which values each set holds; the last row, which a missing one leads to, none."""
    rows = [[value in named for value in coder.dimension.values] for named in coder.sets]
    return np.array([*rows, [False] * len(coder.dimension.values)], dtype=bool)


def of_numbers(dimension: Dimension, gold: Numbers, said: Numbers, weights: Numbers, options: Options) -> Measured:
    """Errors, correlations, and numbers beyond a bound as a class."""
    low, high = dimension.minimum, dimension.maximum
    found = _spec_numbers(dimension, np.clip(gold, low, high), np.clip(said, low, high), weights)
    in_range = (gold >= low) & (gold <= high)
    answered = in_range & (said >= low) & (said <= high)
    found[Slot(ALL, COVERAGE)] = _share(weights[:, in_range], answered[in_range])
    filled = np.where(answered, said, farthest(gold, low, high))
    for reading, kept, answers in ((ALL, in_range, filled), (ANSWERED, answered, said)):
        part, golds, saids = weights[:, kept], gold[kept], answers[kept]
        found |= {Slot(reading, measure): values for measure, values in errors(part, golds, saids).items()}
        for label, (sign, bound) in thresholds(dimension, options).items():
            truly, claimed = sign * golds > bound, (sign * saids > bound) & answered[kept]
            counts = part @ (truly & claimed), part @ truly, part @ claimed
            found |= {Slot(reading, measure, label): each for measure, each in _per_label(*counts).items()}
    return found


def _spec_numbers(dimension: Dimension, gold: Numbers, said: Numbers, weights: Numbers) -> Measured:
    both = ~(np.isnan(gold) | np.isnan(said))
    found = {Slot(SPEC, R2_SCORE): spec_r2(weights[:, both], gold[both], said[both])}
    if is_even(dimension):
        for label, sign in ((POSITIVE, 1.0), (NEGATIVE, -1.0)):
            truly, claimed = sign * gold > 0, sign * said > 0
            found[Slot(SPEC, F1, label)] = _f1_or_0(weights @ (truly & claimed), weights @ truly, weights @ claimed)
    return found


def farthest(gold: Numbers, low: float, high: float) -> Numbers:
    """The end of the range that is farther from each number: as wrong as an answer can be."""
    return np.where(gold - low > high - gold, low, high)


def spec_r2(weights: Numbers, gold: Numbers, said: Numbers) -> Numbers:
    """R2 as scikit-learn has it: of constant gold 1 if there is no error, else 0. NaN below two pairs."""
    rows, left, spread = _squares(weights, gold, said)
    found = np.where(spread > 0, 1 - _ratio(left, spread), np.where(left > 0, 0.0, 1.0))
    return np.where(rows < 2, np.nan, found)  # noqa: PLR2004 - a single pair has no spread


def errors(weights: Numbers, gold: Numbers, said: Numbers) -> dict[str, Numbers]:
    """R2, MAE, RMSE, Pearson and Spearman."""
    rows, left, spread = _squares(weights, gold, said)
    return {
        R2_SCORE: 1 - _ratio(left, spread),
        MAE: _ratio(weights @ np.abs(gold - said), rows),
        RMSE: np.sqrt(_ratio(left, rows)),
        PEARSON: pearson(weights, gold, said),
        SPEARMAN: spearman(weights, gold, said),
    }


def _squares(weights: Numbers, gold: Numbers, said: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Rows, sum of squared errors, sum of squares around the mean; the last exactly 0 where the gold is constant."""
    rows, spread = weights.sum(axis=1), _products(weights, gold, gold)
    return rows, weights @ (gold - said) ** 2, np.where(_is_constant(weights, gold), 0.0, spread)


def pearson(weights: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """NaN where either side is constant."""
    spread = _products(weights, x, x) * _products(weights, y, y)
    return _correlation(_products(weights, x, y), spread, _is_constant(weights, x) | _is_constant(weights, y))


def spearman(weights: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """Pearson's of the mean ranks."""
    middle = (weights.sum(axis=1)[:, None] + 1) / 2
    x_off, y_off = ranks(weights, x) - middle, ranks(weights, y) - middle
    three = "rk,rk,rk->r"
    spread = np.einsum(three, weights, x_off, x_off) * np.einsum(three, weights, y_off, y_off)
    constant = _is_constant(weights, x) | _is_constant(weights, y)
    return _correlation(np.einsum(three, weights, x_off, y_off), spread, constant)


def _correlation(products: Numbers, spread: Numbers, constant: Truths) -> Numbers:
    root = np.sqrt(np.where(constant, 0.0, np.maximum(spread, 0.0)))
    return np.clip(_ratio(products, root), -1.0, 1.0)


def _products(weights: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """The sum of the products of what is off the mean, on both sides."""
    # Off a common middle first: what is subtracted below is then small, and no digits are lost in it.
    x, y = (side - (side.mean() if len(side) else 0.0) for side in (x, y))
    rows = weights.sum(axis=1)
    return weights @ (x * y) - np.nan_to_num(_ratio((weights @ x) * (weights @ y), rows))


def ranks(weights: Numbers, values: Numbers) -> Numbers:
    """For each weighting the mean rank of each value among the rows that it stands for."""
    if not len(values):
        return np.zeros_like(weights)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    mean_rank = np.cumsum(tied, axis=1) - (tied - 1) / 2
    spread: Numbers = mean_rank[:, np.searchsorted(ordered[starts], values)]
    return spread


def _is_constant(weights: Numbers, values: Numbers) -> Truths:
    """Whether all rows of a weighting have the same value."""
    found = np.zeros(len(weights), dtype=bool)
    if not len(values):
        return ~found
    # A weighting that holds more tuples than any value has is not constant; the few others are looked at.
    most = np.unique(values, return_counts=True)[1].max()
    doubtful = np.flatnonzero(np.count_nonzero(weights, axis=1) <= most)
    counted = weights[doubtful] > 0
    highest = np.where(counted, values, -np.inf).max(axis=1)
    found[doubtful] = highest <= np.where(counted, values, np.inf).min(axis=1)
    return found


def of_soft(gold: Numbers, said: Numbers, weights: Numbers) -> Measured:
    """Yes and no as numbers: R2 over the pairs there are."""
    both = ~(np.isnan(gold) | np.isnan(said))
    return {Slot(SPEC, R2_SCORE, YES): spec_r2(weights[:, both], gold[both], said[both])}


def of_whole(said: Codes, weights: Numbers) -> Measured:
    """Answers as wholes: -1 for none, 0 for one that differs from the gold, 1 for one that equals it."""
    answered = said != MISSING
    return {
        Slot(ALL, COVERAGE): _share(weights, answered),
        Slot(ALL, EXACT): _share(weights, said == 1),
        Slot(ANSWERED, EXACT): _share(weights[:, answered], said[answered] == 1),
    }


def _at(codes: Codes, known: int) -> npt.NDArray[np.int64]:
    return np.where(codes == MISSING, known + 1, codes).astype(np.int64)


def _counts(table: Numbers, at: int) -> tuple[Numbers, Numbers, Numbers]:
    """Of one label: rows that have it on both sides, in the gold, in the answers."""
    return table[:, at, at], table[:, at, :].sum(axis=1), table[:, :, at].sum(axis=1)


def _per_label(hits: Numbers, golds: Numbers, saids: Numbers) -> dict[str, Numbers]:
    f1 = np.where(golds > 0, _ratio(2 * hits, golds + saids), np.nan)
    return {PRECISION: _ratio(hits, saids), RECALL: _ratio(hits, golds), F1: f1}


def _f1_or_0(hits: Numbers, golds: Numbers, saids: Numbers) -> Numbers:
    return np.asarray(np.nan_to_num(_ratio(2 * hits, golds + saids), nan=0.0), dtype=np.float64)


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    """NaN where the lower part is 0."""
    found = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def _share(weights: Numbers, holds: Truths) -> Numbers:
    return _ratio(weights @ holds.astype(np.float64), weights.sum(axis=1))


def _mean_of_defined(each: Numbers) -> Numbers:
    defined = ~np.isnan(each)
    return _ratio(np.where(defined, each, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
