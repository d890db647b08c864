"""Tasks that are kept for the next piece of work: making one costs as much as a tenth of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from anyio.abc import TaskGroup

T = TypeVar("T")


class Hands(Generic[T]):
    """Does the same work on many things at once, each thing in a task of its own while it lasts.

    Args:
        group: where the tasks live; it cannot end before `dismiss`.
        work: what is done.
    """

    def __init__(self, group: TaskGroup, work: Callable[[T], Awaitable[None]]) -> None:
        self._group = group
        self._work = work
        self._idle: list[asyncio.Future[T | None]] = []
        self._needed = True

    def take(self, thing: T) -> None:
        """Begin to work on this."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(thing)
                return
        self._group.start_soon(self._serve, thing)

    def dismiss(self) -> None:
        """End the tasks that have no work, and the others with theirs."""
        self._needed = False
        for idle in self._idle:
            if not idle.done():
                idle.set_result(None)
        self._idle.clear()

    async def _serve(self, thing: T | None) -> None:
        while thing is not None:
            await self._work(thing)
            if not self._needed:
                return
            idle: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            thing = await idle
