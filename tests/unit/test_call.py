"""Stage 3 against a scripted client, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
import pytest

from engine.call import CallStage
from engine.config import LimitConfig, PriceConfig, RetryConfig
from engine.errors import (
    AuthRejected,
    BadReply,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
    ServerError,
)
from engine.limits import Limits
from engine.link import Link
from engine.stop import Stop
from engine.types import Failure, FailureKind, Record, Reply, Request
from tests.fakes.calls import PlainReader, Script, ScriptedClient, make_config, make_reply, make_request
from tests.fakes.virtual import run_in_virtual_time


class Stage:
    """One call stage with its surroundings; `records` is what came out."""

    def __init__(
        self,
        script: Script,
        *,
        retry: RetryConfig | None = None,
        limits: LimitConfig | None = None,
        price: PriceConfig | None = None,
        latency_s: float = 1.0,
    ) -> None:
        self.client = ScriptedClient(script, latency_s=latency_s)
        self.config = make_config(retry=retry, limits=limits, price=price)
        self.records: dict[int, Record] = {}
        self.stop_at_s: float | None = None
        self.sink_wait_s = 0.0
        self.elapsed_s = 0.0
        self.most_open = 0

    def run(self, items: Sequence[Request | Record]) -> Stage:
        run_in_virtual_time(lambda: self._main(items))
        return self

    async def _main(self, items: Sequence[Request | Record]) -> None:
        self.stop = Stop(drain_s=20)
        self.limits = Limits(self.config.limits, now=anyio.current_time())
        self.stage = CallStage(
            self.config,
            client=self.client,
            reader=PlainReader(),
            limits=self.limits,
            stop=self.stop,
            rng=random.Random(1),
        )
        source, sink = Link[Request | Record](4), Link[Record](1)
        started = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(self._feed, items, source)
            group.start_soon(self._stop_later, group.cancel_scope)
            group.start_soon(self.stage.run, source, sink)
            async with sink.consuming():
                async for record in sink:
                    assert record.row not in self.records
                    self.records[record.row] = record
                    self.most_open = max(self.most_open, self.limits.statistics(anyio.current_time()).open_rows)
                    await anyio.sleep(self.sink_wait_s)
            self.elapsed_s = anyio.current_time() - started
            group.cancel_scope.cancel()

    async def _feed(self, items: Sequence[Request | Record], source: Link[Request | Record]) -> None:
        async with source.producing():
            for item in items:
                await source.put(item)

    async def _stop_later(self, scope: anyio.CancelScope) -> None:
        if self.stop_at_s is not None:
            await anyio.sleep(self.stop_at_s)
            self.stop.ask("SIGTERM")
        await self.stop.wait()
        self.stage.wake()


def rows(n: int) -> list[Request]:
    return [make_request(row) for row in range(n)]


def always_yes(row: int, attempt: int, max_tokens: int) -> Reply:
    return make_reply()


def failure_of(record: Record) -> Failure:
    assert isinstance(record.outcome, Failure)
    return record.outcome


def test_every_request_ends_as_one_record() -> None:
    stage = Stage(always_yes).run(rows(50))
    assert sorted(stage.records) == list(range(50))
    assert len(stage.client.sent) == 50


def test_in_flight_reaches_the_window_and_never_passes_it() -> None:
    stage = Stage(always_yes, limits=LimitConfig(concurrency=7)).run(rows(70))
    assert stage.client.most_in_flight == 7
    assert stage.elapsed_s == pytest.approx(10.0)


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
    stage = Stage(script, retry=RetryConfig(attempts=2)).run(rows(1))
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
    assert len(stage.client.sent) == 1
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
    assert len(stage.client.sent) == 10
    assert len(stage.records) == 10
    assert stage.elapsed_s == pytest.approx(20)


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
    assert stage.stage.counters.unfinished == 4


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
    assert {row for _, row, _ in stage.client.sent} == set(range(8))
