"""The arithmetic of comparisons: intervals, tests and measures of agreement. No model, no file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
MOST_DRAWS, FEWEST_DRAWS, VALUES = 10_000, 1_000, 400_000
"""Of a bootstrap: as many as make so many values, within these bounds."""
VALUES_AT_ONCE = 1 << 20


def resampled_means(columns: Numbers, *, seed: int) -> Numbers:
    """Means of each column over questions drawn with replacement, whole questions at a time.

    Questions with the same scores are drawn as one, so many times: there are few different ones among any number.

    Args:
        columns: `(questions, columns)`; what belongs to one question stays together.
        seed: the same gives the same, whatever the order of the questions.

    Returns:
        `(draws, columns)`.
    """
    rng = np.random.default_rng(seed)
    different, counts = np.unique(columns, axis=0, return_counts=True)
    draws = min(MOST_DRAWS, max(FEWEST_DRAWS, VALUES // len(different)))
    at_once = max(1, VALUES_AT_ONCE // len(different))
    parts = (min(at_once, draws - at) for at in range(0, draws, at_once))
    shares = counts / len(columns)
    drawn = [rng.multinomial(len(columns), shares, size=part) @ different for part in parts]
    means: Numbers = np.concatenate(drawn) / len(columns)
    return means


def interval(values: Numbers) -> Interval | None:
    """The middle 95 % of resampled values; None if one of them is none."""
    if not len(values) or not np.isfinite(values).all():
        return None
    rest = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (rest, 1 - rest))
    return float(low), float(high)


def wilson(hits: int, count: int) -> Interval | None:
    """Wilson's 95 % interval of a share (Wilson 1927); None of nothing."""
    if not count:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, ground = hits / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / ground
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / ground
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_test(wins: int, losses: int) -> float | None:
    """How often a fair coin falls as unevenly as this, or more so (two-sided, exact); None without a decision."""
    count = wins + losses
    if not count:
        return None
    # Logarithms: the coefficients of some thousand flips are beyond a double.
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(min(wins, losses) + 1)
    ]
    tail = math.fsum(math.exp(log - count * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where one side is constant or too short."""
    if len(first) < 2:  # noqa: PLR2004 - two points make the shortest line
        return None
    x, y = (_ranks(np.asarray(values)) for values in (first, second))
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / spread if spread > 0 else None


def _ranks(values: Numbers) -> Numbers:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Numbers = (ends + ends - counts + 1) / 2
    return means[inverse]


def krippendorff(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha for values on an interval scale (Krippendorff 2011); None where it is not defined.

    Args:
        units: the values that each unit was given, by however many judges; units with fewer than two say nothing.
    """
    pairable = [np.asarray(unit, dtype=np.float64) for unit in units if len(unit) > 1]
    if not pairable:
        return None
    values = np.concatenate(pairable)
    expected = _squares(values) / (len(values) * (len(values) - 1))
    if expected <= 0:
        return None
    observed = math.fsum(_squares(unit) / (len(unit) - 1) for unit in pairable) / len(values)
    return 1 - observed / expected


def _squares(values: Numbers) -> float:
    """The sum of the squared differences of all ordered pairs."""
    centred = values - values.mean()
    return float(2 * len(values) * (centred * centred).sum())
