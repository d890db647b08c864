"""Stage 2: rows to requests in supervised worker processes.

A worker that dies, hangs or speaks nonsense costs one more try of the row it was encoding and a new process; the other
rows it held are handed out again, and nothing else notices. A row that does it twice ends as `poison_media`.

Each worker is a fresh interpreter (no fork, so no inherited locks), gets none of the environment but what Python needs,
and shares no named memory, so that nothing can be left behind. It holds two batches: one it works on and one that
spares it the wait for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import anyio

from engine.errors import ConfigError, EncoderBroken
from engine.link import Link
from engine.ports import Encoder
from engine.process import REAP_S, WorkerDiedError, WorkerProcess, pack, pack_encoder
from engine.types import Failure, FailureKind, Record, Reduction, Request, Row

HELD_BATCHES = 2
AHEAD_BYTES = 64 << 10
"""A second batch is handed over only if it fits the socket's buffer: a worker that is writing does not read."""
TRIES = 2
"""The first crash may be bad luck; the second is the row."""
FAILED_STARTS = 3
"""So many workers in a row that never got to wait for rows mean that none will."""
RESTART_PAUSE_S = 0.5
"""After a failed start; a worker that had started is replaced at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """How many workers, and how much each may take."""

    workers: int
    row_timeout_s: float = 60.0
    """A worker silent for so long is killed."""
    worker_memory_mb: int = 2048
    """Address space of one worker."""
    batch_rows: int = 16
    """Rows handed over at once; fewer messages for small rows, more even work for large ones."""
    variables: tuple[str, ...] = ()
    """Names of the environment that workers are told besides the few that Python needs."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, not {self.workers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeStatistics:
    """The pool so far."""

    workers_alive: int
    pids: tuple[int, ...]
    rows_done: int
    rows_failed: int
    crashes: int
    timeouts: int
    cpu_s: float
    """User and system seconds of all workers, dead ones included, as they reported them."""


