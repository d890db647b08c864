"""The bounded stream between two stages, which knows how long either side waited for the other.

Pressure is measured where it is felt: a stage that often waits to put is faster than the next one, a stage that
often waits to get is faster than the one before. The end of work is closing the sending end; there are no sentinels.
"""

from __future__ import annotations

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


class _Blocked:
    """For how long at least one side of a link has been waiting."""

    def __init__(self) -> None:
        self._waiting = 0
        self._since = 0.0
        self._total_s = 0.0

    def __enter__(self) -> None:
        if not self._waiting:
            self._since = anyio.current_time()
        self._waiting += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._total_s += anyio.current_time() - self._since

    def total_s(self) -> float:
        """A wait that is still going on included."""
        return self._total_s + (anyio.current_time() - self._since if self._waiting else 0.0)


class Link(Generic[T]):
    """Any number of producers, one consumer, `capacity` items between them."""

    def __init__(self, capacity: int) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[T](capacity)
        self._items = 0
        self._put, self._get = _Blocked(), _Blocked()

    async def put(self, item: T) -> None:
        """Hand an item on; waits only while the buffer is full. A cancelled put has not handed it on."""
        try:
            self._send.send_nowait(item)
        except anyio.WouldBlock:
            with self._put:
                await self._send.send(item)
        self._items += 1

    async def get(self) -> T:
        """Take the next item.

        Raises:
            anyio.EndOfStream: the producer has closed its end and nothing is left.
        """
        try:
            return self._receive.receive_nowait()
        except anyio.WouldBlock:
            with self._get:
                return await self._receive.receive()

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
        """Pressure so far."""
        return LinkStatistics(
            items=self._items,
            blocked_put_s=self._put.total_s(),
            blocked_get_s=self._get.total_s(),
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
