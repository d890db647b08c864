"""Stage 3 against a scripted client, in virtual time."""

from __future__ import annotations

import dataclasses
import gc
import random
import sys

import pytest

from engine.config import BrakeConfig, LimitConfig, PriceConfig, RetryConfig
from engine.errors import (
    ApiError,
    AuthRejected,
    BadReply,
    BudgetSpent,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestBlocked,
    RequestRefused,
    RequestTooLarge,
    ServerError,
)
from engine.types import Failure, FailureKind, Fix, Record, Reduction, Reply, Usage
from tests.fakes.calls import Script, always_yes, failure_of, make_reply, make_request, rows
from tests.fakes.stages import Stage


def test_every_request_ends_as_one_record() -> None:
    stage = Stage(always_yes).run(rows(50))
    assert sorted(stage.records) == list(range(50))
    assert len(stage.client.sent) == 50


def test_in_flight_reaches_the_window_and_never_passes_it() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=7)).run(rows(70))
    assert stage.client.most_in_flight == 7
    # Two calls find out whether the lane answers at all; then the whole window opens.
    assert stage.elapsed_s == pytest.approx(11.0, abs=0.5)


def test_a_record_made_earlier_passes_untouched_and_is_not_sent() -> None:
    early = Record(row=99, id="x", outcome=Failure(kind=FailureKind.BAD_ROW, message="line 3"))
    stage = Stage(always_yes).run([early, *rows(2)])
    assert stage.records[99] is early
    assert {row for _, row, _ in stage.client.sent} == {0, 1}


@pytest.mark.parametrize("error", [ServerError("500", status=500), NetworkError("reset"), BadReply("no choices")])
def test_a_passing_trouble_is_tried_again_until_it_passes(error: ServerError) -> None:
    stage = Stage(lambda row, attempt, _: error if attempt < 4 else make_reply()).run(rows(3))
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert all(record.attempts == 4 for record in stage.records.values())


def test_a_lasting_trouble_ends_after_the_allowed_attempts_with_the_servers_words() -> None:
    stage = Stage(lambda *_: ServerError("HTTP 503: busy", status=503), retry=RetryConfig(attempts=6)).run(rows(1))
    assert failure_of(stage.records[0]) == Failure(kind=FailureKind.SERVER, message="HTTP 503: busy", status=503)
    assert stage.records[0].attempts == len(stage.client.sent) == 6


def test_a_refused_body_is_sent_once() -> None:
    stage = Stage(lambda *_: RequestRefused("HTTP 400: no", status=400)).run(rows(2))
    assert len(stage.client.sent) == 2
    assert failure_of(stage.records[0]).kind is FailureKind.REFUSED


def test_a_rejected_key_stops_the_run_and_burns_no_row() -> None:
    stage = Stage(lambda *_: LaneRefused("HTTP 401: bad key", status=401), limits=LimitConfig(concurrency=3)).run(
        rows(100)
    )
    assert stage.records == {}
    assert len(stage.client.sent) <= 3
    assert isinstance(stage.stop.error, AuthRejected)


def test_the_server_s_wait_is_obeyed_by_every_row() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | RateLimited:
        return RateLimited("429", status=429, retry_after_s=30) if (row, attempt) == (0, 1) else make_reply()

    stage = Stage(script, limits=LimitConfig(concurrency=1)).run(rows(3))
    times = sorted(at for at, _, _ in stage.client.sent)
    assert times[1] - times[0] >= 30
    assert len(stage.records) == 3


def test_waiting_for_a_rate_limit_uses_up_no_attempt() -> None:
    script: Script = lambda row, attempt, _: RateLimited("429") if attempt <= 20 else make_reply()  # noqa: E731
    stage = Stage(script, retry=RetryConfig(attempts=2, row_deadline_s=1e6)).run(rows(1))
    assert isinstance(stage.records[0].outcome, Reply)
    assert stage.records[0].attempts == 21


