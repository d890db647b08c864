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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count, filterfalse
from typing import Any

import anyio
from anyio import to_thread

from engine.call import CallStage
from engine.config import RunConfig
from engine.encode import EncoderPool
from engine.errors import EngineError, first_error
from engine.gate import Gate, Room
from engine.inputs import Resumption
from engine.lanes import Lanes
from engine.link import Link
from engine.marks import Marks
from engine.money import Books
from engine.notices import watch_for_notices
from engine.ports import Answers, Client, Observer, Reader, Sink
from engine.sharing import Sharing
from engine.signals import Signals
from engine.source import RowReader
from engine.space import Space
from engine.stats import CallSnapshot, EncodeSnapshot, Pace, Pressure, Snapshot, Watcher
from engine.stop import Stop
from engine.types import Record, Request, Row
from engine.write import WriteStage

ROW_BATCHES = 4
"""Between source and encode: one batch ahead per worker of a small machine; reading is far faster than encoding."""
READY_REQUESTS = 16
"""Between encode and call: enough to never leave a free slot waiting, few enough to hold little memory."""
ENDED_RECORDS = 256
"""Between call and write: records are small, and a commit may take a moment."""
SNAPSHOT_S = 1.0
OFFSETS, FIRST_OPEN = "offsets", "first_open"
"""What a later life is told of the input: where records begin in the file, and before which row all are done."""
GROWN = (
    "The input has grown since it was first read; what was added is not part of this run. "
    "To go on with the new rows too: --resume --extend"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What stands behind the seams of one run."""

    pool: EncoderPool
    clients: Sequence[Client]
    """One a lane, in their order."""
    reader: Reader
    sink: Sink
    watchers: Sequence[Watcher] = ()
    signals: Signals | None = None
    """None has the run hear them itself, from its start to its end."""
    rng: random.Random
    answers: Sequence[Answers] = ()
    """Where answers of earlier are looked for, in this order."""
    observer: Observer | None = None
    """Shown every row that is read and every record."""
    input_identity: Mapping[str, Any] | None = None
    """What `describe_input` gave when the run was opened; None if nobody watches whether the input changes."""
    lost: Callable[[], Awaitable[EngineError]] | None = None
    """Waits until the run has lost what it cannot go on without; the error it then ends with. None: nothing such."""


class Run:
    """One life of a run. `await main()` once."""

    def __init__(self, config: RunConfig, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self.stop = Stop(drain_s=config.write.drain_s)
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
        self._write = WriteStage(
            sink=parts.sink,
            write=config.write,
            brake=config.brake,
            stop=self.stop,
            learnt=self._learnt,
            acknowledged=self._sharing.acknowledged,
            observer=parts.observer,
        )
        self._rows = Link[list[Row | Record]](ROW_BATCHES)
        self._requests = Link[Request | Record](READY_REQUESTS)
        self._records = Link[Record](ENDED_RECORDS)
        self._pace, self._pressure = Pace(), Pressure()
        self._started_s = anyio.current_time()
        held = parts.sink.statistics()
        self._done_before, self._chosen = held.finished, held.chosen
        self._reader: RowReader | None = None
        # A row that is to be tried again may stand anywhere before.
        untouched = held.chosen is None and held.finished == held.done + held.failed
        first_open = learnt.get(FIRST_OPEN, 0) if untouched else 0
        # Nothing is skipped on the word of a snapshot that holds too few rows for it.
        known = first_open <= config.source.skip + held.finished
        self._first_open = max(config.source.skip, first_open if known else 0)
        self.notes: list[str] = []
        """What the user should know in the end, in sentences."""

    async def main(self) -> Snapshot:
        """Work until the input is done or the run is asked to stop.

        Returns:
            The last snapshot; `stopping` says what ended the run early.

        Raises:
            EngineError: the run ended early for a reason that is no signal. Everything acknowledged is safe.
        """
        try:
            async with anyio.create_task_group() as group:
                await self._space.look()
                group.start_soon(self._space.watch)
                group.start_soon(self._watch)
                group.start_soon(self._obey_signals)
                group.start_soon(self._heed_notices)
                group.start_soon(self._heed_loss)
                group.start_soon(self._wake_on_stop)
                async with anyio.create_task_group() as stages:
                    stages.start_soon(self._feed)
                    stages.start_soon(self._call.run, self._requests, self._records)
                    stages.start_soon(self._write.run, self._records)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            self.show()
        if self.stop.error is not None:
            raise self.stop.error
        return self.snapshot()

    def hold_to(self, config: RunConfig) -> None:
        """Keep to the limits and the money of these settings from now on."""
        self._books.ceiling_usd = math.inf if config.brake.max_cost_usd is None else config.brake.max_cost_usd
        self._lanes.hold_to(config, anyio.current_time())
        self._gate.wake()

    def snapshot(self) -> Snapshot:
        """The run at this moment."""
        now = anyio.current_time()
        written, calls = self._write.counters, self._call.counters
        pool = self._parts.pool.statistics()
        links = {
            "source-encode": self._rows.statistics(),
            "encode-call": self._requests.statistics(),
            "call-write": self._records.statistics(),
        }
        pace = self._pace.rows_per_s(written.ended)
        total, known = self._reader.rows_total() if self._reader else (0, False)
        if self._chosen is not None:
            total, known = self._done_before + self._chosen, True
        left = max(0, total - self._done_before - written.ended)
        return Snapshot(
            elapsed_s=now - self._started_s,
            rows_total=total,
            rows_known=known,
            done_before=self._done_before,
            ended=written.ended,
            failed=written.failed,
            truncated=written.truncated,
            unlabelled=written.unlabelled,
            shared=written.shared,
            spared_usd=written.spared_usd,
            rows_per_s=pace,
            eta_s=left / pace if pace > 0 else None,
            usage=self._books.usage,
            cost_usd=self._books.cost_usd,
            unpriced_calls=self._books.unpriced_calls,
            unknown_calls=self._books.unknown_calls,
            unknown_usd=self._books.unknown_usd,
            failures={str(kind): count for kind, count in self._write.brake.by_kind.items()},
            examples={str(kind): message for kind, message in self._write.brake.examples.items()},
            degraded=dict(written.degraded),
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
            sink=self._parts.sink.statistics(),
            links=links,
            bottleneck=self._pressure.bottleneck(links),
            commit_s=written.commit_s,
            findings=self._parts.observer.findings() if self._parts.observer else None,
            held=self._space.waiting,
            stopping=self.stop.reason,
        )

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

    def _pass_done(self) -> None:
        """Note up to where every row is done."""
        self._first_open = next(filterfalse(self._parts.sink.is_done, count(self._first_open)))

    async def _encode(self) -> None:
        await self._parts.pool.encode_stage(self._rows, self._requests)

    async def _cancel_on_stop(self, scope: anyio.CancelScope) -> None:
        await self.stop.wait()
        scope.cancel()

    async def _wake_on_stop(self) -> None:
        await self.stop.wait()
        self._gate.wake()

    def _learnt(self) -> dict[str, Any]:
        """What a later life should know, as of this commit."""
        learnt: dict[str, Any] = {"spent": self._books.as_json(), "lanes": self._lanes.learnt()}
        if self._reader is not None and self._chosen is None:
            self._pass_done()
            learnt[FIRST_OPEN] = self._first_open
        return learnt

    async def _obey_signals(self) -> None:
        with ExitStack() as own:
            signals = self._parts.signals or own.enter_context(Signals())
            signals.hand_over(drain_s=self._config.write.drain_s)
            async for number in signals:
                self.stop.ask(number.name)

    async def _heed_notices(self) -> None:
        await watch_for_notices(self._config.notices, stop=self.stop, note=self.notes.append)

    async def _heed_loss(self) -> None:
        if self._parts.lost is not None:
            error = await self._parts.lost()
            self.stop.ask(str(error), error=error)

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(SNAPSHOT_S)
            self.show()

    def show(self) -> None:
        """Hand the present snapshot to every watcher."""
        snapshot = self.snapshot()
        for watcher in self._parts.watchers:
            # A terminal or a log that has gone ends nothing.
            with suppress(OSError):
                watcher.show(snapshot)
