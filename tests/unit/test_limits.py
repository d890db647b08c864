"""The limiter's decisions, on a clock that is a number."""

from __future__ import annotations

import json
import math
from collections import deque

import pytest

from engine.config import LimitConfig
from engine.gate import Room
from engine.levels import LONGEST_PAUSE_S
from engine.limits import FIRST_WINDOW, UNPROVEN_WINDOW, Limits

STEP_S = 0.01


def make_limits(**settings: float | None) -> Limits:
    return Limits(LimitConfig(**settings), now=0.0)  # type: ignore[arg-type]  # whole numbers where it wants them


def answer(limits: Limits, now: float, *, latency_s: float = 1.0, output_tokens: int | None = 100) -> None:
    limits.answered(now, reserved_tokens=1, used_tokens=1, latency_s=latency_s, output_tokens=output_tokens)


def make_proven(**settings: float | None) -> Limits:
    """One call was answered; the clock stands at 10."""
    limits = make_limits(**settings)
    assert limits.try_admit(0.0, 1) == 0.0
    answer(limits, 10.0)
    return limits


def fill(limits: Limits, now: float) -> int:
    admitted = 0
    while limits.try_admit(now, 1) == 0.0:
        admitted += 1
    return admitted


def serve(limits: Limits, start_s: float, end_s: float, *, latency_s: float, per_token_s: float = 0.01) -> int:
    """As many calls as the limiter lets go, each answered after `latency_s`; how many were."""
    ends: deque[float] = deque()
    answered = 0
    for tick in range(round((end_s - start_s) / STEP_S)):
        now = start_s + tick * STEP_S
        while ends and ends[0] <= now:
            ends.popleft()
            answered += 1
            answer(limits, now, latency_s=latency_s, output_tokens=round(latency_s / per_token_s))
        while limits.try_admit(now, 1) == 0.0:
            ends.append(now + latency_s)
    for _ in ends:
        limits.failed(end_s, reserved_tokens=1)
    return answered


def test_a_lane_without_an_answer_has_two_calls_in_flight() -> None:
    for settings in ({}, {"concurrency": 500}):
        limits = make_limits(**settings)
        assert fill(limits, 0.0) == UNPROVEN_WINDOW
        limits.failed(1.0, reserved_tokens=1)
        limits.rate_limited(1.0, reserved_tokens=1, retry_after_s=None)
        assert limits.statistics(20.0).window == UNPROVEN_WINDOW


def test_the_first_answer_opens_the_window() -> None:
    assert make_proven().statistics(10.0).window == FIRST_WINDOW
    assert make_proven(concurrency=500).statistics(10.0).window == 500
    assert make_proven(concurrency=1).statistics(10.0).window == 1


def test_a_full_window_waits_for_a_slot() -> None:
    limits = make_proven(concurrency=2)
    assert [limits.try_admit(10.0, 1) for _ in range(3)] == [0.0, 0.0, math.inf]
    assert limits.statistics(10.0).blocked == "window"
    answer(limits, 11.0)
    assert limits.try_admit(11.0, 1) == 0.0


def test_requests_a_minute_are_spread_with_a_tenth_of_a_second_of_burst() -> None:
    limits = make_proven(concurrency=1000, requests_per_min=1800)
    assert fill(limits, 10.0) == 3
    assert limits.try_admit(10.0, 1) == pytest.approx(1 / 30)
    assert limits.statistics(10.0).blocked == "rate"
    assert limits.try_admit(10.04, 1) == 0.0


def test_a_limit_below_one_a_second_still_admits() -> None:
    limits = make_proven(concurrency=10, requests_per_min=6)
    times, now = [], 10.0
    for _ in range(3):
        while (wait := limits.try_admit(now, 1)) > 0:
            now += wait
        times.append(now)
    assert times[2] - times[1] == pytest.approx(10.0)


def test_unused_tokens_are_given_back() -> None:
    limits = make_proven(concurrency=10, tokens_per_min=600_000)
    assert limits.try_admit(10.0, 1000) == 0.0
    assert limits.try_admit(10.0, 500) > 0
    assert limits.statistics(10.0).blocked == "tokens"
    limits.answered(10.0, reserved_tokens=1000, used_tokens=100, latency_s=1.0, output_tokens=10)
    assert limits.try_admit(10.0, 500) == 0.0


def test_absurd_usage_does_not_run_the_tokens_into_debt() -> None:
    limits = make_proven(concurrency=10, tokens_per_min=600_000)
    assert limits.try_admit(10.0, 10) == 0.0
    limits.answered(10.0, reserved_tokens=10, used_tokens=10**12, latency_s=1.0, output_tokens=10**12)
    assert limits.try_admit(10.0, 10) == 0.0


def test_a_request_larger_than_the_burst_waits_for_a_full_bucket_and_delays_the_next() -> None:
    limits = make_proven(concurrency=10, tokens_per_min=60_000)
    assert limits.try_admit(10.0, 5000) == 0.0
    assert limits.try_admit(10.0, 1) == pytest.approx(4.901)


