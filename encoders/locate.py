"""Where the frames of a row are: `<root>/<id>/frame_<n>.<jpg|jpeg|png|webp>`, and never anywhere else.

An id is data from a stranger. It must be one plain path component, each step is opened relative to the folder before
it without following symbolic links, and only regular files are read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RowError
from engine.types import FailureKind

MAX_NAME_BYTES = 255
"""The longest file name of every common file system."""
MAX_FRAME_BYTES = 64 << 20
_FRAME = re.compile(r"frame_(\d{1,18})\.(jpg|jpeg|png|webp)", re.IGNORECASE | re.ASCII)
_SUFFIX_ORDER = {"jpg": 0, "jpeg": 1, "png": 2, "webp": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFile:
    """One frame's place in its folder."""

    index: int
    """The n of `frame_<n>`."""
    name: str


@contextmanager
def frame_folder(root: Path, identity: str) -> Iterator[int | None]:
    """The folder of one id as a directory fd, or None if there is none.

    Raises:
        RowError: the id could lead elsewhere (`invalid_id`).
    """
    check_id(identity)
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fd = os.open(identity, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(root_fd)


def check_id(identity: str) -> None:
    """Refuse an id that is more, or less, than the name of one folder."""
    try:
        size = len(identity.encode())
    except UnicodeEncodeError:
        raise RowError(FailureKind.INVALID_ID, "the id is not valid Unicode") from None
    if identity in {"", ".", ".."} or size > MAX_NAME_BYTES or any(char in identity for char in "/\\\0"):
        raise RowError(FailureKind.INVALID_ID, "the id cannot be the name of a frame folder")


def frame_files(folder_fd: int) -> list[FrameFile]:
    """The frames of a folder in chronological order; of several files with one n, the first of jpg, jpeg, png, webp."""
    best: dict[int, tuple[int, str]] = {}
    for name in os.listdir(folder_fd):
        if found := _FRAME.fullmatch(name):
            index, rank = int(found[1]), _SUFFIX_ORDER[found[2].lower()]
            best[index] = min(best.get(index, (rank, name)), (rank, name))
    return [FrameFile(index=index, name=best[index][1]) for index in sorted(best)]


def read_frame(folder_fd: int, frame: FrameFile) -> bytes | None:
    """The bytes of one frame, or None if it is no readable regular file of sane size."""
    try:
        fd = os.open(frame.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= MAX_FRAME_BYTES:
            return None
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.read(MAX_FRAME_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def thinned(count: int, most: int) -> list[int]:
    """Which of `count` frames to keep: all, or `most` of them evenly, the first and the last included.

    Formula: round-half-down of i * (count - 1) / (most - 1); the first alone if only one may stay.
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [(2 * i * (count - 1) + most - 2) // (2 * (most - 1)) for i in range(most)]
