"""What the simulated provider does wrong on purpose, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from bench.faults import FAULTS
from tests.fakes.asking import Replied, ask, body_of, connect, told
from tests.fakes.commands import Simulated, simulated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


def outcome(connection: http.client.HTTPConnection) -> Replied | Exception:
    """What comes of one plain request."""
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        return Replied(connection.getresponse())
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


@pytest.mark.parametrize("kind", sorted(FAULTS - {"stall", "drip"}))
def test_every_fault_does_on_the_wire_what_its_name_says(shared: Simulated, kind: str) -> None:
    fault = {"kind": kind, "status": 503, "message": "out of order", "finish_reason": "content_filter"}
    with told(shared, faults=[fault]):
        found = outcome(connect(shared))
    match kind:
        case "reset":
            assert isinstance(found, ConnectionResetError)
        case "close":
            assert isinstance(found, http.client.RemoteDisconnected)
        case "cut_body" | "wrong_length":
            assert isinstance(found, http.client.IncompleteRead)
        case _:
            assert isinstance(found, Replied)
            assert found.status == (503 if kind == "status" else 200)
            PROMISES[kind](found)


def check_status(found: Replied) -> None:
    assert found.said["error"]["message"] == "out of order"


def check_error_inside(found: Replied) -> None:
    assert found.said["error"] == {"code": 503, "message": "out of order"}


def check_no_choices(found: Replied) -> None:
    assert found.said["choices"] == []


def check_null_content(found: Replied) -> None:
    assert found.content is None


def check_not_json(found: Replied) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(found.data)


def check_fenced(found: Replied) -> None:
    assert "```json" in found.content


def check_cut_json(found: Replied) -> None:
    assert found.choice["finish_reason"] == "stop"
    with pytest.raises(json.JSONDecodeError):
        json.loads(found.content)


def check_no_usage(found: Replied) -> None:
    assert "usage" not in found.said


def check_absurd_usage(found: Replied) -> None:
    assert found.said["usage"]["prompt_tokens"] == -1


def check_finish(found: Replied) -> None:
    assert found.choice["finish_reason"] == "content_filter"


def check_huge(found: Replied) -> None:
    assert len(found.data) > 30 << 20


def check_refusal(found: Replied) -> None:
    assert found.choice["message"]["refusal"] == "out of order"
    assert found.content is None
    assert found.said["usage"]["prompt_tokens"] > 0


def check_tool_calls(found: Replied) -> None:
    assert (found.content, found.choice["finish_reason"]) == (None, "tool_calls")
    (call,) = found.choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])


def check_parts(found: Replied) -> None:
    assert [part["type"] for part in found.content] == ["text", "text"]
    assert json.loads("".join(part["text"] for part in found.content))


def check_wrong_model(found: Replied) -> None:
    assert found.said["model"] not in {"m", ""}
    assert json.loads(found.content)


def check_spent(found: Replied) -> None:
    assert found.choice["finish_reason"] == "length"
    assert found.said["usage"]["completion_tokens"] == 500


def check_repeat(found: Replied) -> None:
    check_spent(found)
    end = found.content[-512:]
    assert any(end[period:] == end[:-period] for period in range(1, 65))


def check_newlines(found: Replied) -> None:
    check_spent(found)
    assert found.content.startswith("{")
    assert found.content.endswith("\n" * 40)


def check_reasoning(found: Replied) -> None:
    check_spent(found)
    assert found.content is None
    assert found.choice["message"]["reasoning"]
    assert found.said["usage"]["completion_tokens_details"]["reasoning_tokens"] == 500


PROMISES = {name.removeprefix("check_"): check for name, check in tuple(globals().items()) if name.startswith("check_")}


def test_reasoning_stands_where_the_profile_puts_it(shared: Simulated) -> None:
    with told(shared, faults=[{"kind": "reasoning"}], profile="vllm"):
        assert ask(shared, body_of()).choice["message"]["reasoning_content"]


@pytest.mark.parametrize("kind", ["repeat", "newlines", "reasoning"])
def test_a_runaway_answer_takes_the_time_of_all_its_tokens_and_is_booked_in_full(shared: Simulated, kind: str) -> None:
    with told(shared, faults=[{"kind": kind}], s_per_output_token=0.003):
        started = time.monotonic()
        ask(shared, body_of(max_tokens=100))
    assert time.monotonic() - started >= 0.3
    assert shared.entries()[-1]["completion_tokens"] == 100


def test_a_status_carries_the_headers_and_the_type_it_is_told(shared: Simulated) -> None:
    headers = {"x-should-retry": "false", "x-ratelimit-reset": "7"}
    fault = {
        "kind": "status",
        "status": 429,
        "headers": headers,
        "error_type": "dynamic_token_limited",
        "retry_after": "9",
    }
    with told(shared, faults=[fault]):
        replied = ask(shared, body_of())
    assert replied.headers.items() >= (headers | {"retry-after": "9"}).items()
    assert replied.said["error_type"] == "dynamic_token_limited"
    with told(shared, faults=[fault], profile="openai"):
        assert ask(shared, body_of()).said["error"]["type"] == "dynamic_token_limited"


def test_a_stalled_answer_never_comes_and_counts_as_not_delivered(shared: Simulated) -> None:
    before = shared.ledger()["delivered"]
    with told(shared, faults=[{"kind": "stall"}]):
        connection = connect(shared, timeout_s=0.3)
        connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
    assert shared.ledger()["delivered"] == before


def test_a_dripping_answer_comes_in_time(shared: Simulated) -> None:
    with told(shared, faults=[{"kind": "drip", "after_bytes": 300}]):
        started = time.monotonic()
        replied = ask(shared, body_of())
    assert replied.said["choices"]
    assert time.monotonic() - started > 0.9


def test_a_fault_may_be_for_the_first_attempts_or_some_texts_alone(shared: Simulated) -> None:
    with told(shared, faults=[{"kind": "status", "status": 500, "first_attempts": 2, "containing": "odd row"}]):
        assert [ask(shared, body_of("odd row")).status for _ in range(3)] == [500, 500, 200]
        assert ask(shared, body_of("plain row")).status == 200


def test_an_outage_resets_every_connection_until_it_ends_and_leaves_the_controls_alone(shared: Simulated) -> None:
    kept = connect(shared)
    kept.request("POST", "/v1/chat/completions", json.dumps(body_of()))
    assert kept.getresponse().read()
    before = shared.ledger()["requests"]
    with told(shared, outage=[[0, 3600]]):
        for asking in (connect(shared), kept):
            assert isinstance(outcome(asking), ConnectionError)
        with pytest.raises(ConnectionError):
            ask(shared, path="/v1/models")
        where = urlsplit(shared.url)
        with socket.create_connection((where.hostname, where.port), 10) as silent, pytest.raises(ConnectionResetError):
            silent.recv(1)
        assert shared.ledger()["requests"] == before
        assert ask(shared, path="/health").status == 200
    assert ask(shared, body_of()).status == 200


def test_an_outage_cuts_off_those_who_wait_and_is_over_by_itself(shared: Simulated) -> None:
    with told(shared, outage=[[0.5, 3600]], latency={"median": 5.0}):
        waiting = connect(shared)
        started = time.monotonic()
        waiting.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        with pytest.raises(ConnectionError):
            waiting.getresponse()
        assert time.monotonic() - started < 4
    with told(shared, outage=[[0, 0.1]]):
        deadline = time.monotonic() + 5
        while isinstance(outcome(connect(shared)), Exception):
            assert time.monotonic() < deadline
            time.sleep(0.02)
