"""How far answers agree with gold labels, while they come: a first sight of quality before the money is spent.

Counted over the rows of this life of the run that have gold. Nothing here decides anything; `score` gives every metric
over all rows of a run, with intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labels.codebook import Codebook, Dimension

NO_ANSWER = "(no answer)"


@dataclass(slots=True)
class Tally:
    """Gold against answers under one dimension."""

    dimension: Dimension
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Gold and answer, for dimensions with values; what has no labels is answered with `NO_ANSWER`."""
    numbers: int = 0
    error_sum: float = 0.0
    """Of the absolute differences, for numbers."""
    unanswered: int = 0

    def add(self, gold: Any, answer: Any) -> None:
        """Count one row; an answer of None is none."""
        if answer is None:
            self.unanswered += 1
        if self.dimension.kind == "number":
            if answer is not None:
                self.numbers += 1
                self.error_sum += abs(gold - answer)
            return
        self.pairs[spelled(gold), NO_ANSWER if answer is None else spelled(answer)] += 1

    @property
    def rows(self) -> int:
        """Rows with gold."""
        return self.numbers + self.unanswered if self.dimension.kind == "number" else self.pairs.total()

    @property
    def agreed(self) -> float | None:
        """The share of rows with gold whose answer is the same, missing ones wrong; None for numbers and no rows."""
        if not self.pairs:
            return None
        return sum(count for (gold, answer), count in self.pairs.items() if gold == answer) / self.pairs.total()

    @property
    def mean_error(self) -> float | None:
        """Of the numbers that were answered; None without any."""
        return self.error_sum / self.numbers if self.numbers else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa over the rows that were answered (Cohen 1960); None where it is not defined."""
        answered = {pair: count for pair, count in self.pairs.items() if pair[1] != NO_ANSWER}
        total = sum(answered.values())
        if not total:
            return None
        golds, answers = Counter[str](), Counter[str]()
        for (gold, answer), count in answered.items():
            golds[gold] += count
            answers[answer] += count
        chance = sum(golds[value] * answers[value] for value in golds) / total**2
        observed = sum(count for (gold, answer), count in answered.items() if gold == answer) / total
        return (observed - chance) / (1 - chance) if chance < 1 else None

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"rows": self.rows, "unanswered": self.unanswered}
        if self.dimension.kind == "number":
            return said | {"mean_absolute_error": self.mean_error}
        counts: dict[str, dict[str, int]] = {}
        for (gold, answer), count in sorted(self.pairs.items()):
            counts.setdefault(gold, {})[answer] = count
        return said | {"agreement": self.agreed, "kappa": self.kappa, "gold_to_answer": counts}


class Agreement:
    """Gold against answers under every dimension of a codebook."""

    def __init__(self, codebook: Codebook) -> None:
        self._tallies = {dimension.key: Tally(dimension) for dimension in codebook.dimensions}
        self._rows = 0

    def add(self, gold: Mapping[str, Any], labels: Mapping[str, Any] | None) -> None:
        """Count one row: the gold it has, and what was answered."""
        if not gold:
            return
        self._rows += 1
        for key, value in gold.items():
            self._tallies[key].add(value, None if labels is None else labels.get(key))

    def line(self) -> str | None:
        """For the panel; None before there is a row."""
        if not self._rows:
            return None
        parts = [f"{self._rows:,} rows with gold"]
        judged = [(tally.agreed, key) for key, tally in self._tallies.items() if tally.agreed is not None]
        if judged:
            pairs = sum(tally.pairs.total() for tally in self._tallies.values())
            same = sum(
                count for tally in self._tallies.values() for pair, count in tally.pairs.items() if pair[0] == pair[1]
            )
            share, lowest = min(judged)
            parts.append(f"{same / pairs:.1%} of labels agree")
            parts.append(f"least {lowest}, {share:.1%}")
        errors = [f"{key} off by {tally.mean_error:.2f}" for key, tally in self._tallies.items() if tally.mean_error]
        return " · ".join(parts + errors[:2])

    def as_json(self) -> dict[str, Any]:
        tallies = {key: tally.as_json() for key, tally in self._tallies.items() if tally.rows}
        return {"rows": self._rows, "dimensions": tallies}


def spelled(label: Any) -> str:
    """A label as one text: the values of a list in order, whatever order they came in."""
    return "|".join(sorted(label)) if isinstance(label, list) else str(label)
