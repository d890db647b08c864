"""Two models on a set of questions: means and intervals, wins, position bias, agreement of judges.

A cell is one judge seeing the answers in one order. What a question was given is averaged over the samples of each
cell, then over cells. It counts once every cell has scores: half a swap would bring back the bias that swapping takes
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from labels.judge.numbers import Interval, interval, krippendorff, resampled_means, sign_test, spearman, wilson
from labels.judge.plan import STRAIGHT, SWAPPED

Judge = str | None
Cell = tuple[Judge, str]
"""A judge and an order."""
Pair = tuple[float, float]
"""The scores of the first and the second model."""
Cells = Mapping[tuple[str, Cell], Sequence[Pair]]
"""What each question was given in each cell, one pair a sample; cells without scores are not there."""
EQUAL = 1e-9
"""Means that differ by less do so because of how they were added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The mean scores of both models, with 95 % intervals from whole questions drawn again."""

    first: float
    second: float
    first_interval: Interval | None
    second_interval: Interval | None
    difference_interval: Interval | None
    """Of the first less the second."""
    ratio_interval: Interval | None

    @property
    def difference(self) -> float:
        return self.first - self.second

    @property
    def ratio(self) -> float:
        """The second mean as a percentage of the first."""
        return 100 * self.second / self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Questions that the first model wins, ties and loses."""

    wins: int
    ties: int
    losses: int

    @property
    def p_value(self) -> float | None:
        """Of the sign test, ties left out."""
        return sign_test(self.wins, self.losses)

    @property
    def win_share(self) -> float | None:
        """Of the questions that have a winner."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None

    @property
    def win_interval(self) -> Interval | None:
        return wilson(self.wins, self.wins + self.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What it is worth to stand first, over pairs of answers that one judge has scored in both orders."""

    pairs: int
    bias: float
    """The first score less the second, averaged over both orders: 0 without bias, whichever model is better."""
    bias_interval: Interval | None
    flipped: int
    """Pairs whose verdict is another in the other order, ties included."""
    turned: int
    """Of these, the ones where each model wins once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoJudges:
    """How far two judges agree, over the questions that both have scored."""

    judges: tuple[Judge, Judge]
    questions: int
    rank_correlation: float | None
    """Spearman's, of the differences between the models."""
    same_verdict: float
    """The share of questions with the same winner, or with a tie for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the judges agree."""

    alpha: float | None
    """Krippendorff's, of the differences between the models; 1 is perfect, 0 is chance."""
    two: tuple[TwoJudges, ...]
    means: Mapping[str, Pair]
    """Of each judge, over the questions that it has scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The figures of one set of questions."""

    name: str
    questions: int
    """Asked."""
    counted: int
    means: Means | None
    """None where no question counts."""
    verdicts: Verdicts
    position: Position | None
    """None without a pair in both orders."""
    agreement: Agreement | None
    """None with one judge."""
    steady: float | None
    """Of what one judge scored several times in one order: the share with the same winner each time."""


def block_of(name: str, ids: Sequence[str], cells: Cells, *, wanted: Sequence[Cell], seed: int) -> Block:
    """The figures of these questions.

    Args:
        name: of the set.
        ids: the questions.
        cells: what they were given.
        wanted: the cells that a question needs to count.
        seed: of the bootstrap.
    """
    counted = by_question(ids, cells, wanted)
    differences = [first - second for first, second in counted.values()]
    judges = list(dict.fromkeys(judge for judge, _ in wanted))
    return Block(
        name=name,
        questions=len(ids),
        counted=len(counted),
        means=_means(list(counted.values()), seed=seed) if counted else None,
        verdicts=Verdicts(
            wins=sum(map(_is_win, differences)),
            ties=sum(not winner(difference) for difference in differences),
            losses=sum(winner(difference) < 0 for difference in differences),
        ),
        position=_position(ids, cells, judges, seed=seed),
        agreement=_agreement(ids, cells, wanted) if len(judges) > 1 else None,
        steady=_steady(ids, cells, wanted),
    )


