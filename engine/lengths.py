"""How long a model's answers are, so that a call asks for what it will need and not for the most it could.

Providers count `max_tokens` against the token limit when a call begins, so a generous allowance throttles the run; a
tight one cuts answers off, and each of those is paid for twice. The start is near the length that ninety-nine answers
in a hundred stay below.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

FIRST_TOKENS = 512
"""Until enough answers are known; a label object of eleven keys takes about 130."""
ENOUGH = 200
"""Two answers lie above the 99th percentile then."""
SHARE, MARGIN = 0.99, 1.15
LEAST_TOKENS = 16
"""Below this some servers refuse (OpenAI's responses and o-series want 16)."""
STEP = math.log(1.02)
"""Lengths are told apart to two in a hundred."""
MEMORY = 20_000
"""Beyond so many answers the past counts half: prompts stay, but the videos of a year differ."""


class Lengths:
    """A histogram of completion lengths.

    Args:
        learnt: what `learnt()` gave in an earlier life.
    """

    def __init__(self, learnt: Mapping[str, Any] | None = None) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0
        self._start: int | None = None
        self._fresh = 0
        for bucket, count in (learnt or {}).items():
            self._counts[int(bucket)] += int(count)
            self._total += int(count)

    def add(self, tokens: int) -> None:
        """A whole answer took so many tokens; for one that stayed cut off, as many as it got."""
        self._counts[math.ceil(math.log(max(1, tokens)) / STEP)] += 1
        self._total += 1
        self._fresh += 1
        if self._total > MEMORY:
            self._counts = Counter({bucket: count // 2 for bucket, count in self._counts.items() if count > 1})
            self._total = self._counts.total()

    def start(self, cap: int) -> int:
        """The allowance for a first call."""
        if self._total < ENOUGH:
            return min(FIRST_TOKENS, cap)
        if self._start is None or self._fresh * 50 >= self._total:
            self._start, self._fresh = self._percentile(), 0
        return max(1, min(self._start, cap))

    def learnt(self) -> dict[str, int]:
        """For the next life, as JSON values."""
        return {str(bucket): count for bucket, count in sorted(self._counts.items())}

    def _percentile(self) -> int:
        left = self._total * (1 - SHARE)
        for bucket in sorted(self._counts, reverse=True):
            left -= self._counts[bucket]
            if left < 0:
                return max(LEAST_TOKENS, math.ceil(math.exp(bucket * STEP) * MARGIN))
        return FIRST_TOKENS
