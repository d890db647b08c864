"""The encoder of the pool benchmark: a body of a given size, and word of the process that made it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.types import Request, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """Gives `n_bytes` of fresh bytes a row. `n_frames` carries its process id, `est_tokens` its CPU time in ns."""

    n_bytes: int
    busy_s: float = 0.0
    """What a row takes besides, asleep: a kill then mostly hits a worker that is encoding."""
    arena_from_bytes: int | None = None
    """Sets the engine's constant in this worker, to compare the two ways a body can take at one size."""

    def encode(self, row: Row) -> Request:
        if self.arena_from_bytes is not None:
            vars(sys.modules["__main__"])["ARENA_FROM_BYTES"] = self.arena_from_bytes
        if self.busy_s:
            time.sleep(self.busy_s)
        return Request(
            row=row.row,
            id=row.id,
            head=b"x" * self.n_bytes,
            tail=b"}",
            est_tokens=time.process_time_ns(),
            n_frames=os.getpid(),
        )


def encode_all(encoder: Sized, rows: Sequence[Row]) -> list[Request]:
    """One task of many rows, for pools that know only tasks."""
    return [encoder.encode(row) for row in rows]
