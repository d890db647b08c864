"""A server on a real socket that plays a script, byte by byte, to each connection. One thread a connection.

A script is a plain function of a `Wire`. It runs once for each connection that is accepted; what it does is what the
client meets. Nothing here sleeps: to wait is to listen for the client hanging up, so a test ends as soon as it does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

KEY_AND_CERTIFICATE = Path(__file__).parent.parent / "data" / "test_only_key_and_certificate.pem"
"""Self-signed, for `localhost` only."""
LONGEST_S = 30.0
"""No script waits longer for its client; only a hung test meets it."""


class PeerGoneError(Exception):
    """The client has hung up."""


class Wire:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket, server: RawServer, *, number: int) -> None:
        self._sock = sock
        self._server = server
        self._rest = b""
        self.number = number
        """Ordinal of the connection, from 0."""

    def request(self) -> bytes:
        """The next request, header and body, as it came.

        Raises:
            PeerGoneError: the client closed the connection instead.
        """
        head, gap, rest = self._until(b"\r\n\r\n")
        length = int(header_of(head, "Content-Length") or 0)
        while len(rest) < length:
            rest += self._receive()
        body, self._rest = rest[:length], rest[length:]
        whole = head + gap + body
        self._server.note(whole)
        return whole

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise PeerGoneError from error
        self._server.sent_bytes += len(data)

    def drip(self, data: bytes, *, every_s: float) -> None:
        """Send one byte at a time."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            self.hold(seconds=every_s)

    def hold(self, *, seconds: float = LONGEST_S) -> None:
        """Say nothing for so long.

        Raises:
            PeerGoneError: the client hung up meanwhile.
        """
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._sock.settimeout(left_s)
            try:
                self._rest += self._receive()
            except TimeoutError:
                break
        self._sock.settimeout(LONGEST_S)

    def hang_up(self) -> None:
        """Close our half as an idle keep-alive server does, and wait until the client has closed its own."""
        self._sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(PeerGoneError):
            self.hold()

    def reset(self) -> None:
        """Close so that the client gets a reset and not an end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def secure(self) -> None:
        """Speak TLS from here on, with a certificate nobody has signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(KEY_AND_CERTIFICATE)
        try:
            self._sock = context.wrap_socket(self._sock, server_side=True)
        except OSError as error:
            raise PeerGoneError from error

    def send_beneath_tls(self, data: bytes) -> None:
        """Send on the TCP connection itself what no TLS library would."""
        with socket.socket(fileno=os.dup(self._sock.fileno())) as plain:
            plain.sendall(data)

    def close(self) -> None:
        self._sock.close()

    def _until(self, mark: bytes) -> tuple[bytes, bytes, bytes]:
        data = self._rest
        while mark not in data:
            data += self._receive()
        return data.partition(mark)

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerGoneError from error
        if not data:
            raise PeerGoneError
        return data


Script = Callable[[Wire], None]


class RawServer:
    """Listens on a free port of this machine and plays the script. A context manager; leaving it ends every thread."""

    def __init__(self, script: Script, *, scheme: str = "http", host: str = "127.0.0.1") -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.base_url = f"{scheme}://{host}:{self._listener.getsockname()[1]}/v1"
        self.connections = 0
        """Accepted so far."""
        self.requests: list[bytes] = []
        """Read so far, over all connections."""
        self.sent_bytes = 0
        self.ended = threading.Semaphore(0)
        """Released once for each connection whose script is over."""
        self.broken: list[Exception] = []
        """Errors of the scripts themselves; none may be left."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()
        assert not self.broken, self.broken

    def note(self, request: bytes) -> None:
        with self._lock:
            self.requests.append(request)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(LONGEST_S)
            thread = threading.Thread(target=self._play, args=(Wire(sock, self, number=self.connections),))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _play(self, wire: Wire) -> None:
        try:
            self._script(wire)
        except PeerGoneError:
            pass  # What most scripts end with: the client closes its pool.
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; the test reads it on leaving
            self.broken.append(error)
        finally:
            wire.close()
            self.ended.release()


def header_of(request: bytes, name: str) -> str | None:
    """The value of one header of a request that was read."""
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.decode("latin-1").lower() == name.lower():
            return value.strip().decode("latin-1")
    return None


def http_reply(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    """A whole response with the right length."""
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chat_body(text: object = "yes", **changes: object) -> bytes:
    """A chat completion; `changes` replace top-level keys."""
    said = {
        "id": "chat-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103},
    }
    return orjson.dumps(said | changes)


def answering(*responses: bytes) -> Script:
    """Answers the n-th request of a connection with the n-th response, the last one for ever."""

    def script(wire: Wire) -> None:
        at = 0
        while True:
            wire.request()
            wire.send(responses[min(at, len(responses) - 1)])
            at += 1

    return script


def saying_then_closing(data: bytes) -> Script:
    """Answers the first request with these bytes and ends the connection."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(data)

    return script


def saying_then_resetting(data: bytes) -> Script:
    """Answers the first request with these bytes and resets the connection."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(data)
        wire.reset()

    return script


def saying_then_stalling(data: bytes) -> Script:
    """Answers the first request with these bytes and then with nothing, until the client has had enough."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(data)
        wire.hold()

    return script
