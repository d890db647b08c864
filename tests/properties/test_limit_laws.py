"""Whatever happens, the ceilings hold."""

from __future__ import annotations

import json
import math
from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.config import LimitConfig
from engine.hints import LONGEST_HINT_S, parse_span_s, wait_hint_s
from engine.levels import LONGEST_PAUSE_S
from engine.limits import SHORTEST_WAIT_S, Limits

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.none()
plans = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 2000), st.sampled_from("aaaaarofh"), numbers, numbers), max_size=200
)
"""Seconds to wait, tokens, what happens to the oldest call (or a hint), and two numbers a server may say."""


def tell(limits: Limits, now: float, reserved: int, what: str, said: tuple[Any, Any]) -> int:
    """End one call; the tokens given back."""
    one, other = said
    match what:
        case "a":
            limits.answered(
                now, reserved_tokens=reserved, used_tokens=reserved // 2, latency_s=one or 0.0, output_tokens=reserved
            )
            return reserved - reserved // 2
        case "r":
            limits.rate_limited(now, reserved_tokens=reserved, retry_after_s=one)
        case "o":
            limits.overloaded(now, reserved_tokens=reserved, latency_s=other or 0.0, retry_after_s=one)
        case _:
            limits.failed(now, reserved_tokens=reserved)
    return reserved


@given(plans, st.integers(1, 20) | st.none(), st.integers(6, 6000), st.integers(60, 600_000))
def test_in_flight_requests_and_tokens_never_pass_their_ceilings(
    plan: list[tuple[float, int, str, Any, Any]], concurrency: int | None, rpm: int, tpm: int
) -> None:
    limits = Limits(LimitConfig(concurrency=concurrency, requests_per_min=rpm, tokens_per_min=tpm), now=0.0)
    now, flying, moved = 0.0, deque[int](), []
    for gap_s, tokens, what, one, other in plan:
        now += gap_s
        if what == "h":
            limits.hint(now, requests_per_s=one, tokens_per_s=other)
        elif flying:
            moved.append((now, 0, -tell(limits, now, flying.popleft(), what, (one, other))))
        for _ in range(5):
            wait_s = limits.try_admit(now, tokens)
            assert wait_s == 0 or wait_s >= SHORTEST_WAIT_S or limits.statistics(now).blocked == "pause"
            if wait_s == 0:
                flying.append(tokens)
                moved.append((now, 1, tokens))
                assert limits.in_flight == len(flying) <= limits.window <= (concurrency or 2048)
    largest = max((tokens for _, _, tokens in moved), default=0)
    for start, _, _ in moved:
        minute = [(count, tokens) for at, count, tokens in moved if start <= at < start + 60]
        assert sum(count for count, _ in minute) <= rpm + max(1, rpm / 60) + 1
        # What was given back may be used again, so it counts when it was given back.
        for end in range(len(minute)):
            assert sum(tokens for _, tokens in minute[: end + 1]) <= tpm + max(1, tpm / 60) + largest


@given(plans, st.dictionaries(st.sampled_from(["window", "rate_per_s"]), numbers | st.text()))
def test_whatever_a_server_says_the_figures_stay_sane(
    plan: list[tuple[float, int, str, Any, Any]], learnt: dict[str, Any]
) -> None:
    limits = Limits(LimitConfig(), now=0.0, learnt=learnt)
    now, flying = 0.0, deque[int]()
    for gap_s, tokens, what, one, other in plan:
        now += gap_s
        while len(flying) < 100 and limits.try_admit(now, tokens) == 0:
            flying.append(tokens)
        if what == "h":
            limits.hint(now, requests_per_s=one, tokens_per_s=other)
        elif flying:
            tell(limits, now, flying.popleft(), what, (one, other))
        said = limits.statistics(now)
        assert 1 <= said.window <= 2048
        assert 0 <= said.in_flight == len(flying)
        assert 0 <= said.paused_s <= LONGEST_PAUSE_S + 1e-9  # sums of clock values round
        assert said.rate_per_s is None or 0 < said.rate_per_s < math.inf
    json.dumps(limits.learnt(), allow_nan=False)


@given(st.text() | st.none(), st.text() | st.none())
def test_any_header_gives_a_span_in_range_or_nothing(value: str | None, date: str | None) -> None:
    seconds = parse_span_s(value, date=date)
    assert seconds is None or 0 <= seconds <= LONGEST_HINT_S


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "date"]), st.text()))
def test_any_headers_give_a_wait_in_range_or_nothing(headers: dict[str, str]) -> None:
    seconds = wait_hint_s(headers, "try again in 1e9s")
    assert seconds is None or 0 <= seconds <= LONGEST_HINT_S
