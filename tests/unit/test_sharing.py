"""Identical requests are sent once, in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import BrakeConfig, LimitConfig, RetryConfig
from engine.errors import (
    ApiError,
    BadReply,
    NetworkError,
    RequestBlocked,
    RequestRefused,
    RequestTooLarge,
    ServerError,
)
from engine.sharing import LEADERS, MOST_WAITING, Sharing
from engine.types import Failure, FailureKind, Fix, MediaNote, Record, Reply, Request, Row, Shares, Usage
from engine.worker import KEY_BYTES, key_of
from tests.fakes.answers import MemoryAnswers
from tests.fakes.calls import PlainReader, make_reply, make_request
from tests.fakes.records import result
from tests.fakes.stages import Stage
from tests.fakes.virtual import run_in_virtual_time


def alike(*numbers: int, key: bytes = b"k", n_frames: int = 0, n_bytes: int = 100) -> list[Request]:
    """Requests with one key, and so with the body of the first."""
    first = make_request(numbers[0], n_frames=n_frames, n_bytes=n_bytes)
    made = [make_request(number, n_frames=n_frames) for number in numbers]
    return [dataclasses.replace(request, key=key, head=first.head) for request in made]


def yes(row: int, attempt: int, max_tokens: int) -> Reply:
    return make_reply()


def sent(stage: Stage) -> list[int]:
    return [row for _, row, _ in stage.client.sent]


def test_identical_requests_are_sent_once_and_every_row_says_whose_answer_it_has() -> None:
    stage = Stage(yes).run([*alike(0, 1, 2), make_request(3), *alike(4, 5, key=b"other")])
    assert sorted(sent(stage)) == [0, 3, 4]
    assert sorted(stage.records) == [0, 1, 2, 3, 4, 5]
    assert {row: record.shares for row, record in stage.records.items() if record.shares} == {
        row: Shares(row=leader, spared_usd=stage.records[leader].cost_usd) for row, leader in ((1, 0), (2, 0), (5, 4))
    }
    one, other = stage.records[0], stage.records[2]
    assert (other.id, other.outcome, other.answer, other.max_tokens_used) == (
        "id-2",
        one.outcome,
        one.answer,
        one.max_tokens_used,
    )
    assert (other.attempts, other.usage, other.cost_usd, other.order) == (0, Usage(), 0.0, None)
    assert stage.books.cost_usd == pytest.approx(sum(record.cost_usd or 0 for record in stage.records.values()))


def test_a_row_that_comes_after_the_answer_was_made_safe_needs_no_call_either() -> None:
    stage = Stage(yes, limits=LimitConfig(concurrency=1))
    stage.run([*alike(0), *(make_request(row) for row in range(1, 9)), *alike(9)])
    assert 9 not in sent(stage)
    assert stage.records[9].shares == Shares(row=0, spared_usd=stage.records[0].cost_usd)


def test_no_line_shares_with_a_row_whose_line_is_not_safe_yet() -> None:
    """The fake asserts it for each record that comes out."""
    stage = Stage(yes)
    stage.commit_s = 40.0
    stage.run([*alike(0, 1), *(make_request(row) for row in range(2, 60)), *alike(60)])
    assert sent(stage).count(0) == 1
    assert stage.elapsed_s >= 40
    assert len(stage.records) == 61


def test_what_is_not_to_be_shared_is_sent_row_by_row() -> None:
    stage = Stage(yes)
    stage.share = False
    stage.run(alike(0, 1, 2))
    assert len(stage.client.sent) == 3
    assert not any(record.shares for record in stage.records.values())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestRefused("no", status=400), FailureKind.REFUSED),
        (RequestBlocked("filtered", status=400), FailureKind.BLOCKED),
        (RequestTooLarge("too long", status=400, fix=Fix.CONTEXT, limit=None, counted=None), FailureKind.TOO_LARGE),
    ],
)
def test_what_the_provider_will_never_take_is_not_sent_for_another_row(error: ApiError, kind: FailureKind) -> None:
    requests = [dataclasses.replace(request, made_of=None) for request in alike(0, 1, 2)]
    stage = Stage(lambda row, attempt, max_tokens: error).run(requests)
    assert sent(stage) == [0]
    for row in (1, 2):
        outcome = stage.records[row].outcome
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.status) == (kind, 400)
        assert outcome.message.startswith("as row 0, whose request is the same: ")
        assert stage.records[row].shares is None


def test_a_row_fails_for_no_other_rows_bad_luck() -> None:
    """The first six calls fail: those of the row that leads. The next row has the same body and better luck."""

    def script(row: int, attempt: int, max_tokens: int) -> Reply | ApiError:
        return NetworkError("reset", paid=True) if attempt <= 6 else make_reply()

    stage = Stage(script).run(alike(0, 1, 2, 3))
    assert len(stage.client.sent) == 7
    assert isinstance(stage.records[0].outcome, Failure)
    assert stage.records[1].shares is None
    assert stage.records[1].id == "id-1"
    assert [stage.records[row].shares for row in (2, 3)] == [Shares(row=1, spared_usd=stage.records[1].cost_usd)] * 2


def test_a_request_that_fails_time_after_time_is_asked_for_all_its_rows_at_once() -> None:
    """One after the other, a thousand rows would take a thousand deadlines."""
    rows = 40
    stage = Stage(
        lambda row, attempt, max_tokens: BadReply("no completion", paid=False),
        retry=RetryConfig(max_tokens=512, attempts=2),
        limits=LimitConfig(concurrency=16),
        brake=BrakeConfig(max_failed_share=None),
        latency_s=10.0,
    ).run([*alike(*range(rows))])
    assert all(isinstance(record.outcome, Failure) for record in stage.records.values())
    assert len(stage.records) == rows
    assert len(stage.client.sent) == 2 * rows, "a row failed without its own calls, or had more than its share"
    leading = [time for time, _, _ in stage.client.sent][: 2 * LEADERS]
    assert leading[-1] >= 10 * (2 * LEADERS - 1), "they were not asked one after the other at first"


def test_an_answer_that_was_cut_off_and_grew_is_the_answer_of_all() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply:
        if max_tokens < 1000:
            return make_reply("cut", finish_reason="length", completion_tokens=max_tokens)
        return make_reply("whole")

    stage = Stage(script).run(alike(0, 1))
    assert [tokens for _, _, tokens in stage.client.sent] == [512, 1024]
    assert [(record.max_tokens_used, record.truncated) for record in stage.records.values()] == [(1024, False)] * 2
    assert stage.records[1].attempts == 0


def test_rows_in_flight_share_an_answer_that_stays_cut_off_and_later_rows_do_not() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply:
        return make_reply("cut", finish_reason="length", completion_tokens=max_tokens)

    stage = Stage(script, retry=RetryConfig(max_tokens=512, on_truncation=False), limits=LimitConfig(concurrency=2))
    stage.run([*alike(0, 1), *(make_request(row) for row in range(2, 12)), *alike(12)])
    assert [stage.records[row].truncated for row in (0, 1, 12)] == [True] * 3
    assert stage.records[1].shares is not None
    assert stage.records[12].shares is None, "an answer that is not whole was given away"


def test_an_answer_that_is_no_valid_one_is_not_given_to_later_rows() -> None:
    stage = Stage(lambda row, attempt, max_tokens: make_reply("wrong hopeless"), limits=LimitConfig(concurrency=1))
    stage.run([*alike(0), *(make_request(row) for row in range(1, 9)), *alike(9)])
    assert stage.records[9].shares is None


def test_an_answer_that_was_repaired_says_so_on_every_line() -> None:
    stage = Stage(lambda row, attempt, max_tokens: make_reply("right" if row == 9000 else "wrong"))
    stage.run([*alike(0, 1), *(make_request(row) for row in range(2, 30)), *alike(30)])
    for row in (0, 1):
        assert stage.records[row].degraded == ("repaired:bad_value:k",)
    assert stage.records[30].shares is None


def test_a_request_that_had_to_become_smaller_says_so_on_every_line_and_keeps_each_rows_own_losses() -> None:
    requests = alike(0, 1, n_frames=8)
    lost = ("skipped_frames:1",)
    requests[1] = dataclasses.replace(requests[1], degraded=lost)

    def script(row: int, attempt: int, max_tokens: int) -> Reply | ApiError:
        many = RequestTooLarge("too many images", status=400, fix=Fix.IMAGES, limit=4, counted=8)
        return many if attempt == 1 else make_reply()

    stage = Stage(script).run(requests)
    assert len(stage.client.sent) == 2
    assert stage.records[0].degraded == ("fewer_frames:8>4",)
    assert stage.records[1].degraded == (*lost, "fewer_frames:8>4")
    assert [len(record.media) for record in stage.records.values()] == [4, 4]


def test_the_next_row_to_lead_goes_on_from_the_smaller_request_as_itself() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | ApiError:
        if attempt == 1:
            return RequestTooLarge("too many images", status=400, fix=Fix.IMAGES, limit=4, counted=8)
        return NetworkError("reset", paid=True) if attempt <= 7 else make_reply()

    stage = Stage(script).run(alike(0, 1, n_frames=8))
    assert isinstance(stage.records[0].outcome, Failure)
    led = stage.records[1]
    assert (led.id, led.degraded, len(led.media)) == ("id-1", ("fewer_frames:8>4",), 4)
    assert stage.reductions == stage.reductions[:1], "the next row found out again what its body had shown"


def test_a_stop_leaves_the_rows_that_wait_undone_with_the_one_they_wait_for() -> None:
    stage = Stage(lambda row, attempt, max_tokens: ServerError("HTTP 502: no", status=502))
    stage.stop_at_s = 1.5
    stage.run(alike(0, 1, 2))
    assert stage.records == {}
    assert stage.stage.counters.unfinished == 1, "rows that were never sent are not unfinished"


def test_an_answer_that_arrives_within_the_drain_still_reaches_the_rows_that_wait() -> None:
    stage = Stage(yes, latency_s=5.0)
    stage.stop_at_s = 1.0
    stage.commit_s = 1.0
    stage.run(alike(0, 1, 2))
    assert sorted(stage.records) == [0, 1, 2]
    assert stage.elapsed_s < 7


def test_a_drain_that_is_over_waits_for_nobody() -> None:
    stage = Stage(yes, latency_s=500.0)
    stage.stop_at_s = 1.0
    stage.run(alike(0, 1, 2))
    assert stage.records == {}
    assert stage.elapsed_s == pytest.approx(21)


def test_a_thousand_rows_wait_without_a_slot_and_without_their_bodies() -> None:
    rows, n_bytes = 1000, 1 << 20
    stage = Stage(
        yes, limits=LimitConfig(concurrency=2, max_open_bytes=2 * n_bytes), latency_s=30.0, retry=RetryConfig()
    ).run([*alike(*range(rows), n_bytes=n_bytes), make_request(rows)])
    assert sorted(sent(stage)) == [0, rows]
    assert stage.elapsed_s < 61, "a row that waits took the place of one that is sent"
    assert stage.most_waiting == rows - 1
    assert len(stage.records) == rows + 1


def test_rows_that_wait_are_bounded_and_held_up_they_hold_nobody_up() -> None:
    async def main() -> None:
        sharing = Sharing((), reader=PlainReader())
        led, *others = alike(*range(MOST_WAITING + 1))
        assert sharing.meet(led) is led
        assert [sharing.meet(other) for other in others] == [None] * MOST_WAITING
        assert sharing.full
        sharing.ended(b"k", result(0), led)
        with anyio.move_on_after(1) as waited:
            await sharing.room()
        assert waited.cancelled_caught, "the answer is not safe yet"
        sharing.acknowledged([0])
        async with anyio.create_task_group() as group:
            group.start_soon(sharing.room)
            for _ in others:
                assert isinstance(await sharing.released(), Record)
        assert not sharing.full
        sharing.close()
        assert await sharing.released() is None

    run_in_virtual_time(main)


def test_a_waiting_row_holds_neither_body_nor_text() -> None:
    async def main() -> None:
        sharing = Sharing((), reader=PlainReader())
        led, other = alike(0, 1, n_bytes=1 << 20)
        sharing.meet(led)
        sharing.meet(other)
        (held,) = sharing._flights[b"k"].followers
        assert (held.n_bytes, held.made_of) == (0, None)

    run_in_virtual_time(main)


def test_a_released_row_is_a_request_of_its_own_with_the_common_body() -> None:
    async def main() -> None:
        sharing = Sharing((), reader=PlainReader())
        led, other = alike(0, 1)
        note = MediaNote(index=4, time_s=None, digest="a", width=1, height=1, tokens=None)
        other = dataclasses.replace(other, media=(note,), degraded=("skipped_frames:1",))
        sharing.meet(led)
        sharing.meet(other)
        sharing.ended(b"k", failed(0, FailureKind.NETWORK), led)
        released = await sharing.released()
        assert isinstance(released, Request)
        assert (released.head, released.tail, released.key) == (led.head, led.tail, b"k")
        assert (released.row, released.id, released.media, released.degraded) == (1, "id-1", (note,), other.degraded)
        assert released.made_of == Row(row=1, id="id-1", fields=led.made_of.fields if led.made_of else {})

    run_in_virtual_time(main)


def failed(row: int, kind: FailureKind) -> Record:
    return Record(row=row, id=f"id-{row}", outcome=Failure(kind=kind, message="no"))


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_is_either_the_bodys_or_nobody_elses(kind: FailureKind) -> None:
    async def main() -> None:
        sharing = Sharing((), reader=PlainReader())
        led, other = alike(0, 1)
        sharing.meet(led)
        sharing.meet(other)
        sharing.ended(b"k", failed(0, kind), led)
        released = await sharing.released()
        of_the_body = kind in {FailureKind.REFUSED, FailureKind.BLOCKED, FailureKind.TOO_LARGE}
        assert isinstance(released, Record) is of_the_body
        sharing.close()
        assert await sharing.released() is None

    run_in_virtual_time(main)


class Remembering:
    """Says one thing of every key."""

    def __init__(self, records: Sequence[Record], *, of_this_run: bool) -> None:
        self._answers = MemoryAnswers(of_this_run=of_this_run)
        self._answers.remember(records)
        self.find = self._answers.find


def test_answers_of_earlier_are_looked_for_in_the_run_first_and_then_in_the_cache() -> None:
    async def main() -> None:
        of_the_run = Remembering([result(0, "run", key=b"both")], of_this_run=True)
        cached = Remembering([result(7, "a", key=b"both"), result(8, "b", key=b"one")], of_this_run=False)
        sharing = Sharing([of_the_run, cached], reader=PlainReader())
        for key, shares, text in ((b"both", 0, "run"), (b"one", None, "b")):
            record = sharing.meet(alike(5, key=key)[0])
            assert isinstance(record, Record)
            assert isinstance(record.outcome, Reply)
            assert record.outcome.text == text
            assert record.shares == Shares(row=shares, spared_usd=None)
        fresh = alike(6, key=b"new")[0]
        assert sharing.meet(fresh) is fresh

    run_in_virtual_time(main)


@pytest.mark.parametrize("text", ["wrong", "cut {"])
def test_an_earlier_answer_that_is_none_any_more_is_asked_for_again(text: str) -> None:
    async def main() -> None:
        sharing = Sharing([Remembering([result(0, text, key=b"k")], of_this_run=False)], reader=PlainReader())
        request = alike(5)[0]
        assert sharing.meet(request) is request

    run_in_virtual_time(main)


def test_no_row_shares_with_itself() -> None:
    async def main() -> None:
        sharing = Sharing([Remembering([result(5, key=b"k")], of_this_run=True)], reader=PlainReader())
        request = alike(5)[0]
        assert sharing.meet(request) is request

    run_in_virtual_time(main)


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 80))
def test_bodies_have_one_key_only_if_they_are_the_same_before_and_after_the_hole(
    head: bytes, tail: bytes, at: int
) -> None:
    request = dataclasses.replace(make_request(0), head=head, tail=tail)
    other = dataclasses.replace(make_request(1), head=(head + tail)[:at], tail=(head + tail)[at:])
    assert len(key_of(request)) == KEY_BYTES
    assert key_of(dataclasses.replace(request, row=5, id="x")) == key_of(request)
    assert (key_of(other) == key_of(request)) is ((other.head, other.tail) == (head, tail))


def test_what_is_told_of_rows_that_led_nobody_changes_nothing() -> None:
    async def main() -> None:
        sharing = Sharing((), reader=PlainReader())
        sharing.acknowledged([1, 2, 3])
        sharing.left(b"unknown")
        sharing.ended(b"unknown", result(3), make_request(3))
        sharing.close()
        assert await sharing.released() is None

    run_in_virtual_time(main)
