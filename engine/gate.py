"""Where rows wait: for room in memory before their first call, for a slot and the rate before every call.

First come, first served, rows that try again included. Only the first in line is held against the lanes, whenever a
slot is freed or its time has come, so that a thousand waiting rows cost nothing; nobody is woken who may not go.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass

import anyio

from engine.clock import now_s
from engine.config import BrakeConfig
from engine.errors import BudgetSpent
from engine.lanes import Admission, Lanes
from engine.stop import Stop
from engine.types import Request


class Room:
    """Encoded rows held, so that waiting costs bounded memory.

    Args:
        max_bytes: all of them together; one row is always allowed, however large.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows = self._n_bytes = 0

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

    def may_open(self, n_bytes: int, *, window: int) -> bool:
        """Whether another row may be held next to those that are."""
        # Rows that wait for a retry hold no slot; as many again as the window keeps it busy without piling up.
        return not self._rows or (self._n_bytes + n_bytes <= self._max_bytes and self._rows < 2 * window)

    def open(self, n_bytes: int) -> None:
        self._rows += 1
        self._n_bytes += n_bytes

    def close(self, n_bytes: int) -> None:
        self._rows -= 1
        self._n_bytes -= n_bytes


class StoppedError(Exception):
    """The run was asked to stop while a row waited; it ends without a record, and a resume meets it again."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call in line."""

    request: Request
    max_tokens: int | None
    admitted: asyncio.Future[Admission]


class Gate:
    """Lets rows in, and their calls out."""

    def __init__(self, lanes: Lanes, *, room: Room, brake: BrakeConfig, stop: Stop) -> None:
        self._lanes = lanes
        self._room = room
        self._brake = brake
        self._stop = stop
        self._line: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        """Wakes the line when its first may go by the clock alone."""
        self._room_freed: anyio.Event | None = None
        """Made by whoever waits: nearly always nobody does."""
        self._held_since: float | None = None
        self._held_s = 0.0

    async def open_row(self, request: Request) -> None:
        """Wait until another row may be held."""
        while not self._room.may_open(request.n_bytes, window=self._lanes.window):
            if self._room_freed is None:
                self._room_freed = anyio.Event()
            await self._room_freed.wait()
        self._room.open(request.n_bytes)

    def close_row(self, request: Request) -> None:
        """The row is no longer held."""
        self._room.close(request.n_bytes)
        self._look_for_room()

    def exchange(self, old: Request, new: Request) -> None:
        """A row is held in another form."""
        self._room.close(old.n_bytes)
        self._room.open(new.n_bytes)

    def hold(self, *, shut: bool) -> None:
        """Let no further call out, or let them out again; those in flight are not concerned."""
        now = now_s()
        self._held_s, self._held_since = self.held_s(now), now if shut else None
        self.wake()

    def held_s(self, now: float) -> float:
        """For how long no call was let out, all times together."""
        return self._held_s + (0.0 if self._held_since is None else now - self._held_since)

    def idle_s(self, now: float) -> float:
        """For how long no row could have been called, for reasons that are not the row's."""
        return self._lanes.down_s(now) + self.held_s(now)

    async def admit(self, request: Request, max_tokens: int | None) -> Admission:
        """Wait for a slot and for the rate.

        Raises:
            StoppedError: the run is to end, now or just because of this wait.
        """
        waiting = _Waiting(request, max_tokens, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        if self._line[0] is waiting:
            self._serve()
        try:
            return await waiting.admitted
        except BaseException:
            self._leave(waiting)
            raise

    def wake(self) -> None:
        """Let what waits look again: a slot was freed, or the run is to stop."""
        if self._line:
            self._serve()
        self._look_for_room()

    def _serve(self) -> None:
        """Admit from the front of the line as many as may go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._line:
            first = self._line[0]
            if first.admitted.done():
                self._line.popleft()  # cancelled while it waited
            elif self._stop.asked:
                self._line.popleft().admitted.set_exception(StoppedError())
            elif self._held_since is not None:
                return
            else:
                now = now_s()
                admitted = self._lanes.try_admit(now, first.request, first.max_tokens)
                if isinstance(admitted, Admission):
                    self._line.popleft().admitted.set_result(admitted)
                elif not self._is_hopeless(now):
                    self._look_again(now, admitted)
                    return

    def _is_hopeless(self, now: float) -> bool:
        """Whether waiting makes no sense any more; the run has then been asked to stop."""
        if self._patience_left_s(now) <= 0:
            error = self._lanes.outage(now, self._brake.max_outage_s)
            self._stop.ask(str(error), error=error)
        elif self._lanes.short_of_money and not self._lanes.in_flight:
            self._stop_for_money()
        return self._stop.asked

    def _look_again(self, now: float, wait_s: float) -> None:
        left_s = self._patience_left_s(now) if self._lanes.outage_s(now) else math.inf
        if (wait_s := min(wait_s, left_s)) < math.inf:
            self._timer = asyncio.get_running_loop().call_at(now + wait_s, self._serve)

    def _patience_left_s(self, now: float) -> float:
        return self._lanes.patience_s(self._brake.max_outage_s) - self._lanes.outage_s(now)

    def _leave(self, waiting: _Waiting) -> None:
        """Who waited has been cancelled, or refused: what it was given meanwhile goes to the next one."""
        if waiting in self._line:
            self._line.remove(waiting)
        admitted = waiting.admitted
        if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
            self._lanes.give_back(admitted.result(), now_s())
            self.wake()

    def _look_for_room(self) -> None:
        if self._room_freed is not None:
            self._room_freed.set()
            self._room_freed = None

    def _stop_for_money(self) -> None:
        words = f"the next call could pass --max-cost {self._brake.max_cost_usd:g}: {self._lanes.books.in_words()}"
        self._stop.ask("--max-cost", error=BudgetSpent(words))
