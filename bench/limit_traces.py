"""Simulated providers for the limit controllers: what they allow, second by second, and how they answer.

The provider has a bucket of requests and one of tokens (429), slots and a queue (503), or neither and only gets slower.
Times are virtual seconds.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DURATION_S = 900
PLENTY = 1e9
"""A limit that is none."""

REFUSAL_S, NETWORK_FAILURE_S = 0.05, 0.2
"""From sending to a refusal, and to a failure without a reply."""

Curve = tuple[float, ...]
"""One value for each second of a trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One provider, for one quarter of an hour unless said otherwise."""

    name: str
    held_out: bool = False
    """Made after the rules, which were then only repaired where they failed outright, not tuned."""
    limit_per_s: Curve = ()
    """Requests; above it 429. Empty is no limit, likewise below."""
    tokens_per_s: Curve = ()
    slots: Curve = ()
    """Calls worked on at once; the others queue."""
    queue: float = math.inf
    """Beyond so many waiting, 503."""
    sharing: float = 0.0
    """If not 0 nothing queues: above `slots` seconds per token grow as (active / slots) to this power."""
    down: tuple[tuple[float, float], ...] = ()
    """From and until when every call fails as network."""
    burst_s: float = 1.0
    """Worth of the server's own bucket."""
    retry_after: str = "none"
    """`none`, `ceil` (whole seconds), `exact`, or a number of seconds."""
    jitter_s: float = 0.0
    """Up to so long a request is under way before the server counts it."""
    ttft_s: float = 0.5
    s_per_token: float = 0.05
    output_tokens: Curve = ()
    """The median; 200 unless said otherwise."""
    slowness: Curve = ()
    """Latency times this."""
    stragglers: tuple[float, float] = (0.0, 1.0)
    """A share of calls, and how many times longer they take."""
    random_errors: tuple[float, int] = (0.0, 500)
    """A share of requests answered at once with this status, whatever the load."""
    random_wait_s: float | None = None
    """The Retry-After of those."""
    usage: bool = True
    """Whether answers say how many tokens they had."""
    hints: tuple[float | None, float | None] = (None, None)
    """Requests and tokens a second, in the headers of each answer."""
    prompt_tokens: tuple[float, float] = (2000.0, 0.0)
    """Median, and sigma of the logarithm."""
    duration_s: int = DURATION_S


SIGMA = 0.5
"""Of the logarithm of output lengths: one call in a hundred is 3.2 times the median."""
MAX_TOKENS = 512
"""Reserved for the answer by every request."""


def at(curve: Curve, now: float, otherwise: float) -> float:
    return curve[min(int(now), len(curve) - 1)] if curve else otherwise


def mean_service_s(trace: Trace, now: float) -> float:
    """From admission to the last byte, without any queue."""
    tokens = at(trace.output_tokens, now, 200.0) * math.exp(SIGMA**2 / 2)
    share, factor = trace.stragglers
    service_s = trace.ttft_s + tokens * trace.s_per_token
    return service_s * at(trace.slowness, now, 1.0) * (1 + share * (factor - 1))


def ideal_per_s(trace: Trace, now: float, *, most_in_flight: int = 2048) -> float:
    """What a client that knows everything gets in this second."""
    if any(start <= now < end for start, end in trace.down):
        return 0.0
    service_s = mean_service_s(trace, now)
    median, sigma = trace.prompt_tokens
    tokens = median * math.exp(sigma**2 / 2) + MAX_TOKENS
    served = (1 - trace.random_errors[0]) * at(trace.limit_per_s, now, PLENTY)
    slots = at(trace.slots, now, PLENTY)
    return min(served, at(trace.tokens_per_s, now, PLENTY) / tokens, min(slots, most_in_flight) / service_s)


def ideal(trace: Trace) -> float:
    """Answers over the whole trace; what is sent in the last service time is not back before the end for anyone."""
    last_s = max(1, round(trace.duration_s - mean_service_s(trace, trace.duration_s)))
    return sum(ideal_per_s(trace, second) for second in range(last_s))


@dataclass(slots=True)
class Call:
    """A row under way, and how often it was sent."""

    tokens: int
    output_tokens: int
    sent: int = 0
    sent_at: float = 0.0


