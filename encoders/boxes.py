"""A look at the tables of an MP4 file before any library builds an index from them.

A few bytes may claim billions of samples, and a demuxer believes them: the index is made in memory, 24 bytes a sample.
This walk reads box headers and the counts beside them, nothing else, and judges nothing but size: a file it cannot
follow is left to the demuxer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

INSIDE = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"mvex", b"moof", b"traf"))
"""Boxes that hold boxes on the way to the tables."""
COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4, b"elst": 4}
"""Where the count of entries stands in a box of a table, after its header. ISO/IEC 14496-12, 8.7.3, 8.8.8, 8.6.6."""
COMPRESSED = b"cmov"
MAX_BOXES = 200_000
"""Four hours of fragments of one second, twice over."""
HEADER_BYTES, LONG_HEADER_BYTES = 8, 16


class Readable(Protocol):
    """As much of a file as this needs."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...


class TooManySamplesError(Exception):
    """The tables claim more than is allowed."""


class CompressedHeaderError(Exception):
    """The header is packed, as QuickTime did once: what it claims cannot be seen without unpacking it."""


def check_claims(file: Readable, size_bytes: int, *, most: int) -> None:
    """Refuse a file whose tables claim over `most` samples. An edit list may repeat them all, so it multiplies them.

    Raises:
        TooManySamplesError: they do.
        CompressedHeaderError: nobody can tell.
    """
    samples, edits = 0, 1
    for kind, body, end in _boxes(file, size_bytes):
        if kind == COMPRESSED:
            raise CompressedHeaderError
        at = COUNT_AT.get(kind)
        if at is None or body + at + 4 > end:
            continue
        file.seek(body + at)
        count = int.from_bytes(file.read(4))
        if kind == b"elst":
            edits = max(edits, count)
        else:
            samples += count
        if samples * edits > most:
            raise TooManySamplesError(f"{samples:,} samples are claimed, {edits:,} times over")


def _boxes(file: Readable, size_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the body and end of every box that can be reached."""
    open_ends = [(0, size_bytes)]
    for _ in range(MAX_BOXES):
        while open_ends and open_ends[-1][0] + HEADER_BYTES > open_ends[-1][1]:
            open_ends.pop()
        if not open_ends:
            return
        at, end = open_ends.pop()
        file.seek(at)
        header = file.read(LONG_HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return
        length, kind = struct.unpack(">I4s", header[:HEADER_BYTES])
        body = at + HEADER_BYTES
        if length == 1 and len(header) == LONG_HEADER_BYTES:
            length, body = int.from_bytes(header[HEADER_BYTES:]), at + LONG_HEADER_BYTES
        elif length == 0:
            length = end - at
        if length < body - at:
            continue
        stop = min(at + length, end)
        open_ends.append((stop, end))
        yield kind, body, stop
        if kind in INSIDE:
            open_ends.append((body, stop))
    raise TooManySamplesError(f"over {MAX_BOXES:,} boxes")
