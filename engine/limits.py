"""How many requests may be in flight and how fast they may start: the fastest a provider will really serve.

Every decision is a plain function of the state and a clock value: no waiting, no I/O, no chance. `call.py` asks,
waits as long as it is told, and reports what came of each call.

Two things are limited apart, because servers mean different things by them. A 429 says *too fast*: it steers a rate of
requests a second (`Throttle`). A 503, and seconds per output token going up, say *too many at once*: they steer a
window of requests in flight (`Crowd`). Latency as such steers nothing: longer answers take longer on an idle server.

1. Until one call was answered, two are in flight: a wrong key costs two calls.
2. A level grows only in time in which it was really used. It opens up fast until the server first objects. From then
   on it comes back to where the server objected, and goes past that slowly at first and then ever faster (`Climb`).
3. A cut is to what the server was seen to accept, not by a fixed factor: requests sent less requests refused, or the
   number in flight when it refused one more. Refusals of calls sent before a cut are no reason for another.
4. A refusal now and then, whatever the load, is no reason to slow down; a share of them is (`Leak`).
5. A trial above the limit costs refusals, or the pause the server asks for. The dearer, the rarer.
6. A cut for latency is an experiment: if calls sent after it are no faster, the server is slower for everyone; then
   the cut is undone and this is the new normal.
7. The user's ceilings hold whatever the server says; what servers say in headers only shortens the start.

The constants were chosen with `python cli.py bench limits`, where they are not given an origin of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config import LimitConfig
from engine.crowd import MOST_SAMPLES, Crowd
from engine.levels import FEW, LONGEST_PAUSE_S, TICK_S
from engine.throttle import Throttle

UNPROVEN_WINDOW, FIRST_WINDOW = 2, 64
"""Before the first answer, and after it: enough to see a server's pace, few enough not to be a burst."""
BURST_S = 0.1
"""What a bucket holds. Servers that enforce each tenth of a second (Azure, Together) must not see more."""
LARGEST = 1e300
"""Foreign numbers from here on count as infinite; a whole number may be too large for a float."""
SHORTEST_WAIT_S = 0.001
"""A refused admission asks no sooner, whatever the rate."""
HINT_SHARE = 0.8
"""Of a limit claimed in a header: where a start may begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatistics:
    """The limiter at one moment."""

    in_flight: int
    window: int
    rate_per_s: float | None
    """Requests a second; None while neither the user nor the server has set a limit."""
    paused_s: float
    """Seconds until the server's requested pause is over."""
    cuts: int
    blocked: str | None
    """What the last refused admission lacked: `window`, `rate`, `tokens`, `pause`; None if it was admitted."""
    admitted: int
    admitted_tokens: int
    """Reserved, before anything was given back."""


