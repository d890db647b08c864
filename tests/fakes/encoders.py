"""Encoders that misbehave on rows whose id says so. They live in worker processes, so they leave traces in files."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from engine.errors import RowError
from engine.types import FailureKind, Request, Row


def request_of(row: Row, head: bytes = b"") -> Request:
    return Request(row=row.row, id=row.id, head=head or row.id.encode(), tail=b"}", est_tokens=1, n_frames=0)


@dataclass(frozen=True, kw_only=True)
class Misbehaving:
    """What a row's id begins with is what happens to it, or to the worker."""

    tries: Path | None = None
    """A file that gets one line per row begun."""

    def encode(self, row: Row) -> Request:  # noqa: C901 - one line per deed
        if self.tries is not None:
            # Worker processes may write no files through RLIMIT_FSIZE; a named pipe is none.
            fd = os.open(self.tries, os.O_WRONLY)
            os.write(fd, f"{row.row}\n".encode())
            os.close(fd)
        deed, _, rest = row.id.partition("-")
        match deed:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segv":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3600)
            case "raise":
                raise ValueError("no such luck")
            case "refuse":
                raise RowError(FailureKind.MEDIA_LIMIT, "too large")
            case "fill":
                return request_of(row, bytes(1 << 40))
            case "write":
                os.write(1, b"noise on stdout\n" * 10_000)
                os.write(2, b"noise on stderr\n" * 1000)
            case "environ":
                return request_of(row, orjson.dumps(dict(os.environ)))
            case "sized":
                return request_of(row, rest.encode() + b"." * (int(rest) - len(rest)))
        return request_of(row)


@dataclass(frozen=True, kw_only=True)
class Unloadable:
    """Kills the worker before it has read its first row."""

    def encode(self, row: Row) -> Request:
        raise AssertionError

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Sends frames of its own making to the parent."""

    payload: bytes

    def encode(self, row: Row) -> Request:
        if row.id.startswith("lie"):
            for entry in list(Path("/proc/self/fd").iterdir()):
                if entry.exists() and "socket" in str(entry.readlink()):
                    os.write(int(entry.name), self.payload)
        return request_of(row)
