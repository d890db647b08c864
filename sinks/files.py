"""The few calls through which a run folder is written, so that tests can stand between the sink and the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
PIECE_BYTES = 1 << 20
"""Read or written at once where a file may be larger than memory; a disk gains nothing from more."""
PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet."""
_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC


class Files:
    """The operating system's files. Every method raises OSError as the system does."""

    def make_folder(self, path: Path) -> None:
        with suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)

    def open_append(self, path: Path) -> int:
        """A descriptor that writes at the end; the file is created if missing."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _ALWAYS, FILE_MODE)

    def open_update(self, path: Path) -> int:
        """A descriptor of a file that is there, to be read, cut and written anywhere."""
        return os.open(path, os.O_RDWR | _ALWAYS)

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | _ALWAYS)

    def open_new(self, path: Path) -> int:
        """A descriptor of an empty file, whatever stood there."""
        _uninterrupted(lambda: path.unlink(missing_ok=True))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ALWAYS, FILE_MODE)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def sync_data(self, fd: int) -> None:
        """The bytes, and the size they imply, are on the disk."""
        getattr(os, "fdatasync", os.fsync)(fd)

    def sync_folder(self, path: Path) -> None:
        """The names in the folder are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _ALWAYS)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        _uninterrupted(lambda: old.replace(new))

    def unlink(self, path: Path) -> None:
        """Take the name away, if it is there."""
        _uninterrupted(lambda: path.unlink(missing_ok=True))

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def free_bytes(self, path: Path) -> int:
        """Room for us on the disk that holds this path."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def close(self, fd: int) -> None:
        # Interrupted or not, the descriptor is gone: closing it again might close another file.
        with suppress(InterruptedError):
            os.close(fd)


def _uninterrupted(call: Callable[[], object]) -> None:
    """Do what Python, unlike writing and syncing, does not begin again when a signal comes between."""
    while True:
        try:
            call()
        except InterruptedError:
            continue
        return


OS_FILES = Files()


def room_in(folder: Path, files: Files = OS_FILES) -> int | None:
    """Bytes of room on the disk that holds a folder; None if nobody knows."""
    try:
        return files.free_bytes(folder)
    except OSError:
        return None


def write_all(files: Files, fd: int, data: bytes, *, at: int | None = None) -> None:
    """Write every byte, at the end or over what stands at an offset, however few the system takes at a time."""
    rest = memoryview(data)
    while rest:
        taken = files.write(fd, rest) if at is None else files.write_at(fd, rest, at + len(data) - len(rest))
        if not taken:
            raise OSError(errno.ENOSPC, "the disk takes no more bytes")
        rest = rest[taken:]


def read_all(files: Files, fd: int, start: int, end: int) -> bytes:
    """The bytes from `start` up to `end`, or to the end of the file if that comes first."""
    parts = []
    while start < end and (part := files.read(fd, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


@contextmanager
def reading_lines(files: Files, path: Path, end: int) -> Iterator[Iterator[bytes]]:
    """The lines in the first `end` bytes of a file, newlines included, a piece in memory at a time."""
    fd = files.open_read(path)
    try:
        yield _lines(files, fd, end)
    finally:
        files.close(fd)


def _lines(files: Files, fd: int, end: int) -> Iterator[bytes]:
    at, rest = 0, b""
    while at < end and (piece := files.read(fd, min(PIECE_BYTES, end - at), at)):
        at += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


@contextmanager
def writing_new(files: Files, path: Path) -> Iterator[Callable[[bytes], None]]:
    """What takes the bytes of a new file, a piece in memory at a time; they are on the disk once the context ends."""
    waiting = bytearray()

    def flush() -> None:
        write_all(files, fd, bytes(waiting))
        waiting.clear()

    def put(data: bytes) -> None:
        waiting.extend(data)
        if len(waiting) >= PIECE_BYTES:
            flush()

    fd = files.open_new(path)
    try:
        yield put
        flush()
        files.sync_data(fd)
    finally:
        files.close(fd)


def replace_file(files: Files, path: Path, data: bytes) -> None:
    """Put `data` at `path`, so that after any crash there is the old file or the new one."""
    partial = partial_of(path)
    try:
        with writing_new(files, partial) as put:
            put(data)
    except OSError:
        # On a full disk half a snapshot would take the room that the next life needs to begin.
        with suppress(OSError):
            files.unlink(partial)
        raise
    files.rename(partial, path)
    files.sync_folder(path.parent)


def sync_above(files: Files, folder: Path) -> None:
    """Make the names last under which a folder is reached, up to the root of its disk.

    Some of the folders above may be as new; those that may not be read are older than any run of ours.
    """
    whole = folder.resolve()
    device = whole.stat().st_dev
    for above in whole.parents:
        if above.stat().st_dev != device:
            break
        with suppress(PermissionError):
            files.sync_folder(above)


def partial_of(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(path.name + PARTIAL)
