"""Where rows wait: for room in memory before their first call, for a slot and the rate before every call.

First come, first served, rows that try again included: one at a time looks at the lanes, the others stand in line
behind it, so that a thousand waiting rows cost nothing.
"""

from __future__ import annotations

import math

import anyio

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


class Gate:
    """Lets rows in, and their calls out."""

    def __init__(self, lanes: Lanes, *, room: Room, brake: BrakeConfig, stop: Stop) -> None:
        self._lanes = lanes
        self._room = room
        self._brake = brake
        self._stop = stop
        self._turn = anyio.Lock(fast_acquire=True)
        self._freed: anyio.Event | None = None
        """Made by whoever waits: nearly always nobody does."""
        self._held_since: float | None = None
        self._held_s = 0.0

    async def open_row(self, request: Request) -> None:
        """Wait until another row may be held."""
        while not self._room.may_open(request.n_bytes, window=self._lanes.window):
            await self._until_freed(math.inf)
        self._room.open(request.n_bytes)

    def close_row(self, request: Request) -> None:
        """The row is no longer held."""
        self._room.close(request.n_bytes)
        self.wake()

    def exchange(self, old: Request, new: Request) -> None:
        """A row is held in another form."""
        self._room.close(old.n_bytes)
        self._room.open(new.n_bytes)

    def hold(self, *, shut: bool) -> None:
        """Let no further call out, or let them out again; those in flight are not concerned."""
        now = anyio.current_time()
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
        async with self._turn:
            while not self._stop.asked:
                if self._held_since is not None:
                    await self._until_freed(math.inf)
                    continue
                now = anyio.current_time()
                admitted = self._lanes.try_admit(now, request, max_tokens)
                if isinstance(admitted, Admission):
                    return admitted
                left_s = self._lanes.patience_s(self._brake.max_outage_s) - self._lanes.outage_s(now)
                if left_s <= 0:
                    error = self._lanes.outage(now, self._brake.max_outage_s)
                    self._stop.ask(str(error), error=error)
                elif self._lanes.short_of_money and not self._lanes.in_flight:
                    self._stop_for_money()
                else:
                    await self._until_freed(min(admitted, left_s if self._lanes.outage_s(now) else math.inf))
        raise StoppedError

    def wake(self) -> None:
        """Let what waits look again: a slot or a row's bytes were freed, or the run is to stop."""
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    async def _until_freed(self, seconds: float) -> None:
        if self._freed is None:
            self._freed = anyio.Event()
        freed = self._freed
        with anyio.move_on_after(seconds):
            await freed.wait()

    def _stop_for_money(self) -> None:
        books, ceiling = self._lanes.books, self._brake.max_cost_usd
        unknown = f" and at most ${books.unknown_usd:,.4f} of unknown cost" if books.unknown_calls else ""
        words = (
            f"the next call could pass --max-cost {ceiling:g}: ${books.cost_usd:,.4f}{unknown} spent over all lives of "
            "this run. Raise --max-cost to go on"
        )
        self._stop.ask("--max-cost", error=BudgetSpent(words))
