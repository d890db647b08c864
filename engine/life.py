"""One life of a run, whoever does its work: this process alone (`run.py`), or several (`crew.py`).

Here is what both have: the write stage and its brake, signals, notices and losses, and how the run shows itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count, filterfalse
from typing import Any

import anyio
from anyio.abc import TaskGroup

from engine.config import RunConfig, WriteConfig
from engine.errors import EngineError, first_error
from engine.link import Link
from engine.money import usage_in
from engine.notices import watch_for_notices
from engine.ports import Observer, Sink
from engine.signals import Signals
from engine.stats import STAGES, AtWork, Pace, Pressure, Snapshot, Watcher
from engine.stop import Stop
from engine.types import Record
from engine.write import WriteStage

ENDED_RECORDS = 256
"""Between call and write: records are small, and a commit may take a moment."""
SNAPSHOT_S = 1.0
OFFSETS, FIRST_OPEN = "offsets", "first_open"
"""What a later life is told of the input: where records begin in the file, and before which row all are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What stands behind the seams of every run."""

    sink: Sink
    watchers: Sequence[Watcher] = ()
    signals: Signals | None = None
    """None has the run hear them itself, from its start to its end."""
    observer: Observer | None = None
    """Shown every row that is read and every record."""
    input_identity: Mapping[str, Any] | None = None
    """What `describe_input` gave when the run was opened; None if nobody watches whether the input changes."""
    lost: Callable[[], Awaitable[EngineError]] | None = None
    """Waits until the run has lost what it cannot go on without; the error it then ends with. None: nothing such."""


class Life(ABC):
    """One life of a run. `await main()` once.

    Args:
        config: the run's settings.
        seams: what stands behind its seams.
        stop: its early end.
        write: when records become safe.
    """

    def __init__(self, config: RunConfig, seams: Seams, *, stop: Stop, write: WriteConfig) -> None:
        self._config = config
        self._seams = seams
        self.stop = stop
        self._write = WriteStage(
            sink=seams.sink,
            write=write,
            brake=config.brake,
            stop=stop,
            learnt=self._learnt,
            acknowledged=self._acknowledged,
            observer=seams.observer,
        )
        self._records = Link[Record](ENDED_RECORDS)
        self._pace, self._pressure = Pace(), Pressure()
        self._started_s = anyio.current_time()
        held = seams.sink.statistics()
        self._done_before, self._chosen = held.finished, held.chosen
        # A row that is to be tried again may stand anywhere before.
        untouched = held.chosen is None and held.finished == held.done + held.failed
        first_open = seams.sink.learnt.get(FIRST_OPEN, 0) if untouched else 0
        # Nothing is skipped on the word of a snapshot that holds too few rows for it.
        known = first_open <= config.source.skip + held.finished
        self._first_open = max(config.source.skip, first_open if known else 0)
        self.notes: list[str] = []
        """What the user should know in the end, in sentences."""

    @abstractmethod
    async def _prepare(self, beside: TaskGroup) -> None:
        """Begin what goes on beside the stages for as long as they last."""

    @abstractmethod
    async def _work(self) -> None:
        """Bring every row that is not done to its end in `_records`, and close that."""

    @abstractmethod
    def _learnt(self) -> dict[str, Any]:
        """What a later life should know, as of this commit."""

    @abstractmethod
    def _acknowledged(self, rows: Sequence[int]) -> None:
        """The lines of these rows are safe."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The run at this moment."""

    @property
    def figures(self) -> Sequence[Mapping[str, float]]:
        """What each process beside this one has taken, as `process_figures`, as far as it has ended in order."""
        return ()

    async def main(self) -> Snapshot:
        """Work until the input is done or the run is asked to stop.

        Returns:
            The last snapshot; `stopping` says what ended the run early.

        Raises:
            EngineError: the run ended early for a reason that is no signal. Everything acknowledged is safe.
        """
        try:
            async with anyio.create_task_group() as group:
                await self._prepare(group)
                group.start_soon(self._watch)
                group.start_soon(self._obey_signals)
                group.start_soon(self._heed_notices)
                group.start_soon(self._heed_loss)
                async with anyio.create_task_group() as stages:
                    stages.start_soon(self._work)
                    stages.start_soon(self._write.run, self._records)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            self.show()
        if self.stop.error is not None:
            raise self.stop.error
        return self.snapshot()

    def show(self) -> None:
        """Hand the present snapshot to every watcher."""
        snapshot = self.snapshot()
        for watcher in self._seams.watchers:
            # A terminal or a log that has gone ends nothing.
            with suppress(OSError):
                watcher.show(snapshot)

    def _snapshot_of(self, work: AtWork, spent: Mapping[str, float]) -> Snapshot:
        """The run, from what those who work on it say, what it has spent (`Books.as_json`) and what is counted here."""
        written = self._write.counters
        total, known = work.rows_total, work.rows_known
        if self._chosen is not None:
            total, known = self._done_before + self._chosen, True
        pace = self._pace.rows_per_s(written.ended)
        left = max(0, total - self._done_before - written.ended)
        return Snapshot(
            elapsed_s=anyio.current_time() - self._started_s,
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
            usage=usage_in(spent),
            cost_usd=spent["cost_usd"],
            unpriced_calls=int(spent["unpriced_calls"]),
            unknown_calls=int(spent["unknown_calls"]),
            unknown_usd=spent["unknown_usd"],
            failures={str(kind): number for kind, number in self._write.brake.by_kind.items()},
            examples={str(kind): message for kind, message in self._write.brake.examples.items()},
            degraded=dict(written.degraded),
            in_flight=work.in_flight,
            window=work.window,
            open_rows=work.open_rows,
            open_bytes=work.open_bytes,
            lanes=work.lanes,
            outage_s=work.outage_s,
            encode=work.encode,
            call=work.call,
            sink=self._seams.sink.statistics(),
            links=work.links,
            bottleneck=self._pressure.bottleneck(work.links) if work.links else STAGES[0],
            commit_s=written.commit_s,
            findings=self._seams.observer.findings() if self._seams.observer else None,
            held=work.held,
            stopping=self.stop.reason,
        )

    def _pass_done(self) -> None:
        """Note up to where every row is done."""
        self._first_open = next(filterfalse(self._seams.sink.is_done, count(self._first_open)))

    async def _obey_signals(self) -> None:
        with ExitStack() as own:
            signals = self._seams.signals or own.enter_context(Signals())
            signals.hand_over(drain_s=self._config.write.drain_s)
            async for number in signals:
                self.stop.ask(number.name)

    async def _heed_notices(self) -> None:
        await watch_for_notices(self._config.notices, stop=self.stop, note=self.notes.append)

    async def _heed_loss(self) -> None:
        if self._seams.lost is not None:
            error = await self._seams.lost()
            self.stop.ask(str(error), error=error)

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(SNAPSHOT_S)
            self.show()
