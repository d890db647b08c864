"""The least a client can ask: one request over and over on raw connections, to see what the server alone takes."""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import urlsplit

from bench.throughput import BenchError


class Asking(asyncio.Protocol):
    """Sends one request after the other on one connection and looks at nothing but where replies end."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Event, *, connections: int) -> None:
        self._request, self._left, self._done, self._connections = request, left, done, connections
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.rpartition(b"content-length: ")[2]):
            if not head.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"the provider said {head[:40]!r}")
            self._received = b""
            self._ask()

    def _ask(self) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            self._transport.close()
            if self._left[0] == -self._connections:
                self._done.set()
            return
        self._transport.write(self._request)


async def ask(url: str, body: bytes, *, count: int, connections: int) -> None:
    """Ask so often, over so many connections.

    Args:
        url: the provider's.
        body: of each request.
        count: requests.
        connections: open at once.
    """
    where, loop = urlsplit(url), asyncio.get_running_loop()
    request = b"POST %b/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        where.path.encode(),
        len(body),
        body,
    )
    assert where.hostname is not None
    assert where.port is not None
    host, port = where.hostname, where.port
    done, left = asyncio.Event(), [count]
    for _ in range(connections):
        await loop.create_connection(lambda: Asking(request, left, done, connections=connections), host, port)
    await done.wait()
