"""The bounded stream between two stages, which knows how long either side waited for the other.

Pressure is measured where it is felt: a stage that often waits to put is faster than the next one, a stage that
often waits to get is faster than the one before. The end of work is closing the sending end; there are no sentinels.

Every row passes three of them, so a put and a get that need not wait cost a microsecond: no task is switched for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from engine.clock import now_s

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """Pressure on one link since it was opened."""

    items: int
    blocked_put_s: float
    blocked_get_s: float
    waiting: int
    """Items in the buffer now."""


class _Waiting:
    """Those who wait at one side of a link, first come, first served, and for how long at least one has."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._since_s = self._total_s = 0.0

    async def wait(self) -> None:
        """Return after a wake."""
        if not self._line:
            self._since_s = now_s()
        woken = asyncio.get_running_loop().create_future()
        self._line.append(woken)
        try:
            await woken
        except BaseException:
            if woken in self._line:
                self._leave(woken)
            else:
                # What it was woken for is the next one's now.
                self.wake()
            raise

    def wake(self) -> None:
        """Let the first of them go on."""
        if self._line:
            first = self._line[0]
            self._leave(first)
            if not first.done():
                first.set_result(None)

    def wake_all(self) -> None:
        while self._line:
            self.wake()

    def total_s(self) -> float:
        """A wait that is still going on included."""
        return self._total_s + (now_s() - self._since_s if self._line else 0.0)

    def _leave(self, woken: asyncio.Future[None]) -> None:
        self._line.remove(woken)
        if not self._line:
            self._total_s += now_s() - self._since_s


class Link(Generic[T]):
    """Any number of producers, one consumer, `capacity` items between them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._buffer: deque[T] = deque()
        self._items = 0
        self._put, self._get = _Waiting(), _Waiting()
        self._ended = self._unwanted = False

    async def put(self, item: T) -> None:
        """Hand an item on; waits only while the buffer is full. A cancelled put has not handed it on.

        Raises:
            anyio.BrokenResourceError: the consumer has closed its end.
        """
        while len(self._buffer) >= self._capacity and not self._unwanted:
            await self._put.wait()
        if self._unwanted:
            raise anyio.BrokenResourceError
        self._buffer.append(item)
        self._items += 1
        self._get.wake()

    async def get(self) -> T:
        """Take the next item.

        Raises:
            anyio.EndOfStream: the producer has closed its end and nothing is left.
        """
        while not self._buffer:
            if self._ended:
                raise anyio.EndOfStream
            await self._get.wait()
        item = self._buffer.popleft()
        self._put.wake()
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def producing(self) -> LinkEnd:
        """The sending end, as a context that closes it."""
        return LinkEnd(self.end)

    def consuming(self) -> LinkEnd:
        """The receiving end, as a context that closes it."""
        return LinkEnd(self.refuse)

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._get.wake_all()

    def refuse(self) -> None:
        """Nothing more will be taken."""
        self._unwanted = True
        self._put.wake_all()

    def statistics(self) -> LinkStatistics:
        """Pressure so far."""
        return LinkStatistics(
            items=self._items,
            blocked_put_s=self._put.total_s(),
            blocked_get_s=self._get.total_s(),
            waiting=len(self._buffer),
        )


class LinkEnd:
    """Closes one end of a link on leaving."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
