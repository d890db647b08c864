"""Where records begin in a file of text: the byte of every 4,096th, so that a later life can enter there.

Kept as JSON, with the line number, for messages, and the CRC32C of the bytes since the mark before, so that an edited
file can be told by rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import google_crc32c

EVERY_ROWS = 4096
PIECE_BYTES = 1 << 20


class Place(NamedTuple):
    """Where a record begins."""

    byte: int
    line: int
    """Lines before it."""


class Block(NamedTuple):
    """The records from one mark to the next, and their bytes."""

    first_row: int
    last_row: int
    start: int
    end: int
    crc: int


class Marks:
    """The marks of one file, without gaps from its first record on.

    Args:
        kept: what `as_json` gave in an earlier life; anything else is taken for nothing.
        every_rows: how many records there are from one mark to the next.
    """

    def __init__(self, kept: object = None, *, every_rows: int = EVERY_ROWS) -> None:
        self._every = every_rows
        self._entries = _sound(kept, every_rows)
        """Byte, line, CRC32C since the entry before."""

    def __len__(self) -> int:
        return len(self._entries)

    def as_json(self) -> dict[str, Any]:
        """For a later life. It holds what is added from now on as well."""
        return {"rows": self._every, "places": self._entries}

    def is_next(self, row: int) -> bool:
        """Whether this is the record to be marked next."""
        return row == len(self._entries) * self._every

    def add(self, place: Place, *, fd: int) -> None:
        """Mark the next record. The file is read for its checksum, out of the kernel's cache."""
        crc = crc_between(fd, self._entries[-1][0], place.byte) if self._entries else 0
        # One call, so that a snapshot taken meanwhile by another thread finds a whole entry or none.
        self._entries.append([place.byte, place.line, crc])

    @property
    def last_row(self) -> int:
        """The row marked last; 0 if there is no mark."""
        return max(0, len(self._entries) - 1) * self._every

    def before(self, row: int) -> tuple[int, Place] | None:
        """The last mark at or before a row, and the row it marks; None if there is no mark."""
        at = min(row // self._every, len(self._entries) - 1)
        return None if at < 0 else (at * self._every, Place(*self._entries[at][:2]))

    def blocks(self) -> Iterator[Block]:
        """The bytes between marks, in order."""
        for at, ((start, *_), (end, _, crc)) in enumerate(zip(self._entries, self._entries[1:], strict=False)):
            yield Block(at * self._every, (at + 1) * self._every - 1, start, end, crc)


def crc_between(fd: int, start: int, end: int) -> int:
    """CRC32C of a part of a file; of less if it ends before."""
    crc = 0
    while start < end and (piece := os.pread(fd, min(PIECE_BYTES, end - start), start)):
        crc = google_crc32c.extend(crc, piece)
        start += len(piece)
    return crc


def _sound(kept: object, every_rows: int) -> list[list[int]]:
    """The marks in what was kept, or none: they save time, and nothing depends on them."""
    match kept:
        case {"rows": rows, "places": list(places)} if rows == every_rows:
            last = -1
            for place in places:
                if not isinstance(place, list) or [type(number) for number in place] != [int] * 3 or place[0] <= last:
                    return []
                last = place[0]
            return places
    return []
