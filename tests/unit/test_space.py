"""A disk that is nearly full: nothing new is asked for, and the run goes on when there is room. In virtual time."""

from __future__ import annotations

import math

import anyio
import pytest

from engine.config import BrakeConfig
from engine.errors import SinkBroken
from engine.gate import Gate, Room, StoppedError
from engine.lanes import Lanes
from engine.money import Books
from engine.space import ENOUGH, FLOOR_BYTES, ROW_BYTES, Space
from engine.stop import Stop
from sinks.memory import MemorySink
from tests.fakes.calls import ScriptedClient, make_config, make_reply, make_request
from tests.fakes.virtual import run_in_virtual_time


class TightSink(MemorySink):
    """Has as much room as it is told."""

    def __init__(self, free: int | None) -> None:
        super().__init__()
        self.free = free

    def free_bytes(self) -> int | None:
        return self.free


class Scene:
    """A gate and the disk that holds it."""

    def __init__(self, free: int | None, *, max_wait_s: float = math.inf) -> None:
        self.sink = TightSink(free)
        self.stop = Stop(drain_s=20)
        config = make_config()
        client = ScriptedClient(lambda row, attempt, max_tokens: make_reply())
        lanes = Lanes(config, [client], books=Books(None), now=anyio.current_time(), learnt={})
        self.room = Room(1 << 30)
        self.gate = Gate(lanes, room=self.room, brake=BrakeConfig(), stop=self.stop)
        self.space = Space(self.sink, self.gate, self.room, stop=self.stop, max_wait_s=max_wait_s)

    async def wait_for_slot(self) -> float:
        """Seconds until a call may go out."""
        began = anyio.current_time()
        await self.gate.admit(make_request(0), None)
        return anyio.current_time() - began


def test_with_room_a_call_goes_out_at_once() -> None:
    async def main() -> None:
        scene = Scene(FLOOR_BYTES)
        await scene.space.look()
        assert scene.space.waiting is None
        assert await scene.wait_for_slot() == 0

    run_in_virtual_time(main)


def test_where_nobody_knows_the_room_a_run_goes_on() -> None:
    async def main() -> None:
        scene = Scene(None)
        await scene.space.look()
        assert await scene.wait_for_slot() == 0

    run_in_virtual_time(main)


def test_a_full_disk_keeps_calls_back_until_there_is_clearly_room() -> None:
    async def main() -> None:
        scene = Scene(FLOOR_BYTES - 1)
        await scene.space.look()
        assert scene.space.waiting is not None
        assert "31 MB are left" in scene.space.waiting

        async def free_some() -> None:
            await anyio.sleep(100.5)
            scene.sink.free = FLOOR_BYTES * ENOUGH - 1
            await anyio.sleep(100)
            scene.sink.free = FLOOR_BYTES * ENOUGH

        async with anyio.create_task_group() as group:
            group.start_soon(scene.space.watch)
            group.start_soon(free_some)
            assert await scene.wait_for_slot() == pytest.approx(201, abs=1)
            group.cancel_scope.cancel()
        assert scene.space.waiting is None
        assert scene.gate.idle_s(anyio.current_time()) == pytest.approx(201, abs=1)

    run_in_virtual_time(main)


def test_the_answers_under_way_must_fit_besides() -> None:
    async def main() -> None:
        scene = Scene(FLOOR_BYTES + 10 * ROW_BYTES)
        for _ in range(10):
            scene.room.open(1)
        await scene.space.look()
        assert scene.space.waiting is None
        scene.room.open(1)
        await scene.space.look()
        assert scene.space.waiting is not None

    run_in_virtual_time(main)


def test_a_run_that_waits_in_vain_ends_in_order() -> None:
    async def main() -> None:
        scene = Scene(0, max_wait_s=3600)
        await scene.space.look()
        async with anyio.create_task_group() as group:
            group.start_soon(scene.space.watch)
            await scene.stop.wait()
            assert anyio.current_time() == pytest.approx(3600, abs=2)
            group.cancel_scope.cancel()
        assert isinstance(scene.stop.error, SinkBroken)
        assert "0 MB are left" in str(scene.stop.error)

    run_in_virtual_time(main)


def test_a_stop_ends_the_wait_for_room() -> None:
    async def main() -> None:
        scene = Scene(0)
        await scene.space.look()

        async def stop_later() -> None:
            await anyio.sleep(5)
            scene.stop.ask("SIGTERM")
            scene.gate.wake()

        async with anyio.create_task_group() as group:
            group.start_soon(stop_later)
            with pytest.raises(StoppedError):
                await scene.wait_for_slot()

    run_in_virtual_time(main)