def test_a_pause_holds_the_lane_and_is_capped() -> None:
    limits = make_proven(concurrency=10)
    fill(limits, 10.0)
    limits.rate_limited(10.0, reserved_tokens=1, retry_after_s=30.0)
    limits.overloaded(11.0, reserved_tokens=1, latency_s=1.0, retry_after_s=2.0)
    assert limits.try_admit(11.0, 1) == pytest.approx(29.0)
    assert limits.statistics(11.0).blocked == "pause"
    limits.rate_limited(11.0, reserved_tokens=1, retry_after_s=1e9)
    assert limits.try_admit(11.0, 1) == pytest.approx(LONGEST_PAUSE_S)


@pytest.mark.parametrize("wish", [None, -1.0, 0.0, math.nan, math.inf, 10**400])
def test_a_senseless_wish_is_no_pause(wish: float | None) -> None:
    limits = make_proven(concurrency=10)
    fill(limits, 10.0)
    limits.overloaded(10.0, reserved_tokens=1, latency_s=0.1, retry_after_s=wish)
    assert limits.statistics(10.0).paused_s == 0.0


def test_after_a_pause_there_is_no_burst_beyond_the_bucket() -> None:
    limits = make_proven(concurrency=1000, requests_per_min=1800)
    fill(limits, 10.0)
    limits.rate_limited(10.0, reserved_tokens=1, retry_after_s=60.0)
    assert fill(limits, 70.1) <= 3


def test_a_server_without_limits_is_sent_thousands_a_second_after_eight() -> None:
    limits = make_proven()
    serve(limits, 10.0, 18.0, latency_s=0.2)
    assert serve(limits, 18.0, 19.0, latency_s=0.2) > 1000
    assert limits.statistics(19.0).rate_per_s is None


def test_a_start_is_paced() -> None:
    limits = make_proven()
    assert serve(limits, 10.0, 11.0, latency_s=0.2) < 64


def test_an_adaptive_window_grows_only_while_it_is_used() -> None:
    limits = make_proven()
    serve(limits, 10.0, 20.0, latency_s=2.0)
    grown = limits.statistics(20.0).window
    assert grown > FIRST_WINDOW
    for second in range(20, 60):
        assert limits.try_admit(float(second), 1) == 0.0
        answer(limits, second + 0.9, latency_s=0.9)
    assert limits.statistics(60.0).window == grown


def test_a_fixed_window_stands_still() -> None:
    limits = make_proven(concurrency=5)
    for second in range(10, 40):
        fill(limits, float(second))
        while limits.in_flight:
            limits.overloaded(second + 0.1, reserved_tokens=1, latency_s=0.1, retry_after_s=None)
    assert limits.statistics(40.0).window == 5


def test_a_rate_is_cut_to_what_was_accepted() -> None:
    limits = make_proven()
    accepted, now = 0.0, 10.0
    while now < 30.0:
        accepted = min(accepted + 20 * STEP_S, 20.0)
        while limits.try_admit(now, 1) == 0.0:
            if accepted >= 1:
                accepted -= 1
                answer(limits, now)
            else:
                limits.rate_limited(now, reserved_tokens=1, retry_after_s=None)
        now += STEP_S
    rate_per_s = limits.statistics(30.0).rate_per_s
    assert rate_per_s == pytest.approx(20.0, rel=0.15)


def test_429_does_not_move_the_window_and_503_not_the_rate() -> None:
    limits = make_proven()
    fill(limits, 10.0)
    for _ in range(3):
        limits.rate_limited(10.1, reserved_tokens=1, retry_after_s=None)
    assert limits.statistics(10.1).window == FIRST_WINDOW
    other = make_proven()
    fill(other, 10.0)
    for _ in range(3):
        other.overloaded(10.1, reserved_tokens=1, latency_s=0.1, retry_after_s=None)
    assert other.statistics(10.1).rate_per_s is None


def admitted(limits: Limits, start_s: float, count: int) -> float:
    """So many calls in flight at last; when that was."""
    now = start_s
    while limits.in_flight < count:
        if limits.try_admit(now, 1):
            now += STEP_S
    return now


def test_a_window_is_cut_to_what_the_server_holds_once_an_episode() -> None:
    limits = make_proven()
    now = admitted(limits, 10.0, 60) + 0.05
    for _ in range(20):
        limits.overloaded(now, reserved_tokens=1, latency_s=0.05, retry_after_s=None)
    assert limits.in_flight == 40
    assert limits.statistics(now).window in {39, 40}
    assert limits.statistics(now).cuts == 1


def test_a_refusal_now_and_then_is_forgiven() -> None:
    limits = make_proven()
    now, window = 10.0, FIRST_WINDOW
    for call in range(2000):
        now = admitted(limits, now, 1)
        if call % 50 == 0:
            limits.overloaded(now + 0.01, reserved_tokens=1, latency_s=0.01, retry_after_s=None)
        elif call % 50 == 25:
            limits.rate_limited(now + 0.01, reserved_tokens=1, retry_after_s=None)
        else:
            answer(limits, now + 0.01)
        now += 0.01
    assert limits.statistics(now).cuts == 0
    assert limits.statistics(now).window == window


