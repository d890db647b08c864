"""The limiter's decisions, on a clock that is a number."""

from __future__ import annotations

import math

import pytest

from engine.config import LimitConfig
from engine.limits import FIRST_WINDOW, LONGEST_PAUSE_S, STEP_S, Limits


def make_limits(**settings: float | None) -> Limits:
    return Limits(LimitConfig(**settings), now=0.0)  # type: ignore[arg-type]  # whole numbers where it wants them


def end(limits: Limits, now: float) -> None:
    limits.release(now, reserved_tokens=0, used_tokens=0)


def test_a_full_window_waits_for_a_slot() -> None:
    limits = make_limits(concurrency=2)
    assert [limits.try_admit(0.0, 1) for _ in range(3)] == [0.0, 0.0, math.inf]
    end(limits, 1.0)
    assert limits.try_admit(1.0, 1) == 0.0


def test_requests_a_minute_are_spread_with_at_most_one_second_of_burst() -> None:
    limits = make_limits(concurrency=1000, requests_per_min=600)
    admitted = sum(limits.try_admit(0.0, 1) == 0.0 for _ in range(50))
    assert admitted == 10
    assert limits.try_admit(0.0, 1) == pytest.approx(0.1)
    assert limits.try_admit(0.1, 1) == 0.0


def test_a_limit_below_one_a_second_still_admits() -> None:
    limits = make_limits(concurrency=10, requests_per_min=6)
    waits = []
    now = 0.0
    for _ in range(3):
        while (wait := limits.try_admit(now, 1)) > 0:
            now += wait
        waits.append(now)
    assert waits[2] - waits[1] == pytest.approx(10.0)


def test_unused_tokens_are_given_back() -> None:
    limits = make_limits(concurrency=10, tokens_per_min=60_000)
    assert limits.try_admit(0.0, 1000) == 0.0
    assert limits.try_admit(0.0, 500) > 0
    limits.release(0.0, reserved_tokens=1000, used_tokens=100)
    assert limits.try_admit(0.0, 500) == 0.0


def test_a_request_larger_than_the_burst_waits_for_a_full_bucket_and_delays_the_next() -> None:
    limits = make_limits(concurrency=10, tokens_per_min=60_000)
    assert limits.try_admit(0.0, 5000) == 0.0
    assert limits.try_admit(0.0, 1) == pytest.approx(4.001)


def test_a_pause_holds_every_lane_and_is_capped() -> None:
    limits = make_limits(concurrency=10)
    limits.pause(0.0, 30.0)
    limits.pause(1.0, 2.0)
    assert limits.try_admit(1.0, 1) == pytest.approx(29.0)
    limits.pause(1.0, 1e9)
    assert limits.try_admit(1.0, 1) == pytest.approx(LONGEST_PAUSE_S)


def fill(limits: Limits, now: float) -> int:
    admitted = 0
    while limits.try_admit(now, 1) == 0.0:
        admitted += 1
    return admitted


def test_an_adaptive_window_grows_only_while_it_is_used() -> None:
    limits = make_limits()
    assert fill(limits, 0.0) == FIRST_WINDOW
    end(limits, STEP_S)
    grown = limits.statistics(STEP_S).window
    assert grown > FIRST_WINDOW
    for step in range(2, 10):
        end(limits, step * STEP_S)
    assert limits.statistics(20.0).window <= grown * 1.2


def test_an_adaptive_window_is_cut_once_an_episode() -> None:
    limits = make_limits()
    fill(limits, 0.0)
    for _ in range(30):
        limits.overloaded(0.5)
    assert limits.statistics(0.5).window == int(FIRST_WINDOW * 0.7)
    limits.overloaded(0.5 + STEP_S)
    assert limits.statistics(3.0).cuts == 2


def test_a_window_never_closes() -> None:
    limits = make_limits()
    for step in range(100):
        limits.overloaded(step * STEP_S)
    assert limits.statistics(200.0).window == 1
    assert limits.try_admit(200.0, 1) == 0.0


def test_a_fixed_window_stands_still() -> None:
    limits = make_limits(concurrency=5)
    fill(limits, 0.0)
    limits.overloaded(0.0)
    end(limits, 100.0)
    assert limits.statistics(100.0).window == 5
