"""Stage 4: records into the sink, made safe in groups, counted, and judged by the brake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio import to_thread

from engine.brake import Brake
from engine.config import BrakeConfig, WriteConfig
from engine.link import Link
from engine.ports import Observer, Sink
from engine.stop import Stop
from engine.types import Failure, Record

LOOK_EVERY = 64
"""Records between two looks at how much waits for the disk."""


@dataclass(slots=True)
class WriteCounters:
    """Rows that ended in this life of the run; read by `stats.py`."""

    ended: int = 0
    failed: int = 0
    truncated: int = 0
    unlabelled: int = 0
    """Results whose text could not be read as labels."""
    shared: int = 0
    """Results that are the answer to another row's call, or from the cache."""
    spared_usd: float = 0.0
    """What calls of their own would have cost those, as far as it is known."""
    degraded: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    commit_s: float = 0.0


class WriteStage:
    """Takes records to the sink. The only shielded work of a run is its last commit.

    Args:
        sink: where records go.
        write: when they become safe.
        brake: when the run stops for its failures.
        stop: asked for then.
        learnt: what to keep with a commit.
        acknowledged: told after each commit which rows it made safe.
        observer: shown every record.
    """

    def __init__(  # noqa: PLR0913 - the seams of the stage
        self,
        *,
        sink: Sink,
        write: WriteConfig,
        brake: BrakeConfig,
        stop: Stop,
        learnt: Callable[[], dict[str, Any]],
        acknowledged: Callable[[Sequence[int]], None],
        observer: Observer | None = None,
    ) -> None:
        self._sink = sink
        self._learnt = learnt
        self._acknowledged = acknowledged
        self._observer = observer
        self._put: list[int] = []
        """Rows of which the sink has a record since the last commit began."""
        self._config = write
        self._stop = stop
        self._due = anyio.Event()
        self._committed = anyio.Event()
        self._turn = anyio.Lock()
        """Whoever has it commits: the last commit must not begin while another is under way."""
        self.brake = Brake(brake)
        self.counters = WriteCounters()

    async def run(self, source: Link[Record]) -> None:
        """Write until the source ends; what was put is committed even if the run is cancelled."""
        async with source.consuming(), anyio.create_task_group() as group:
            group.start_soon(self._commit_regularly)
            try:
                await self._take(source)
            finally:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self._commit()

    async def _take(self, source: Link[Record]) -> None:
        config, counters = self._config, self.counters
        async for record in source:
            self._sink.put(record)
            self._put.append(record.row)
            self._count(record)
            if self._observer is not None:
                self._observer.ended(record)
            if (error := self.brake.judge(record)) is not None and not self._stop.asked:
                self._stop.ask(str(error), error=error)
            if counters.ended % LOOK_EVERY == 0:
                held = self._sink.statistics()
                if held.pending >= config.commit_records:
                    self._due.set()
                while held.pending_bytes > config.max_pending_bytes:
                    self._due.set()
                    await self._committed.wait()
                    held = self._sink.statistics()

    async def _commit_regularly(self) -> None:
        while True:
            with anyio.move_on_after(self._config.commit_interval_s):
                await self._due.wait()
            self._due = anyio.Event()
            with anyio.CancelScope(shield=True):
                await self._commit()

    async def _commit(self) -> None:
        started = anyio.current_time()
        async with self._turn:
            self._sink.learnt.update(self._learnt())
            rows, self._put = self._put, []
            await to_thread.run_sync(self._sink.commit)
            self._acknowledged(rows)
        self.counters.commits += 1
        self.counters.commit_s += anyio.current_time() - started
        self._committed.set()
        self._committed = anyio.Event()

    def _count(self, record: Record) -> None:
        counters = self.counters
        counters.ended += 1
        counters.truncated += record.truncated
        counters.degraded.update(code.partition(":")[0] for code in record.degraded)
        if isinstance(record.outcome, Failure):
            counters.failed += 1
            return
        if record.shares is not None:
            counters.shared += 1
            counters.spared_usd += record.shares.spared_usd or 0.0
        if record.answer is not None and record.answer.error is not None:
            counters.unlabelled += 1
