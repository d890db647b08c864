"""Runs a coroutine function on a clock that jumps ahead whenever everyone sleeps: hours in milliseconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from trio.testing import MockClock

T = TypeVar("T")


def run_in_virtual_time(main: Callable[[], Awaitable[T]]) -> T:
    return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