@pytest.mark.slow
def test_a_window_never_closes_and_opens_again_after_an_outage() -> None:
    limits = make_proven(max_concurrency=256)
    serve(limits, 10.0, 30.0, latency_s=2.0)
    before = limits.statistics(30.0).window
    now = 30.0
    while now < 90.0:
        while limits.try_admit(now, 1) == 0.0:
            limits.overloaded(now + 0.01, reserved_tokens=1, latency_s=0.01, retry_after_s=None)
        now += 0.1
    assert limits.statistics(now).window >= 1
    serve(limits, 90.0, 180.0, latency_s=2.0)
    assert limits.statistics(180.0).window > before / 2


def test_longer_answers_are_no_congestion() -> None:
    limits = make_proven()
    serve(limits, 10.0, 30.0, latency_s=1.0)
    cuts = limits.statistics(30.0).cuts
    serve(limits, 30.0, 60.0, latency_s=5.0)
    assert limits.statistics(60.0).cuts == cuts == 0


def test_slower_tokens_cut_the_window_and_a_cut_that_changes_nothing_is_undone() -> None:
    limits = make_proven()
    serve(limits, 10.0, 20.0, latency_s=1.0)
    before = limits.statistics(20.0).window
    serve(limits, 20.0, 24.5, latency_s=2.0, per_token_s=0.02)
    assert limits.statistics(24.5).cuts == 1
    assert limits.statistics(24.5).window < before
    serve(limits, 24.5, 40.0, latency_s=2.0, per_token_s=0.02)
    assert limits.statistics(40.0).cuts == 1
    assert limits.statistics(40.0).window >= before


def test_a_hint_shortens_the_start() -> None:
    limits = make_proven()
    limits.hint(10.0, requests_per_s=1000.0, tokens_per_s=None)
    assert fill(limits, 10.2) > 40
    by_tokens = make_proven()
    by_tokens.hint(10.0, requests_per_s=None, tokens_per_s=1000.0)
    assert fill(by_tokens, 10.2) > 40


def test_a_hint_never_raises_a_measured_rate() -> None:
    limits = make_proven()
    now = admitted(limits, 10.0, 30)
    for _ in range(10):
        limits.rate_limited(now, reserved_tokens=1, retry_after_s=5.0)
    before = limits.statistics(now).rate_per_s
    limits.hint(now, requests_per_s=1e9, tokens_per_s=1e12)
    assert limits.statistics(now).rate_per_s == before is not None


@pytest.mark.parametrize("value", [0.001, -1.0, 0.0, math.nan, math.inf])
def test_a_low_or_senseless_hint_changes_nothing(value: float) -> None:
    limits = make_proven()
    before = repr(limits.statistics(10.0)), fill(limits, 10.2)
    other = make_proven()
    other.hint(10.0, requests_per_s=value, tokens_per_s=value)
    assert (repr(other.statistics(10.0)), fill(other, 10.2)) == before


def test_what_was_learnt_opens_the_next_life() -> None:
    limits = make_proven()
    now = admitted(limits, 10.0, 30)
    for _ in range(3):
        limits.rate_limited(now, reserved_tokens=1, retry_after_s=5.0)
    learnt = json.loads(json.dumps(limits.learnt() | {"window": 300}))
    again = Limits(LimitConfig(), now=0.0, learnt=learnt)
    assert fill(again, 0.0) <= UNPROVEN_WINDOW
    answer(again, 5.0)
    assert again.statistics(5.0).window == 300
    rate_per_s = again.statistics(5.0).rate_per_s
    assert rate_per_s is not None
    assert rate_per_s <= learnt["rate_per_s"]


@pytest.mark.parametrize("value", [None, "8", [], True, -3, math.nan, math.inf, 0, 10**400])
def test_senseless_memories_are_ignored(value: object) -> None:
    limits = Limits(LimitConfig(), now=0.0, learnt={"window": value, "rate_per_s": value, "more": value})
    fill(limits, 0.0)
    answer(limits, 1.0)
    assert limits.statistics(1.0).window == FIRST_WINDOW
    assert limits.statistics(1.0).rate_per_s is None


def test_statistics_count_what_was_admitted() -> None:
    limits = make_proven(concurrency=3)
    limits.try_admit(10.0, 500)
    said = limits.statistics(10.0)
    assert (said.admitted, said.admitted_tokens, said.in_flight, said.blocked) == (2, 501, 1, None)


def test_one_row_is_always_allowed_however_large() -> None:
    room = Room(1000)
    assert room.may_open(5000, window=1)
    room.open(5000)
    assert not room.may_open(1, window=100)
    room.close(5000)
    assert (room.rows, room.n_bytes) == (0, 0)


def test_room_ends_at_its_bytes_and_at_twice_the_window() -> None:
    room = Room(1000)
    for _ in range(4):
        room.open(100)
    assert not room.may_open(100, window=2)
    assert room.may_open(100, window=3)
    assert not room.may_open(700, window=3)
