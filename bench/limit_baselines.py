"""Other ways to decide how much to send, with the defaults of their books, behind the interface of `Limits`."""

from __future__ import annotations

import math
from typing import Any, Protocol

MOST = 2048


class Controller(Protocol):
    """What the simulated client asks."""

    @property
    def in_flight(self) -> int: ...
    @property
    def window(self) -> int: ...
    def try_admit(self, now: float, tokens: int) -> float: ...
    def answered(
        self, now: float, *, reserved_tokens: int, used_tokens: int, latency_s: float, output_tokens: int | None
    ) -> None: ...
    def rate_limited(self, now: float, *, reserved_tokens: int, retry_after_s: float | None) -> None: ...
    def overloaded(
        self, now: float, *, reserved_tokens: int, latency_s: float, retry_after_s: float | None
    ) -> None: ...
    def failed(self, now: float, *, reserved_tokens: int) -> None: ...
    def hint(self, now: float, *, requests_per_s: float | None, tokens_per_s: float | None) -> None: ...


class Window:
    """No control: so many in flight, whatever comes back."""

    def __init__(self, start: float) -> None:
        self.limit = start
        self.in_flight = 0

    @property
    def window(self) -> int:
        return int(self.limit)

    def try_admit(self, now: float, tokens: int) -> float:  # noqa: ARG002 - only rate controllers look at them
        if self.in_flight >= int(self.limit):
            return math.inf
        self.in_flight += 1
        return 0.0

    def answered(self, now: float, *, latency_s: float, **_: Any) -> None:  # noqa: ARG002
        self._sample(latency_s, dropped=False)
        self.in_flight -= 1

    def rate_limited(self, now: float, **_: Any) -> None:  # noqa: ARG002
        self._sample(0.0, dropped=True)
        self.in_flight -= 1

    def overloaded(self, now: float, **_: Any) -> None:  # noqa: ARG002
        self._sample(0.0, dropped=True)
        self.in_flight -= 1

    def failed(self, now: float, **_: Any) -> None:  # noqa: ARG002
        self.in_flight -= 1

    def hint(self, now: float, **_: Any) -> None:
        pass

    def _sample(self, latency_s: float, *, dropped: bool) -> None:
        pass


class Aimd(Window):
    """Netflix concurrency-limits, AIMDLimit: x0.9 on a drop, else +1 if half used; 20 to begin with and at least."""

    def __init__(self) -> None:
        super().__init__(20.0)

    def _sample(self, latency_s: float, *, dropped: bool) -> None:  # noqa: ARG002 - its time-out of 5 s is left out
        if dropped:
            self.limit = max(20.0, self.limit * 0.9)
        elif self.in_flight * 2 >= self.limit:
            self.limit = min(MOST, self.limit + 1)


class Gradient2(Window):
    """Netflix concurrency-limits, Gradient2Limit: smoothing 0.2, tolerance 1.5, long window 600, queue 4."""

    def __init__(self) -> None:
        super().__init__(20.0)
        self._long_s = 0.0

    def _sample(self, latency_s: float, *, dropped: bool) -> None:
        if dropped:
            return
        self._long_s += (latency_s - self._long_s) * (2 / 601 if self._long_s else 1.0)
        if self._long_s / latency_s > 2:  # noqa: PLR2004 - its own constant
            self._long_s *= 0.95
        if self.in_flight < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long_s / latency_s))
        self.limit = min(MOST, max(20.0, self.limit * 0.8 + 0.2 * (self.limit * gradient + 4)))


class FixedRate(Window):
    """A user who knows the right rate when the run starts, and does not touch it again."""

    def __init__(self, per_s: float) -> None:
        super().__init__(MOST)
        self._per_s, self._next_at = per_s, 0.0

    def try_admit(self, now: float, tokens: int) -> float:
        if now < self._next_at:
            return self._next_at - now
        wait_s = super().try_admit(now, tokens)
        if not wait_s:
            self._next_at = max(self._next_at + 1 / self._per_s, now - 0.05)
        return wait_s
