"""One timer for all calls in flight."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from engine.overdue import Overdue
from tests.fakes.virtual import run_in_virtual_time


def test_each_ends_when_its_own_time_is_over_and_no_other_is_disturbed() -> None:
    async def main() -> dict[str, float]:
        overdue = Overdue(10.0)
        ended: dict[str, float] = {}

        async def call(name: str, after_s: float, takes_s: float) -> None:
            await anyio.sleep(after_s)
            try:
                with overdue.limited():
                    await anyio.sleep(takes_s)
            except TimeoutError:
                name += " late"
            ended[name] = anyio.current_time()
            await anyio.sleep(1)  # nothing is left over that would end what comes after

        async with anyio.create_task_group() as group:
            for number, takes_s in enumerate((2.0, 30.0, 9.5, 10.5)):
                group.start_soon(call, str(number), number, takes_s)
        overdue.close()
        return ended

    ended = run_in_virtual_time(main)
    assert ended == pytest.approx({"0": 2.0, "1 late": 11.0, "2": 11.5, "3 late": 13.0})


def test_a_cancelled_call_is_cancelled_and_not_late() -> None:
    async def main() -> float:
        overdue = Overdue(10.0)
        with anyio.move_on_after(3):
            with overdue.limited():
                await anyio.sleep(60)
        with overdue.limited():
            await anyio.sleep(9)
        return anyio.current_time()

    assert run_in_virtual_time(main) == pytest.approx(12.0)


def test_who_asked_a_task_to_end_is_heard_although_its_time_is_over_as_well() -> None:
    async def main() -> bool:
        overdue, cancelled = Overdue(10.0), False

        async def call() -> None:
            nonlocal cancelled
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_at(10.0, task.cancel)
            try:
                with overdue.limited():
                    await anyio.sleep(60)
            except asyncio.CancelledError:
                cancelled = True

        async with anyio.create_task_group() as group:
            group.start_soon(call)
        return cancelled

    assert run_in_virtual_time(main)


def test_a_watch_that_has_been_closed_ends_nobody() -> None:
    async def main() -> float:
        overdue = Overdue(10.0)
        with overdue.limited():
            overdue.close()
            await anyio.sleep(60)
        return anyio.current_time()

    assert run_in_virtual_time(main) == pytest.approx(60.0)
