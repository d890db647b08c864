"""Whether answers change while a run lasts: the shares of the labels, and how many rows are refused or unreadable.

Answers are taken in blocks as they come. Each whole block is held against all blocks before it, label by label, by the
two-proportion z test. An alarm needs both a difference that matters and one that chance does not make: at z = 6 a run
of a million rows and fifty labels raises a false one with a probability of about 0.0002 (2e-9 a test, 1e5 tests). An
input in the order of time or topic may drift by itself: an alarm says that a person should look, no more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from labels.codebook import Codebook, Dimension

BLOCK_ROWS = 500
LEAST_Z = 6.0
LEAST_DIFFERENCE = 0.1
LEAST_REFUSED_DIFFERENCE = 0.05
"""Refusals are rare where all is well, and each of them is paid for."""
REFUSED = ("", "without labels")
THIRDS = ("low", "middle", "high")

Label = tuple[str, str]
"""A dimension and one of its values."""


class Drift:
    """The shares of labels, block by block."""

    def __init__(self, codebook: Codebook, *, block_rows: int = BLOCK_ROWS) -> None:
        self._dimensions = codebook.dimensions
        self._block_rows = block_rows
        self._block: list[Mapping[str, Any]] = []
        """Of the rows with labels; they are counted when the block is whole, a dimension at a time."""
        self._block_seen = 0
        self._before: Counter[Label] = Counter()
        self._before_seen = self._before_read = 0
        self._told: set[str] = set()
        self.alarms: list[str] = []
        """One a dimension and life of the run."""

    def add(self, labels: Mapping[str, Any] | None) -> None:
        """Count one row that was asked about; None if no labels came of it."""
        self._block_seen += 1
        if labels is not None:
            self._block.append(labels)
        if self._block_seen == self._block_rows:
            self._close_block()

    @property
    def refused_share(self) -> float | None:
        """Of the rows so far; None before there is one."""
        seen = self._before_seen + self._block_seen
        return (seen - self._before_read - len(self._block)) / seen if seen else None

    def as_json(self) -> dict[str, Any]:
        total, read = self._before + self._counted(), self._before_read + len(self._block)
        shares: dict[str, dict[str, float]] = {}
        for (key, value), count in sorted(total.items()):
            if key:
                shares.setdefault(key, {})[value] = count / read
        return {"refused_share": self.refused_share, "label_shares": shares, "alarms": list(self.alarms)}

    def _counted(self) -> Counter[Label]:
        """The labels of the block."""
        rows = self._block
        counts = Counter({REFUSED: self._block_seen - len(rows)})
        for dimension in self._dimensions:
            key = dimension.key
            if dimension.kind == "categorical":
                counts.update({(key, value): count for value, count in Counter(row[key] for row in rows).items()})
            else:
                counts.update(label for row in rows for label in _labels_of(dimension, row[key]))
        return counts

    def _close_block(self) -> None:
        block, read = self._counted(), len(self._block)
        if self._before_seen:
            for label in self._before.keys() | block.keys():
                self._compare(label, block[label], read=read)
        self._before += block
        self._before_seen += self._block_seen
        self._before_read += read
        self._block, self._block_seen = [], 0

    def _compare(self, label: Label, count: int, *, read: int) -> None:
        """Hold the block's count of a label, of so many rows with labels, against those before."""
        key, value = label
        refusal = label == REFUSED
        before, block = (self._before_seen, self._block_seen) if refusal else (self._before_read, read)
        if not before or not block or key in self._told:
            return
        then, now = self._before[label] / before, count / block
        least = LEAST_REFUSED_DIFFERENCE if refusal else LEAST_DIFFERENCE
        if abs(now - then) < least or abs(z_of(then, before, now, block)) < LEAST_Z:
            return
        self._told.add(key)
        what = "rows end without labels" if refusal else f'{key} is "{value}"'
        self.alarms.append(
            f"{what} in {now:.1%} of the last {self._block_seen:,} answers, {then:.1%} before; "
            "see whether the input, the model or the provider has changed"
        )


def z_of(then: float, before: int, now: float, block: int) -> float:
    """The two-proportion z statistic, with the pooled share (Fleiss, Statistical Methods for Rates and Proportions)."""
    pooled = (then * before + now * block) / (before + block)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / before + 1 / block))
    return (now - then) / spread if spread else 0.0


def _labels_of(dimension: Dimension, label: Any) -> list[Label]:
    """What a list, a number or the mark of what was not asked counts as."""
    if isinstance(label, str):
        return [(dimension.key, label)]
    if isinstance(label, list):
        return [(dimension.key, value) for value in label]
    share = (label - dimension.minimum) / (dimension.maximum - dimension.minimum)
    return [(dimension.key, THIRDS[min(2, int(share * 3))])]
