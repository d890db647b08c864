"""One timer for all calls in flight: each may take equally long, so the oldest is due first."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Overdue:
    """Ends what takes too long.

    Args:
        seconds: how long each may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Limited, float] = {}
        """When each is due, in the order in which they began."""
        self._timer: asyncio.TimerHandle | None = None

    def limited(self) -> Limited:
        """A context whose body raises TimeoutError once it has taken too long; as `asyncio.timeout` does."""
        return Limited(self)

    def began(self, limited: Limited) -> None:
        loop = asyncio.get_running_loop()
        self._running[limited] = due_s = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._look)

    def ended(self, limited: Limited) -> None:
        self._running.pop(limited, None)

    def close(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._running:
            oldest, due_s = next(iter(self._running.items()))
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._look)
                return
            del self._running[oldest]
            oldest.expire()


class Limited:
    """One of them."""

    __slots__ = ("_asked_before", "_expired", "_overdue", "_task")

    def __init__(self, overdue: Overdue) -> None:
        self._overdue = overdue
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._asked_before = task.cancelling()
        self._overdue.began(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._overdue.ended(self)
        # Whoever else asked the task to end meanwhile is to be heard first.
        if self._expired and self._task.uncancel() <= self._asked_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()
