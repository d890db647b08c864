"""One call stage with all that stands around it, against a scripted client, in virtual time."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from engine.call import CallStage
from engine.config import BrakeConfig, FormatConfig, LimitConfig, PriceConfig, RetryConfig
from engine.gate import Gate, Room
from engine.lanes import Lanes
from engine.link import Link
from engine.money import Books
from engine.sharing import Sharing
from engine.stop import Stop
from engine.types import Record, Reduction, Request, Row
from tests.fakes.answers import MemoryAnswers
from tests.fakes.calls import PlainReader, Script, ScriptedClient, make_config, make_lane, make_request
from tests.fakes.virtual import run_in_virtual_time


class Stage:
    """One call stage with its surroundings; `records` is what came out."""

    def __init__(
        self,
        *scripts: Script,
        retry: RetryConfig | None = None,
        limits: LimitConfig | None = None,
        brake: BrakeConfig | None = None,
        form: FormatConfig | None = None,
        price: PriceConfig | None = None,
        latency_s: float = 1.0,
    ) -> None:
        self.clients = [ScriptedClient(script, latency_s=latency_s) for script in scripts]
        self.client = self.clients[0]
        lanes = tuple(make_lane(model=f"m{at}", price=price) for at in range(len(scripts)))
        self.config = make_config(
            retry=retry or RetryConfig(max_tokens=512), limits=limits, brake=brake, form=form, lanes=lanes
        )
        self.records: dict[int, Record] = {}
        self.learnt: dict[str, Any] = {}
        self.stop_at_s: float | None = None
        self.held_s: tuple[float, float] | None = None
        self.sink_wait_s = 0.0
        self.elapsed_s = 0.0
        self.most_open = 0
        self.reductions: list[Reduction] = []
        self.commit_s: float | None = None
        """How often what came out is said to be safe; None says so of each record at once."""
        self.share = True
        self.committed: set[int] = set()
        self.most_waiting = 0

    def run(self, items: Sequence[Request | Record]) -> Stage:
        run_in_virtual_time(lambda: self._main(items))
        return self

    async def _main(self, items: Sequence[Request | Record]) -> None:
        now = anyio.current_time()
        self.stop = Stop(drain_s=20)
        self.books = Books(self.config.brake.max_cost_usd)
        self.lanes = Lanes(self.config, self.clients, books=self.books, now=now, learnt=self.learnt)
        self.room = Room(self.config.limits.max_open_bytes)
        self.gate = Gate(self.lanes, room=self.room, brake=self.config.brake, stop=self.stop)
        self.answers = MemoryAnswers()
        self.sharing = Sharing([self.answers], reader=PlainReader(), on=self.share)
        self.stage = CallStage(
            self.config,
            lanes=self.lanes,
            gate=self.gate,
            reader=PlainReader(),
            encode_again=self._encode_again,
            sharing=self.sharing,
            stop=self.stop,
            rng=random.Random(1),
        )
        source, sink = Link[Request | Record](4), Link[Record](1)
        started = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(self._feed, items, source)
            group.start_soon(self._stop_later, group.cancel_scope)
            group.start_soon(self._hold_for_a_while)
            group.start_soon(self.stage.run, source, sink)
            if self.commit_s is not None:
                group.start_soon(self._commit_regularly, self.commit_s)
            async with sink.consuming():
                async for record in sink:
                    assert record.row not in self.records
                    self.records[record.row] = record
                    self.most_waiting = max(self.most_waiting, self.sharing.waiting)
                    if record.shares is not None and record.shares.row is not None:
                        assert record.shares.row in self.committed, "it shares with a row that has no line"
                    if self.commit_s is None:
                        self._commit()
                    self.most_open = max(self.most_open, self.room.rows)
                    await anyio.sleep(self.sink_wait_s)
            self.elapsed_s = anyio.current_time() - started
            group.cancel_scope.cancel()
        assert self.room.rows == self.room.n_bytes == 0
        assert self.lanes.in_flight == 0
        assert self.sharing.waiting == 0
        assert self.books.reserved_usd == pytest.approx(0.0, abs=1e-12)

    async def _commit_regularly(self, interval_s: float) -> None:
        while True:
            await anyio.sleep(interval_s)
            self._commit()

    def _commit(self) -> None:
        fresh = [record for row, record in self.records.items() if row not in self.committed]
        self.committed.update(record.row for record in fresh)
        self.answers.remember(fresh)
        self.sharing.acknowledged([record.row for record in fresh])

    async def _encode_again(self, row: Row) -> Request | Record:
        self.reductions.append(row.reduction)
        request = make_request(row.row, n_frames=row.reduction.max_frames or 8)
        return dataclasses.replace(request, made_of=row, degraded=(f"fewer_frames:8>{row.reduction.max_frames}",))

    async def _feed(self, items: Sequence[Request | Record], source: Link[Request | Record]) -> None:
        async with source.producing():
            for item in items:
                await source.put(item)

    async def _hold_for_a_while(self) -> None:
        if self.held_s is not None:
            await anyio.sleep(self.held_s[0])
            self.gate.hold(shut=True)
            await anyio.sleep(self.held_s[1] - self.held_s[0])
            self.gate.hold(shut=False)

    async def _stop_later(self, scope: anyio.CancelScope) -> None:
        if self.stop_at_s is not None:
            await anyio.sleep(self.stop_at_s)
            self.stop.ask("SIGTERM")
        await self.stop.wait()
        self.gate.wake()
