"""The suite `limits`: the limit controller and its rivals against simulated providers, in virtual time."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.limit_baselines import Aimd, Controller, FixedRate, Gradient2, Window
from bench.limit_traces import MAX_TOKENS, NAMED, SIGMA, TRACES, Call, Server, Trace, at, ideal, ideal_per_s
from bench.suite import Case, Figures, Told
from engine.config import LimitConfig
from engine.limits import Limits

ROW_PAUSE_S = 0.05
"""No row is sent again sooner."""
PROBE_S = 5.0
"""While the provider is gone, one call so often; what the engine does on a lane whose last calls all failed."""
GONE_AFTER = 10
"""Calls in a row that failed as network."""
SEEDS = 3
OURS = "Reelbatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one controller got out of one trace."""

    share_of_ideal: float
    answered: int
    sent: int
    rejected_share: float
    asked: int


class Simulation:
    """One client with rows without end, one server, one clock."""

    def __init__(self, trace: Trace, limits: Controller, *, seed: int) -> None:
        self._trace, self._limits = trace, limits
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, str, Any]] = []
        self._order = 0
        self._server = Server(trace, random.Random(seed + 1000), self._push)
        self._ready: deque[Call] = deque()
        self._sleeping = 0
        self._network_failures = 0
        self._probe_at = 0.0
        self._wake_at = math.inf
        self.answered = self.sent = self.rejected = self.asked = 0

    def run(self) -> Outcome:
        for start, _ in self._trace.down:
            self._push(start, "vanish", None)
        self._push(0.0, "wake", None)
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            if now > self._trace.duration_s:
                break
            self._happen(now, kind, what)
            self._dispatch(now)
        return Outcome(
            share_of_ideal=self.answered / ideal(self._trace),
            answered=self.answered,
            sent=self.sent,
            rejected_share=self.rejected / max(1, self.sent),
            asked=self.asked,
        )

    def _happen(self, now: float, kind: str, what: Any) -> None:
        match kind:
            case "end":
                if self._server.end(now, what):
                    self._answered(now, what)
            case "arrive":
                self._server.arrive(now, what)
            case "429" | "503":
                self._refused(now, *what, rate=kind == "429")
            case "ready":
                self._sleeping -= 1
                self._ready.append(what)
            case "failed":
                self._failed(now, what)
            case "vanish":
                for call in self._server.vanish():
                    self._failed(now, call)
            case _:
                # Only the last of several wakes set is the one waited for.
                self._wake_at = math.inf if now >= self._wake_at else self._wake_at

    def _answered(self, now: float, call: Call) -> None:
        self.answered += 1
        self._network_failures = 0
        self._limits.answered(
            now,
            reserved_tokens=call.tokens,
            used_tokens=call.tokens - MAX_TOKENS + call.output_tokens,
            latency_s=now - call.sent_at,
            output_tokens=call.output_tokens if self._trace.usage else None,
        )
        requests_per_s, tokens_per_s = self._trace.hints
        if requests_per_s or tokens_per_s:
            self._limits.hint(now, requests_per_s=requests_per_s, tokens_per_s=tokens_per_s)

    def _refused(self, now: float, call: Call, retry_after_s: float | None, *, rate: bool) -> None:
        self.rejected += 1
        self._network_failures = 0
        if rate:
            self._limits.rate_limited(now, reserved_tokens=call.tokens, retry_after_s=retry_after_s)
        else:
            latency_s = now - call.sent_at
            self._limits.overloaded(now, reserved_tokens=call.tokens, latency_s=latency_s, retry_after_s=retry_after_s)
        self._sleep(now, call, retry_after_s or 0.0)

    def _failed(self, now: float, call: Call) -> None:
        self._network_failures += 1
        self._limits.failed(now, reserved_tokens=call.tokens)
        self._sleep(now, call, 0.0)

    def _sleep(self, now: float, call: Call, least_s: float) -> None:
        backoff_s = self._rng.uniform(0, min(60.0, 2.0 ** (call.sent - 1)))
        self._sleeping += 1
        jittered_s = least_s * (1 + self._rng.uniform(0, 0.25))
        self._push(now + max(backoff_s, jittered_s, ROW_PAUSE_S), "ready", call)

    def _dispatch(self, now: float) -> None:
        limits = self._limits
        while True:
            gone = self._network_failures >= GONE_AFTER
            if gone and now < self._probe_at:
                self._wake(self._probe_at)
                return
            waiting = self._sleeping + len(self._ready)
            if not self._ready and waiting and waiting + limits.in_flight >= 2 * limits.window:
                return
            call = self._ready[0] if self._ready else self._fresh(now)
            self.asked += 1
            wait_s = limits.try_admit(now, call.tokens)
            if wait_s:
                if not self._ready:
                    self._ready.append(call)
                if wait_s < math.inf:
                    self._wake(now + wait_s)
                return
            if self._ready:
                self._ready.popleft()
            self._probe_at = now + PROBE_S
            self._send(now, call)

    def _send(self, now: float, call: Call) -> None:
        self.sent += 1
        call.sent += 1
        call.sent_at = now
        if self._trace.jitter_s:
            self._push(now + self._rng.uniform(0, self._trace.jitter_s), "arrive", call)
        else:
            self._server.arrive(now, call)

    def _fresh(self, now: float) -> Call:
        rng = self._rng
        median, sigma = self._trace.prompt_tokens
        prompt_tokens = median * math.exp(rng.gauss(0.0, sigma)) if sigma else median
        output_tokens = at(self._trace.output_tokens, now, 200.0) * math.exp(rng.gauss(0.0, SIGMA))
        return Call(tokens=int(prompt_tokens) + MAX_TOKENS, output_tokens=max(1, int(output_tokens)))

    def _wake(self, when: float) -> None:
        if when < self._wake_at:
            self._wake_at = when
            self._push(when, "wake", None)

    def _push(self, when: float, kind: str, what: Any) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, kind, what))


CONTROLLERS: dict[str, Callable[[Trace], Controller]] = {
    OURS: lambda _: Limits(LimitConfig(), now=0.0),
    "fixed rate": lambda trace: FixedRate(ideal_per_s(trace, 0.0)),
    "AIMD": lambda _: Aimd(),
    "Gradient2": lambda _: Gradient2(),
    "512 in flight": lambda _: Window(512.0),
}
"""Ways to decide how much to send."""


def tried(trace: Trace, *, controller: str = OURS, seed: int = 1) -> Outcome:
    """What a controller gets out of a trace."""
    return Simulation(trace, CONTROLLERS[controller](trace), seed=seed).run()


def cases(told: Told) -> list[Case]:
    """Every trace under every controller; rounds are seeds, of which our rivals get one."""
    traces = NAMED if told.quick else TRACES
    return [
        Case(
            name=f"{trace.name}, {controller}",
            about={"trace": trace.name, "controller": controller, "held_out": trace.held_out},
            once=partial(_figures, trace, controller),
            most_rounds=SEEDS if controller == OURS else 1,
        )
        for trace in traces
        for controller in ([OURS] if told.quick else CONTROLLERS)
    ]


def _figures(trace: Trace, controller: str, at: int) -> Figures:
    outcome = tried(trace, controller=controller, seed=at + 1)
    return {
        "share_of_ideal": round(outcome.share_of_ideal, 4),
        "rejected_share": round(outcome.rejected_share, 4),
        "asked_per_call": round(outcome.asked / max(1, outcome.sent), 2),
    }
