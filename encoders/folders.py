"""Frames and videos in folders of the local disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from encoders.locate import (
    VIDEO_SUFFIXES,
    FrameFile,
    check_id,
    check_named,
    frame_files,
    frame_folder,
    open_folder,
    open_regular,
    opened_root,
    read_frame,
    unreadable,
)
from encoders.ranges import as_file
from engine.errors import ConfigError

_SPELT = tuple(form for suffix in VIDEO_SUFFIXES for form in (suffix, suffix.upper(), suffix.capitalize()))
"""Spellings of a suffix that are tried: a folder of a million videos is not listed for every row."""


class FolderFrames:
    """`<root>/<id>/frame_<n>.<ext>`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> tuple[str, ...]:
        _check_root(self._root)
        return ()

    @contextmanager
    def open(self, identity: str) -> Iterator[OpenFolder | None]:
        with frame_folder(self._root, identity) as fd:
            yield None if fd is None else OpenFolder(fd)


class OpenFolder:
    """The frames in one folder, for as long as its descriptor is open."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def files(self) -> list[FrameFile]:
        return frame_files(self._fd)

    def read(self, frames: Sequence[FrameFile]) -> Iterator[bytes | None]:
        return (read_frame(self._fd, frame) for frame in frames)


class FolderVideos:
    """`<root>/<id>.<ext>`, or what a row names below the root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> tuple[str, ...]:
        _check_root(self._root)
        return ()

    @contextmanager
    def open(self, identity: str, named: str = "") -> Iterator[BinaryIO | None]:
        try:
            fd = self._named(check_named(named)) if named else self._by_id(identity)
        except OSError as error:
            raise unreadable(error) from error
        if fd is None:
            yield None
            return
        try:
            with as_file(lambda offset, size: os.pread(fd, size, offset), os.fstat(fd).st_size) as file:
                yield file
        finally:
            os.close(fd)

    def _by_id(self, identity: str) -> int | None:
        check_id(identity)
        with opened_root(self._root) as root_fd:
            for suffix in _SPELT:
                if (fd := open_regular(f"{identity}.{suffix}", root_fd)) is not None:
                    return fd
        return None

    def _named(self, components: tuple[str, ...]) -> int | None:
        """Each folder on the way is opened relative to the one before, and none through a link."""
        with opened_root(self._root) as root_fd:
            at = os.dup(root_fd)
        try:
            for component in components[:-1]:
                inner = open_folder(component, at)
                if inner is None:
                    return None
                os.close(at)
                at = inner
            return open_regular(components[-1], at)
        finally:
            os.close(at)


def _check_root(root: Path) -> None:
    try:
        with os.scandir(root) as entries:
            next(entries, None)
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}; it should be a folder, a .tar, a .zip or an address") from error