def test_a_row_gives_up_at_its_deadline_however_often_it_is_told_to_wait() -> None:
    stage = Stage(lambda *_: RateLimited("429", retry_after_s=60), retry=RetryConfig(row_deadline_s=600)).run(rows(1))
    assert failure_of(stage.records[0]).kind is FailureKind.RATE
    assert 600 <= stage.elapsed_s <= 700


def test_the_slot_is_free_while_a_row_waits_for_its_next_attempt() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | ServerError:
        return ServerError("500", retry_after_s=100) if (row, attempt) == (0, 1) else make_reply()

    stage = Stage(script, limits=LimitConfig(concurrency=1)).run(rows(20))
    others = [at for at, row, _ in stage.client.sent if row != 0]
    assert max(others) < 100
    assert isinstance(stage.records[0].outcome, Reply)


def test_a_truncated_answer_is_asked_again_with_more_tokens_up_to_the_cap() -> None:
    script: Script = lambda row, attempt, most: make_reply("x", finish_reason="length", completion_tokens=most)  # noqa: E731
    retry = RetryConfig(max_tokens=128, growth=1.8, max_tokens_cap=512)
    stage = Stage(script, retry=retry).run(rows(1))
    assert [most for _, _, most in stage.client.sent] == [128, 230, 414, 512]
    assert stage.records[0].truncated
    assert stage.records[0].max_tokens_used == 512


def test_a_cap_below_the_start_never_lowers_the_budget() -> None:
    script: Script = lambda row, attempt, most: make_reply("x", finish_reason="length", completion_tokens=most)  # noqa: E731
    stage = Stage(script, retry=RetryConfig(max_tokens=800, max_tokens_cap=512)).run(rows(1))
    assert [most for _, _, most in stage.client.sent] == [800]


def test_an_answer_cut_under_stop_counts_as_truncated() -> None:
    script: Script = lambda row, attempt, most: make_reply("{" if attempt == 1 else "{}", completion_tokens=most)  # noqa: E731
    stage = Stage(script, retry=RetryConfig(max_tokens=100)).run(rows(1))
    assert [most for _, _, most in stage.client.sent] == [100, 200]
    assert not stage.records[0].truncated


def test_a_full_context_is_not_fed_more_tokens() -> None:
    script: Script = lambda row, attempt, most: make_reply("x", finish_reason="length", completion_tokens=most // 2)  # noqa: E731
    stage = Stage(script).run(rows(1))
    assert {most for _, _, most in stage.client.sent} == {512}
    assert len(stage.client.sent) <= 3
    assert stage.records[0].truncated


def test_truncation_is_recorded_even_when_it_is_not_retried() -> None:
    script: Script = lambda row, attempt, most: make_reply("x", finish_reason="length", completion_tokens=most)  # noqa: E731
    stage = Stage(script, retry=RetryConfig(on_truncation=False)).run(rows(1))
    assert len(stage.client.sent) == 1
    assert stage.records[0].truncated


def test_a_cut_answer_is_kept_when_the_longer_one_cannot_be_had() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | RequestRefused:
        if attempt == 1:
            return make_reply("part", finish_reason="length", completion_tokens=max_tokens)
        return RequestRefused("HTTP 400: max_tokens too large", status=400)

    record = Stage(script).run(rows(1)).records[0]
    assert isinstance(record.outcome, Reply)
    assert record.outcome.text == "part"
    assert record.truncated


def test_tokens_and_dollars_of_every_attempt_are_added_up() -> None:
    script: Script = lambda row, attempt, most: make_reply(  # noqa: E731
        "x", finish_reason="length" if attempt == 1 else "stop", completion_tokens=most
    )
    record = Stage(script, retry=RetryConfig(max_tokens=100)).run(rows(1)).records[0]
    assert record.usage is not None
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (200, 300)
    assert record.cost_usd == pytest.approx((200 * 1.0 + 300 * 2.0) / 1e6)


def test_a_call_that_may_have_been_charged_makes_the_cost_unknown_rather_than_zero() -> None:
    script: Script = lambda row, attempt, _: NetworkError("cut", paid=True) if attempt == 1 else make_reply()  # noqa: E731
    record = Stage(script).run(rows(1)).records[0]
    assert record.cost_usd is None
    assert record.unknown_calls == 1


def test_an_unknown_price_is_not_zero() -> None:
    record = Stage(always_yes, price=PriceConfig()).run(rows(1)).records[0]
    assert record.cost_usd is None


def test_after_a_stop_nothing_new_is_sent_and_what_is_in_flight_arrives() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=5), latency_s=10)
    stage.stop_at_s = 15
    stage.run(rows(100))
    assert len(stage.client.sent) == len(stage.records) == 7
    assert stage.elapsed_s == pytest.approx(20, abs=0.5)


