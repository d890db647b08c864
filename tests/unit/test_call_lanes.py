"""Stage 3 over lanes that refuse, rest and come back: scripted clients, in virtual time."""

from __future__ import annotations

import anyio

from engine.config import BrakeConfig, FormatConfig, LimitConfig, RetryConfig
from engine.errors import (
    AuthRejected,
    LaneRefused,
    NetworkError,
    ProviderDown,
    RateLimited,
    RequestRefused,
    ServerError,
)
from engine.types import Failure, FailureKind, Reply
from tests.fakes.calls import Script, always_yes, failure_of, make_reply, rows
from tests.fakes.stages import Stage


def over_lane(stage: Stage, at: int) -> set[int]:
    """The rows that were sent over a lane."""
    return {row for _, row, _ in stage.clients[at].sent}


def test_the_first_calls_find_out_whether_a_lane_takes_a_response_format() -> None:
    stage = Stage(always_yes, form=FormatConfig(value={"type": "json_schema"}, optional=True)).run(rows(5))
    assert all(b'"response_format":{"type":"json_schema"}' in body for body in stage.client.bodies)
    assert stage.lanes.lanes[0].structured == "works"


def test_a_lane_that_refuses_the_format_is_asked_without_and_no_row_is_lost() -> None:
    stage = Stage(always_yes, form=FormatConfig(value={"type": "json_schema"}, optional=True))
    stage.client.see = lambda body: (
        RequestRefused("HTTP 400: unknown field", status=400) if b"response_format" in body else None
    )
    stage.run(rows(40))
    refused = [body for body in stage.client.bodies if b"response_format" in body]
    assert 1 <= len(refused) <= 2
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert stage.lanes.lanes[0].learnt()["structured"] == "off"


def test_a_format_that_the_user_insists_on_is_never_left_out() -> None:
    stage = Stage(
        lambda *_: RequestRefused("HTTP 400: no", status=400), form=FormatConfig(value={"type": "json_object"})
    ).run(rows(1))
    assert len(stage.client.bodies) == 1
    assert failure_of(stage.records[0]).kind is FailureKind.REFUSED


def test_two_lanes_share_the_work_and_each_body_names_its_model() -> None:
    stage = Stage(always_yes, always_yes, limits=LimitConfig(concurrency=8)).run(rows(100))
    assert len(stage.clients[0].sent) + len(stage.clients[1].sent) == 100
    assert min(len(client.sent) for client in stage.clients) > 30
    assert all(b'"model":"m1"' in body for body in stage.clients[1].bodies)


def test_all_lanes_together_keep_to_the_concurrency() -> None:
    stage = Stage(always_yes, always_yes, limits=LimitConfig(concurrency=3)).run(rows(30))
    assert stage.clients[0].most_in_flight + stage.clients[1].most_in_flight <= 4
    assert stage.elapsed_s >= 10


def test_when_one_lane_refuses_its_key_the_others_do_its_rows() -> None:
    stage = Stage(lambda *_: LaneRefused("HTTP 401: bad key", status=401), always_yes).run(rows(60))
    assert len(stage.records) == 60
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert len(stage.clients[0].sent) <= 3
    assert stage.stop.error is None


def test_a_key_refused_once_on_a_lane_that_answered_is_confirmed_before_the_lane_is_shut() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | LaneRefused:
        return LaneRefused("HTTP 401: who?", status=401) if (row, attempt) == (20, 1) else make_reply()

    stage = Stage(script, limits=LimitConfig(concurrency=1)).run(rows(40))
    assert len(stage.records) == 40
    assert stage.stop.error is None


def test_a_doubtful_refusal_of_one_row_ends_that_row_alone() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | LaneRefused:
        return LaneRefused("HTTP 403: no", status=403, doubtful=True) if row == 3 else make_reply()

    stage = Stage(script).run(rows(40))
    assert failure_of(stage.records[3]).kind is FailureKind.REFUSED
    assert sum(isinstance(record.outcome, Reply) for record in stage.records.values()) == 39
    assert stage.stop.error is None


