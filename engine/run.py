"""The run. Four stages, three streams, one task group.

    source ──rows──▶ encode ──requests──▶ call ──records──▶ write
    (a thread)       (processes)          (this loop)       (a thread for the disk)

Each stage ends by closing its stream, and the next one follows. A slower stage fills the stream before it, and so
slows everything upstream down: memory stays flat however long the input is. A record made early, of a row that
cannot be read or encoded, passes through the later stages untouched.

The first signal closes the source and lets what is in flight arrive; the second waits for nothing. Either way what
has arrived is committed. An error that ends the run takes the same path.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from engine.call import CallStage
from engine.config import RunConfig
from engine.encode import EncoderPool
from engine.errors import EngineError, first_error
from engine.gate import Gate, Room
from engine.inputs import Resumption
from engine.lanes import Lanes
from engine.life import FIRST_OPEN, OFFSETS, Life, Seams
from engine.link import Link
from engine.marks import Marks
from engine.money import Books
from engine.ports import Answers, Client, Reader
from engine.sharing import Sharing
from engine.source import RowReader
from engine.space import Space
from engine.stats import AtWork, CallSnapshot, EncodeSnapshot, Snapshot
from engine.stop import Stop
from engine.types import Record, Request, Row

ROW_BATCHES = 4
"""Between source and encode: one batch ahead per worker of a small machine; reading is far faster than encoding."""
READY_REQUESTS = 16
"""Between encode and call: enough to never leave a free slot waiting, few enough to hold little memory."""
GROWN = (
    "The input has grown since it was first read; what was added is not part of this run. "
    "To go on with the new rows too: --resume --extend"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Seams):
    """What stands behind the seams of a run in one process."""

    pool: EncoderPool
    clients: Sequence[Client]
    """One a lane, in their order."""
    reader: Reader
    rng: random.Random
    answers: Sequence[Answers] = ()
    """Where answers of earlier are looked for, in this order."""


class Run(Life):
    """One life of a run in this process. `await main()` once."""

    def __init__(self, config: RunConfig, parts: Parts) -> None:
        super().__init__(config, parts, stop=Stop(drain_s=config.write.drain_s), write=config.write)
        self._parts = parts
        learnt = parts.sink.learnt
        self._books = Books(config.brake.max_cost_usd, learnt.get("spent"))
        self._lanes = Lanes(
            config, parts.clients, books=self._books, now=anyio.current_time(), learnt=learnt.get("lanes", {})
        )
        self._room = Room(config.limits.max_open_bytes)
        self._gate = Gate(self._lanes, room=self._room, brake=config.brake, stop=self.stop)
        self._space = Space(parts.sink, self._gate, self._room, stop=self.stop, max_wait_s=config.brake.max_outage_s)
        parts.pool.most_images = self._lanes.most_images
        self._sharing = Sharing(parts.answers, reader=parts.reader, on=config.share)
        self._call = CallStage(
            config,
            lanes=self._lanes,
            gate=self._gate,
            reader=parts.reader,
            encode_again=parts.pool.encode_again,
            sharing=self._sharing,
            stop=self.stop,
            rng=parts.rng,
        )
        self._rows = Link[list[Row | Record]](ROW_BATCHES)
        self._requests = Link[Request | Record](READY_REQUESTS)
        self._reader: RowReader | None = None

    def hold_to(self, config: RunConfig) -> None:
        """Keep to the limits and the money of these settings from now on."""
        self._books.ceiling_usd = math.inf if config.brake.max_cost_usd is None else config.brake.max_cost_usd
        self._lanes.hold_to(config, anyio.current_time())
        self._gate.wake()

    def snapshot(self) -> Snapshot:
        """The run at this moment."""
        now = anyio.current_time()
        calls, pool = self._call.counters, self._parts.pool.statistics()
        total, known = self._reader.rows_total() if self._reader else (0, False)
        work = AtWork(
            rows_total=total,
            rows_known=known,
            in_flight=self._lanes.in_flight,
            window=self._lanes.window,
            open_rows=self._room.rows,
            open_bytes=self._room.n_bytes,
            lanes=self._lanes.statistics(now),
            outage_s=self._lanes.outage_s(now),
            encode=EncodeSnapshot(
                workers=pool.workers_alive, crashes=pool.crashes, timeouts=pool.timeouts, cpu_s=pool.cpu_s
            ),
            call=CallSnapshot(
                calls=calls.calls,
                retries=calls.retries,
                rate_limited=calls.rate_limited,
                server_errors=calls.server_errors,
                network_errors=calls.network_errors,
                grown=calls.truncated,
                reduced=calls.reduced,
                repairs=calls.repairs,
                repaired=calls.repaired,
                unfinished=calls.unfinished,
                mean_latency_s=calls.latency_s / calls.answered if calls.answered else None,
            ),
            links={
                "source-encode": self._rows.statistics(),
                "encode-call": self._requests.statistics(),
                "call-write": self._records.statistics(),
            },
            held=self._space.waiting,
        )
        return self._snapshot_of(work, self._books.as_json())

    async def _prepare(self, beside: TaskGroup) -> None:
        await self._space.look()
        beside.start_soon(self._space.watch)
        beside.start_soon(self._wake_on_stop)

    async def _work(self) -> None:
        async with anyio.create_task_group() as stages:
            stages.start_soon(self._feed)
            stages.start_soon(self._call.run, self._requests, self._records)

    async def _feed(self) -> None:
        """Source and encoders; a stop cancels them at once, since nothing they hold has been paid for.

        An error of theirs stops the run in the orderly way: what is in flight has been paid for.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._cancel_on_stop, group.cancel_scope)
                async with anyio.create_task_group() as feeding:
                    feeding.start_soon(self._read)
                    feeding.start_soon(self._encode)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            error = first_error(errors)
            if isinstance(error, EngineError):
                self.stop.ask(str(error), error=error)
            elif not (self.stop.asked and isinstance(error, anyio.BrokenResourceError)):
                raise
            # A batch that the reading thread still brought after the stop finds nobody to take it, and need not.

    async def _read(self) -> None:
        async with self._rows.producing():
            if self._chosen is None:
                await to_thread.run_sync(self._pass_done)
            with self._open_source() as reader:
                self._reader = reader
                try:
                    while batch := await to_thread.run_sync(reader.next_batch):
                        if self._parts.observer is not None:
                            self._parts.observer.read(batch)
                        await self._rows.put(batch)
                finally:
                    if reader.grown:
                        self.notes.append(GROWN)
                self._parts.sink.learnt["rows_total"] = reader.rows_total()[0]

    def _open_source(self) -> RowReader:
        """The input from its first row on that is not done."""
        parts, learnt = self._parts, self._parts.sink.learnt
        marks = Marks(learnt.get(OFFSETS))
        learnt[OFFSETS] = marks.as_json()
        known = Resumption(first_open=self._first_open, marks=marks, identity=parts.input_identity)
        return RowReader(self._config.source, is_done=parts.sink.is_done, resume=known)

    async def _encode(self) -> None:
        await self._parts.pool.encode_stage(self._rows, self._requests)

    async def _cancel_on_stop(self, scope: anyio.CancelScope) -> None:
        await self.stop.wait()
        scope.cancel()

    async def _wake_on_stop(self) -> None:
        await self.stop.wait()
        self._gate.wake()

    def _learnt(self) -> dict[str, Any]:
        learnt: dict[str, Any] = {"spent": self._books.as_json(), "lanes": self._lanes.learnt()}
        if self._reader is not None and self._chosen is None:
            self._pass_done()
            learnt[FIRST_OPEN] = self._first_open
        return learnt

    def _acknowledged(self, rows: Sequence[int]) -> None:
        self._sharing.acknowledged(rows)