class Server:
    """The simulated provider. `arrive` refuses, queues or starts; ends come back as events."""

    def __init__(self, trace: Trace, rng: random.Random, push: Callable[[float, str, Any], None]) -> None:
        self._trace, self._rng, self._push = trace, rng, push
        self._levels = {"limit": PLENTY, "tokens": PLENTY}
        self._refilled_at = 0.0
        self._queue: deque[Call] = deque()
        self.active: dict[int, Call] = {}

    def arrive(self, now: float, call: Call) -> None:
        if any(start <= now < end for start, end in self._trace.down):
            self._push(now + NETWORK_FAILURE_S, "failed", call)
            return
        share, status = self._trace.random_errors
        if share and self._rng.random() < share:
            self._push(now + REFUSAL_S, "429" if status == 429 else "503", (call, self._trace.random_wait_s))  # noqa: PLR2004
            return
        wait_s = self._over_limit(now, call.tokens)
        if wait_s:
            self._push(now + REFUSAL_S, "429", (call, self._retry_after_s(wait_s)))
        elif self._trace.sharing or len(self.active) < at(self._trace.slots, now, PLENTY):
            self._start(now, call)
        elif len(self._queue) < self._trace.queue:
            self._queue.append(call)
        else:
            self._push(now + REFUSAL_S, "503", (call, self._retry_after_s(1.0)))

    def end(self, now: float, call: Call) -> bool:
        """Whether this call was still being worked on; its slot goes to the next."""
        if self.active.pop(id(call), None) is None:
            return False
        while self._queue and len(self.active) < at(self._trace.slots, now, PLENTY):
            self._start(now, self._queue.popleft())
        return True

    def vanish(self) -> list[Call]:
        lost = [*self.active.values(), *self._queue]
        self.active.clear()
        self._queue.clear()
        return lost

    def _start(self, now: float, call: Call) -> None:
        self.active[id(call)] = call
        trace = self._trace
        per_token_s = trace.s_per_token
        if trace.sharing:
            per_token_s *= max(1.0, len(self.active) / at(trace.slots, now, PLENTY)) ** trace.sharing
        service_s = (trace.ttft_s + call.output_tokens * per_token_s) * at(trace.slowness, now, 1.0)
        share, factor = trace.stragglers
        if share and self._rng.random() < share:
            service_s *= factor
        self._push(now + service_s, "end", call)

    def _over_limit(self, now: float, tokens: int) -> float:
        """Seconds until this request would not be over a limit; 0 takes it."""
        passed_s, self._refilled_at = now - self._refilled_at, now
        wait_s = 0.0
        takes = {}
        curves = {"limit": (self._trace.limit_per_s, 1), "tokens": (self._trace.tokens_per_s, tokens)}
        for name, (curve, amount) in curves.items():
            if curve:
                per_s = at(curve, now, PLENTY)
                full = max(per_s * self._trace.burst_s, 1.0)
                self._levels[name] = min(full, self._levels[name] + passed_s * per_s)
                missing = min(amount, full) - self._levels[name]
                wait_s = max(wait_s, missing / per_s)
                takes[name] = amount
        if wait_s > 0:
            return wait_s
        for name, amount in takes.items():
            self._levels[name] -= amount
        return 0.0

    def _retry_after_s(self, wait_s: float) -> float | None:
        match self._trace.retry_after:
            case "none":
                return None
            case "exact":
                return wait_s
            case "ceil":
                return float(math.ceil(wait_s))
            case fixed:
                return float(fixed)


def curve(value: Callable[[int], float], *, duration_s: int = DURATION_S) -> Curve:
    return tuple(value(second) for second in range(duration_s))


def steps(*marks: tuple[int, float]) -> Curve:
    """Constant from each mark to the next."""
    return curve(lambda second: next(value for start, value in reversed(marks) if second >= start))


def walk(seed: int, start: float, *, every_s: int, sigma: float, low: float, high: float) -> Curve:
    """A random walk of the logarithm, held for `every_s` seconds at a time."""
    rng, value, values = random.Random(seed), start, []
    for second in range(DURATION_S):
        if second and second % every_s == 0:
            value = min(high, max(low, value * math.exp(rng.gauss(0.0, sigma))))
        values.append(value)
    return tuple(values)


def wave(low: float, high: float, period_s: float) -> Curve:
    return curve(lambda s: low + (high - low) * (0.5 + 0.5 * math.cos(2 * math.pi * s / period_s)))


NAMED = (
    Trace(name="steady", limit_per_s=steps((0, 40))),
    Trace(name="step down x0.2", limit_per_s=steps((0, 40), (300, 8))),
    Trace(name="step up x2", limit_per_s=steps((0, 40), (300, 80)), retry_after="ceil"),
    Trace(name="step up x5", limit_per_s=steps((0, 20), (300, 100))),
    Trace(name="sawtooth", limit_per_s=curve(lambda s: 20 + 40 * (s % 150) / 150)),
    Trace(name="capacity waves", slots=wave(200, 800, 200), queue=50),
    Trace(name="longer outputs", limit_per_s=steps((0, 40)), output_tokens=steps((0, 100), (300, 400))),
    Trace(name="outage 2 min", limit_per_s=steps((0, 40)), down=((300, 420),)),
    Trace(name="self-hosted queue", slots=steps((0, 128)), sharing=1.0, s_per_token=0.02),
)
"""What the controller is for."""