def test_a_stop_does_not_wait_for_rows_that_sleep_before_their_next_attempt() -> None:
    stage = Stage(lambda *_: ServerError("500", retry_after_s=500))
    stage.stop_at_s = 5
    stage.run(rows(3))
    assert stage.records == {}
    assert stage.elapsed_s == pytest.approx(5)


def test_the_drain_is_bounded_and_what_it_leaves_is_counted() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=4), latency_s=1000)
    stage.stop_at_s = 5
    stage.run(rows(10))
    assert stage.elapsed_s == pytest.approx(25)
    assert stage.stage.counters.unfinished == 2
    assert stage.books.unknown_calls == 2


def test_held_bytes_stay_below_the_bound() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=100, max_open_bytes=1000))
    stage.run([make_request(row, n_bytes=250) for row in range(40)])
    assert stage.client.most_in_flight == 4
    assert len(stage.records) == 40


def test_one_row_larger_than_the_bound_still_passes() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=4, max_open_bytes=100))
    stage.run([make_request(row, n_bytes=5000) for row in range(3)])
    assert len(stage.records) == 3
    assert stage.client.most_in_flight == 1


def test_a_slow_sink_slows_the_calls_down() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=4), latency_s=0.001)
    stage.sink_wait_s = 1.0
    stage.run(rows(30))
    assert stage.most_open <= 8
    assert len(stage.records) == 30


def test_while_every_call_fails_no_more_rows_are_opened_than_two_windows() -> None:
    stage = Stage(lambda *_: ServerError("500", retry_after_s=50), limits=LimitConfig(concurrency=4))
    stage.stop_at_s = 40
    stage.run(rows(100))
    # A lane that has not answered yet has a window of two.
    assert {row for _, row, _ in stage.client.sent} == set(range(4))


def test_a_poisonous_row_fails_alone_after_three_calls() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | ServerError:
        return ServerError("HTTP 500: boom", status=500) if row == 900 else make_reply()

    stage = Stage(script, latency_s=0.1).run(rows(2000))
    assert failure_of(stage.records[900]).kind is FailureKind.POISON_REQUEST
    assert stage.records[900].attempts == 3
    assert sum(isinstance(record.outcome, Reply) for record in stage.records.values()) == 1999


def test_a_repetition_loop_is_asked_once_with_another_sampling_and_not_with_more_tokens() -> None:
    script: Script = lambda *_: make_reply("no, " * 400, finish_reason="length", completion_tokens=512)  # noqa: E731
    stage = Stage(script).run(rows(1))
    assert [most for _, _, most in stage.client.sent] == [512, 512]
    assert b"frequency_penalty" not in stage.client.bodies[0]
    assert b"frequency_penalty" in stage.client.bodies[1]
    assert stage.records[0].truncated


def test_a_full_context_is_answered_with_a_shorter_prompt() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply:
        return make_reply("x", finish_reason="length", completion_tokens=100) if attempt == 1 else make_reply()

    stage = Stage(script).run([make_request(0, n_frames=8)])
    assert len(stage.reductions) == 1
    assert not stage.records[0].truncated
    assert stage.records[0].degraded