def by_question(ids: Iterable[str], cells: Cells, wanted: Sequence[Cell]) -> dict[str, Pair]:
    """The scores of each question that has all its cells; each cell weighs the same."""
    return {
        question: _mean(_mean(cells[question, cell]) for cell in wanted)
        for question in ids
        if all((question, cell) in cells for cell in wanted)
    }


def winner(difference: float) -> int:
    """1 for the first model, -1 for the second, 0 for a tie."""
    return 0 if abs(difference) < EQUAL else 1 if difference > 0 else -1


def _is_win(difference: float) -> bool:
    return winner(difference) > 0


def _mean(pairs: Iterable[Pair]) -> Pair:
    firsts, seconds = zip(*pairs, strict=True)
    return fmean(firsts), fmean(seconds)


def _means(pairs: Sequence[Pair], *, seed: int) -> Means:
    first, second = _mean(pairs)
    drawn = resampled_means(np.array(pairs), seed=seed)
    few = len(pairs) < 2  # noqa: PLR2004 - from one question nothing can be drawn but it
    return Means(
        first=first,
        second=second,
        first_interval=None if few else interval(drawn[:, 0]),
        second_interval=None if few else interval(drawn[:, 1]),
        difference_interval=None if few else interval(drawn[:, 0] - drawn[:, 1]),
        ratio_interval=None if few else interval(100 * drawn[:, 1] / drawn[:, 0]),
    )


def _position(ids: Iterable[str], cells: Cells, judges: Sequence[Judge], *, seed: int) -> Position | None:
    found: list[Pair] = []
    biases: list[list[float]] = []
    for question in ids:
        here: list[Pair] = []
        for judge in judges:
            keys = [(question, (judge, order)) for order in (STRAIGHT, SWAPPED)]
            if all(key in cells for key in keys):
                straight, swapped = (first - second for first, second in (_mean(cells[key]) for key in keys))
                here.append((straight, swapped))
        if here:
            found += here
            biases.append([fmean((straight - swapped) / 2 for straight, swapped in here), len(here)])
    if not found:
        return None
    weighed = np.array([[bias * count, count] for bias, count in biases])
    drawn = resampled_means(weighed, seed=seed)
    verdicts = [(winner(straight), winner(swapped)) for straight, swapped in found]
    return Position(
        pairs=len(found),
        bias=fmean((straight - swapped) / 2 for straight, swapped in found),
        bias_interval=interval(drawn[:, 0] / drawn[:, 1]) if len(biases) > 1 else None,
        flipped=sum(one != other for one, other in verdicts),
        turned=sum(one == -other != 0 for one, other in verdicts),
    )


def _agreement(ids: Sequence[str], cells: Cells, wanted: Sequence[Cell]) -> Agreement:
    judges = list(dict.fromkeys(judge for judge, _ in wanted))
    given = {judge: by_question(ids, cells, [cell for cell in wanted if cell[0] == judge]) for judge in judges}
    differences = {
        judge: {question: first - second for question, (first, second) in found.items()}
        for judge, found in given.items()
    }
    units = [[of[question] for of in differences.values() if question in of] for question in ids]
    return Agreement(
        alpha=krippendorff(units),
        two=tuple(two for pair in combinations(judges, 2) if (two := _two_judges(pair, differences)) is not None),
        means={str(judge): _mean(found.values()) for judge, found in given.items() if found},
    )


def _two_judges(pair: tuple[Judge, Judge], differences: Mapping[Judge, Mapping[str, float]]) -> TwoJudges | None:
    one, other = (differences[judge] for judge in pair)
    both = [question for question in one if question in other]
    if not both:
        return None
    same = sum(winner(one[question]) == winner(other[question]) for question in both)
    return TwoJudges(
        judges=pair,
        questions=len(both),
        rank_correlation=spearman([one[question] for question in both], [other[question] for question in both]),
        same_verdict=same / len(both),
    )


def _steady(ids: Iterable[str], cells: Cells, wanted: Sequence[Cell]) -> float | None:
    repeated = [found for question in ids for cell in wanted if len(found := cells.get((question, cell), ())) > 1]
    if not repeated:
        return None
    return fmean(len({winner(first - second) for first, second in found}) == 1 for found in repeated)
