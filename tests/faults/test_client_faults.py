"""The HTTP client against servers that refuse, cut, stall, drip, flood and talk nonsense. Real sockets."""

from __future__ import annotations

import gc
import gzip
import socket
import sys
import threading
import time

import anyio
import orjson
import pytest

from engine.client import IDLE_END_S, HttpClient
from engine.errors import ApiError, BadReply, CallTimeout, NetworkError
from engine.types import Reply
from tests.fakes.attempts import api_config, attempt, outcome_of, with_client
from tests.fakes.servers import (
    RawServer,
    Script,
    Wire,
    answering,
    chat_body,
    http_reply,
    saying_then_closing,
    saying_then_resetting,
    saying_then_stalling,
)

pytestmark = pytest.mark.slow

BODY = chat_body()
WHOLE = http_reply(BODY)
IN_HEADERS = 30
"""Bytes of `WHOLE` that end in the middle of a header."""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
SLACK_S = 1.5
"""What a loaded machine may add to a timeout."""

on_both_loops = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])


def refuse_to_read(wire: Wire) -> None:
    """Close without having read the request."""


BROKEN: dict[str, Script] = {
    "reset before headers": saying_then_resetting(b""),
    "reset in headers": saying_then_resetting(WHOLE[:IN_HEADERS]),
    "reset in body": saying_then_resetting(WHOLE[:-5]),
    "closed without answer": saying_then_closing(b""),
    "closed in headers": saying_then_closing(WHOLE[:IN_HEADERS]),
    "closed in body": saying_then_closing(WHOLE[:-5]),
    "length too short": saying_then_stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + BODY),
    "length no number": saying_then_stalling(b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n" + BODY),
    "length negative": saying_then_stalling(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + BODY),
    "two lengths": saying_then_stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY),
    "chunks cut between": saying_then_closing(CHUNKED + CHUNK),
    "chunks cut within": saying_then_closing(CHUNKED + CHUNK[:-9]),
    "chunk size garbage": saying_then_stalling(CHUNKED + b"zz\r\n" + BODY),
    "another protocol": saying_then_stalling(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/2 frames": saying_then_stalling(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    "every byte": saying_then_closing(bytes(range(256))),
    "status too large": saying_then_stalling(http_reply(b"", status="1000 x")),
    "one huge header": saying_then_stalling(http_reply(BODY, headers=("X: " + "y" * (1 << 20),))),
    "too many headers": saying_then_stalling(http_reply(BODY, headers=tuple(f"X-{n}: y" for n in range(5000)))),
}


@on_both_loops
@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_a_broken_reply_is_a_network_error(script: Script, uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    with RawServer(script) as server:
        error = attempt(api_config(server.base_url), uvloop=uvloop)
    assert type(error) is NetworkError
    assert error.paid
    assert error.status is None
    assert server.connections == 1, "the client itself tries no call again: a retry is paid for, and call.py decides"


@on_both_loops
def test_a_cut_at_any_byte_of_a_reply_is_an_error_of_ours(uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    whole = http_reply(chat_body("ok", usage=None, choices=[{"message": {"content": "ok"}}]))
    cuts = range(0, len(whole), 3)

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(whole[: cuts[wire.number]])

    async def use(client: HttpClient) -> list[Reply | ApiError]:
        return [await outcome_of(client) for _ in cuts]

    with RawServer(script) as server:
        outcomes = with_client(api_config(server.base_url), use, uvloop=uvloop)
    assert {type(outcome) for outcome in outcomes} == {NetworkError}


@on_both_loops
@pytest.mark.parametrize("script", [Wire.reset, refuse_to_read])
def test_a_connection_lost_as_soon_as_it_is_made_is_a_network_error(script: Script, uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    """Whether the request was on its way by then, and so may be paid for, is a race that nobody can call."""
    with RawServer(script) as server:
        error = attempt(api_config(server.base_url), uvloop=uvloop)
    assert type(error) is NetworkError


def test_a_refused_connection_was_not_paid_for() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Bound and not listening: connecting is refused, and nobody else gets the port.
        error = attempt(api_config(f"http://127.0.0.1:{bound.getsockname()[1]}/v1"))
    assert type(error) is NetworkError
    assert not error.paid
    assert str(error).startswith("cannot connect: ")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 64 + ".invalid"])
def test_a_name_that_does_not_resolve_is_a_network_error(host: str) -> None:
    error = attempt(api_config(f"https://{host}/v1"))
    assert isinstance(error, NetworkError)


def in_tls_handshake(wire: Wire) -> None:
    wire.hold()


STALLS: dict[str, tuple[Script, str]] = {
    "TLS handshake": (in_tls_handshake, "https"),
    "before headers": (saying_then_stalling(b""), "http"),
    "in headers": (saying_then_stalling(WHOLE[:IN_HEADERS]), "http"),
    "before body": (saying_then_stalling(WHOLE[: -len(BODY)]), "http"),
    "in body": (saying_then_stalling(WHOLE[:-5]), "http"),
    "between chunks": (saying_then_stalling(CHUNKED + CHUNK), "http"),
    "length too long": (saying_then_stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + BODY), "http"),
}