def too_many_images(limit: int) -> Script:
    return lambda *_: RequestTooLarge("HTTP 400: at most 4", status=400, fix=Fix.IMAGES, limit=limit)


def test_how_many_images_a_lane_takes_is_learnt_once_and_used_for_its_next_rows() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=4))
    tried: set[int] = set()

    def see(body: bytes) -> ApiError | None:
        row = int(body.partition(b":")[0])
        first, tried_before = row not in tried, len(tried)
        tried.add(row)
        return too_many_images(4)(row, 1, 1) if first and tried_before < 2 else None  # type: ignore[return-value]

    stage.client.see = see
    stage.run([make_request(row, n_frames=8) for row in range(30)])
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert all(reduction == Reduction(max_frames=4) for reduction in stage.reductions)
    assert len(stage.client.sent) <= 32
    assert stage.lanes.most_images() == 4
    assert stage.lanes.lanes[0].learnt()["most_images"] == 4


def test_a_row_that_never_fits_fails_with_the_server_s_words() -> None:
    words = "HTTP 400: maximum context length is 100 tokens"
    stage = Stage(lambda *_: RequestTooLarge(words, status=400, fix=Fix.CONTEXT))
    stage.run([dataclasses.replace(make_request(0), made_of=None)])
    assert failure_of(stage.records[0]) == Failure(kind=FailureKind.TOO_LARGE, message=words, status=400)


def test_where_only_the_allowance_is_too_large_it_is_lowered_and_the_frames_stay() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | RequestTooLarge:
        if max_tokens > 60:
            return RequestTooLarge("HTTP 400", status=400, fix=Fix.CONTEXT, limit=1060, counted=1000)
        return make_reply()

    stage = Stage(script).run([make_request(0, n_frames=8)])
    assert [most for _, _, most in stage.client.sent] == [512, 60]
    assert stage.reductions == []


def test_an_answer_in_the_wrong_form_is_asked_for_again_as_text_alone_once() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply:
        return make_reply("mended") if row == 9000 else make_reply("wrong")

    stage = Stage(script).run([make_request(5, n_frames=8)])
    record = stage.records[5]
    assert [row for _, row, _ in stage.client.sent] == [5, 9000]
    assert isinstance(record.outcome, Reply)
    assert record.outcome.text == "mended"
    assert record.degraded == ("repaired:bad_value:k",)
    assert record.attempts == 2
    assert len(record.media) == 8
    assert record.usage is not None
    assert record.usage.prompt_tokens == 200


def test_a_repair_that_does_not_help_keeps_the_answer_and_books_the_call() -> None:
    stage = Stage(lambda *_: make_reply("wrong")).run(rows(1))
    record = stage.records[0]
    assert [row for _, row, _ in stage.client.sent] == [0, 9000]
    assert isinstance(record.outcome, Reply)
    assert record.answer is not None
    assert record.answer.error == "bad_value:k"
    assert record.attempts == 2


def test_a_hopeless_answer_is_not_asked_for_again() -> None:
    stage = Stage(lambda *_: make_reply("wrong and hopeless")).run(rows(1))
    assert len(stage.client.sent) == 1


def test_max_tokens_starts_near_what_answers_take_once_enough_are_known() -> None:
    stage = Stage(always_yes, retry=RetryConfig(max_tokens=None), latency_s=0.1).run(rows(400))
    asked = [most for _, _, most in stage.client.sent]
    assert asked[0] == 512
    assert asked[-1] < 32


def test_the_money_ceiling_is_never_passed_and_ends_the_run_resumably() -> None:
    # A call costs at most (100 * 1.5 or 1.0 * $1 + 512 * $2) / 1e6 and really (100 + 3 * 2) / 1e6.
    stage = Stage(always_yes, brake=BrakeConfig(max_cost_usd=0.01), latency_s=0.1).run(rows(1000))
    assert isinstance(stage.stop.error, BudgetSpent)
    assert 0.005 < stage.books.cost_usd <= 0.01
    assert len(stage.records) == len(stage.client.sent)


