"""The bounded stream between two stages, which knows how long either side waited for the other.

Pressure is measured where it is felt: a stage that often waits to put is faster than the next one, a stage that
often waits to get is faster than the one before. The end of work is closing the sending end; there are no sentinels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """Pressure on one link since it was opened."""

    items: int
    blocked_put_s: float
    blocked_get_s: float
    waiting: int
    """Items in the buffer now."""


class Link(Generic[T]):
    """One producer, one consumer, `capacity` items between them."""

    def __init__(self, capacity: int) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[T](capacity)
        self._items = 0
        self._blocked_put_s = 0.0
        self._blocked_get_s = 0.0
        self._put_since = math.nan
        self._get_since = math.nan

    async def put(self, item: T) -> None:
        """Hand an item on; waits only while the buffer is full. A cancelled put has not handed it on."""
        try:
            self._send.send_nowait(item)
        except anyio.WouldBlock:
            self._put_since = anyio.current_time()
            try:
                await self._send.send(item)
            finally:
                self._blocked_put_s += anyio.current_time() - self._put_since
                self._put_since = math.nan
        self._items += 1

    async def get(self) -> T:
        """Take the next item.

        Raises:
            anyio.EndOfStream: the producer has closed its end and nothing is left.
        """
        try:
            return self._receive.receive_nowait()
        except anyio.WouldBlock:
            self._get_since = anyio.current_time()
            try:
                return await self._receive.receive()
            finally:
                self._blocked_get_s += anyio.current_time() - self._get_since
                self._get_since = math.nan

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def producing(self) -> LinkEnd:
        """The sending end, as a context that closes it."""
        return LinkEnd(self._send)

    def consuming(self) -> LinkEnd:
        """The receiving end, as a context that closes it."""
        return LinkEnd(self._receive)

    def statistics(self) -> LinkStatistics:
        """Pressure so far, a wait that is still going on included."""
        now = anyio.current_time()
        put_s = 0.0 if math.isnan(self._put_since) else now - self._put_since
        get_s = 0.0 if math.isnan(self._get_since) else now - self._get_since
        return LinkStatistics(
            items=self._items,
            blocked_put_s=self._blocked_put_s + put_s,
            blocked_get_s=self._blocked_get_s + get_s,
            waiting=self._send.statistics().current_buffer_used,
        )


class LinkEnd:
    """Closes one end of a link on leaving."""

    def __init__(self, stream: anyio.abc.AsyncResource) -> None:
        self._stream = stream

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()
