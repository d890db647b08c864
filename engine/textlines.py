"""A text file as physical lines, each with the byte where it begins; also out of .gz and .zst.

A physical line that is too long or no UTF-8 costs the record it is in, and is read to its end without being kept.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import zstandard

from engine.errors import InputError
from engine.marks import Place

MAX_LINE_BYTES = 4 << 20
"""A cell of the longest kind, in characters of four bytes."""
RECORD_LINES = 2
"""A record of many lines may be as long as so many of the longest: more is a quote that was never closed."""
ZSTD_FEED_BYTES = 512
"""Four bytes may stand for 128 KiB, so this much for 16 MiB."""
BUFFER_BYTES = 128 << 10
"""Larger ones read no faster."""
BOM = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def unpacked(raw: BinaryIO, packed: str) -> Iterator[BinaryIO]:
    if packed == ".gz":
        with gzip.GzipFile(fileobj=raw) as file:
            yield cast("BinaryIO", file)
    elif packed == ".zst":
        with io.BufferedReader(_ZstdFile(raw)) as file:
            yield file
    else:
        yield raw


class FirstBytes(io.RawIOBase):
    """The first bytes of a file: what is appended while it is read is not in it."""

    def __init__(self, raw: BinaryIO, size_bytes: int) -> None:
        self._raw = raw
        self.size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._raw.read(min(len(buffer), max(0, self.size_bytes - self._at)))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        self._at = self._raw.seek(base + offset)
        return self._at

    def share_read(self) -> float:
        return min(1.0, self._at / self.size_bytes) if self.size_bytes else 1.0


class _ZstdFile(io.RawIOBase):
    """Frames one after the other. The library's own stream reader takes a file that was cut off for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._packed = self._packed or self._raw.read(ZSTD_FEED_BYTES)
            if not self._packed:
                if self._inside:
                    raise EOFError("the compressed data breaks off")
                return 0
            self._plain = memoryview(self._frame.decompress(self._packed))
            self._inside, self._packed = not self._frame.eof, self._frame.unused_data
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count


class _Line(NamedTuple):
    start: int
    """The byte of the file where it begins."""
    text: str
    fault: str
    """Why the text cannot be trusted; empty for a sound line."""


class Lines:
    """Physical lines as text. An iterator that can go back to the second line of the record it is in.

    Args:
        file: what is read.
        path: its name, for messages.
        max_line_bytes: a longer line is no line.

    Raises:
        InputError: the file cannot be read further, or is UTF-16.
        csv.Error: the record is too long.
    """

    def __init__(self, file: BinaryIO, path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._file = file
        self._max_bytes = max_line_bytes
        self._offset = 0
        """Bytes read from the file."""
        self.path = path
        self.number = 0
        """Of the line given last, from 1."""
        self._again: deque[_Line] = deque()
        self._record: list[_Line] = []
        self.record_chars = 0
        self._start = self._start_line = 0

    def enter(self, place: Place) -> None:
        """Go on where a record begins. To be called between records."""
        self._file.seek(place.byte)
        self._offset, self.number = place
        self._again.clear()

    def begin(self) -> str:
        """The next line begins a record. Says where."""
        self._record = []
        self.record_chars = 0
        self._start = self._again[0].start if self._again else self._offset
        self._start_line = self.number
        return f"line {self.number + 1}"

    def place(self) -> Place:
        """Where the record begins."""
        return Place(self._start, self._start_line)

    def rewind(self, *, keep: int) -> None:
        """Give the record's lines once more, but for the first `keep`."""
        self._again.extendleft(reversed(self._record[keep:]))
        self.number -= len(self._record[keep:])
        del self._record[keep:]

    def fault(self) -> str:
        """What is wrong with the record's lines; empty if nothing."""
        return next((line.fault for line in self._record if line.fault), "")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._next_line()
        self.number += 1
        self._record.append(line)
        self.record_chars += len(line.text)
        if self.record_chars > RECORD_LINES * self._max_bytes:
            raise csv.Error("too long; is a quote left open?")
        return line.text

    def _next_line(self) -> _Line:
        start, most = self._offset, self._max_bytes
        try:
            data = rest = self._file.readline(most + 1)
            self._offset += len(data)
            while len(rest) > most and not rest.endswith(b"\n"):
                rest = self._file.readline(most + 1)
                self._offset += len(rest)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise InputError(f"{self.path} cannot be read past line {self.number}: {error}") from error
        if not data:
            raise StopIteration
        if self.number == 0:
            if _is_utf16(data):
                raise InputError(f"{self.path} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT")
            data = data.removeprefix(BOM)
        if len(data) > most:
            return _Line(start, "", f"longer than {most} bytes")
        try:
            return _Line(start, data.decode(), "")
        except UnicodeDecodeError:
            return _Line(start, data.decode(errors="replace"), "not UTF-8")


def _is_utf16(data: bytes) -> bool:
    """Whether a text begins with UTF-16's mark, or with one letter of ASCII in two bytes."""
    two = data[:2]
    return two in UTF16_MARKS or (len(two.strip(b"\0")) == 1 == two.count(0) and two.isascii())