def test_calls_of_unknown_cost_count_with_their_worst_case_against_the_ceiling() -> None:
    stage = Stage(lambda *_: NetworkError("cut", paid=True), brake=BrakeConfig(max_cost_usd=0.01), latency_s=0.1).run(
        rows(1000)
    )
    assert isinstance(stage.stop.error, BudgetSpent)
    assert stage.books.cost_usd == 0
    assert stage.books.unknown_calls == len(stage.client.sent)
    assert stage.books.unknown_usd <= 0.01


def test_a_refusal_that_was_charged_is_in_the_books() -> None:
    usage = Usage(prompt_tokens=100, completion_tokens=5)
    stage = Stage(lambda *_: RequestBlocked("refused", status=200, usage=usage)).run(rows(1))
    assert failure_of(stage.records[0]).kind is FailureKind.BLOCKED
    assert stage.records[0].usage == usage
    assert stage.books.cost_usd == pytest.approx(110e-6)


@pytest.mark.parametrize(("share", "most"), [(0.0, 1.0), (0.01, 1.02), (0.05, 1.08), (0.2, 1.35)])
def test_server_errors_are_not_amplified(share: float, most: float) -> None:
    rng = random.Random(7)

    def script(row: int, attempt: int, max_tokens: int) -> Reply | ServerError:
        return ServerError("HTTP 500", status=500) if rng.random() < share else make_reply()

    stage = Stage(script, limits=LimitConfig(concurrency=64), latency_s=0.1).run(rows(3000))
    assert len(stage.records) == 3000
    assert len(stage.client.sent) / 3000 <= most
    assert sum(isinstance(record.outcome, Failure) for record in stage.records.values()) <= 3000 * share**6 + 1


@pytest.mark.slow
@pytest.mark.timeout(240)  # 3,328 rows in virtual time: the computing is real, and so may a busy machine be
def test_a_lane_with_free_slots_is_never_idle() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=256), latency_s=2.0).run(rows(256 * 13))
    # After the first seconds, in which the lane is tried and the rate is not yet known.
    begun, ended = 8.0, stage.elapsed_s - 4.0
    busy_s = sum(min(at + 2.0, ended) - max(at, begun) for at, _, _ in stage.client.sent if begun - 2.0 < at < ended)
    assert busy_s / (256 * (ended - begun)) >= 0.98


def test_time_in_which_no_call_may_go_out_is_not_the_rows() -> None:
    def second_time(row: int, attempt: int, max_tokens: int) -> Reply | ApiError:
        return make_reply() if attempt > 1 else ServerError("hiccup", status=500)

    stage = Stage(second_time, retry=RetryConfig(max_tokens=512, row_deadline_s=60))
    stage.held_s = 0.5, 1000.0
    stage.run(rows(1))
    assert isinstance(stage.records[0].outcome, Reply)
    assert stage.elapsed_s > 1000


def test_a_row_that_ended_keeps_no_body_even_before_the_collector_comes() -> None:
    def failing_at_first(row: int, attempt: int, max_tokens: int) -> Reply | ApiError:
        return make_reply() if row % 2 and attempt > 2 else ServerError("HTTP 500: no", status=500)

    heads = [bytes(f"{row}:".encode()) for row in range(6)]
    requests = [dataclasses.replace(make_request(row), head=head) for row, head in enumerate(heads)]
    held = [sys.getrefcount(head) for head in heads]
    gc.disable()
    try:
        stage = Stage(failing_at_first).run(requests)
        requests.clear()
        # One of those counted before was in the request.
        assert [sys.getrefcount(head) for head in heads] == [count - 1 for count in held]
    finally:
        gc.enable()
    assert {type(record.outcome) for record in stage.records.values()} == {Reply, Failure}
