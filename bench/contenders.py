"""The pools that bench.pool compares, each driven in the way its makers mean it to be driven from an event loop.

All run the same encoder on the same number of workers, hold at most as many rows as the encoder pool does, and hand
each result to a flow, which looks at it and drops it.

The peers start their workers from a fork server that has imported everything already (the default of Python 3.14):
forking a process that has threads is not safe, and a fresh interpreter would only make them slower to recover.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Protocol

import anyio
import pebble

from bench.sized import Sized, encode_all
from engine.encode import HELD_BATCHES, EncodeConfig, EncoderPool
from engine.link import Link
from engine.run import READY_REQUESTS, ROW_BATCHES
from engine.types import Record, Request, Row

WORKERS = 2
BATCH_ROWS = 16
HELD_ROWS = HELD_BATCHES * BATCH_ROWS * WORKERS
"""What the encoder pool holds at most; the others get as many rows ahead."""
ROW_TIMEOUT_S = 60.0
PRELOADED = ["bench.sized", "bench.throughput", "engine.run", "pebble", "uvloop"]
"""All that the benchmark imports: a forked worker finds it there."""


class Enough(Protocol):
    """Looks at each result; says when the flow may end."""

    def __call__(self, flow: Flow, request: Request) -> bool: ...


class Flow:
    """Rows without end, until enough results have come; results are looked at and dropped."""

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._rows = itertools.count()
        self.ended = False
        self.results = 0
        self.resubmitted = 0
        """Rows that a pool gave up with their worker."""
        self.cpu_ns: dict[int, int] = {}
        """Process id to the CPU time it last told."""

    def row(self) -> Row:
        return Row(row=next(self._rows), id="row", fields={})

    def batch(self) -> list[Row]:
        return [self.row() for _ in range(BATCH_ROWS)]

    def take(self, request: Request) -> None:
        self.results += 1
        self.cpu_ns[request.n_frames] = request.est_tokens
        self.ended = self._enough(self, request) or self.ended


async def by_encoder_pool(encoder: Sized, flow: Flow) -> None:
    source, sink = Link[list[Row | Record]](ROW_BATCHES), Link[Request | Record](READY_REQUESTS)

    async def feed() -> None:
        async with source.producing():
            while not flow.ended:
                await source.put(list(flow.batch()))

    config = EncodeConfig(workers=WORKERS, row_timeout_s=ROW_TIMEOUT_S, batch_rows=BATCH_ROWS)
    async with EncoderPool(encoder, config) as pool, anyio.create_task_group() as group:
        group.start_soon(feed)
        group.start_soon(pool.encode_stage, source, sink)
        async with sink.consuming():
            async for item in sink:
                if not isinstance(item, Request):
                    raise TypeError(f"a row failed: {item}")
                flow.take(item)


async def by_pebble(encoder: Sized, flow: Flow) -> None:
    with pebble.ProcessPool(max_workers=WORKERS, context=_fork_server()) as pool:

        async def encoded(row: Row) -> Request | None:
            future = pool.schedule(encoder.encode, args=(row,), timeout=ROW_TIMEOUT_S)
            try:
                return await asyncio.wrap_future(future)
            except pebble.ProcessExpired:
                return None

        async def slot() -> None:
            while not flow.ended:
                row = flow.row()
                while (request := await encoded(row)) is None:
                    flow.resubmitted += 1
                flow.take(request)

        await _in_slots(slot, HELD_ROWS)


async def by_executor(encoder: Sized, flow: Flow) -> None:
    with ProcessPoolExecutor(WORKERS, mp_context=_fork_server()) as pool:

        async def slot() -> None:
            while not flow.ended:
                future: Future[Request] = pool.submit(encoder.encode, flow.row())
                flow.take(await asyncio.wrap_future(future))

        await _in_slots(slot, HELD_ROWS)


async def by_executor_batches(encoder: Sized, flow: Flow) -> None:
    with ProcessPoolExecutor(WORKERS, mp_context=_fork_server()) as pool:

        async def slot() -> None:
            while not flow.ended:
                for request in await asyncio.wrap_future(pool.submit(encode_all, encoder, flow.batch())):
                    flow.take(request)

        await _in_slots(slot, HELD_ROWS // BATCH_ROWS)


async def _in_slots(slot: Callable[[], Coroutine[Any, Any, None]], slots: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(slots):
            group.start_soon(slot)


def _fork_server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


Drive = Callable[[Sized, Flow], Coroutine[Any, Any, None]]
POOLS: dict[str, Drive] = {
    "Reelbatch EncoderPool": by_encoder_pool,
    "pebble.ProcessPool": by_pebble,
    "ProcessPoolExecutor": by_executor,
    f"ProcessPoolExecutor, {BATCH_ROWS} rows a task": by_executor_batches,
}
