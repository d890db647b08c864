"""Streams between stages and the early end, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import pytest

from engine.errors import BudgetSpent
from engine.link import Link
from engine.stats import Pressure
from engine.stop import Stop
from tests.fakes.virtual import run_in_virtual_time


def test_a_full_link_holds_its_producer_back() -> None:
    async def main() -> None:
        link = Link[int](3)
        put: list[int] = []

        async def produce() -> None:
            async with link.producing():
                for item in range(10):
                    await link.put(item)
                    put.append(item)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            await anyio.sleep(1)
            assert put == [0, 1, 2]
            async with link.consuming():
                assert [item async for item in link] == list(range(10))

    run_in_virtual_time(main)


def test_many_that_are_put_in_turn_wait_for_room_each_and_come_in_order() -> None:
    async def main() -> None:
        link = Link[int](3)
        handed_on: list[int] = []

        def items() -> Iterator[int]:
            for item in range(10):
                handed_on.append(item)
                yield item

        async def produce() -> None:
            async with link.producing():
                for item in items():
                    await link.put(item)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            await anyio.sleep(1)
            assert handed_on == [0, 1, 2, 3], "the fourth waits"
            async with link.consuming():
                assert [item async for item in link] == list(range(10))
        assert link.statistics().items == 10
        with pytest.raises(anyio.BrokenResourceError):
            await link.put(1)

    run_in_virtual_time(main)


def test_the_end_of_the_producer_is_the_end_of_the_stream() -> None:
    async def main() -> None:
        link = Link[int](3)
        async with link.consuming():
            async with link.producing():
                await link.put(1)
            assert await link.get() == 1
            with pytest.raises(anyio.EndOfStream):
                await link.get()

    run_in_virtual_time(main)


def test_a_link_knows_how_long_either_side_waited() -> None:
    async def main() -> None:
        link = Link[int](1)

        async def produce() -> None:
            await anyio.sleep(5)
            for item in range(3):
                await link.put(item)

        async with link.consuming(), link.producing(), anyio.create_task_group() as group:
            group.start_soon(produce)
            await link.get()
            await anyio.sleep(7)
            await link.get()
        pressure = link.statistics()
        assert pressure.blocked_get_s == pytest.approx(5)
        assert pressure.blocked_put_s == pytest.approx(7)
        assert (pressure.items, pressure.waiting) == (3, 1)

    run_in_virtual_time(main)


def test_a_wait_that_still_lasts_counts() -> None:
    async def main() -> None:
        link = Link[int](1)
        async with link.consuming(), link.producing(), anyio.create_task_group() as group:
            group.start_soon(link.get)
            await anyio.sleep(4)
            assert link.statistics().blocked_get_s == pytest.approx(4)
            group.cancel_scope.cancel()

    run_in_virtual_time(main)


def test_several_producers_that_wait_at_once_count_once() -> None:
    async def main() -> None:
        link = Link[int](1)
        async with link.consuming(), link.producing():
            await link.put(0)
            async with anyio.create_task_group() as group:
                group.start_soon(link.put, 1)
                await anyio.sleep(2)
                group.start_soon(link.put, 2)
                await anyio.sleep(3)
                assert [await link.get() for _ in range(3)] == [0, 1, 2]
            assert link.statistics().blocked_put_s == pytest.approx(5)

    run_in_virtual_time(main)


def test_the_bottleneck_is_the_last_stage_whose_input_piles_up() -> None:
    async def main() -> None:
        pressure = Pressure()
        links = {name: Link[int](1) for name in ("source-encode", "encode-call", "call-write")}

        def named() -> str:
            return pressure.bottleneck({name: link.statistics() for name, link in links.items()})

        async def push(name: str) -> None:
            await links[name].put(1)
            await links[name].put(2)

        await anyio.sleep(1)
        assert named() == "source"
        async with AsyncExitStack() as ends, anyio.create_task_group() as group:
            for link in links.values():
                await ends.enter_async_context(link.producing())
                await ends.enter_async_context(link.consuming())
            for name, consumer in (("source-encode", "encode"), ("encode-call", "call"), ("call-write", "write")):
                group.start_soon(push, name)
                await anyio.sleep(1)
                assert named() == consumer
            group.cancel_scope.cancel()

    run_in_virtual_time(main)


def test_the_first_request_to_stop_starts_the_drain_and_the_second_ends_it() -> None:
    async def main() -> None:
        for asked_at, ends_at in (((3.0,), 23.0), ((3.0, 8.0), 8.0)):
            started = anyio.current_time()
            stop = Stop(drain_s=20)
            async with anyio.create_task_group() as group:

                async def ask(stop: Stop = stop, at: tuple[float, ...] = asked_at) -> None:
                    before = 0.0
                    for moment in at:
                        await anyio.sleep(moment - before)
                        before = moment
                        stop.ask("SIGTERM")

                group.start_soon(ask)
                with stop.bounded():
                    await anyio.sleep_forever()
                assert anyio.current_time() - started == pytest.approx(ends_at)
            assert stop.reason == "SIGTERM"

    run_in_virtual_time(main)


def test_an_error_that_asks_twice_does_not_shorten_the_drain_and_the_first_is_kept() -> None:
    async def main() -> None:
        stop = Stop(drain_s=20)
        first = BudgetSpent("first")
        stop.ask("first", error=first)
        stop.ask("second", error=BudgetSpent("second"))
        assert stop.error is first
        started = anyio.current_time()
        with stop.bounded():
            await anyio.sleep_forever()
        assert anyio.current_time() - started == pytest.approx(20)

    run_in_virtual_time(main)


def test_a_sleep_ends_when_the_run_is_asked_to_stop() -> None:
    async def main() -> None:
        stop = Stop(drain_s=20)
        async with anyio.create_task_group() as group:
            group.start_soon(stop.sleep, 1000)
            await anyio.sleep(2)
            stop.ask("SIGINT")
        assert anyio.current_time() < 10_000
        started = anyio.current_time()
        await stop.sleep(1000)
        assert anyio.current_time() == started

    run_in_virtual_time(main)
