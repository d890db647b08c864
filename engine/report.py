"""Snapshots for programs: one JSON line a second in `events.jsonl`, the totals in `report.json`."""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from engine.stats import Snapshot

FILE_MODE = 0o600
"""Run folders hold what models said of people: for their user alone."""
NOT_IN_EVENTS = ("examples", "findings")


class EventsFile:
    """Appends snapshots. Advisory: nothing of the run depends on it, so it is not synced and may fail."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, FILE_MODE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def show(self, snapshot: Snapshot) -> None:
        said = dataclasses.asdict(snapshot)
        for name in NOT_IN_EVENTS:
            del said[name]
        with suppress(OSError):
            os.write(self._fd, orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))


def write_report(path: Path, snapshot: Snapshot, *, about: Mapping[str, object]) -> None:
    """Write the totals of this life of the run, atomically, over those of the life before."""
    said = dict(about) | dataclasses.asdict(snapshot) | {"process": process_figures()}
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(fd, orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    finally:
        os.close(fd)
    partial.replace(path)


def process_figures() -> dict[str, float]:
    """CPU seconds and peak memory of this process and of the children it has reaped."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "main_cpu_s": own.ru_utime + own.ru_stime,
        "main_peak_rss_mb": own.ru_maxrss * unit / 2**20,
        "workers_cpu_s": children.ru_utime + children.ru_stime,
        "worker_peak_rss_mb": children.ru_maxrss * unit / 2**20,
    }