def ramp(start: float, end: float, *, until_s: int) -> Curve:
    return curve(lambda s: start + (end - start) * min(1.0, s / until_s))


def _held_out(name: str, **said: Any) -> Trace:
    return Trace(name=name, held_out=True, **said)


OTHERS = (
    Trace(name="random walk", limit_per_s=walk(7, 40, every_s=20, sigma=0.25, low=5, high=200)),
    Trace(name="0.5 a second", limit_per_s=steps((0, 0.5)), retry_after="exact"),
    Trace(name="1 a second", limit_per_s=steps((0, 1)), retry_after="ceil"),
    Trace(name="400 a second, 0.5 s", limit_per_s=steps((0, 400)), s_per_token=0.001, ttft_s=0.25, retry_after="exact"),
    Trace(name="token limit", tokens_per_s=steps((0, 100_000), (450, 50_000)), prompt_tokens=(2000.0, 0.6)),
    Trace(name="strict 100 ms", limit_per_s=steps((0, 40)), burst_s=0.1, jitter_s=0.02, retry_after="ceil"),
    Trace(name="Retry-After 30 s", limit_per_s=steps((0, 40)), retry_after="30"),
    Trace(name="latency x3", limit_per_s=steps((0, 40)), slowness=steps((0, 1.0), (300, 3.0))),
    Trace(name="latency x10", slots=steps((0, 1500)), slowness=steps((0, 1.0), (400, 10.0)), s_per_token=0.02, queue=0),
    Trace(name="stragglers", limit_per_s=steps((0, 40)), stragglers=(0.01, 100.0), s_per_token=0.02),
    Trace(name="self-hosted, thrashing", slots=steps((0, 128), (450, 64)), sharing=1.3, s_per_token=0.02),
    Trace(name="shorter outputs", slots=steps((0, 300)), queue=100, output_tokens=steps((0, 400), (300, 20))),
    Trace(name="slots walk, no queue", slots=walk(3, 300, every_s=15, sigma=0.2, low=60, high=900), queue=0),
    Trace(name="2 % random 500", limit_per_s=steps((0, 40)), random_errors=(0.02, 500)),
    Trace(name="1 % random 429", limit_per_s=steps((0, 40)), random_errors=(0.01, 429)),
    Trace(name="wild high hints", limit_per_s=steps((0, 40)), hints=(1e9, 1e9)),
    Trace(name="wild low hints", limit_per_s=steps((0, 40)), hints=(0.001, 0.001)),
    Trace(name="no usage, 503", slots=steps((0, 100), (400, 300)), queue=20, usage=False, retry_after="ceil"),
)
"""Less usual; looked at while the rules were made, as are those above."""

HELD_OUT = (
    _held_out("3 % random 503, wait 1 s", limit_per_s=steps((0, 40)), random_errors=(0.03, 503), random_wait_s=1.0),
    _held_out("10 % random 503", limit_per_s=steps((0, 40)), random_errors=(0.1, 503)),
    _held_out("1 % random 429, wait 1 s", limit_per_s=steps((0, 40)), random_errors=(0.01, 429), random_wait_s=1.0),
    _held_out("square wave", limit_per_s=curve(lambda s: 30 if s // 60 % 2 else 60), retry_after="ceil"),
    _held_out("429 for 40 s", limit_per_s=steps((0, 40), (300, 0.01), (340, 40))),
    _held_out("503 for 60 s", slots=steps((0, 400), (300, 0), (360, 400)), queue=0),
    _held_out("8 slots", slots=steps((0, 8)), queue=2, s_per_token=0.02),
    _held_out("tokens and slots", tokens_per_s=steps((0, 80_000)), slots=wave(200, 600, 300), queue=100),
    _held_out("ramp 5 to 50", limit_per_s=ramp(5, 50, until_s=600), retry_after="exact"),
    _held_out("strict, 300 a second", limit_per_s=steps((0, 300)), burst_s=0.1, s_per_token=0.005, jitter_s=0.02),
    _held_out("latency walk", limit_per_s=steps((0, 40)), slowness=walk(5, 1, every_s=10, sigma=0.15, low=0.5, high=3)),
    _held_out("self-hosted, neighbours", slots=walk(9, 96, every_s=60, sigma=0.3, low=32, high=256), sharing=1.0),
    _held_out("60 s a call", limit_per_s=steps((0, 15)), s_per_token=0.27, retry_after="ceil"),
)

TRACES = NAMED + OTHERS + HELD_OUT
