"""Every measure of the rows as they are, by scikit-learn where it has the measure. Only this file imports it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError
from labels.codebook import Dimension
from labels.score.columns import MISSING, Coder, Codes, Numbers, is_yes_no
from labels.score.options import Options
from labels.score.replicas import Truths, farthest, memberships, pearson, spearman
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

Points = dict[Slot, float]
Weights = npt.NDArray[np.int64]


def check_installed() -> None:
    """Say early what is missing.

    Raises:
        ConfigError: there is no scikit-learn.
    """
    _metrics()


def _metrics() -> Any:
    try:
        import sklearn.metrics  # noqa: PLC0415 - a second and 100 MB that only scoring needs
    except ImportError as error:
        raise ConfigError("scoring needs scikit-learn; install it with: pip install 'reelbatch[score]'") from error
    return sklearn.metrics


def measured(
    coder: Coder, gold: npt.NDArray[Any], said: npt.NDArray[Any], weights: Weights, options: Options
) -> Points:
    """Every slot of a dimension; see `replicas.measured`.

    Args:
        coder: of the dimension.
        gold: codes or numbers of the distinct pairs.
        said: likewise, the answers.
        weights: how many rows are so.
        options: how to score.
    """
    if coder.dimension.kind == "number":
        return of_numbers(coder.dimension, gold, said, weights, options)
    if coder.dimension.kind == "list":
        return of_sets(coder, gold, said, weights)
    return of_values(coder.dimension, gold, said, weights)


def of_values(dimension: Dimension, gold: Codes, said: Codes, weights: Weights) -> Points:
    known = len(dimension.values)
    found: Points = {}
    if is_yes_no(dimension):
        yes = dimension.values.index(YES)
        found[Slot(SPEC, F1, YES)] = _f1_or_0(gold == yes, said == yes, weights)
    asked = (gold >= 0) & (gold < known)
    if is_stance(dimension):
        each = [_f1_or_0(gold[asked] == at, said[asked] == at, weights[asked]) for at in range(known)]
        found |= {Slot(SPEC, F1, value): score for value, score in zip(dimension.values, each, strict=True)}
        found[Slot(SPEC, MACRO)] = sum(each) / len(each)
    found[Slot(ALL, COVERAGE)] = _accuracy(asked[asked], (said != MISSING)[asked], weights[asked])
    for reading in READINGS:
        kept = asked if reading == ALL else asked & (said != MISSING)
        part = _of_codes(dimension, gold[kept], said[kept], weights[kept])
        found |= {Slot(reading, *slot): score for slot, score in part.items()}
    return found


def _of_codes(dimension: Dimension, gold: Codes, said: Codes, weights: Weights) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for at, value in enumerate(dimension.values):
        found |= {(measure, value): score for measure, score in _per_label(gold == at, said == at, weights).items()}
    found[ACCURACY, ""] = _accuracy(gold, said, weights)
    found[MACRO, ""] = _mean_of_defined([found[F1, value] for value in dimension.values])
    found[KAPPA, ""] = found[MCC, ""] = np.nan
    if len(np.unique(gold)) > 1:
        # As texts: many different numbers in few rows would be taken for measurements, with a warning.
        golds, saids = gold.astype(np.str_), said.astype(np.str_)
        found[KAPPA, ""] = float(_metrics().cohen_kappa_score(golds, saids, sample_weight=weights))
        if len(np.unique(said)) > 1:
            found[MCC, ""] = float(_metrics().matthews_corrcoef(golds, saids, sample_weight=weights))
    return found


def of_sets(coder: Coder, gold: Codes, said: Codes, weights: Weights) -> Points:
    values, members = coder.dimension.values, memberships(coder)
    has_gold = gold != MISSING
    found: Points = {Slot(ALL, COVERAGE): _accuracy(has_gold[has_gold], (said != MISSING)[has_gold], weights[has_gold])}
    for reading in READINGS:
        kept = has_gold if reading == ALL else has_gold & (said != MISSING)
        golds, saids = members[gold[kept]], members[said[kept]]
        for at, value in enumerate(values):
            each = _per_label(golds[:, at], saids[:, at], weights[kept])
            found |= {Slot(reading, measure, value): score for measure, score in each.items()}
        found[Slot(reading, MACRO)] = _mean_of_defined([found[Slot(reading, F1, value)] for value in values])
        found[Slot(reading, EXACT)] = _accuracy(gold[kept], said[kept], weights[kept])
    return found


def of_numbers(dimension: Dimension, gold: Numbers, said: Numbers, weights: Weights, options: Options) -> Points:
    low, high = dimension.minimum, dimension.maximum
    found = _spec_numbers(dimension, np.clip(gold, low, high), np.clip(said, low, high), weights)
    in_range = (gold >= low) & (gold <= high)
    answered = in_range & (said >= low) & (said <= high)
    found[Slot(ALL, COVERAGE)] = _accuracy(in_range[in_range], answered[in_range], weights[in_range])
    filled = np.where(answered, said, farthest(gold, low, high))
    for reading, kept, answers in ((ALL, in_range, filled), (ANSWERED, answered, said)):
        golds, saids, part = gold[kept], answers[kept], weights[kept]
        found |= {Slot(reading, measure): score for measure, score in errors(golds, saids, part).items()}
        for label, (sign, bound) in thresholds(dimension, options).items():
            each = _per_label(sign * golds > bound, (sign * saids > bound) & answered[kept], part)
            found |= {Slot(reading, measure, label): score for measure, score in each.items()}
    return found


def _spec_numbers(dimension: Dimension, gold: Numbers, said: Numbers, weights: Weights) -> Points:
    both = ~(np.isnan(gold) | np.isnan(said))
    found = {Slot(SPEC, R2_SCORE): spec_r2(gold[both], said[both], weights[both])}
    if is_even(dimension):
        found[Slot(SPEC, F1, POSITIVE)] = _f1_or_0(gold > 0, said > 0, weights)
        found[Slot(SPEC, F1, NEGATIVE)] = _f1_or_0(gold < 0, said < 0, weights)
    return found


def spec_r2(gold: Numbers, said: Numbers, weights: Weights) -> float:
    if weights.sum() < 2:  # noqa: PLR2004 - a single pair has no spread
        return np.nan
    if len(np.unique(gold)) == 1:  # The same, but scikit-learn's sums may leave a last digit.
        return 1.0 if np.array_equal(gold, said) else 0.0
    return float(_metrics().r2_score(gold, said, sample_weight=weights))


def errors(gold: Numbers, said: Numbers, weights: Weights) -> dict[str, float]:
    if not len(gold):
        return dict.fromkeys((R2_SCORE, MAE, RMSE, PEARSON, SPEARMAN), np.nan)
    once = weights[None, :].astype(np.float64)
    varies = len(np.unique(gold)) > 1
    return {
        R2_SCORE: spec_r2(gold, said, weights) if varies else np.nan,
        MAE: float(_metrics().mean_absolute_error(gold, said, sample_weight=weights)),
        RMSE: float(_metrics().root_mean_squared_error(gold, said, sample_weight=weights)),
        PEARSON: float(pearson(once, gold, said)[0]),
        SPEARMAN: float(spearman(once, gold, said)[0]),
    }


def of_soft(gold: Numbers, said: Numbers, weights: Weights) -> Points:
    both = ~(np.isnan(gold) | np.isnan(said))
    return {Slot(SPEC, R2_SCORE, YES): spec_r2(gold[both], said[both], weights[both])}


def of_whole(said: Codes, weights: Weights) -> Points:
    answered = said != MISSING
    return {
        Slot(ALL, COVERAGE): _accuracy(np.ones_like(answered), answered, weights),
        Slot(ALL, EXACT): _accuracy(np.ones_like(said), said, weights),
        Slot(ANSWERED, EXACT): _accuracy(np.ones_like(said[answered]), said[answered], weights[answered]),
    }


def _accuracy(gold: npt.NDArray[Any], said: npt.NDArray[Any], weights: Weights) -> float:
    right = np.asarray(gold == said)
    return float(_metrics().accuracy_score(np.ones_like(right), right, sample_weight=weights)) if len(gold) else np.nan


def _f1_or_0(gold: Truths, said: Truths, weights: Weights) -> float:
    return float(_metrics().f1_score(gold, said, sample_weight=weights, zero_division=0)) if len(gold) else 0.0


def _per_label(gold: Truths, said: Truths, weights: Weights) -> dict[str, float]:
    precision = recall = f1 = np.nan
    if len(gold):
        precision, recall, f1, _ = _metrics().precision_recall_fscore_support(
            gold, said, average="binary", pos_label=True, sample_weight=weights, zero_division=np.nan
        )
    return {PRECISION: float(precision), RECALL: float(recall), F1: float(f1) if gold.any() else np.nan}


def _mean_of_defined(each: list[float]) -> float:
    defined = [score for score in each if not np.isnan(score)]
    return sum(defined) / len(defined) if defined else np.nan