def test_doubtful_refusals_of_three_rows_shut_the_lane_and_burn_none() -> None:
    stage = Stage(lambda *_: LaneRefused("HTTP 403: no", status=403, doubtful=True)).run(rows(40))
    assert stage.records == {}
    assert len({row for _, row, _ in stage.client.sent}) <= 3
    assert isinstance(stage.stop.error, AuthRejected)


def test_a_pause_of_hours_ends_the_run_resumably() -> None:
    stage = Stage(lambda *_: RateLimited("HTTP 429: requests per day", status=429, retry_after_s=5 * 3600)).run(rows(9))
    assert isinstance(stage.stop.error, ProviderDown)
    assert stage.records == {}


def gone(*, from_s: float, until_s: float) -> Script:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | NetworkError:
        return NetworkError("refused") if from_s <= anyio.current_time() < until_s else make_reply()

    return script


def test_an_outage_burns_no_row_and_few_calls_and_work_goes_on_after_it() -> None:
    script = gone(from_s=0.25, until_s=3600)
    stage = Stage(script, retry=RetryConfig(max_tokens=512, row_deadline_s=600), latency_s=0.1).run(rows(50))
    assert sorted(stage.records) == list(range(50))
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert len([at for at, _, _ in stage.client.sent if 0.25 < at < 3600]) < 130
    assert 55 < len(stage.client.probes) < 75
    assert stage.elapsed_s < 3600 + 90


def test_rows_that_a_server_fails_on_end_even_if_nothing_else_is_left_to_show_that_it_is_well() -> None:
    def script(row: int, attempt: int, max_tokens: int) -> Reply | ServerError:
        return ServerError(f"HTTP 502: {attempt}", status=502) if row >= 20 else make_reply()

    stage = Stage(script, latency_s=0.1).run(rows(40))
    assert sum(isinstance(record.outcome, Failure) for record in stage.records.values()) == 20
    assert all(stage.records[row].attempts <= 7 for row in range(20, 40))
    assert stage.elapsed_s < 300


def test_a_probe_is_paid_for_and_in_the_books() -> None:
    stage = Stage(gone(from_s=0.25, until_s=30), latency_s=0.1).run(rows(50))
    calls = len([1 for at, _, _ in stage.client.sent if not 0.15 <= at < 30]) + 1
    assert len(stage.client.probes) >= 1
    assert stage.books.usage.completion_tokens == 3 * calls


def test_an_outage_longer_than_the_user_will_wait_ends_the_run_resumably() -> None:
    script = gone(from_s=0.25, until_s=1e9)
    stage = Stage(script, brake=BrakeConfig(max_outage_s=1800), latency_s=0.1).run(rows(50))
    assert isinstance(stage.stop.error, ProviderDown)
    assert not any(isinstance(record.outcome, Failure) for record in stage.records.values())
    assert 1800 <= stage.elapsed_s < 1800 + 90


def test_an_address_that_never_answered_is_not_waited_for_all_night() -> None:
    stage = Stage(gone(from_s=0, until_s=1e9), latency_s=0.1).run(rows(50))
    assert isinstance(stage.stop.error, AuthRejected)
    assert "refused" in str(stage.stop.error)
    assert stage.records == {}
    assert stage.elapsed_s < 60


def test_an_address_that_answered_in_an_earlier_life_is_waited_for() -> None:
    stage = Stage(gone(from_s=0, until_s=600), latency_s=0.1)
    stage.learnt = {"m0 at 127.0.0.1:9": {"answered": True}}
    stage.run(rows(20))
    assert len(stage.records) == 20
    assert stage.elapsed_s > 600


def test_while_one_lane_is_down_the_other_does_the_work_and_it_is_taken_back() -> None:
    stage = Stage(gone(from_s=0, until_s=60), always_yes, limits=LimitConfig(concurrency=4)).run(rows(800))
    assert len(stage.records) == 800
    assert all(isinstance(record.outcome, Reply) for record in stage.records.values())
    assert len([1 for at, _, _ in stage.clients[0].sent if at > 120]) > 50
