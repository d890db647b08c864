"""Rows of an input drawn at random, every row with the same chance, in one pass."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.source import RowReader
from engine.types import Record, Row
from labels.job import Job
from sinks.summary import read_checkpoint

SEED = 0
"""The same input gives the same sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one reading of an input gave."""

    rows: int
    """To be sent: those done and those that cannot be read are left out."""
    unreadable: int
    done: int
    drawn: tuple[Row, ...]
    """Of the rows to be sent, in the order they came to stand in the sample."""


def draw(job: Job, most: int) -> Sample:
    """Read the whole input; blocking.

    Args:
        job: names the input; of one that is resumed the rows done are left out.
        most: rows in the sample, if there are so many.

    Raises:
        ConfigError, InputError: as a run would.
    """
    finished = read_checkpoint(job.out)[0].results if job.resume else None
    rows = unreadable = 0
    rng = random.Random(SEED)
    drawn: list[Row] = []
    with RowReader(job.settings.source, is_done=lambda row: finished is not None and row in finished) as reader:
        while batch := reader.next_batch():
            for item in batch:
                if isinstance(item, Record):
                    unreadable += 1
                    continue
                rows += 1
                # Reservoir sampling (Vitter 1985, algorithm R).
                if len(drawn) < most:
                    drawn.append(item)
                elif (at := rng.randrange(rows)) < most:
                    drawn[at] = item
    done = 0 if finished is None else finished.count
    return Sample(rows=rows, unreadable=unreadable, done=done, drawn=tuple(drawn))
