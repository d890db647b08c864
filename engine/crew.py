"""A run in several engine processes, where one event loop is full. One folder, one log, one report; the same promise.

    member ──records──┐
    member ──records──┼──▶ write        each member is a `Run` over its own rows (`member.py`)
    member ──records──┘    (this process)

Everything that may exist only once stays here: the sink, the brake, the observer, panel and report, signals, notices.
Members have a share of every limit, and whoever ends leaves its share to the others. A member goes on from a commit
only when the run's own commit has made its records last. They die with this process; if one of them dies, the others
end in order and the run says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count, filterfalse
from typing import Any

import anyio
from anyio import to_thread

from engine.config import RunConfig
from engine.errors import BudgetSpent, EngineError, MemberLost, first_error
from engine.link import Link
from engine.members import MemberProcess
from engine.money import Books, usage_in
from engine.notices import watch_for_notices
from engine.port import Ceilings, Delivery, Ended, Halt, Note, Opening, PortClosedError, Receipt, Stopping
from engine.ports import Observer, Sink
from engine.run import ENDED_RECORDS, FIRST_OPEN, OFFSETS, SNAPSHOT_S
from engine.shares import (
    lanes_learnt_for,
    lanes_learnt_of,
    money_left,
    opened_for,
    settings_for,
    shared_write,
    spent_of,
)
from engine.signals import Signals
from engine.stats import STAGES, Pace, Pressure, Snapshot, Watcher
from engine.stop import Stop
from engine.sums import Said, sum_of
from engine.types import Record
from engine.write import WriteStage


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewParts:
    """What stands behind the seams of a run in several processes."""

    program: str
    """The module that a member runs; it is given the number of its socket and the id of this process."""
    kit: Any
    """What `program` needs beside its share of the settings."""
    sink: Sink
    say: Callable[[str], None]
    """Takes what the user should know, in sentences."""
    watchers: Sequence[Watcher] = ()
    signals: Signals | None = None
    observer: Observer | None = None
    """Shown every record; and before it the row, with the columns that were carried along for it and no others."""
    input_identity: Mapping[str, Any] | None = None
    lost: Callable[[], Awaitable[EngineError]] | None = None


_NONE: Mapping[str, Any] = {"places": ()}
"""No marks in the input."""


class Crew:
    """One life of a run in several processes. `await main()` once."""

    def __init__(self, config: RunConfig, parts: CrewParts) -> None:
        self._config = config
        self._parts = parts
        self.stop = Stop(drain_s=config.write.drain_s, pass_on=self._pass_on)
        self._write = WriteStage(
            sink=parts.sink,
            write=shared_write(config.write),
            brake=config.brake,
            stop=self.stop,
            learnt=self._learnt,
            acknowledged=self._acknowledged,
            observer=parts.observer,
        )
        self._records = Link[Record](ENDED_RECORDS)
        self._members: list[MemberProcess] = []
        self._tasks: anyio.abc.TaskGroup | None = None
        self._turn = anyio.Lock()
        """Records of one delivery stay together."""
        self._handed = self._safe = 0
        """Records that were given to the write stage, and those of them that are safe."""
        self._receipts: deque[tuple[int, MemberProcess]] = deque()
        """To whom a receipt is due once so many are safe."""
        self._pace, self._pressure = Pace(), Pressure()
        self._started_s = anyio.current_time()
        self._before = dict(parts.sink.learnt)
        self._out_of_money = False
        self._told: set[str] = set()
        held = parts.sink.statistics()
        self._done_before, self._chosen = held.finished, held.chosen
        untouched = held.chosen is None and held.finished == held.done + held.failed
        first_open = self._before.get(FIRST_OPEN, 0) if untouched else 0
        known = first_open <= config.source.skip + held.finished
        self._first_open = max(config.source.skip, first_open if known else 0)
        self.notes: list[str] = []
        """What the user should know in the end, in sentences."""

    async def main(self) -> Snapshot:
        """Work until the input is done or the run is asked to stop.

        Returns:
            The last snapshot; `stopping` says what ended the run early.

        Raises:
            EngineError: as `Run.main`; also MemberLost.
        """
        if self._chosen is None:
            await to_thread.run_sync(self._pass_done)
        try:
            with ExitStack() as started:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._watch)
                    group.start_soon(self._obey_signals)
                    group.start_soon(self._heed_notices)
                    group.start_soon(self._heed_loss)
                    async with anyio.create_task_group() as stages:
                        stages.start_soon(self._write.run, self._records)
                        stages.start_soon(self._work, started)
                    group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            self.show()
        if self.stop.error is not None:
            raise self.stop.error
        return self.snapshot()

    @property
    def figures(self) -> list[Mapping[str, float]]:
        """What each member has taken, as `process_figures`, as far as it has ended in order."""
        return [member.figures for member in self._members if member.figures]

    async def _work(self, started: ExitStack) -> None:
        """Start the members and hear them to their ends."""
        async with self._records.producing():
            try:
                async with anyio.create_task_group() as self._tasks:
                    for opening in self._openings():
                        variables = self._config.encode.variables
                        member = MemberProcess(opening, program=self._parts.program, variables=variables)
                        self._members.append(started.enter_context(member))
                        self._tasks.start_soon(self._hear, member)
            finally:
                # The last commit of a run that was broken off finds nobody to tell.
                self._tasks = None
        if self._out_of_money and not self.stop.asked:
            self._stop_for_money()

    def _openings(self) -> Iterator[Opening]:
        config, before = self._config, self._before
        money_usd = money_left(config.brake.max_cost_usd, before.get("spent"))
        learnt = {name: value for name, value in before.items() if name != "spent"} | {
            FIRST_OPEN: self._first_open,
            "lanes": lanes_learnt_for(before.get("lanes", {}), config.processes),
        }
        held = self._parts.sink.statistics()
        for at in range(config.processes):
            yield Opening(
                settings=opened_for(config, at, money_usd=None if money_usd is None else money_usd / config.processes),
                keys=tuple(None if lane.key is None else lane.key.reveal() for lane in config.lanes),
                learnt=learnt,
                held=held,
                identity=self._parts.input_identity,
                kit=self._parts.kit,
            )

    async def _hear(self, member: MemberProcess) -> None:
        try:
            await member.port.send(member.opening)
            member.opened = True
            if self.stop.reason is not None:
                await member.port.send(
                    Halt(reason=self.stop.reason, for_error=self.stop.error is not None, is_notice=False)
                )
            while member.goes_on:
                await self._heed(member, await member.port.receive())
            await member.leave()
        except PortClosedError:
            error = MemberLost(member.died(await member.leave()))
            self.stop.ask(str(error), error=error)

    async def _heed(self, member: MemberProcess, message: object) -> None:
        match message:
            case Delivery():
                await self._take(member, message)
            case Snapshot():
                member.snapshot = message
            case Note(text=text):
                self._tell(text)
            case Stopping(error=error):
                self._heed_stop(error)
            case Ended(error=error, snapshot=snapshot, figures=figures):
                member.snapshot, member.figures, member.goes_on = snapshot, figures, False
                self._heed_stop(error)
                self._share_anew(member)

    async def _take(self, member: MemberProcess, delivery: Delivery) -> None:
        """Hand records to the write stage; their receipt follows their commit."""
        said, learnt = delivery.learnt, self._parts.sink.learnt
        member.spent, member.lanes = said["spent"], said["lanes"]
        if len(said.get(OFFSETS, _NONE)["places"]) > len(learnt.get(OFFSETS, _NONE)["places"]):
            learnt[OFFSETS] = said[OFFSETS]
        if "rows_total" in said:
            learnt["rows_total"] = said["rows_total"]
        async with self._turn:
            if self._parts.observer is not None and delivery.carried:
                self._parts.observer.read(delivery.carried)
            for record in delivery.records:
                await self._records.put(record)
            self._handed += len(delivery.records)
            self._receipts.append((self._handed, member))

    def _acknowledged(self, rows: Sequence[int]) -> None:
        self._safe += len(rows)
        while self._receipts and self._receipts[0][0] <= self._safe:
            _, member = self._receipts.popleft()
            self._send(member, Receipt())

    def _heed_stop(self, error: EngineError | None) -> None:
        """A member stops. Where its money is spent, others may still have some; any other reason is everybody's."""
        if isinstance(error, BudgetSpent):
            self._out_of_money = True
        elif error is not None and not self.stop.asked:
            self.stop.ask(str(error), error=error)

    def _pass_on(self, reason: str, error: EngineError | None, is_notice: bool) -> None:  # noqa: FBT001 - of `PassOn`
        for member in self._members:
            if member.opened:
                self._send(member, Halt(reason=reason, for_error=error is not None, is_notice=is_notice))

    def _share_anew(self, gone: MemberProcess) -> None:
        """What a member leaves goes to those that go on."""
        left = [member for member in self._members if member.goes_on]
        if self.stop.asked or not left:
            return
        more_usd = gone.left_usd / len(left)
        for at, member in enumerate(left):
            before_usd = member.settings.brake.max_cost_usd
            money_usd = None if before_usd is None else before_usd + more_usd
            member.settings = settings_for(self._config, at, len(left), money_usd=money_usd)
            self._send(member, Ceilings(settings=member.settings))

    def _send(self, member: MemberProcess, message: object) -> None:
        """Without waiting. One that is gone need not hear it, and that it is gone shows where it is heard."""

        async def send() -> None:
            with suppress(PortClosedError):
                await member.port.send(message)

        if self._tasks is not None and member.goes_on:
            self._tasks.start_soon(send)

    def _stop_for_money(self) -> None:
        books = Books(None, self._spent())
        unknown = f" and at most ${books.unknown_usd:,.4f} of unknown cost" if books.unknown_calls else ""
        words = (
            f"the next call of each process could pass its part of --max-cost {self._config.brake.max_cost_usd:g}: "
            f"${books.cost_usd:,.4f}{unknown} spent over all lives of this run. Raise --max-cost to go on"
        )
        self.stop.ask("--max-cost", error=BudgetSpent(words))

    def _spent(self) -> dict[str, float]:
        return spent_of(self._before.get("spent"), [member.spent for member in self._members])

    def _learnt(self) -> dict[str, Any]:
        """What a later life should know, as of this commit."""
        learnt: dict[str, Any] = {"spent": self._spent()}
        if self._members:
            learnt["lanes"] = lanes_learnt_of([member.lanes for member in self._members])
        if self._chosen is None:
            self._pass_done()
            learnt[FIRST_OPEN] = self._first_open
        return learnt

    def _pass_done(self) -> None:
        """Note up to where every row is done."""
        self._first_open = next(filterfalse(self._parts.sink.is_done, count(self._first_open)))

    def _tell(self, text: str) -> None:
        """Once, though every member may say it."""
        if text not in self._told:
            self._told.add(text)
            self._parts.say(text)

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

    def snapshot(self) -> Snapshot:
        """The run at this moment: rows as this process counts them, everything else as its members last said."""
        written, spent = self._write.counters, self._spent()
        said = sum_of(
            [Said(snapshot=each.snapshot, goes_on=each.goes_on) for each in self._members if each.snapshot is not None]
        )
        total, known = said.rows_total, said.rows_known
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
            failures={str(kind): count for kind, count in self._write.brake.by_kind.items()},
            examples={str(kind): message for kind, message in self._write.brake.examples.items()},
            degraded=dict(written.degraded),
            in_flight=said.in_flight,
            window=said.window,
            open_rows=said.open_rows,
            open_bytes=said.open_bytes,
            lanes=said.lanes,
            outage_s=said.outage_s,
            encode=said.encode,
            call=said.call,
            sink=self._parts.sink.statistics(),
            links=said.links,
            bottleneck=self._pressure.bottleneck(said.links) if said.links else STAGES[0],
            commit_s=written.commit_s,
            findings=self._parts.observer.findings() if self._parts.observer else None,
            held=said.held,
            stopping=self.stop.reason,
        )