@pytest.mark.parametrize(("script", "scheme"), STALLS.values(), ids=STALLS)
def test_a_stall_in_any_phase_ends_within_its_timeout(script: Script, scheme: str) -> None:
    with RawServer(script, scheme=scheme) as server:
        started = time.monotonic()
        error = attempt(api_config(server.base_url, connect_timeout_s=0.3, call_timeout_s=0.5))
        took_s = time.monotonic() - started
    assert type(error) is CallTimeout
    assert error.paid == (scheme == "http"), "before the connection stands nothing can have been charged"
    assert 0.25 <= took_s < 0.5 + SLACK_S


def test_a_machine_that_does_not_answer_a_connection_ends_within_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as filler:
        filler.connect(listener.getsockname())  # The queue holds one; Linux drops what comes after it.
        started = time.monotonic()
        error = attempt(api_config(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connect_timeout_s=0.3))
        took_s = time.monotonic() - started
    assert type(error) is CallTimeout
    assert not error.paid
    assert took_s < 0.3 + SLACK_S


def drip_all(wire: Wire) -> None:
    wire.request()
    wire.drip(WHOLE, every_s=0.05)


def continue_for_ever(wire: Wire) -> None:
    wire.request()
    while True:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


@pytest.mark.parametrize("script", [drip_all, continue_for_ever])
def test_a_server_that_is_always_about_to_answer_meets_the_call_timeout(script: Script) -> None:
    with RawServer(script) as server:
        started = time.monotonic()
        error = attempt(api_config(server.base_url, call_timeout_s=0.5))
        took_s = time.monotonic() - started
    assert type(error) is CallTimeout
    assert took_s < 0.5 + SLACK_S


def flood_body(wire: Wire) -> None:
    wire.request()
    wire.send(CHUNKED)
    while True:
        wire.send(b"10000\r\n" + b"x" * (1 << 16) + b"\r\n")


def flood_without_length(wire: Wire) -> None:
    wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        wire.send(b"x" * (1 << 16))


def flood_header(wire: Wire) -> None:
    wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        wire.send(b"y" * (1 << 16))


def flood_headers(wire: Wire) -> None:
    wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.send(b"X: y\r\n" * 10_000)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (flood_body, BadReply),
        (flood_without_length, BadReply),
        (flood_header, NetworkError),
        (flood_headers, NetworkError),
    ],
)
def test_an_endless_reply_is_left_early(script: Script, error: type[ApiError]) -> None:
    with RawServer(script) as server:
        outcome = attempt(api_config(server.base_url, max_reply_bytes=1 << 16))
    assert type(outcome) is error
    assert server.sent_bytes < 32 << 20, "what the sockets' own buffers hold, and not more"


