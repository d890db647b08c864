"""What the calls of a run have cost, every attempt of every life, and whether one more may be made.

Unknown is not zero: a call that may have been charged and did not say what it took counts as unknown in the books, and
as its worst case against the ceiling. What calls in flight may cost at most is reserved before they are sent, so the
ceiling is not passed by what comes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.types import Usage

IN_FLIGHT, RESERVED = "in_flight", "reserved_usd"
"""How many calls were on their way, and what they could cost at most. A life that closes leaves none."""


def usage_in(spent: Mapping[str, Any]) -> Usage:
    """The tokens in what `Books.as_json()` gave."""
    return Usage(**{name: int(spent[name]) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")})


class Books:
    """Money and tokens of one run.

    Args:
        max_cost_usd: the ceiling over all lives, or None.
        spent: what `as_json()` gave in an earlier life.
    """

    def __init__(self, max_cost_usd: float | None = None, spent: Mapping[str, Any] | None = None) -> None:
        said = spent or {}
        self.ceiling_usd = math.inf if max_cost_usd is None else max_cost_usd
        """May be raised while calls are made."""
        self.cost_usd = float(said.get("cost_usd", 0.0))
        """Of the calls whose price and usage are known."""
        self.unknown_usd = float(said.get("unknown_usd", 0.0))
        """The worst case of the others, as far as it has a price."""
        self.unknown_calls = int(said.get("unknown_calls", 0))
        """Calls that may have been charged and said no usage."""
        self.unpriced_calls = int(said.get("unpriced_calls", 0))
        """Calls with a usage and no price."""
        self._prompt_tokens = int(said.get("prompt_tokens", 0))
        self._completion_tokens = int(said.get("completion_tokens", 0))
        self._cached_tokens = int(said.get("cached_tokens", 0))
        # An earlier life did not live to see what became of these.
        self.unknown_calls += int(said.get(IN_FLIGHT, 0))
        self.unknown_usd += float(said.get(RESERVED, 0.0))
        self.reserved_usd = 0.0
        self._in_flight = 0

    @property
    def usage(self) -> Usage:
        """Of every call that said what it took."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
        )

    def reserve(self, worst_usd: float) -> bool:
        """Set aside what a call may cost at most; False if that could pass the ceiling."""
        if self.cost_usd + self.unknown_usd + self.reserved_usd + worst_usd > self.ceiling_usd:
            return False
        self.reserved_usd += worst_usd
        self._in_flight += 1
        return True

    def free(self, worst_usd: float) -> None:
        """A call ended without being charged."""
        self._in_flight = max(0, self._in_flight - 1)
        # What is left of sums of fractions is no call's.
        self.reserved_usd = max(0.0, self.reserved_usd - worst_usd) if self._in_flight else 0.0

    def charged(self, worst_usd: float, usage: Usage, cost_usd: float | None) -> None:
        """A call ended and said what it took; `cost_usd` is None without a price."""
        self.free(worst_usd)
        self._prompt_tokens += usage.prompt_tokens
        self._completion_tokens += usage.completion_tokens
        self._cached_tokens += usage.cached_tokens
        if cost_usd is None:
            self.unpriced_calls += 1
        else:
            self.cost_usd += cost_usd

    def charged_unknown(self, worst_usd: float) -> None:
        """A call ended, may have been charged, and did not say."""
        self.free(worst_usd)
        self.unknown_calls += 1
        self.unknown_usd += worst_usd

    def in_words(self) -> str:
        """What was spent, for whoever is stopped by that, and what to do about it."""
        unknown = f" and at most ${self.unknown_usd:,.4f} of unknown cost" if self.unknown_calls else ""
        return f"${self.cost_usd:,.4f}{unknown} spent over all lives of this run. Raise --max-cost to go on"

    def as_json(self) -> dict[str, float]:
        """For the next life, which counts those in flight as unknown: they may have been charged."""
        return {
            "cost_usd": self.cost_usd,
            "unknown_usd": self.unknown_usd,
            "unknown_calls": self.unknown_calls,
            "unpriced_calls": self.unpriced_calls,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "cached_tokens": self._cached_tokens,
            IN_FLIGHT: self._in_flight,
            RESERVED: self.reserved_usd,
        }
