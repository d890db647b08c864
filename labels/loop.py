"""The event loop that commands run on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

T = TypeVar("T")

YOUNG_OBJECTS = 10_000
"""New objects between two looks for cycles, of which calls leave nearly none; 700 would cost a twentieth of the run."""


def on_loop(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine on uvloop."""
    # What is there by now, mostly code, stays: no collection need walk it.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
