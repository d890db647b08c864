"""Tasks that are kept for the next piece of work."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from engine.hands import Hands
from tests.fakes.virtual import run_in_virtual_time


def test_things_are_worked_on_at_the_same_time_and_tasks_are_used_again() -> None:
    async def main() -> tuple[float, list[int], int]:
        done: list[int] = []
        tasks: set[object] = set()

        async def work(thing: int) -> None:
            tasks.add(asyncio.current_task())
            await anyio.sleep(1)
            done.append(thing)

        async with anyio.create_task_group() as group:
            hands = Hands(group, work)
            for batch in range(5):
                for thing in range(10):
                    hands.take(10 * batch + thing)
                await anyio.sleep(2)
            hands.dismiss()
        return anyio.current_time(), done, len(tasks)

    ended_s, done, tasks = run_in_virtual_time(main)
    assert ended_s == pytest.approx(10.0)
    assert sorted(done) == list(range(50))
    assert tasks == 10


def test_what_is_in_hand_is_finished_after_a_dismissal() -> None:
    async def main() -> list[int]:
        done: list[int] = []

        async def work(thing: int) -> None:
            await anyio.sleep(thing)
            done.append(thing)

        async with anyio.create_task_group() as group:
            hands = Hands(group, work)
            hands.take(1)
            hands.take(5)
            await anyio.sleep(2)
            hands.dismiss()
            hands.take(3)
        return done

    assert run_in_virtual_time(main) == [1, 5, 3]


def test_an_error_ends_the_group_and_the_idle_tasks_with_it() -> None:
    async def main() -> None:
        async def work(thing: int) -> None:
            await anyio.sleep(thing)
            if thing == 2:
                raise ValueError

        async with anyio.create_task_group() as group:
            hands = Hands(group, work)
            hands.take(1)
            hands.take(2)

    with pytest.raises(ExceptionGroup) as raised:
        run_in_virtual_time(main)
    assert raised.group_contains(ValueError)
