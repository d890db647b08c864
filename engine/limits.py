"""How many requests may be in flight and how fast they may start.

Every decision is a plain function of the state and a clock value: no waiting, no I/O. `call.py` asks, waits as long
as it is told, and reports what came of each call.

Two things are limited apart, because servers mean different things by them: a *rate* (requests and tokens a minute,
two token buckets holding at most one second's worth, so that a burst never exceeds what one second allows) and a
*window* (requests in flight). With a fixed concurrency the window stands still. Otherwise it grows while it is really
used and the server keeps up, and is cut once per episode when the server says it is out of capacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.config import LimitConfig

FIRST_WINDOW = 64
"""Where an adaptive window starts: enough to see a server's pace, few enough not to be a burst."""
GROWTH, GROWTH_AFTER_CUT = 1.15, 1.03
"""Per step, before the first cut and after it."""
STEP_S = 2.0
"""Growth is considered, and an episode of cuts lasts, so long at least."""
USED_SHARE = 0.8
"""A window that was not used to this share tells nothing and does not grow."""
CUT = 0.7
LONGEST_PAUSE_S = 120.0
"""A server's wish for a longer pause is asked again after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatistics:
    """The limiter at one moment."""

    in_flight: int
    window: int
    open_rows: int
    open_bytes: int
    paused_s: float
    """Seconds until the server's requested pause is over."""
    cuts: int
    blocked: str | None
    """What the last refused admission lacked: `window`, `rate`, `tokens`, `pause`."""


class Bucket:
    """Tokens that refill at a steady rate. `take` may run it into debt, which delays the next taker."""

    def __init__(self, per_min: float | None, *, now: float) -> None:
        self._per_s = math.inf if per_min is None else per_min / 60
        # Below one second of burst, but never below one request: a limit under 60/min must still admit.
        self._burst = max(self._per_s, 1.0)
        self._level = min(self._burst, self._per_s)
        self._at = now

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; an amount above the burst waits for a full bucket."""
        if self._per_s == math.inf:
            return 0.0
        self._level = min(self._burst, self._level + (now - self._at) * self._per_s)
        self._at = now
        missing = min(amount, self._burst) - self._level
        return missing / self._per_s if missing > 1e-9 else 0.0  # noqa: PLR2004 - rounding dust, not a limit

    def take(self, amount: float) -> None:
        """Take, or with a negative amount give back what a call did not use."""
        if self._per_s != math.inf:
            self._level = min(self._burst, self._level - amount)


class Limits:
    """The state behind every admission.

    Args:
        config: the user's ceilings.
        now: the clock's first value, in seconds; every later value is at least the one before.
    """

    def __init__(self, config: LimitConfig, *, now: float) -> None:
        self._config = config
        self._requests = Bucket(config.requests_per_min, now=now)
        self._tokens = Bucket(config.tokens_per_min, now=now)
        self._window = float(config.concurrency or min(FIRST_WINDOW, config.max_concurrency))
        self._adaptive = config.concurrency is None
        self._in_flight = 0
        self._peak = 0
        self._step_at = now
        self._cut_at = -math.inf
        self._cuts = 0
        self._paused_until = -math.inf
        self._open_rows = 0
        self._open_bytes = 0
        self._blocked: str | None = None

    def may_open(self, n_bytes: int) -> bool:
        """Whether another encoded row may be held. One row is always allowed, however large."""
        if self._open_rows == 0:
            return True
        # Rows that wait for a retry hold no slot; as many again as the window keeps it busy without piling up.
        return self._open_bytes + n_bytes <= self._config.max_open_bytes and self._open_rows < 2 * self._window

    def open(self, n_bytes: int) -> None:
        self._open_rows += 1
        self._open_bytes += n_bytes

    def close(self, n_bytes: int) -> None:
        self._open_rows -= 1
        self._open_bytes -= n_bytes

    def try_admit(self, now: float, tokens: int) -> float:
        """Take a slot and the tokens of one call.

        Returns:
            0 if admitted; otherwise seconds until it is worth asking again, infinity meaning when a slot is freed.
        """
        if self._in_flight >= int(self._window):
            self._blocked = "window"
            return math.inf
        waits = {
            "pause": self._paused_until - now,
            "rate": self._requests.wait_s(now, 1),
            "tokens": self._tokens.wait_s(now, tokens),
        }
        reason, wait_s = max(waits.items(), key=lambda item: item[1])
        if wait_s > 0:
            self._blocked = reason
            return wait_s
        self._requests.take(1)
        self._tokens.take(tokens)
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        return 0.0

    def release(self, now: float, *, reserved_tokens: int, used_tokens: int) -> None:
        """A call has ended, well or badly: its slot is free and its unused tokens go back."""
        self._in_flight -= 1
        self._tokens.take(used_tokens - reserved_tokens)
        if self._adaptive and now - self._step_at >= STEP_S:
            self._grow(now)

    def pause(self, now: float, seconds: float) -> None:
        """The server asked for silence. The longest wish wins; none is obeyed beyond `LONGEST_PAUSE_S`."""
        self._paused_until = max(self._paused_until, now + min(seconds, LONGEST_PAUSE_S))

    def overloaded(self, now: float) -> None:
        """The server is out of capacity: cut the window, once per episode."""
        if self._adaptive and now - self._cut_at >= STEP_S:
            self._window = max(1.0, min(self._window, self._in_flight) * CUT)
            self._cut_at = self._step_at = now
            self._cuts += 1
            self._peak = self._in_flight

    def statistics(self, now: float) -> LimitStatistics:
        return LimitStatistics(
            in_flight=self._in_flight,
            window=int(self._window),
            open_rows=self._open_rows,
            open_bytes=self._open_bytes,
            paused_s=max(0.0, self._paused_until - now),
            cuts=self._cuts,
            blocked=self._blocked,
        )

    def _grow(self, now: float) -> None:
        if self._peak >= USED_SHARE * self._window:
            factor = GROWTH_AFTER_CUT if self._cuts else GROWTH
            self._window = min(self._config.max_concurrency, max(self._window * factor, self._window + 1))
        self._peak = self._in_flight
        self._step_at = now
