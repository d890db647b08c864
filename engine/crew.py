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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from engine.config import RunConfig
from engine.errors import BudgetSpent, EngineError, MemberLost
from engine.life import FIRST_OPEN, OFFSETS, Life, Seams
from engine.members import MemberProcess
from engine.money import Books
from engine.port import Ceilings, Delivery, Ended, Halt, Note, Opening, PortClosedError, Receipt, Stopping
from engine.shares import (
    lanes_learnt_for,
    lanes_learnt_of,
    money_left,
    opened_for,
    settings_for,
    shared_write,
    spent_of,
)
from engine.stats import Snapshot
from engine.stop import Stop
from engine.sums import Said, sum_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewParts(Seams):
    """What stands behind the seams of a run in several processes.

    Its observer is shown every record, and before it the row, with the columns that were carried along for it and no
    others.
    """

    program: str
    """The module that a member runs; it is given the number of its socket and the id of this process."""
    kit: Any
    """What `program` needs beside its share of the settings."""
    say: Callable[[str], None]
    """Takes what the user should know, in sentences."""
    patience_s: float = 15.0
    """What a member may take after the drain, to have made safe what it holds."""


_NONE: Mapping[str, Any] = {"places": ()}
"""No marks in the input."""


class Crew(Life):
    """One life of a run in several processes. `await main()` once; it may also raise MemberLost."""

    def __init__(self, config: RunConfig, parts: CrewParts) -> None:
        stop = Stop(drain_s=config.write.drain_s, pass_on=self._pass_on)
        super().__init__(config, parts, stop=stop, write=shared_write(config.write))
        self._parts = parts
        self._members: list[MemberProcess] = []
        self._tasks: TaskGroup | None = None
        self._turn = anyio.Lock()
        """Records of one delivery stay together."""
        self._handed = self._safe = 0
        """Records that were given to the write stage, and those of them that are safe."""
        self._receipts: deque[tuple[int, MemberProcess]] = deque()
        """To whom a receipt is due once so many are safe."""
        self._before = dict(parts.sink.learnt)
        self._out_of_money = False
        self._told: set[str] = set()

    @property
    def figures(self) -> list[Mapping[str, float]]:
        return [member.figures for member in self._members if member.figures]

    async def _prepare(self, beside: TaskGroup) -> None:
        if self._chosen is None:
            await to_thread.run_sync(self._pass_done)
        beside.start_soon(self._end_what_hangs)

    async def _work(self) -> None:
        """Start the members and hear them to their ends."""
        async with self._records.producing():
            with ExitStack() as started:
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

    async def _end_what_hangs(self) -> None:
        """A member that has not ended long after the drain holds up the others no longer."""
        await self.stop.wait()
        with self.stop.bounded():
            await anyio.sleep_forever()
        await anyio.sleep(self._parts.patience_s)
        for member in self._members:
            if member.goes_on:
                member.end()

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
        words = f"the next call of each process could pass its part of --max-cost {self._config.brake.max_cost_usd:g}"
        self.stop.ask("--max-cost", error=BudgetSpent(f"{words}: {Books(None, self._spent()).in_words()}"))

    def _spent(self) -> dict[str, float]:
        return spent_of(self._before.get("spent"), [member.spent for member in self._members])

    def _learnt(self) -> dict[str, Any]:
        learnt: dict[str, Any] = {"spent": self._spent()}
        if self._members:
            learnt["lanes"] = lanes_learnt_of([member.lanes for member in self._members])
        if self._chosen is None:
            self._pass_done()
            learnt[FIRST_OPEN] = self._first_open
        return learnt

    def _tell(self, text: str) -> None:
        """Once, though every member may say it."""
        if text not in self._told:
            self._told.add(text)
            self._parts.say(text)

    def snapshot(self) -> Snapshot:
        """The run at this moment: rows as this process counts them, everything else as its members last said."""
        said = [
            Said(snapshot=each.snapshot, goes_on=each.goes_on) for each in self._members if each.snapshot is not None
        ]
        return self._snapshot_of(sum_of(said), self._spent())
