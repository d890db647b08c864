"""Bytes that can be read from any place: a local file, and a window of one as a file of its own."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, cast

from encoders.locate import read_fully, unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

VIDEO_BUFFER_BYTES = 128 << 10
"""A demuxer asks for 32 KiB at a time; larger reads are rarely used up before the next seek."""

AHEAD_FILES = 8
"""Of one row, read at the same time."""
AHEAD_BYTES = 64 << 20
"""Bytes of them held, unless one file alone is larger."""

T = TypeVar("T")
Range = tuple[int, int]
"""Offset and length in bytes."""


class Ranged(Protocol):
    """One file that can be read in pieces, on disk or far away. Pickles as an address."""

    @property
    def name(self) -> str:
        """What its user calls it."""
        ...

    def stamp(self) -> str:
        """Changes, at the latest a minute later, when the content does; raises what the place raises."""
        ...

    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, fewer only where the file ends."""
        ...

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Several pieces, at the same time where that is faster."""
        ...

    def scan(self) -> Callable[[int, int], bytes]:
        """A `read` for going through the whole file, jumping over parts."""
        ...

    def window(self, offset: int) -> AbstractContextManager[Callable[[int, int], bytes]]:
        """A `read` for working through a large piece, its offsets counted from `offset`."""
        ...


class LocalFile:
    """A regular file on disk; what was opened first is read to the end, whatever takes its name meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type[LocalFile], tuple[Path]]:
        return LocalFile, (self.path,)

    def __del__(self) -> None:
        if "_fd" in self.__dict__:
            os.close(self._fd)

    @property
    def name(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        # By its name: a file that was put in the place of the one we hold is a change as well.
        found = self.path.stat()
        return f"{found.st_size}:{found.st_mtime_ns}"

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        return read_fully(self._fd, offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        return [read_fully(self._fd, offset, size) for offset, size in ranges]

    def scan(self) -> Callable[[int, int], bytes]:
        return self.read

    @contextmanager
    def window(self, offset: int) -> Iterator[Callable[[int, int], bytes]]:
        yield lambda at, size: os.pread(self._fd, size, offset + at)

    @cached_property
    def _fd(self) -> int:
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{self.path} is no regular file")
        return fd


class Window(io.RawIOBase):
    """A piece of something as a read-only file of its own. Remembers the first failure to read."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._at = 0
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError("no such place in the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        if not wanted:
            return 0
        try:
            data = self._read(self._at, wanted)
        except Exception as error:
            self.failure = self.failure or error
            raise OSError(f"{type(error).__name__}: {error}") from error
        if not data:
            self.failure = self.failure or EOFError("the file has become shorter")
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextmanager
def as_file(read: Callable[[int, int], bytes], size: int) -> Iterator[BinaryIO]:
    """A buffered file over `read`.

    Raises:
        RowError: when the context ends, if any read failed, whatever its user made of that (`media_unreadable`).
    """
    raw = Window(read, size)
    try:
        with io.BufferedReader(raw, VIDEO_BUFFER_BYTES) as file:
            yield cast("BinaryIO", file)
    finally:
        if raw.failure is not None:
            raise unreadable(raw.failure) from raw.failure


def batches(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Neighbours to be read at the same time, few enough for memory; `size` is bytes."""
    batch: list[T] = []
    held = 0
    for item in items:
        if batch and (len(batch) == AHEAD_FILES or held + size(item) > AHEAD_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += size(item)
    if batch:
        yield batch
