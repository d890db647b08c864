"""A disk that crashes, fails and forgets: the files of a sink over a real folder, with a model of what has lasted.

Bytes last once their file was synced, names once their folder was. A power loss keeps what lasted and does to the rest
what the chosen damage says, to each file and each name on its own. Bytes whose sync failed stay visible and never
last, however often their file is synced again, until they are written anew: so does the kernel.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sinks.files import Files

DAMAGES = ("nothing", "drop", "half", "zeros", "garbage")
"""What becomes of bytes and names that were not synced; `nothing` is a killed process on a healthy machine."""
MORE_DAMAGES = (*DAMAGES, "flip", "stale", "blocks", "whole", "mixed")
"""And: one bit is wrong, older bytes show through, some blocks are zeros, names alone are lost, each file its own."""
EACH_FILE = ("drop", "half", "zeros", "garbage", "stale", "blocks", "whole")
BLOCK_BYTES = 64
CHANGING = frozenset(
    {"make_folder", "open_append", "open_new", "write", "write_at", "sync_data", "sync_folder", "rename", "unlink"}
    | {"truncate"}
)
"""Operations before which a crash leaves something else than before the one that came earlier."""


class PowerCutError(BaseException):
    """The process ends here."""


@dataclass(slots=True)
class _Inode:
    """A file under whatever name."""

    now: bytearray
    """What reading it gives."""
    lasted: bytes = b""
    dirty: list[tuple[int, int]] = field(default_factory=list)
    """Pieces written since they were last synced, or since a sync of them failed."""
    failed: bool = False
    """Whether a sync failed in the life that goes on."""

    def written(self) -> bytes:
        """What a sync puts on the disk: the dirty pieces, over what is there."""
        size = len(self.now)
        new = bytearray(self.lasted[:size].ljust(size, b"\0"))
        for start, end in self.dirty:
            new[start:end] = self.now[start:end]
        return bytes(new[:size])


@dataclass(frozen=True, slots=True)
class _Naming:
    """A change of names in a folder that was not synced since: `old` goes, `new` is this file."""

    folder: Path
    old: Path | None
    new: Path | None
    inode: _Inode | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One call that fails."""

    nth: int
    """From 1, among the calls of this kind."""
    kind: str | None = None
    """A method of `Files`; None counts every call."""
    error: int = errno.EIO


