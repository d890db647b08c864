"""One client connection of the simulated provider: HTTP/1.1 requests in, responses and misbehaviour out."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import httptools
import orjson

from bench.faults import Fault
from bench.wire import http_response

MAX_BODY_BYTES = 64 << 20
HUGE_BYTES = 32 << 20
SILENT_S = 0.25
"""In an outage, a connection that says nothing for so long is reset: by then whoever means to ask has begun."""

_CONTROL = re.compile(rb"(?:GET|POST) (?:/v1)?/(?:ledger|scenario|health)[ /?]")


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request."""

    method: str
    path: str | None
    """None if the address is none."""
    query: str
    headers: Mapping[bytes, bytes]
    body: bytes | None
    """None if it was too large to be kept."""
    keep_alive: bool


class Connection(asyncio.Protocol):
    """One client connection. Requests on it are answered one after the other."""

    def __init__(
        self, handle: Callable[[Asked, Connection], None], connections: set[Connection], is_out: Callable[[], bool]
    ) -> None:
        self._handle = handle
        self._connections = connections
        self._is_out = is_out
        self._heard = False
        self._controls = False
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Asked] = deque()
        self._busy = False
        self._going_on = False
        self._keep_alive = True
        self._reset()

    @property
    def owes_an_answer(self) -> bool:
        return self._busy

    @property
    def closed(self) -> bool:
        """Whether nothing sent now would arrive."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        if self._is_out():
            asyncio.get_running_loop().call_later(SILENT_S, self._reset_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._connections.discard(self)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._is_out() and not self._is_control(data):
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep_alive = False
            self.send(400, {"error": {"message": "no HTTP/1.1 request"}})

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._body.clear()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            # What follows is in another protocol: `data_received` says that it is not spoken here.
            return
        method = self._parser.get_method().decode()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        # A client that asks for headers alone would take the body of our refusal for the next response.
        keep_alive = self._parser.should_keep_alive() and method != "HEAD"
        fits = self._size <= MAX_BODY_BYTES
        path, query = _address(self._url)
        self._waiting.append(Asked(method, path, query, self._headers, body if fits else None, keep_alive))
        self._reset()
        self._next()

    def send(self, status: int, body: object) -> None:
        """A JSON response."""
        self.send_raw(http_response(status, orjson.dumps(body)))

    def send_raw(self, response: bytes, *, last: bool = False) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(response)
            if last or not self._keep_alive:
                self._transport.close()
        self._busy = False
        self._next()

    def abort(self) -> None:
        """End the connection with a reset."""
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and not self.closed:
                # Closed with a linger of 0 s, a TCP connection ends with RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def misbehave(self, fault: Fault, whole: bytes) -> None:
        """Do to a response what the fault says."""
        match fault.kind:
            case "stall":
                return
            case "reset":
                self.abort()
            case "close":
                self.send_raw(b"", last=True)
            case "cut_body":
                head, _, body = whole.partition(b"\r\n\r\n")
                self.send_raw(head + b"\r\n\r\n" + body[: min(fault.after_bytes, len(body) - 1)], last=True)
            case "wrong_length":
                self.send_raw(whole.replace(b"content-length: ", b"content-length: 9", 1), last=True)
            case "huge":
                self.send_raw(http_response(200, b" " * HUGE_BYTES))
            case _:
                self.send_raw(whole)

    def drip(self, data: bytes, bytes_per_s: int, done: Callable[[bool], None]) -> None:
        """Send so much a second; `done` is told whether all of it went out."""
        if self._transport is None or self.closed:
            done(False)
            return
        now, later = data[:bytes_per_s], data[bytes_per_s:]
        if later:
            self._transport.write(now)
            asyncio.get_running_loop().call_later(1.0, self.drip, later, bytes_per_s, done)
        else:
            done(True)
            self.send_raw(now)

    def _next(self) -> None:
        if self._going_on:
            # An answer given at once: the loop below, which asked for it, takes the next request. No deep recursion.
            return
        self._going_on = True
        try:
            while self._waiting and not self._busy and not self.closed:
                asked = self._waiting.popleft()
                self._busy, self._keep_alive = True, asked.keep_alive
                self._handle(asked, self)
        finally:
            self._going_on = False

    def _is_control(self, data: bytes) -> bool:
        """Whether a request is about the server itself, as its first bytes say."""
        if not self._url:
            self._controls = _CONTROL.match(data) is not None
        return self._controls

    def _reset_if_silent(self) -> None:
        if not self._heard and self._is_out():
            self.abort()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0


def _address(url: bytes) -> tuple[str | None, str]:
    """Path and query."""
    try:
        parts = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return None, ""
    return (parts.path or b"/").decode("latin-1"), (parts.query or b"").decode("latin-1")
