"""The committed lines of a run folder, one by one and in the order of rows.

A shard holds its lines in the order in which rows ended. One reading notes where the lines of each row stand, eight
bytes a row; then they are fetched row by row. Rows end nearly in order, so what is fetched next is nearly always in the
kernel's cache already, and nothing has to be sorted.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import FolderInUse, SinkBroken
from sinks.files import OS_FILES, Files, reading_lines
from sinks.folder import CHECKPOINT, FAILURES, RESULTS, read_manifest, shard_name
from sinks.summary import committed_ends, damaged, missing, read_checkpoint, said_by
from sinks.withdraw import INTENT

MAX_ROW = 1 << 33
"""A bitmap up to here takes a gigabyte; no table is so long, but a damaged line may say so."""
BLOCK_ROWS = 1 << 16
"""Rows noted together: a table that is worked on from the middle costs nothing for its beginning."""
UNIT_BYTES = 64
"""The length of a line is noted in these."""
LENGTH_BITS, FAILED_BIT = 24, 1 << 24
"""Up to a gigabyte, in units; then one bit for the folder; the rest, 39 bits, is for the offset: half a terabyte."""


@contextmanager
def settled_lines(out: Path) -> Iterator[CommittedLines]:
    """The committed lines of a run folder, in which a run may be going on.

    Raises:
        ConfigError: there is no run.
        FolderInUse: answers are being withdrawn, and nobody can say which lines count.
        SinkBroken: as `CommittedLines`.
    """
    shards = read_manifest(out)["shards"]
    _check_settled(out)
    ends = committed_ends(*read_checkpoint(out))
    with CommittedLines(out, shards=shards, ends=ends) as lines:
        _check_settled(out)
        yield lines


def _check_settled(out: Path) -> None:
    if (out / CHECKPOINT / INTENT).exists():
        raise FolderInUse(
            f"answers are being withdrawn from {out}, or were when its run ended; nothing was written. "
            "Wait for the run, or let its --resume complete it, then type this command again"
        )


class CommittedLines:
    """The committed lines of a folder. A context manager that holds every shard open.

    Args:
        out: the run folder; a run may be going on in it.
        shards: how many it has.
        ends: the committed end of each.

    Raises:
        SinkBroken: a shard is missing, or shorter than what was committed. So do all methods where a line is damaged.
    """

    def __init__(self, out: Path, *, shards: int, ends: Mapping[str, int]) -> None:
        self._out = out
        self._shards = shards
        self._ends = ends
        self._open: dict[str, int] = {}
        self._blocks: dict[int, array[int]] = {}
        self._more: dict[int, list[int]] = {}
        """Further lines of rows that have more than one."""
        try:
            for name in ends:
                self._open_shard(name)
        except BaseException:
            self.close()
            raise

    def _open_shard(self, name: str) -> None:
        path, end = self._out / name, self._ends[name]
        try:
            self._open[name] = OS_FILES.open_read(path)
            size = OS_FILES.size(self._open[name])
        except OSError as error:
            raise SinkBroken(f"{path} cannot be opened: {error.strerror}; {end} bytes were committed") from error
        if size < end:
            raise missing(path, size, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._open.values():
            OS_FILES.close(fd)
        self._open.clear()

    def scan(self, *folders: str) -> Iterator[tuple[bool, bytes, dict[str, Any]]]:
        """Read every line once, noting where it stands; whether it is a failure, the line, and what it says."""
        for folder in folders:
            for number in range(self._shards):
                name, at, failed = shard_name(folder, number), 0, folder == FAILURES
                if not self._ends.get(name):
                    continue
                with reading_lines(_Opened(self._open[name]), self._out / name, self._ends[name]) as lines:
                    for line in lines:
                        said = said_by(line, failed=failed)
                        if said is None or not self._belongs(said["row"], number):
                            raise damaged(self._out / name, at)
                        self._note(said["row"], at=at, length=len(line), failed=failed)
                        at += len(line)
                        yield failed, line, said

    def _belongs(self, row: Any, number: int) -> bool:
        return type(row) is int and 0 <= row < MAX_ROW and row % self._shards == number

    def _note(self, row: int, *, at: int, length: int, failed: bool) -> None:
        entry = at << LENGTH_BITS + 1 | failed << LENGTH_BITS | -(-length // UNIT_BYTES)
        block = self._blocks.get(row // BLOCK_ROWS)
        if block is None:
            block = self._blocks[row // BLOCK_ROWS] = array("Q", bytes(8 * BLOCK_ROWS))
        if block[row % BLOCK_ROWS]:
            self._more.setdefault(row, []).append(entry)
        else:
            block[row % BLOCK_ROWS] = entry

    def rows(self) -> Iterator[tuple[int, list[int]]]:
        """Each row that has a line, in order, with the places of its lines in the order of the scan."""
        for number in sorted(self._blocks):
            for at, entry in enumerate(self._blocks[number]):
                if entry:
                    row = number * BLOCK_ROWS + at
                    yield row, [entry, *self._more.get(row, ())]

    def line(self, row: int, place: int) -> tuple[bool, bytes]:
        """The line at a place that `rows` gave, and whether it is a failure."""
        failed = bool(place & FAILED_BIT)
        name, at = shard_name(FAILURES if failed else RESULTS, row % self._shards), place >> LENGTH_BITS + 1
        data = os.pread(self._open[name], (place & FAILED_BIT - 1) * UNIT_BYTES, at)
        end = data.find(b"\n") + 1
        if not end:
            raise damaged(self._out / name, at)
        return failed, data[:end]


class _Opened(Files):
    """Reads through a descriptor that is open already: a shard that gets another name meanwhile is still the same."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def open_read(self, path: Path) -> int:
        del path
        return os.dup(self._fd)
