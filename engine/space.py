"""Room on the disk: while it could not take the answers to what is asked already, nothing new is asked for.

A run that meets a full disk ends, and what was in flight is paid for twice. One that waits loses nothing.
"""

from __future__ import annotations

import anyio
from anyio import to_thread

from engine.errors import SinkBroken
from engine.gate import Gate, Room
from engine.ports import Sink
from engine.stop import Stop

LOOK_S = 1.0
FLOOR_BYTES = 32 << 20
"""For the checkpoint, and for what the run and other programs write between two looks."""
ROW_BYTES = 16 << 10
"""A long answer with the notes on its frames."""
ENOUGH = 2
"""Go on at so many times the room that made it wait: stopping and starting with every megabyte helps nobody."""


class Space:
    """Holds the gate while the disk is nearly full.

    Args:
        sink: knows how much room there is.
        gate: held meanwhile.
        room: the rows whose answers must still fit.
        stop: asked for in the end.
        max_wait_s: for how long room is waited for.
    """

    def __init__(self, sink: Sink, gate: Gate, room: Room, *, stop: Stop, max_wait_s: float) -> None:
        self._sink = sink
        self._gate = gate
        self._room = room
        self._stop = stop
        self._max_wait_s = max_wait_s
        self._since: float | None = None
        self.waiting: str | None = None
        """Why nothing new is asked for, in words; None while there is room."""

    async def look(self) -> None:
        """Compare what is free with what is needed."""
        free_bytes = await to_thread.run_sync(self._sink.free_bytes)
        needed = FLOOR_BYTES + self._room.rows * ROW_BYTES
        if free_bytes is not None and free_bytes < needed * (1 if self._since is None else ENOUGH):
            free_mb = free_bytes >> 20
            self.waiting = f"room on the disk of --out: {free_mb:,} MB are left; free some, and the run goes on"
            if self._since is None:
                self._since = anyio.current_time()
                self._gate.hold(shut=True)
        elif self._since is not None:
            self._since = self.waiting = None
            self._gate.hold(shut=False)

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await anyio.sleep(LOOK_S)
            await self.look()
            if self._since is not None and anyio.current_time() - self._since >= self._max_wait_s:
                error = SinkBroken(f"waited in vain, as long as --max-outage allows, for {self.waiting}")
                self._stop.ask(str(error), error=error)
