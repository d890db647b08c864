"""Frames, videos and archives in a storage. What is not there is missing; whatever else is said is an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from encoders.locate import (
    MAX_FRAME_BYTES,
    FrameFile,
    check_id,
    check_named,
    frames_among,
    unreadable,
    video_among,
)
from encoders.ranges import Range, as_file, batches
from encoders.storage import Remote
from engine.errors import RowError
from engine.types import FailureKind

SCAN_BYTES = 4 << 20
"""Read at once of an archive whose members are small."""
HEADER_BYTES = 8 << 10
"""Read at once where the next header lies behind a large member."""
STAMP_S = 60.0
"""How long an object is believed to be unchanged."""
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
"""What storages call the thing that changes with an object."""


class RemoteFrames:
    """`<address>/<id>/frame_<n>.<ext>`."""

    def __init__(self, where: str) -> None:
        self._place = Remote(where)

    def prepare(self) -> tuple[str, ...]:
        self._place.check()
        return ()

    @contextmanager
    def open(self, identity: str) -> Iterator[RemoteFrameSet | None]:
        check_key(identity)
        found = self._place.entries(identity, beginning="frame_")
        yield RemoteFrameSet(self._place, identity, found) if found else None


class RemoteFrameSet:
    """The frames of one id, as listed."""

    def __init__(self, place: Remote, identity: str, sizes: Mapping[str, int]) -> None:
        self._place = place
        self._identity = identity
        self._sizes = sizes

    def files(self) -> list[FrameFile]:
        return frames_among(self._sizes)

    def read(self, frames: Sequence[FrameFile]) -> Iterator[bytes | None]:
        for group in batches([frame.name for frame in frames], lambda name: self._sizes[name]):
            sound = [name for name in group if 0 < self._sizes[name] <= MAX_FRAME_BYTES]
            try:
                data = self._place.read_many([(f"{self._identity}/{name}", (0, self._sizes[name])) for name in sound])
            except Exception as error:
                raise unreadable(error) from error
            found = {name: _unless_gone(item) for name, item in zip(sound, data, strict=True)}
            yield from (found.get(name) for name in group)


class RemoteVideos:
    """`<address>/<id>.<ext>`, or what a row names below the address; read in blocks, while it is decoded."""

    def __init__(self, where: str) -> None:
        self._place = Remote(where)

    def prepare(self) -> tuple[str, ...]:
        self._place.check()
        return ()

    @contextmanager
    def open(self, identity: str, named: str = "") -> Iterator[BinaryIO | None]:
        if named:
            below = check_named(named)
            check_key(named.replace("/", "."))
            size = self._place.size_of(*below)
        else:
            check_key(identity)
            sizes = self._place.videos(identity)
            name = video_among(identity, sizes) or ""
            below, size = (name,), sizes.get(name)
        if size is None:
            yield None
            return
        try:
            with self._place.reading(*below) as read, as_file(read, size) as file:
                yield file
        except FileNotFoundError as error:
            raise unreadable(error) from error


class RemoteFile:
    """One object, an archive, read in pieces."""

    def __init__(self, where: str) -> None:
        self._place = Remote(where)
        self._stamp = ""
        self._stamped_s = -STAMP_S

    def __reduce__(self) -> tuple[type[RemoteFile], tuple[str]]:
        return RemoteFile, (self._place.where,)

    @property
    def name(self) -> str:
        return self._place.where

    def stamp(self) -> str:
        # Asking for every row would double the requests.
        if time.monotonic() - self._stamped_s >= STAMP_S:
            said = self._place.info()
            known = next((said[key] for key in _VERSIONS if said.get(key)), "")
            self._stamp, self._stamped_s = f"{said['size']}:{known}", time.monotonic()
        return self._stamp

    def size(self) -> int:
        return int(self.stamp().partition(":")[0])

    def read(self, offset: int, size: int) -> bytes:
        return self.read_many([(offset, size)])[0]

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        found = []
        for item in self._place.read_many([("", (offset, min(size, self.size() - offset))) for offset, size in ranges]):
            if isinstance(item, Exception):
                raise item
            found.append(item)
        return found

    def scan(self) -> Callable[[int, int], bytes]:
        held, held_at, wanted_before = b"", 0, 0

        def read(offset: int, size: int) -> bytes:
            nonlocal held, held_at, wanted_before
            if offset < held_at or offset + size > held_at + len(held):
                near = offset - wanted_before < SCAN_BYTES
                held, held_at = self.read(offset, max(size, SCAN_BYTES if near else HEADER_BYTES)), offset
            wanted_before = offset
            return held[offset - held_at : offset - held_at + size]

        return read

    @contextmanager
    def window(self, offset: int) -> Iterator[Callable[[int, int], bytes]]:
        with self._place.reading() as read:
            yield lambda at, size: read(offset + at, size)


def check_key(identity: str) -> None:
    """Refuse an id that is more than one name, on disk or in an address."""
    check_id(identity)
    if any(char in identity for char in "?#"):
        raise RowError(FailureKind.INVALID_ID, "the id holds a character that ends the path of an address")


def _unless_gone(item: bytes | Exception) -> bytes | None:
    """What was read; None for a file that was deleted after it was listed."""
    if isinstance(item, FileNotFoundError):
        return None
    if isinstance(item, Exception):
        raise unreadable(item) from item
    return item