class Bucket:
    """Tokens that refill at a steady rate. `take` may run it into debt, which delays the next taker."""

    __slots__ = ("_at", "_burst", "_level", "_per_s")

    def __init__(self, per_s: float, *, now: float) -> None:
        self._at, self._per_s = now, per_s
        self._burst = self._level = max(per_s * BURST_S, 1.0)

    def refill_at(self, per_s: float, now: float) -> None:
        """Go on at another rate; what was earned so far stays earned."""
        self.wait_s(now, 0.0)
        self._per_s = per_s
        self._burst = max(per_s * BURST_S, 1.0)
        self._level = min(self._level, self._burst)

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; an amount above the burst waits for a full bucket."""
        burst = self._burst
        level = self._level + (now - self._at) * self._per_s
        level = min(level, burst)
        self._level, self._at = level, now
        missing = (min(burst, amount)) - level
        return missing / self._per_s if missing > 1e-9 else 0.0  # noqa: PLR2004 - rounding dust, not a limit

    def take(self, amount: float) -> None:
        """Take, or with a negative amount give back what a call did not use."""
        self._level = min(self._burst, self._level - amount)


class Limits:
    """The state behind every admission on one lane: one address, one key, one model.

    Args:
        config: the user's ceilings.
        now: the clock's first value, in seconds; every later value is at least the one before.
        learnt: what `learnt` gave in an earlier life; what makes no sense in it is ignored.
    """

    def __init__(self, config: LimitConfig, *, now: float, learnt: Mapping[str, Any] | None = None) -> None:
        known = learnt or {}
        self._adaptive = config.concurrency is None
        self._user_per_s = math.inf if config.requests_per_min is None else config.requests_per_min / 60
        first = config.concurrency or _positive(known.get("window")) or FIRST_WINDOW
        most = config.concurrency or max(1, config.max_concurrency)
        self._crowd = Crowd(max(1.0, first), most=most, fixed=not self._adaptive, now=now)
        self._throttle = Throttle(now=now, learnt_per_s=_positive(known.get("rate_per_s")))
        self._per_s = min(self._user_per_s, self._throttle.climb.level)
        self._requests = Bucket(self._per_s, now=now)
        self._tokens = None if config.tokens_per_min is None else Bucket(config.tokens_per_min / 60, now=now)
        self._proven = False
        self._window = 0
        self._in_flight = self._peak = self._admitted = self._admitted_tokens = self._answered = self._cuts = 0
        self._paused_until = self._tick_at = -math.inf
        self._blocked: str | None = None
        self._settle(now)

    def hold_to(self, config: LimitConfig, now: float) -> None:
        """Keep to other ceilings from now on; whether the window is fixed stays as it was."""
        self._user_per_s = math.inf if config.requests_per_min is None else config.requests_per_min / 60
        self._crowd.climb.allow(config.concurrency or max(1, config.max_concurrency))
        if config.concurrency is not None:
            self._crowd.climb.level = config.concurrency
        if self._tokens is not None and config.tokens_per_min is not None:
            self._tokens.refill_at(config.tokens_per_min / 60, now)
        self._settle(now)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def window(self) -> int:
        """Calls that may be in flight now."""
        return self._window

    def try_admit(self, now: float, tokens: int) -> float:
        """Take a slot, one request and its tokens, and return 0.

        Else nothing is taken. Returned are the seconds until it is worth asking again; `math.inf` is: when a slot is
        freed.
        """
        if now >= self._tick_at:
            self._tick(now)
        if now < self._paused_until:
            self._blocked = "pause"
            return self._paused_until - now
        if self._in_flight >= self._window:
            self._blocked = "window"
            return math.inf
        wait_s = self._requests.wait_s(now, 1.0)
        if wait_s:
            self._blocked = "rate"
            return max(wait_s, SHORTEST_WAIT_S)
        if self._tokens is not None:
            wait_s = self._tokens.wait_s(now, tokens)
            if wait_s:
                self._blocked = "tokens"
                return max(wait_s, SHORTEST_WAIT_S)
            self._tokens.take(tokens)
        self._requests.take(1.0)
        self._blocked = None
        self._admitted += 1
        self._admitted_tokens += tokens
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        return 0.0

    def answered(
        self, now: float, *, reserved_tokens: int, used_tokens: int, latency_s: float, output_tokens: int | None
    ) -> None:
        """An answer came. The slot is free and tokens not used are given back."""
        self._free(max(0, reserved_tokens - used_tokens))
        self._answered += 1
        crowd = self._crowd
        if len(crowd.samples) < MOST_SAMPLES and 0 < latency_s <= now - crowd.sampled_from:
            crowd.samples.append((output_tokens or 0, latency_s))
        if not self._proven:
            self._proven = True
            self._settle(now)
        if now >= self._tick_at:
            self._tick(now)

    def rate_limited(self, now: float, *, reserved_tokens: int, retry_after_s: float | None) -> None:
        """429 came. The slot is free and all tokens are given back."""
        self._free(reserved_tokens)
        pause_s = _pause_s(retry_after_s)
        self._cuts += self._throttle.refused(now, admitted=self._admitted, pause_s=pause_s)
        if self._throttle.believed:
            self._paused_until = max(self._paused_until, now + pause_s)
        self._settle(now)

    def overloaded(self, now: float, *, reserved_tokens: int, latency_s: float, retry_after_s: float | None) -> None:
        """503 or another 5xx came. The slot is free and all tokens are given back."""
        self._free(reserved_tokens)
        pause_s, crowd = _pause_s(retry_after_s), self._crowd
        if self._proven:
            self._cuts += crowd.refused(
                now, in_flight=self._in_flight, admitted=self._admitted, sent_at=now - latency_s, pause_s=pause_s
            )
        if crowd.believed or self._admitted < FEW:
            self._paused_until = max(self._paused_until, now + pause_s)
        self._settle(now)

    def failed(self, now: float, *, reserved_tokens: int) -> None:  # noqa: ARG002 - says nothing of limits
        """No reply, or one that says nothing of limits. The slot is free and all tokens are given back."""
        self._free(reserved_tokens)

    def hint(self, now: float, *, requests_per_s: float | None, tokens_per_s: float | None) -> None:
        """What headers claim the limits are. It may shorten the paced start and nothing else."""
        climb = self._throttle.climb
        said = [value for value in (_positive(requests_per_s), self._in_requests(_positive(tokens_per_s))) if value]
        if said and climb.ceiling is None and (target := HINT_SHARE * min(said)) > climb.level:
            climb.start_from(target)
            self._settle(now)

    def learnt(self) -> dict[str, Any]:
        """JSON values for the next life of this lane."""
        return {"window": self._crowd.climb.level, "rate_per_s": self._throttle.climb.ceiling}

    def statistics(self, now: float) -> LimitStatistics:
        known = self._user_per_s < math.inf or self._throttle.climb.ceiling is not None
        return LimitStatistics(
            in_flight=self._in_flight,
            window=self._window,
            rate_per_s=self._per_s if known else None,
            paused_s=max(0.0, self._paused_until - now),
            cuts=self._cuts,
            blocked=self._blocked,
            admitted=self._admitted,
            admitted_tokens=self._admitted_tokens,
        )

    def _free(self, unused_tokens: int) -> None:
        self._in_flight -= 1
        if self._tokens is not None:
            self._tokens.take(-unused_tokens)

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK_S
        self._throttle.tick(now, admitted=self._admitted)
        if self._adaptive and self._proven:
            self._cuts += self._crowd.tick(
                now, in_flight=self._in_flight, peak=self._peak, answered=self._answered, admitted=self._admitted
            )
        self._peak = self._in_flight
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Let the levels become what admissions are held to."""
        window = int(self._crowd.climb.level + 0.5)
        self._window = window if self._proven else min(window, UNPROVEN_WINDOW)
        per_s = min(self._user_per_s, self._throttle.climb.level)
        if per_s != self._per_s:
            self._per_s = per_s
            self._requests.refill_at(per_s, now)

    def _in_requests(self, tokens_per_s: float | None) -> float | None:
        if tokens_per_s is None or not self._admitted_tokens:
            return None
        return tokens_per_s * self._admitted / self._admitted_tokens


def _pause_s(retry_after_s: float | None) -> float:
    """As long as the server asks, if that makes sense."""
    return min(_positive(retry_after_s) or 0.0, LONGEST_PAUSE_S)


def _positive(value: Any) -> float | None:
    """A foreign value if it is a number above 0 and finite."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST
    return float(value) if usable else None
