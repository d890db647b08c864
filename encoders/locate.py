"""Where the media of a row is: what every place of frames and videos has in common, and frame folders on disk.

Frames are `<id>/frame_<n>.<jpg|jpeg|png|webp>`, videos `<id>.<mp4|mov|webm|mkv|m4v>`, and never anything outside the
place. An id is data from a stranger: it must be one plain path component. On disk each step is opened relative to the
folder before it without following symbolic links, and only regular files are read.

Media that is missing is a fact about the row; media that cannot be reached is an error of the row. The two are never
mixed up, or a failing disk would send rows out as text alone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from engine.errors import RowError
from engine.types import FailureKind

MAX_NAME_BYTES = 255
"""The longest file name of every common file system."""
MAX_PATH_BYTES = 4096
MAX_FRAME_BYTES = 64 << 20
VIDEO_SUFFIXES = ("mp4", "mov", "webm", "mkv", "m4v")
"""Of several videos with one id, the first of these counts."""
_FRAME = re.compile(r"frame_(\d{1,18})\.(jpg|jpeg|png|webp)", re.IGNORECASE | re.ASCII)
_SUFFIX_ORDER = {"jpg": 0, "jpeg": 1, "png": 2, "webp": 3}
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG})
"""No entry, a link, a file for a folder, a socket, a device, an endless name: nothing of ours stands under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFile:
    """One frame's place in its folder."""

    index: int
    """The n of `frame_<n>`."""
    name: str


class FrameSet(Protocol):
    """The frames of one row."""

    def files(self) -> list[FrameFile]:
        """In chronological order."""
        ...

    def read(self, frames: Sequence[FrameFile]) -> Iterator[bytes | None]:
        """The bytes of these frames in this order, some read ahead where that is faster; None for one that is unusable.

        Raises:
            RowError: a frame is there and cannot be reached (`media_unreadable`).
        """
        ...


class FrameStore(Protocol):
    """A place of frames. Pickles as an address: what it opens, it opens in the process that reads."""

    def prepare(self) -> tuple[str, ...]:
        """Make sure that it can be read, and index it if need be; in the parent, before any row.

        Returns:
            What its user should know.

        Raises:
            ConfigError: it is missing, unreadable or not what it claims to be.
        """
        ...

    def open(self, identity: str) -> AbstractContextManager[FrameSet | None]:
        """The frames of one id; None if it has none here.

        Raises:
            RowError: the id could lead elsewhere (`invalid_id`), or nobody can tell now (`media_unreadable`).
        """
        ...


class VideoStore(Protocol):
    """A place of videos. Pickles as an address, as a `FrameStore` does."""

    def prepare(self) -> tuple[str, ...]:
        """As `FrameStore.prepare`."""
        ...

    def open(self, identity: str, named: str = "") -> AbstractContextManager[BinaryIO | None]:
        """The video of one id as a seekable file, or the one `named` relative to the place; None if there is none.

        Raises:
            RowError: as `FrameStore.open`; when the context ends also if reading failed in between, for a decoder
                takes a failed read for the end of the file.
        """
        ...


@contextmanager
def frame_folder(root: Path, identity: str) -> Iterator[int | None]:
    """The folder of one id as a directory fd, or None if there is none.

    Raises:
        RowError: the id could lead elsewhere (`invalid_id`), or the folder cannot be reached (`media_unreadable`).
    """
    check_id(identity)
    with opened_root(root) as root_fd:
        try:
            fd = open_folder(identity, root_fd)
        except OSError as error:
            raise unreadable(error) from error
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


@contextmanager
def opened_root(root: Path) -> Iterator[int]:
    """The folder that was given as the place, which may be a link: whoever gave it meant it."""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def check_id(identity: str) -> None:
    """Refuse an id that is more, or less, than the name of one folder."""
    try:
        size = len(identity.encode())
    except UnicodeEncodeError:
        raise RowError(FailureKind.INVALID_ID, "the id is not valid Unicode") from None
    if identity in {"", ".", ".."} or size > MAX_NAME_BYTES or any(char in identity for char in "/\\\0"):
        raise RowError(FailureKind.INVALID_ID, "the id cannot be the name of a frame folder")


def check_named(named: str) -> tuple[str, ...]:
    """The components of a path that a row gives for its video.

    Raises:
        RowError: it is not a plain path below the place of the videos (`invalid_id`).
    """
    components = tuple(named.split("/"))
    try:
        for component in components:
            check_id(component)
    except RowError:
        components = ()
    if not components or len(named.encode()) > MAX_PATH_BYTES:
        raise RowError(
            FailureKind.INVALID_ID, "the video column must name a file below the place of the videos, such as a/b.mp4"
        )
    return components


def is_missing(error: OSError) -> bool:
    """Whether nothing that could be media stands under the name, as far as the operating system can tell."""
    return error.errno in _MISSING


def unreadable(error: Exception) -> RowError:
    """The end of a row whose media cannot be reached."""
    return RowError(FailureKind.MEDIA_UNREADABLE, f"the media cannot be read: {type(error).__name__}: {error}")


def frame_files(folder_fd: int) -> list[FrameFile]:
    """The frames of a folder in chronological order."""
    try:
        return frames_among(os.listdir(folder_fd))
    except OSError as error:
        raise unreadable(error) from error


def frames_among(names: Iterable[str]) -> list[FrameFile]:
    """The frames in chronological order; of several files with one n, the first of jpg, jpeg, png, webp."""
    best: dict[int, tuple[int, str]] = {}
    for name in names:
        if found := _FRAME.fullmatch(name):
            index, rank = int(found[1]), _SUFFIX_ORDER[found[2].lower()]
            best[index] = min(best.get(index, (rank, name)), (rank, name))
    return [FrameFile(index=index, name=best[index][1]) for index in sorted(best)]


def video_among(identity: str, names: Iterable[str]) -> str | None:
    """The name of the video of an id; the case of the suffix does not matter."""
    found = [
        (VIDEO_SUFFIXES.index(suffix.lower()), name)
        for name in names
        for stem, _, suffix in [name.rpartition(".")]
        if stem == identity and suffix.lower() in VIDEO_SUFFIXES
    ]
    return min(found)[1] if found else None


def read_frame(folder_fd: int, frame: FrameFile) -> bytes | None:
    """The bytes of one frame, or None if it is no regular file of sane size.

    Raises:
        RowError: it is there and cannot be reached (`media_unreadable`).
    """
    try:
        fd = open_regular(frame.name, folder_fd)
        if fd is None:
            return None
        try:
            size = os.fstat(fd).st_size
            return read_fully(fd, 0, size) if 0 < size <= MAX_FRAME_BYTES else None
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(error) from error


def open_folder(name: str, folder_fd: int) -> int | None:
    """A folder inside a folder, opened without following a link; None if there is none.

    Raises:
        OSError: it is there and cannot be opened.
    """
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    except OSError as error:
        if is_missing(error):
            return None
        raise


def open_regular(name: str, folder_fd: int) -> int | None:
    """A regular file of a folder, opened for reading without following a link; None if there is none.

    Raises:
        OSError: it is there and cannot be opened.
    """
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except OSError as error:
        if is_missing(error):
            return None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def read_fully(fd: int, offset: int, size: int) -> bytes:
    """So many bytes, fewer only where the file ends."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data


def thinned(count: int, most: int) -> list[int]:
    """Which of `count` frames to keep: all, or `most` of them evenly, the first and the last included.

    Formula: round-half-down of i * (count - 1) / (most - 1); the first alone if only one may stay.
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [(2 * i * (count - 1) + most - 2) // (2 * (most - 1)) for i in range(most)]
