"""Where the key goes: to the server that was named, over TLS that was checked, and into no message, log or header."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.client import HttpClient
from engine.errors import ApiError, CertificateError, LaneRefused, NetworkError, RequestRefused
from engine.types import Reply
from tests.fakes.attempts import KEY, api_config, attempt, outcome_of, with_client
from tests.fakes.servers import (
    KEY_AND_CERTIFICATE,
    RawServer,
    Script,
    Wire,
    answering,
    chat_body,
    header_of,
    http_reply,
)

pytestmark = pytest.mark.slow

WHOLE = http_reply(chat_body())
ROOT = Path(__file__).parent.parent.parent


def over_tls(wire: Wire) -> None:
    wire.secure()
    wire.request()
    wire.send(WHOLE)


def spoiled_tls(wire: Wire) -> None:
    wire.secure()
    wire.request()
    wire.send(WHOLE[:-5])
    wire.send_beneath_tls(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    wire.hold()


def plain_http(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\nThis is a plain HTTP port")
    wire.hold()


def another_protocol(wire: Wire) -> None:
    wire.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    wire.hold()


def alert(wire: Wire) -> None:
    """A fatal `handshake_failure`."""
    wire.send(b"\x15\x03\x01\x00\x02\x02\x28")
    wire.hold()


def end_in_handshake(wire: Wire) -> None:
    """What a load balancer does while it is restarted."""
    wire.hang_up()


def test_a_certificate_nobody_signed_is_refused_before_the_key_is_sent() -> None:
    with RawServer(over_tls, scheme="https", host="localhost") as server:
        error = attempt(api_config(server.base_url))
    assert type(error) is CertificateError
    assert str(error).startswith("certificate not accepted: ")
    assert not error.paid
    assert server.requests == []


@pytest.mark.parametrize("script", [plain_http, another_protocol, alert])
def test_a_port_that_does_not_speak_tls_is_a_certificate_error_without_a_request(script: Script) -> None:
    """It fails alike for every row, so it ends a run instead of burning them."""
    with RawServer(script, scheme="https") as server:
        error = attempt(api_config(server.base_url))
    assert type(error) is CertificateError
    assert str(error).startswith("TLS failed: ")
    assert not error.paid


@pytest.mark.parametrize("script", [end_in_handshake, Wire.reset])
def test_a_connection_lost_in_the_handshake_is_no_certificate_error(script: Script) -> None:
    """It passes, and must not end a run."""
    with RawServer(script, scheme="https") as server:
        error = attempt(api_config(server.base_url))
    assert type(error) is NetworkError
    assert not error.paid
    assert not str(error).endswith(":")


ATTEMPTS = """
import sys
from tests.fakes.attempts import api_config, attempt
for base_url in sys.argv[1:]:
    for uvloop in (False, True):
        print(type(attempt(api_config(base_url), uvloop=uvloop)).__name__)
