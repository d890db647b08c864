"""The provider's side of its rate limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from bench.scenario import Scenario


class Standing(NamedTuple):
    """How one limit stands. A tuple, since every answer makes two."""

    per_min: float
    here: float
    """What would be let in at once."""
    missing: float
    """What has been taken and not been refilled yet."""

    @property
    def full_in_s(self) -> float:
        return self.missing / (self.per_min / 60)

    @property
    def left_of_minute(self) -> int:
        """As providers count who enforce a limit per minute in shorter windows."""
        return max(0, math.floor(self.per_min - self.missing))


@dataclass(slots=True)
class TokenBucket:
    """One limit: refills steadily, holds one second's worth."""

    level: float = math.inf
    at_s: float = 0.0

    def take(self, amount: float, *, per_min: float, now_s: float) -> float:
        """Take and return 0, or leave it and return the seconds until it could be taken."""
        if not per_min:
            return 0.0
        per_s = per_min / 60
        full = max(per_s, 1.0)
        self.level = min(full, self.level + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        wanted = min(amount, full)
        if self.level >= wanted:
            self.level -= amount
            return 0.0
        return (wanted - self.level) / per_s

    def standing(self, *, per_min: float, now_s: float) -> Standing | None:
        """None where there is no limit. Takes nothing."""
        if not per_min:
            return None
        full = max(per_min / 60, 1.0)
        level = min(full, self.level + (now_s - self.at_s) * per_min / 60)
        return Standing(per_min=per_min, here=max(0.0, level), missing=full - level)


class RateLimits:
    """Both limits of a scenario. Times are seconds since it took effect."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._any = bool(scenario.requests_per_min or scenario.tokens_per_min)
        self._requests, self._tokens = TokenBucket(), TokenBucket()

    def take(self, *, tokens: float, since_s: float) -> tuple[str, float] | None:
        """None if a request is let in; else which limit it meets, and the seconds until it would not.

        A request that the token limit refuses has used up its share of the request limit, as with real providers.
        """
        if not self._any:
            return None
        factor = self._scenario.limit_factor(since_s)
        wait_s = self._requests.take(1, per_min=self._scenario.requests_per_min * factor, now_s=since_s)
        if wait_s:
            return "request", wait_s
        wait_s = self._tokens.take(tokens, per_min=self._scenario.tokens_per_min * factor, now_s=since_s)
        return ("token", wait_s) if wait_s else None

    def standing(self, since_s: float) -> tuple[Standing | None, Standing | None]:
        """How the limits of requests and of tokens stand."""
        factor = self._scenario.limit_factor(since_s)
        return (
            self._requests.standing(per_min=self._scenario.requests_per_min * factor, now_s=since_s),
            self._tokens.standing(per_min=self._scenario.tokens_per_min * factor, now_s=since_s),
        )