class EncoderPool:
    """The workers of one run. An async context manager: leaving it ends them, however it is left."""

    def __init__(self, encoder: Encoder, config: EncodeConfig) -> None:
        self._encoder = pack_encoder(encoder, memory_mb=config.worker_memory_mb)
        self._config = config
        self._alive: set[WorkerProcess] = set()
        self._ready: deque[list[Row]] = deque()
        self._turn = anyio.Lock()
        self._ended = False
        self._idle = 0
        self._rows_done = self._rows_failed = self._crashes = self._timeouts = 0
        self._failed_starts = 0
        self._cpu_s = 0.0
        self._again_turn = anyio.Lock()
        self._again_worker: WorkerProcess | None = None
        self._again_cpu_s = 0.0
        self.most_images: Callable[[], int | None] = lambda: None
        """How many pictures a request may hold, as far as refusals have shown it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        until_s = anyio.current_time() + REAP_S
        for worker in self._alive:
            worker.kill(reap_s=0.0)
        for worker in tuple(self._alive):
            self._bury(worker, reap_s=max(0.0, until_s - anyio.current_time()))

    async def encode_stage(self, source: Link[list[Row | Record]], sink: Link[Request | Record]) -> None:
        """Encode until the source ends. Records pass through untouched; the order is free.

        Raises:
            EncoderBroken: workers die before they have encoded anything.
        """
        async with source.consuming(), sink.producing(), anyio.create_task_group() as group:
            for _ in range(self._config.workers):
                group.start_soon(_Slot(self, source, sink).work)

    async def encode_again(self, row: Row) -> Request | Record:
        """Make one request anew, within the row's `reduction`, in a worker kept for that: it is rare.

        Raises:
            EncoderBroken: workers die before they have encoded anything.
        """
        async with self._again_turn:
            for _ in range(TRIES):
                worker = self._again_worker
                if worker is None:
                    worker, self._again_cpu_s = self.start_worker(), 0.0
                self._again_worker = None
                try:
                    await worker.send([row])
                    frame = await worker.receive([row], timeout_s=self._config.row_timeout_s)
                except WorkerDiedError as error:
                    died = error
                    worker.kill()
                    await self.lost(worker, error)
                else:
                    # A worker whose answer was not waited for is not used again: it may still be busy.
                    self._again_worker = worker
                    self.count(frame.outcomes, cpu_s=frame.cpu_s - self._again_cpu_s)
                    self._again_cpu_s = frame.cpu_s
                    return frame.outcomes[0]
        return poisoned(row, died)

    def statistics(self) -> EncodeStatistics:
        return EncodeStatistics(
            workers_alive=len(self._alive),
            pids=tuple(worker.pid for worker in self._alive),
            rows_done=self._rows_done,
            rows_failed=self._rows_failed,
            crashes=self._crashes,
            timeouts=self._timeouts,
            cpu_s=self._cpu_s,
        )

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self._encoder, variables=self._config.variables)
        self._alive.add(worker)
        return worker

    def _bury(self, worker: WorkerProcess, *, reap_s: float = REAP_S) -> None:
        self._alive.discard(worker)
        worker.close(reap_s=reap_s)

    async def lost(self, worker: WorkerProcess, error: WorkerDiedError) -> None:
        """Bury a worker that failed, and judge whether it makes sense to start another."""
        started = worker.has_started()
        self._bury(worker)
        if error.hung:
            self._timeouts += 1
        else:
            self._crashes += 1
        if started:
            return
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise EncoderBroken(f"no encoder process can be started: {error}")
        await anyio.sleep(RESTART_PAUSE_S)

    async def take(self, source: Link[list[Row | Record]], sink: Link[Request | Record]) -> list[Row] | None:
        """The next batch for a worker, or None when the source has ended. Waits; one slot at a time reads."""
        self._idle += 1
        try:
            return await self._next_batch(source, sink)
        finally:
            self._idle -= 1

    async def _next_batch(self, source: Link[list[Row | Record]], sink: Link[Request | Record]) -> list[Row] | None:
        async with self._turn:
            while not self._ready and not self._ended:
                try:
                    batch = await source.get()
                except anyio.EndOfStream:
                    self._ended = True
                    break
                rows = self._bounded([item for item in batch if isinstance(item, Row)])
                size = self._config.batch_rows
                self._ready.extend(rows[at : at + size] for at in range(0, len(rows), size))
                for item in batch:
                    if isinstance(item, Record):
                        await sink.put(item)
            return self._ready.popleft() if self._ready else None

    def _bounded(self, rows: list[Row]) -> list[Row]:
        most = self.most_images()
        if most is None:
            return rows
        return [replace(row, reduction=row.reduction & Reduction(max_frames=most)) for row in rows]

    def take_nowait(self) -> list[Row] | None:
        """A batch if one is at hand that no idle slot waits for."""
        return self._ready.popleft() if len(self._ready) > self._idle else None

    def count(self, outcomes: Sequence[Request | Record], *, cpu_s: float) -> None:
        failed = sum(isinstance(outcome, Record) for outcome in outcomes)
        self._rows_failed += failed
        self._rows_done += len(outcomes) - failed
        self._cpu_s += cpu_s
        self._failed_starts = 0

    @property
    def config(self) -> EncodeConfig:
        return self._config


def poisoned(row: Row, error: WorkerDiedError) -> Record:
    """The end of a row that killed or hung its worker as often as it may."""
    message = f"encoding this row {error}, {TRIES} times"
    return Record(row=row.row, id=row.id, outcome=Failure(kind=FailureKind.POISON_MEDIA, message=message))


class _Slot:
    """One place in the pool: a worker, the batches it holds, and its successor when it dies."""

    def __init__(self, pool: EncoderPool, source: Link[list[Row | Record]], sink: Link[Request | Record]) -> None:
        self._pool = pool
        self._source = source
        self._sink = sink
        self._held: deque[list[Row]] = deque()
        """Batches the worker has; it works on the first."""
        self._again: deque[list[Row]] = deque()
        """Batches of a dead worker, to be handed over first."""
        self._tries: dict[int, int] = {}
        """Rows that have killed a worker, and how often."""
        self._worker: WorkerProcess | None = None
        self._cpu_s = 0.0

    async def work(self) -> None:
        while True:
            try:
                if not await self._hand_over():
                    return
                await self._collect()
            except WorkerDiedError as error:
                await self._recover(error)

    async def _hand_over(self) -> bool:
        """Give the worker batches, as many as it may hold; False when there is no work left at all."""
        while len(self._held) < HELD_BATCHES:
            batch = self._again.popleft() if self._again else self._pool.take_nowait()
            if batch is None:
                if self._held:
                    return True
                batch = await self._pool.take(self._source, self._sink)
                if batch is None:
                    return False
            payload = pack(batch)
            if self._held and len(payload) > AHEAD_BYTES:
                self._again.appendleft(batch)
                return True
            if self._worker is None:
                self._worker, self._cpu_s = self._pool.start_worker(), 0.0
            self._held.append(batch)
            await self._worker.send_payload(payload)
        return True

    async def _collect(self) -> None:
        """Take one frame of results and send them on."""
        worker = self._worker
        if worker is None:
            return
        expected = [row for batch in self._held for row in batch]
        frame = await worker.receive(expected, timeout_s=self._pool.config.row_timeout_s)
        self._pool.count(frame.outcomes, cpu_s=frame.cpu_s - self._cpu_s)
        self._cpu_s = frame.cpu_s
        came = {outcome.row for outcome in frame.outcomes}
        for batch in self._held:
            batch[:] = [row for row in batch if row.row not in came]
        while self._held and not self._held[0]:
            self._held.popleft()
        for outcome in frame.outcomes:
            self._tries.pop(outcome.row, None)
            await self._sink.put(outcome)

    async def _recover(self, error: WorkerDiedError) -> None:
        """Bury the worker, find the row it died of, keep the others for the next one."""
        worker, self._worker = self._worker, None
        if worker is None or not any(self._held):
            raise error
        worker.kill()
        current, started = worker.current_row(), worker.has_started()
        held = [row for batch in self._held for row in batch]
        self._held.clear()
        await self._pool.lost(worker, error)
        if not started:
            self._again.append(held)
            return
        # A worker that says nothing of a row is blamed on its first: alone at the next try, an innocent row passes.
        guilty = next((row for row in held if row.row == current), held[0])
        innocent = [row for row in held if row is not guilty]
        if innocent:
            self._again.append(innocent)
        self._tries[guilty.row] = self._tries.get(guilty.row, 0) + 1
        if self._tries[guilty.row] < TRIES:
            self._again.append([guilty])
            return
        del self._tries[guilty.row]
        failed = poisoned(guilty, error)
        self._pool.count([failed], cpu_s=0.0)
        await self._sink.put(failed)