"""


def test_a_trusted_certificate_passes_for_its_own_name_only_and_broken_tls_is_a_network_error() -> None:
    """In a process of its own: what is trusted is read once, when TLS is first used."""
    with (
        RawServer(over_tls, scheme="https", host="localhost") as good,
        RawServer(over_tls, scheme="https", host="127.0.0.1") as misnamed,
        RawServer(spoiled_tls, scheme="https", host="localhost") as spoiled,
        RawServer(end_in_handshake, scheme="https", host="localhost") as ending,
        RawServer(Wire.reset, scheme="https", host="localhost") as resetting,
    ):
        servers = (good, misnamed, spoiled, ending, resetting)
        said = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, *(server.base_url for server in servers)],
            cwd=ROOT,
            env={**os.environ, "SSL_CERT_FILE": str(KEY_AND_CERTIFICATE)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    outcomes = ["Reply", "CertificateError", "NetworkError", "NetworkError", "NetworkError"]
    assert said.stdout.split() == [outcome for outcome in outcomes for _ in range(2)]
    assert misnamed.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_redirect_is_never_followed(status: int, elsewhere: bool) -> None:  # noqa: FBT001 - a parameter of tests
    with RawServer(answering(WHOLE)) as target:
        location = f"{target.base_url}/chat/completions" if elsewhere else "/v1/chat/completions?again"
        redirect = http_reply(b"", status=f"{status} Moved", headers=(f"Location: {location}",))
        with RawServer(answering(redirect)) as server:
            error = attempt(api_config(server.base_url))
    assert type(error) is LaneRefused
    assert error.status == status
    assert len(server.requests) == 1
    assert target.connections == 0


def test_the_key_is_sent_as_a_bearer_token_and_without_a_key_nothing_is() -> None:
    with RawServer(answering(WHOLE)) as server:
        attempt(api_config(server.base_url))
        attempt(api_config(server.base_url, key=None))
    assert [header_of(request, "Authorization") for request in server.requests] == [f"Bearer {KEY}", None]


def test_cookies_are_not_kept() -> None:
    async def use(client: HttpClient) -> list[Reply | ApiError]:
        return [await outcome_of(client) for _ in range(2)]

    response = http_reply(chat_body(), headers=("Set-Cookie: track=me; Path=/",))
    with RawServer(answering(response), host="localhost") as server:
        outcomes = with_client(api_config(server.base_url), use)
    assert [type(outcome) for outcome in outcomes] == [Reply, Reply]
    assert [header_of(request, "Cookie") for request in server.requests] == [None, None]


def test_proxies_and_passwords_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answering(WHOLE)) as proxy, RawServer(answering(WHOLE)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url)
        assert isinstance(attempt(api_config(server.base_url, key=None)), Reply)
    assert proxy.connections == 0
    assert header_of(server.requests[0], "Authorization") is None


Echo = Callable[[str], bytes]

ECHOES: dict[str, Echo] = {
    "JSON error": lambda key: http_reply(b'{"error":{"message":"bad key %b"}}' % key.encode(), status="401 x"),
    "JSON without words": lambda key: http_reply(b'{"key":"%b"}' % key.encode(), status="401 x"),
    "JSON, at the cut": lambda key: http_reply(b'{"error":"%b"}' % (b"x" * 1970 + b" " + key.encode()), status="400 x"),
    "page": lambda key: http_reply(b"<html>" + key.encode(), status="502 x"),
    "page, at the cut": lambda key: http_reply(b"x" * 270 + b" " + key.encode(), status="502 x"),
    "validation": lambda key: http_reply(b'{"detail":[{"msg":"%b"}]}' % key.encode(), status="422 x"),
    "reason": lambda key: http_reply(b"", status=f"500 {key}"),
    "rate": lambda key: http_reply(b'{"error":"%b"}' % key.encode(), status="429 x", headers=(f"Retry-After: {key}",)),
    "redirect": lambda key: http_reply(b"", status="302 x", headers=(f"Location: http://127.0.0.1:9/?{key}",)),
    "error in a 200": lambda key: http_reply(b'{"error":{"message":"%b"}}' % key.encode()),
    "200, no JSON": lambda key: http_reply(key.encode()),
    "200, no choices": lambda key: http_reply(b'{"%b":"%b"}' % (key.encode(), key.encode())),
    "200, too large": lambda key: http_reply(key.encode() * 4000),
    "request id": lambda key: http_reply(chat_body(), headers=(f"x-request-id: {key}",)),
    "model": lambda key: http_reply(chat_body(model=key)),
    "status line": lambda key: f"{key} 200 OK\r\n\r\n".encode(),
    "version": lambda key: f"HTTP/{key} 200 OK\r\n\r\n".encode(),
    "header name": lambda key: f"HTTP/1.1 200 OK\r\n{key} {key}\r\n\r\n".encode(),
    "header value": lambda key: f"HTTP/1.1 200 OK\r\nX: {key}\x00\r\n\r\n".encode(),
    "long header": lambda key: f"HTTP/1.1 200 OK\r\nX: {key * 500}\r\n\r\n".encode(),
    "length": lambda key: f"HTTP/1.1 200 OK\r\nContent-Length: {key}\r\n\r\n".encode(),
    "chunk size": lambda key: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n".encode(),
    "cut body": lambda key: http_reply(chat_body(key))[:-5],
    "nothing": lambda key: b"",
}
"""Ways of a server to say the key it was sent back to the client."""


def echoing(echo: Echo) -> Script:
    def script(wire: Wire) -> None:
        key = header_of(wire.request(), "Authorization")
        assert key is not None
        wire.send(echo(key.removeprefix("Bearer ")))

    return script


def everything_said(outcome: Reply | ApiError) -> str:
    """All that a log, a traceback or a debugger's summary could show of an outcome and of what led to it."""
    said = [repr(outcome)]
    error: BaseException | None = outcome if isinstance(outcome, ApiError) else None
    if error is not None:
        said += traceback.format_exception(error)
    while error is not None:
        said += [str(error), repr(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def assert_silent(text: str) -> None:
    """No ten characters in a row of the key's random part: a cut key is still a secret."""
    secret = KEY.removeprefix("sk-canary-")
    assert not [at for at in range(len(secret) - 9) if secret[at : at + 10] in text], text


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_key_the_server_says_back_shows_nowhere(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(echoing(echo)) as server:
        outcome = attempt(api_config(server.base_url, max_reply_bytes=1 << 16), debug=True)
    assert KEY.encode() in server.requests[0], "the server did have it"
    assert_silent(everything_said(outcome))
    assert_silent(caplog.text)


def test_the_key_shows_in_no_error_of_the_connection_or_of_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        socket.socket() as refusing,
        RawServer(over_tls, scheme="https") as untrusted,
        RawServer(Wire.hold) as silent,
        RawServer(Wire.reset) as resetting,
    ):
        refusing.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{refusing.getsockname()[1]}/v1"
        for base_url in (refused, untrusted.base_url, silent.base_url, resetting.base_url, "https://a..b/v1"):
            error = attempt(api_config(base_url, call_timeout_s=0.3), debug=True)
            assert isinstance(error, NetworkError)
            assert_silent(everything_said(error))
    assert_silent(caplog.text)


def test_the_key_shows_neither_in_the_settings_nor_in_the_client() -> None:
    config = api_config("http://127.0.0.1:9/v1")

    async def use(client: HttpClient) -> str:
        return repr(client) + repr(config)

    assert_silent(with_client(config, use))


@pytest.mark.parametrize("key", ["o", "EMPTY", "1"])
def test_a_key_that_is_only_a_word_spoils_neither_answers_nor_waits(key: str) -> None:
    """Local servers take any key, and people give them any."""
    refused = http_reply(b'{"error":"EMPTY: try again in 11s"}', status="429 x")
    with RawServer(answering(http_reply(chat_body("the answer", model="org/1-EMPTY")))) as server:
        reply = attempt(api_config(server.base_url, key=key))
    with RawServer(answering(refused)) as server:
        error = attempt(api_config(server.base_url, key=key))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason, reply.model) == ("the answer", "stop", "org/1-EMPTY")
    assert str(error) == "HTTP 429: EMPTY: try again in 11s"
    assert isinstance(error, ApiError)
    assert error.retry_after_s == 11


def test_words_of_a_refusal_stay_beside_a_key_that_is_hidden() -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b. See the docs."}}' % KEY.encode()
    with RawServer(answering(http_reply(body, status="400 x"))) as server:
        error = attempt(api_config(server.base_url))
    assert type(error) is RequestRefused
    assert str(error) == "HTTP 400: Incorrect API key provided: ***. See the docs."
