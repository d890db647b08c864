"""Rows with their pictures, in the order of the input, through the worker processes of a run."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from engine.encode import EncodeConfig, EncoderPool
from engine.errors import first_error
from engine.link import Link
from engine.signals import Signals
from engine.source import RowReader, SourceConfig
from engine.types import Record, Request, Row
from labels.build.pictures import PictureEncoder

WINDOW_ROWS = 32
"""Rows of a worker that are read and not yet written: two batches ahead, room for a slow one. It bounds memory."""
BATCH_ROWS = 8
"""Handed to a worker at once; small, for the order is kept and a slow batch holds up those behind it."""
PLAIN_BATCH_ROWS = 256

Take = Callable[[Row | Request | Record], None]


class Stopped(Exception):
    """A signal came; `str()` names it."""


def stream(
    source: SourceConfig,
    take: Take,
    *,
    pictures: PictureEncoder | None,
    workers: EncodeConfig,
    signals: Signals | None = None,
) -> None:
    """Hand every row to `take`, in order: as it was read, or as a request that holds its pictures.

    Args:
        source: which rows.
        take: called for one after the other, never twice at once; records are rows that cannot be read or shown.
        pictures: makes them; None where none are wanted, and no process is started.
        workers: how many processes make them.
        signals: heard while this goes on.

    Raises:
        ConfigError, InputError: the file is wrong.
        EncoderBroken: no worker can be kept alive.
        Stopped: a signal came.
    """
    if signals is not None:
        signals.hand_over(drain_s=0.0)
    try:
        anyio.run(_main, source, take, pictures, workers, signals)
    except BaseExceptionGroup as group:
        raise first_error(group) from group


async def _main(
    source: SourceConfig,
    take: Take,
    pictures: PictureEncoder | None,
    workers: EncodeConfig,
    signals: Signals | None,
) -> None:
    batch_rows = BATCH_ROWS if pictures else PLAIN_BATCH_ROWS
    with RowReader(source, is_done=lambda _: False, batch_size=batch_rows) as reader:
        async with anyio.create_task_group() as group:
            if signals is not None:
                group.start_soon(_heed, signals)
            if pictures is None:
                await _plain(reader, take)
            else:
                async with EncoderPool(pictures, workers) as pool:
                    await _pictured(reader, pool, take, first=source.skip)
            group.cancel_scope.cancel()


async def _heed(signals: Signals) -> None:
    async for number in signals:
        raise Stopped(number.name)


async def _plain(reader: RowReader, take: Take) -> None:
    while batch := reader.next_batch():
        for item in batch:
            take(item)
        await checkpoint()  # Where a signal is heard.


async def _pictured(reader: RowReader, pool: EncoderPool, take: Take, *, first: int) -> None:
    window = WINDOW_ROWS * pool.config.workers
    rows, made = Link[list[Row | Record]](window // BATCH_ROWS), Link[Request | Record](window)
    room = anyio.Semaphore(window)
    async with anyio.create_task_group() as group:
        group.start_soon(_read, reader, rows, room)
        group.start_soon(pool.encode_stage, rows, made)
        async with made.consuming():
            waiting: dict[int, Request | Record] = {}
            expected = first
            async for outcome in made:
                waiting[outcome.row] = outcome
                while expected in waiting:
                    take(waiting.pop(expected))
                    expected += 1
                    room.release()


async def _read(reader: RowReader, rows: Link[list[Row | Record]], room: anyio.Semaphore) -> None:
    async with rows.producing():
        while batch := await to_thread.run_sync(reader.next_batch):
            for _ in batch:
                await room.acquire()
            await rows.put(batch)
