"""The figures of the first scripts, which took --preds.

Parse rate, exact match, errors of numbers, and one line with precision, recall, F1 and counts for each label that
matters. An answer that is missing says no label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from labels.score.columns import Coder, is_yes_no
from labels.score.predictions import Predictions
from labels.score.replicas import memberships
from labels.score.report import Report, Scores
from labels.score.slots import ANSWERED, OF_NUMBERS, YES, Slot, thresholds
from labels.score.tables import Grid, number, text_of

SHORT = {"china_stance_score": "china_stance", "languages": "language"}
"""How the scripts called a dimension in the name of a class."""
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One label: how often it was rightly said, wrongly said, and not said."""

    name: str
    tp: int
    fp: int
    fn: int

    @property
    def scores(self) -> tuple[float, float, float]:
        """Precision, recall and F1."""
        return (
            _ratio(self.tp, self.tp + self.fp),
            _ratio(self.tp, self.tp + self.fn),
            _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
        )


def _ratio(above: int, below: int) -> float:
    return above / below if below else math.nan


def tallies(report: Report, model: Predictions) -> list[Tally]:
    """A line for each label, over all rows with gold."""
    found = []
    for coder in report.truth.scored:
        key = coder.dimension.key
        gold, said = report.truth.columns[key].view(), model.columns[key].view()
        for name, holds in _classes(coder, report):
            truly, claimed = holds(gold), holds(said)
            tp = int((truly & claimed).sum())
            found.append(Tally(name=name, tp=tp, fp=int(claimed.sum()) - tp, fn=int(truly.sum()) - tp))
    return found


def _classes(coder: Coder, report: Report) -> Iterator[tuple[str, Callable[[npt.NDArray[Any]], Truths]]]:
    """The labels of a dimension that get a line, and what tells which cells have them."""
    dimension = coder.dimension
    key = SHORT.get(dimension.key, dimension.key)
    if dimension.kind == "number":
        for label, (sign, bound) in thresholds(dimension, report.options).items():
            yield f"{key}_{label}", partial(_beyond, sign, bound)
        return
    members = memberships(coder) if dimension.kind == "list" else None
    for at, value in enumerate(dimension.values):
        if members is not None:
            yield f"{key}={value}", partial(_in, members[:, at])
        elif value == YES or not is_yes_no(dimension):
            yield f"{key}_{value}", partial(np.equal, at)


def _beyond(sign: float, bound: float, cells: npt.NDArray[Any]) -> Truths:
    return np.asarray(sign * cells > bound)


def _in(members: Truths, cells: npt.NDArray[Any]) -> Truths:
    return np.asarray(members[cells])


def block(report: Report) -> str:
    """All of it as text, each model in turn, then how the second differs from the first."""
    counted = [tallies(report, scores.predictions) for scores in report.models]
    parts = [_of_model(report, scores, found) for scores, found in zip(report.models, counted, strict=True)]
    parts += [text_of(_delta(report, counted[0], counted[at], at)) for at in range(1, len(counted))]
    return "\n\n".join(parts)


def _of_model(report: Report, scores: Scores, found: list[Tally]) -> str:
    model, rows = scores.predictions, len(report.truth)
    lines = [
        model.name,
        f"parse rate: {model.parsed:,}/{model.records:,} = {number(_ratio(model.parsed, model.records))}",
        f"exact match: {scores.exact_match:,}/{rows:,} = {number(_ratio(scores.exact_match, rows))}",
        *_regression(report, scores),
    ]
    rated = [
        (tally.name, *map(number, tally.scores), f"{tally.tp:,}", f"{tally.fp:,}", f"{tally.fn:,}") for tally in found
    ]
    grid = Grid(title="Labels", head=("label", "P", "R", "F1", "tp", "fp", "fn"), rows=tuple(rated))
    return "\n".join(lines) + "\n\n" + text_of(grid)


def _regression(report: Report, scores: Scores) -> Iterator[str]:
    for coder in report.truth.scored:
        key = coder.dimension.key
        if coder.dimension.kind == "number":
            found = (f"{name} {number(scores.estimates[key, Slot(ANSWERED, name)].value)}" for name in OF_NUMBERS)
            yield f"{key}, answered rows: " + ", ".join(found)


def _delta(report: Report, base: list[Tally], other: list[Tally], at: int) -> Grid:
    names = [scores.predictions.name for scores in report.models]
    rows = [
        (one.name, *(number(new - old, signed=True) for new, old in zip(two.scores, one.scores, strict=True)))
        for one, two in zip(base, other, strict=True)
    ]
    title = f"{names[at]} - {names[0]}"
    return Grid(title=title, head=("label", "delta P", "delta R", "delta F1"), rows=tuple(rows))