def test_the_largest_reply_allowed_is_taken_and_one_byte_more_is_not() -> None:
    with RawServer(answering(WHOLE)) as server:
        assert isinstance(attempt(api_config(server.base_url, max_reply_bytes=len(BODY))), Reply)
        error = attempt(api_config(server.base_url, max_reply_bytes=len(BODY) - 1))
    assert type(error) is BadReply
    assert error.paid


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "zstd"])
def test_a_compressed_reply_is_refused_without_unfolding_it(coding: str) -> None:
    bomb = gzip.compress(chat_body("0" * (32 << 20)))
    assert len(bomb) < 1 << 16
    with RawServer(answering(http_reply(bomb, headers=(f"Content-Encoding: {coding}",)))) as server:
        error = attempt(api_config(server.base_url, max_reply_bytes=1 << 16))
        assert b"accept-encoding: identity" in server.requests[0].lower()
    assert type(error) is BadReply
    assert "compressed" in str(error)


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_reply_that_says_it_is_not_compressed_is_taken(coding: str) -> None:
    with RawServer(answering(http_reply(BODY, headers=(f"Content-Encoding: {coding}",)))) as server:
        assert isinstance(attempt(api_config(server.base_url)), Reply)


@on_both_loops
def test_a_hundred_calls_at_once_use_a_hundred_connections_and_the_next_hundred_the_same(uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    calls = 100
    together = threading.Barrier(calls)

    def script(wire: Wire) -> None:
        first = True
        while True:
            asked = wire.request().rpartition(b"\r\n\r\n")[2]
            if first:
                together.wait(timeout=20)
            first = False
            wire.send(http_reply(chat_body(asked.decode())))

    async def use(client: HttpClient) -> dict[int, str]:
        answers: dict[int, str] = {}

        async def call(number: int) -> None:
            reply = await client.attempt(b"%d" % number)
            answers[number] = reply.text

        for start in (0, calls, 2 * calls):
            async with anyio.create_task_group() as group:
                for number in range(start, start + calls):
                    group.start_soon(call, number)
        return answers

    with RawServer(script) as server:
        answers = with_client(api_config(server.base_url), use, uvloop=uvloop)
    assert answers == {number: str(number) for number in range(3 * calls)}, "everyone gets the answer to its own body"
    assert server.connections == calls
    assert len(server.requests) == 3 * calls


@on_both_loops
def test_an_idle_connection_the_server_closed_costs_nothing_once_its_end_has_arrived(uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(WHOLE)
        wire.hang_up()

    with RawServer(script) as server:

        async def use(client: HttpClient) -> list[Reply | ApiError]:
            first = await outcome_of(client)
            await anyio.to_thread.run_sync(server.ended.acquire)  # The client has closed its half.
            return [first, await outcome_of(client)]

        outcomes = with_client(api_config(server.base_url), use, uvloop=uvloop)
    assert [type(outcome) for outcome in outcomes] == [Reply, Reply]
    assert server.connections == 2


def closing_the_second_time_after(said: bytes, *, seconds: float = 0.0) -> Script:
    """Answers one request of a connection, and ends it at the next with these bytes."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(WHOLE)
        wire.request()
        wire.hold(seconds=seconds)
        wire.send(said)

    return script


async def two_calls(client: HttpClient) -> list[Reply | ApiError]:
    return [await outcome_of(client) for _ in range(2)]


@on_both_loops
@pytest.mark.parametrize("body", [b"{}", b"x" * (2 << 20)], ids=["small", "large"])
def test_an_idle_connection_closed_just_as_it_is_used_again_costs_nothing(body: bytes, uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    async def use(client: HttpClient) -> list[Reply | ApiError]:
        return [await outcome_of(client, body) for _ in range(3)]

    with RawServer(closing_the_second_time_after(b"")) as server:
        outcomes = with_client(api_config(server.base_url), use, uvloop=uvloop)
    assert [type(outcome) for outcome in outcomes] == [Reply, Reply, Reply]
    assert server.connections == 3
    assert {request.partition(b"\r\n\r\n")[2] for request in server.requests} == {body}


@on_both_loops
@pytest.mark.parametrize("cut", [1, 2, IN_HEADERS, len(WHOLE) - len(BODY), len(WHOLE) - 5])
def test_a_used_connection_that_ends_after_any_byte_of_an_answer_may_be_paid_for(cut: int, uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    with RawServer(closing_the_second_time_after(WHOLE[:cut])) as server:
        _, error = with_client(api_config(server.base_url), two_calls, uvloop=uvloop)
    assert type(error) is NetworkError
    assert error.paid
    assert server.connections == 1


def test_a_used_connection_that_ends_after_a_while_may_be_paid_for() -> None:
    """The server read the request and worked on it: sending it again by oneself could pay twice."""
    with RawServer(closing_the_second_time_after(b"", seconds=IDLE_END_S + 0.1)) as server:
        _, error = with_client(api_config(server.base_url), two_calls)
    assert type(error) is NetworkError
    assert error.paid
    assert server.connections == 1


def test_a_call_is_sent_again_once_and_not_for_ever() -> None:
    """One connection is kept, and every new one closes without a word."""

    def script(wire: Wire) -> None:
        wire.request()
        if wire.number == 0:
            wire.send(WHOLE)
            wire.request()

    with RawServer(script) as server:
        _, error = with_client(api_config(server.base_url), two_calls)
    assert type(error) is NetworkError
    assert error.paid
    assert server.connections == 2
    assert len(server.requests) == 3


@on_both_loops
def test_a_cancelled_call_leaves_nothing_for_the_next_one_to_read(uvloop: bool) -> None:  # noqa: FBT001 - a parameter of tests
    halfway = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        if wire.number == 0:
            wire.send(WHOLE[:-5])
            halfway.set()
            wire.hold()
        wire.send(http_reply(chat_body("mine")))

    async def use(client: HttpClient) -> Reply | ApiError:
        async with anyio.create_task_group() as group:
            group.start_soon(client.attempt, b"{}")
            await anyio.to_thread.run_sync(halfway.wait)
            group.cancel_scope.cancel()
        return await outcome_of(client)

    with RawServer(script) as server:
        reply = with_client(api_config(server.base_url), use, uvloop=uvloop)
    assert isinstance(reply, Reply)
    assert reply.text == "mine"
    assert server.connections == 2


def test_bytes_after_a_reply_never_answer_the_next_call() -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(http_reply(chat_body(f"reply {wire.number}")) + http_reply(chat_body("stray")))
        wire.hold()

    async def use(client: HttpClient) -> list[str]:
        return [(await client.attempt(b"{}")).text for _ in range(2)]

    with RawServer(script) as server:
        assert with_client(api_config(server.base_url), use) == ["reply 0", "reply 1"]


def test_a_body_arrives_as_it_was_given_however_large() -> None:
    body = orjson.dumps({"frames": "x" * (4 << 20)})
    with RawServer(answering(WHOLE)) as server:

        async def use(client: HttpClient) -> Reply | ApiError:
            return await outcome_of(client, body)

        assert isinstance(with_client(api_config(server.base_url), use), Reply)
        head, _, received = server.requests[0].partition(b"\r\n\r\n")
    assert received == body
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


def test_use_outside_the_context_is_a_bug_and_said() -> None:
    with pytest.raises(RuntimeError, match="outside its context"):
        anyio.run(HttpClient(api_config("http://127.0.0.1:9/v1")).attempt, b"{}")


@pytest.mark.parametrize(
    "script",
    [BROKEN["reset before headers"], BROKEN["closed in body"], answering(http_reply(b"{}", status="500 No"))],
    ids=["reset", "closed", "500"],
)
def test_a_failed_call_keeps_no_body_once_the_trace_of_its_error_is_gone(script: Script) -> None:
    head = bytes(300_000)

    async def held_after(client: HttpClient) -> int:
        for _ in range(3):
            try:
                await client.attempt(head, b"{}")
            except ApiError as error:
                error.__traceback__ = None
        return sys.getrefcount(head)

    before = sys.getrefcount(head)
    gc.disable()
    try:
        with RawServer(script) as server:
            after = with_client(api_config(server.base_url), held_after, uvloop=True)
    finally:
        gc.enable()
    assert after <= before
