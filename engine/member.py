"""One of several engine processes of a run, from its inside: a whole `Run` over the rows that are its own.

Its sink is a relay. `put` holds records, `commit` hands them to the run that started this process and returns once they
are safe there; so all that a run may conclude from a commit holds here too. It hears no signals and knows no brake:
those are for the run to judge, which then asks it to stop. It dies with the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
from anyio import from_thread

from engine.config import RunConfig
from engine.errors import EngineError
from engine.life import OFFSETS
from engine.port import Ceilings, Delivery, Ended, Halt, Note, Opening, Port, PortClosedError, Receipt, Stopping, packed
from engine.ports import Findings, SinkStatistics
from engine.report import process_figures
from engine.run import Run
from engine.secret import Secret
from engine.stats import Snapshot
from engine.types import Record, Reply, Row

RECORD_BYTES = 1000
"""What a record that waits costs beside its text, about."""
POSTS = 32
"""Snapshots and notes that wait to be sent; what does not fit is left out, for the next snapshot says it again."""


class RelaySink:
    """A sink at the other end of a port.

    Args:
        port: to the run.
        opening: what the run said of its sink.
        is_done: whether a row was done when this life began.
        free_bytes: as `Sink.free_bytes`.
    """

    def __init__(
        self, port: Port, opening: Opening, *, is_done: Callable[[int], bool], free_bytes: Callable[[], int | None]
    ) -> None:
        self._port = port
        self._held = opening.held
        self._learnt = dict(opening.learnt)
        self._is_done = is_done
        self._free_bytes = free_bytes
        self._records: list[Record] = []
        self._carried: list[Row] = []
        self._n_bytes = self._on_its_way = 0
        self._told: Any = None
        """What of `learnt` matters at once, as it was last delivered."""
        self._swap = threading.Lock()
        self._receipt = anyio.Event()

    def is_done(self, row: int) -> bool:
        return self._is_done(row)

    def put(self, record: Record) -> None:
        with self._swap:
            self._records.append(record)
            self._n_bytes += RECORD_BYTES + (len(record.outcome.text) if isinstance(record.outcome, Reply) else 0)

    def carry(self, row: Row) -> None:
        """Send this along with the record of the row, which was put just now."""
        with self._swap:
            self._carried.append(row)

    def commit(self) -> int:
        """Deliver what was put; in a thread of the event loop, which does the sending."""
        learnt = dict(self._learnt)
        marks = learnt.get(OFFSETS, {}).get("places", ())
        matters = (learnt.get("spent"), learnt.get("rows_total"), len(marks))
        with self._swap:
            records, self._records = self._records, []
            carried, self._carried = self._carried, []
            self._n_bytes = 0
            self._on_its_way = len(records)
        if not records and matters == self._told:
            return 0
        if self._told is not None and self._told[-1] == len(marks):
            learnt.pop(OFFSETS, None)
        self._told = matters
        from_thread.run(self._deliver, packed(Delivery(records=records, carried=carried, learnt=learnt)))
        self._on_its_way = 0
        return len(records)

    async def _deliver(self, frame: bytes) -> None:
        self._receipt = anyio.Event()
        await self._port.send_packed(frame)
        await self._receipt.wait()

    def delivered(self) -> None:
        """The run has made the last delivery safe."""
        self._receipt.set()

    def close(self) -> None:
        """There is nothing here to release."""

    @property
    def learnt(self) -> dict[str, Any]:
        return self._learnt

    def statistics(self) -> SinkStatistics:
        return replace(self._held, pending=len(self._records) + self._on_its_way, pending_bytes=self._n_bytes)

    def free_bytes(self) -> int | None:
        return self._free_bytes()


class CarriedColumns:
    """An observer that keeps what the run's own one needs of a row until the row has ended."""

    def __init__(self, relay: RelaySink, names: Sequence[str]) -> None:
        self._relay = relay
        self._names = names
        self._rows: dict[int, Row] = {}
        """Of the rows that have not ended: as many as are open."""

    def read(self, batch: Sequence[Row | Record]) -> None:
        for row in batch:
            if isinstance(row, Row) and (
                fields := {name: row.fields[name] for name in self._names if name in row.fields}
            ):
                self._rows[row.row] = Row(row=row.row, id=row.id, fields=fields)

    def ended(self, record: Record) -> None:
        if (row := self._rows.pop(record.row, None)) is not None:
            self._relay.carry(row)

    def findings(self) -> Findings:
        return Findings()


class MemberLink:
    """Speaks for one `Run` with the run that it is a part of. A watcher of it, too.

    Args:
        port: to that run.
        renew: called whenever other processes may have come to know more answers, and once a second.
        lost: ends this process at once; called when the run is gone.
    """

    def __init__(self, port: Port, *, renew: Callable[[], None], lost: Callable[[], None]) -> None:
        self._port = port
        self._renew = renew
        self._lost = lost
        self._post, self._posts = anyio.create_memory_object_stream[Snapshot | Note](POSTS)

    def show(self, snapshot: Snapshot) -> None:
        self._say(snapshot)
        self._renew()

    def note(self, text: str) -> None:
        """Tell the user."""
        self._say(Note(text=text))

    def _say(self, message: Snapshot | Note) -> None:
        try:
            self._post.send_nowait(message)
        except anyio.WouldBlock:
            pass

    async def work(self, life: Run, relay: RelaySink) -> None:
        """Have it work to its end, and deliver that.

        Args:
            life: the run over the rows that are this process's.
            relay: its sink.
        """
        error: EngineError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._hear, life, relay)
            group.start_soon(self._send_posts)
            group.start_soon(self._tell_stop, life)
            try:
                await life.main()
            except EngineError as ended:
                error = ended.with_traceback(None)
                error.__cause__ = error.__context__ = None
            for text in life.notes:
                await self._port.send(Note(text=text))
            await self._port.send(Ended(error=error, snapshot=life.snapshot(), figures=process_figures()))
            group.cancel_scope.cancel()

    async def _hear(self, life: Run, relay: RelaySink) -> None:
        try:
            while True:
                match await self._port.receive():
                    case Receipt():
                        relay.delivered()
                        self._renew()
                    case Ceilings(settings=settings):
                        life.hold_to(settings)
                    case Halt() as halt:
                        if not (halt.for_error and life.stop.asked):
                            life.stop.ask(halt.reason, is_notice=halt.is_notice)
        except PortClosedError:
            self._lost()

    async def _send_posts(self) -> None:
        async for message in self._posts:
            await self._port.send(message)

    async def _tell_stop(self, life: Run) -> None:
        await life.stop.wait()
        await self._port.send(Stopping(error=life.stop.error))


def settings_in(opening: Opening) -> RunConfig:
    """The settings that this process works by, keys included."""
    settings: RunConfig = opening.settings
    lanes = [
        lane if key is None else replace(lane, key=Secret(key))
        for lane, key in zip(settings.lanes, opening.keys, strict=True)
    ]
    return replace(settings, lanes=tuple(lanes))
