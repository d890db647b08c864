"""The event loop that commands run on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

T = TypeVar("T")

YOUNG_OBJECTS = 100_000
"""New objects between two looks for cycles, of which calls leave nearly none. Each look walks all that is in flight:
one every 10,000 would cost a tenth of a run with 512 rows in flight, and a sixth with 2,000."""


def on_loop(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine on uvloop."""
    # What is there by now, mostly code, stays: no collection need walk it.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
