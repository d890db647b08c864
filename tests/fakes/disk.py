"""A disk that crashes, fails and forgets: the files of a sink over a real folder, with a model of what has lasted.

Bytes last once their file was synced, names once their folder was. A power loss keeps what lasted and does to the rest
what the chosen damage says.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

from sinks.files import Files

DAMAGES = ("nothing", "drop", "half", "zeros", "garbage")
"""What becomes of bytes and names that were not synced; `nothing` is a killed process on a healthy machine."""


class PowerCutError(BaseException):
    """The process ends here."""


class Disk(Files):
    """Counts operations; at the chosen one it crashes (before doing it) or fails."""

    def __init__(self, *, crash_at: int | None = None, fail_at: int | None = None, error: int = errno.EIO) -> None:
        self.operations = 0
        self._crash_at, self._fail_at, self._error = crash_at, fail_at, error
        self._paths: dict[int, Path] = {}
        self._synced: dict[Path, bytes] = {}
        """Bytes of each present file that have lasted."""
        self._lasting: dict[Path, bytes] = {}
        """Names that have lasted, with the bytes behind them."""
        self._renamed: dict[Path, Path] = {}
        """New name to old of each rename whose folder was not synced since."""
        self._lock = threading.RLock()

    def _operate(self) -> None:
        with self._lock:
            if self._crash_at is not None and self.operations >= self._crash_at:
                raise PowerCutError
            self.operations += 1
            if self.operations == self._fail_at:
                raise OSError(self._error, os.strerror(self._error))

    def make_folder(self, path: Path) -> None:
        self._operate()
        super().make_folder(path)

    def open_append(self, path: Path) -> int:
        self._operate()
        return self._opened(super().open_append(path), path)

    def open_read(self, path: Path) -> int:
        self._operate()
        return self._opened(super().open_read(path), path)

    def open_new(self, path: Path) -> int:
        self._operate()
        self._synced.pop(path, None)
        return self._opened(super().open_new(path), path)

    def _opened(self, fd: int, path: Path) -> int:
        with self._lock:
            self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._operate()
        # A short write now and then, as the system may do.
        return super().write(fd, data if self.operations % 3 else data[: max(1, len(data) // 2)])

    def sync_data(self, fd: int) -> None:
        self._operate()
        with self._lock:
            path = self._paths[fd]
            self._synced[path] = path.read_bytes()
            if path in self._lasting:
                self._lasting[path] = self._synced[path]

    def sync_folder(self, path: Path) -> None:
        self._operate()
        with self._lock:
            present = {entry for entry in path.iterdir() if entry.is_file()}
            for gone in [name for name in self._lasting if name.parent == path and name not in present]:
                del self._lasting[gone]
            for entry in present:
                self._lasting[entry] = self._synced.get(entry, b"")
            self._renamed = {new: old for new, old in self._renamed.items() if new.parent != path}

    def rename(self, old: Path, new: Path) -> None:
        self._operate()
        super().rename(old, new)
        with self._lock:
            self._synced[new] = self._synced.pop(old, b"")
            self._renamed[new] = old

    def unlink(self, path: Path) -> None:
        self._operate()
        super().unlink(path)
        with self._lock:
            self._synced.pop(path, None)

    def truncate(self, fd: int, size: int) -> None:
        self._operate()
        super().truncate(fd, size)

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def abandon(self) -> None:
        """Close what the dead process had open."""
        for fd in list(self._paths):
            self.close(fd)

    def take_in(self, folder: Path) -> None:
        """Let everything in the folder have lasted, as on a machine that has just come up."""
        for path in folder.rglob("*"):
            if path.is_file():
                self._synced[path] = self._lasting[path] = path.read_bytes()

    def lose_power(self, folder: Path, damage: str, *, seed: int) -> None:
        """Leave in `folder` what a machine finds after it comes up again."""
        if damage == "nothing":
            return
        rng = random.Random(seed)
        known = {path for path in (*self._lasting, *self._synced) if folder in path.parents}
        present = {path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}
        # A rename has happened under both names or under none.
        undone = {new: rng.random() < 0.5 for new in sorted(self._renamed)}
        undone |= {old: undone[new] for new, old in self._renamed.items()}
        for path in sorted(known | present):
            now = path.read_bytes() if path in present else None
            changed = path in self._lasting and self._synced.get(path) != self._lasting[path]
            if undone.get(path, changed and rng.random() < 0.5):
                # Renamed, replaced or deleted since its folder was synced, and the change is lost.
                _put_back(path, self._lasting.get(path))
            elif now is None:
                continue
            elif path in self._lasting or path in undone or rng.random() < 0.5:
                path.write_bytes(_damaged(self._synced.get(path, b""), now, damage, rng))
            else:
                path.unlink()


def _put_back(path: Path, lasted: bytes | None) -> None:
    if lasted is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(lasted)


def _damaged(lasted: bytes, now: bytes, damage: str, rng: random.Random) -> bytes:
    if not now.startswith(lasted):
        return rng.choice((lasted, now))
    rest = now[len(lasted) :]
    match damage:
        case "drop":
            return lasted
        case "half":
            return lasted + rest[: rng.randint(0, len(rest))]
        case "zeros":
            return lasted + bytes(len(rest))
        case _:
            at = rng.randint(0, max(0, len(rest) - 1))
            return lasted + rest[:at] + rng.randbytes(len(rest) - at)