class Disk(Files):
    """Counts operations; at the chosen one it crashes (before or halfway through it) or fails."""

    def __init__(
        self,
        *,
        crash_at: int | None = None,
        half: bool = False,
        fail_at: int | None = None,
        error: int = errno.EIO,
        fault: Fault | None = None,
    ) -> None:
        self.operations = 0
        self.journal: list[tuple[str, str, Path]] = []
        """Phase, kind, and file or folder of each operation."""
        self.calls: Counter[str] = Counter()
        """By kind; closing and reading too, which are no operations."""
        self.phase = ""
        """What the sink is at, for the journal."""
        self.tear: str | None = None
        """The process is killed halfway through the next write to a file of this name."""
        self.most_bytes: int | None = None
        """A write takes no more at once."""
        self.retried_syncs: list[Path] = []
        """Files synced again in the life in which a sync of them had failed."""
        self.cut = False
        """Whether the power was cut."""
        self._crash_at, self._half = crash_at, half
        self._fault = fault or (None if fail_at is None else Fault(nth=fail_at, error=error))
        self._fds: dict[int, tuple[_Inode, Path]] = {}
        self._names: dict[Path, _Inode] = {}
        self._lasting: dict[Path, _Inode] = {}
        self._pending: list[_Naming] = []
        self._new_folders: set[Path] = set()
        self._lock = threading.RLock()

    def crash_in(self, operations: int, *, half: bool) -> None:
        """The power fails after so many operations more, or halfway through the next one if it is a write."""
        self._crash_at, self._half = self.operations + operations, half

    def well(self) -> None:
        """From now on nothing fails; a new process finds what failed before as it is."""
        self._fault = self.tear = self._crash_at = None
        self.cut = False
        for inode in self._names.values():
            inode.failed = False

    def _operate(self, kind: str, path: Path) -> None:
        with self._lock:
            if self._crash_at is not None and self.operations >= self._crash_at and not self._halfway(kind):
                self.cut = True
                raise PowerCutError
            self.operations += 1
            self.journal.append((self.phase, kind, path))
            self._call(kind, self.operations)

    def _halfway(self, kind: str) -> bool:
        return self._half and self.operations == self._crash_at and kind in {"write", "write_at"}

    def _call(self, kind: str, number: int | None = None) -> None:
        """Count it, and fail if it is the one."""
        self.calls[kind] += 1
        fault = self._fault
        if (
            fault is not None
            and fault.nth == (self.calls[kind] if fault.kind == kind else number)
            and (fault.kind in {None, kind})
        ):
            raise OSError(fault.error, os.strerror(fault.error))

    def make_folder(self, path: Path) -> None:
        self._operate("make_folder", path)
        if not path.is_dir():
            self._new_folders.add(path)
        super().make_folder(path)

    def open_append(self, path: Path) -> int:
        self._operate("open_append", path)
        return self._opened(super().open_append, path)

    def open_update(self, path: Path) -> int:
        self._operate("open_update", path)
        return self._opened(super().open_update, path)

    def open_read(self, path: Path) -> int:
        self._operate("open_read", path)
        return self._opened(super().open_read, path)

    def open_new(self, path: Path) -> int:
        self._operate("open_new", path)
        self._names.pop(path, None)
        path.unlink(missing_ok=True)
        return self._opened(super().open_new, path)

    def _opened(self, opening: object, path: Path) -> int:
        with self._lock:
            before = path.read_bytes() if path.exists() else None
            fd = int(opening(path))  # type: ignore[operator]  # one of the methods above
            inode = self._names.get(path)
            if inode is None or (before is not None and before != inode.now):
                inode = self._names[path] = _Inode(bytearray(before or b""), before or b"")
                if before is None:
                    self._pending.append(_Naming(path.parent, None, path, inode))
                else:
                    self._lasting[path] = inode
            self._fds[fd] = (inode, path)
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._operate("write", self._fds[fd][1])
        return self._write(fd, data, None)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._operate("write_at", self._fds[fd][1])
        return self._write(fd, data, offset)

    def _write(self, fd: int, data: bytes | memoryview, offset: int | None) -> int:
        with self._lock:
            torn = self._crash_at is not None and self.operations == self._crash_at + 1
            inode, path = self._fds[fd]
            torn = torn or path.name == self.tear
            # A short write now and then, as the system may do.
            if torn or not self.operations % 3:
                data = data[: max(1, len(data) // 2)]
            data = data[: self.most_bytes]
            at = len(inode.now) if offset is None else offset
            taken = super().write(fd, data) if offset is None else super().write_at(fd, data, offset)
            inode.now[at : at + taken] = data[:taken]
            inode.dirty.append((at, at + taken))
            if torn:
                self.cut = self._crash_at is not None and self.operations > self._crash_at
                self.tear = None
                raise PowerCutError
        return taken

    def sync_data(self, fd: int) -> None:
        with self._lock:
            inode, path = self._fds[fd]
            if inode.failed:
                self.retried_syncs.append(path)
            try:
                self._operate("sync_data", path)
            except OSError:
                inode.dirty.clear()
                inode.failed = True
                raise
            inode.lasted = inode.written()
            inode.dirty.clear()

    def sync_folder(self, path: Path) -> None:
        self._operate("sync_folder", path)
        with self._lock:
            self._lasting = _named(self._lasting, [change for change in self._pending if change.folder == path])
            self._pending = [change for change in self._pending if change.folder != path]
            self._new_folders = {folder for folder in self._new_folders if folder.parent != path}

    def rename(self, old: Path, new: Path) -> None:
        self._operate("rename", new)
        with self._lock:
            inode = self._known(old)
            super().rename(old, new)
            self._names[new] = inode
            del self._names[old]
            self._pending.append(_Naming(new.parent, old, new, inode))

    def unlink(self, path: Path) -> None:
        self._operate("unlink", path)
        with self._lock:
            if path.exists():
                self._known(path)
                self._pending.append(_Naming(path.parent, path, None, None))
            super().unlink(path)
            self._names.pop(path, None)

    def _known(self, path: Path) -> _Inode:
        if path not in self._names:
            data = path.read_bytes()
            self._names[path] = self._lasting[path] = _Inode(bytearray(data), data)
        return self._names[path]

    def truncate(self, fd: int, size: int) -> None:
        self._operate("truncate", self._fds[fd][1])
        super().truncate(fd, size)
        inode, _ = self._fds[fd]
        del inode.now[size:]
        inode.dirty = [(start, min(end, size)) for start, end in inode.dirty if start < size]

    def size(self, fd: int) -> int:
        self._call("size")
        return super().size(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._call("read")
        return super().read(fd, size, offset)

    def close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        super().close(fd)
        self._call("close")

    def held(self) -> list[Path]:
        """Files that are open."""
        return [path for _, path in self._fds.values()]

    def abandon(self) -> None:
        """Close what the dead process had open."""
        for fd in list(self._fds):
            self._fds.pop(fd)
            super().close(fd)

    def take_in(self, folder: Path) -> None:
        """Let everything in the folder have lasted, as on a machine that has just come up."""
        self._pending.clear()
        self._new_folders.clear()
        self._names = {path: _Inode(bytearray(data), data) for path, data in _files_in(folder)}
        self._lasting = dict(self._names)

    def lose_power(self, folder: Path, damage: str, *, seed: int) -> None:
        """Leave in `folder` what a machine finds after it comes up again."""
        if damage == "nothing":
            return
        left = self.remains(folder, damage, seed=seed)
        for path, _ in _files_in(folder):
            if path not in left:
                path.unlink()
        for path, data in left.items():
            path.write_bytes(data)
        self.take_in(folder)

    def leave(self, folder: Path, target: Path, damage: str, *, seed: int) -> None:
        """As `lose_power`, in a folder of its own; this disk and `folder` stay as they are."""
        lost = self._lost_folders(damage, seed)
        target.mkdir()
        for path in folder.iterdir():
            if path.is_dir() and path not in lost:
                (target / path.relative_to(folder)).mkdir(mode=0o700)
        for path, data in self.remains(folder, damage, seed=seed).items():
            if path.parent not in lost:
                (target / path.relative_to(folder)).write_bytes(data)

    def _lost_folders(self, damage: str, seed: int) -> set[Path]:
        rng = random.Random(f"folders {seed}")
        return set() if damage == "nothing" else {path for path in sorted(self._new_folders) if rng.random() < 0.3}

    def remains(self, folder: Path, damage: str, *, seed: int) -> dict[Path, bytes]:
        """Every file of the folder as a power loss leaves it."""
        present = dict(_files_in(folder))
        if damage == "nothing":
            return present
        rng = random.Random(f"{damage} {seed}")
        kept = _kept(self._pending, seed, rng)
        names = {path: inode for path, inode in _named(self._lasting, kept).items() if folder in path.parents}
        known = self._names.keys() | self._lasting.keys() | {change.old for change in self._pending}
        left = {path: data for path, data in present.items() if path not in known}
        for path, inode in sorted(names.items()):
            left[path] = _damaged(inode.lasted, inode.written(), damage, rng)
        return left


def _files_in(folder: Path) -> Iterable[tuple[Path, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "run.lock":
            yield path, path.read_bytes()


def _kept(pending: list[_Naming], seed: int, rng: random.Random) -> list[_Naming]:
    """The changes of names that lasted though nobody asked: all, none, those up to one, or any."""
    match seed % 4:
        case 0:
            return [change for change in pending if rng.random() < 0.5]
        case 1:
            return pending
        case 2:
            return []
        case _:
            return pending[: rng.randint(0, len(pending))]


def _named(names: dict[Path, _Inode], changes: Iterable[_Naming]) -> dict[Path, _Inode]:
    changed = dict(names)
    for change in changes:
        if change.old is not None:
            changed.pop(change.old, None)
        if change.new is not None and change.inode is not None:
            changed[change.new] = change.inode
    return changed


def _damaged(lasted: bytes, now: bytes, damage: str, rng: random.Random) -> bytes:
    if damage == "mixed":
        damage = rng.choice(EACH_FILE)
    if damage == "whole" or now == lasted:
        return now
    if not now.startswith(lasted):
        return rng.choice((lasted, now))
    rest = now[len(lasted) :]
    at = rng.randrange(len(rest))
    match damage:
        case "drop":
            return lasted
        case "half":
            return lasted + rest[: rng.randint(0, len(rest))]
        case "zeros":
            return lasted + bytes(len(rest))
        case "flip":
            return lasted + rest[:at] + bytes([rest[at] ^ 1 << rng.randrange(8)]) + rest[at + 1 :]
        case "stale":
            return lasted + (bytes(len(rest)) + lasted)[-len(rest) :]
        case "blocks":
            blocks = [rest[start : start + BLOCK_BYTES] for start in range(0, len(rest), BLOCK_BYTES)]
            return lasted + b"".join(block if rng.random() < 0.5 else bytes(len(block)) for block in blocks)
        case _:
            return lasted + rest[:at] + rng.randbytes(len(rest) - at)
