"""The inside of an encoder process: rows in, requests out, until the parent closes the socket.

Frames on the socket. To the worker: kind (1 byte: `B` batch, `A` acknowledgement), length (4), payload. From it: header
length (4), blob length (4), header (JSON), blobs. The parent trusts nothing it reads here, so nothing is pickled on the
way back. Large heads go through the arena, a piece of shared memory used as a ring; when it is full they go through the
socket like the small ones. The arena begins with the ordinal of the row being encoded, which tells the parent whom to
blame if this process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import orjson

from engine.errors import RowError
from engine.ports import Encoder
from engine.types import FailureKind, Request, Row

MESSAGE = struct.Struct("<cI")
FRAME = struct.Struct("<II")
CURRENT_ROW = struct.Struct("<q")
NO_ROW, STARTING = -1, -2
BATCH, ACK = b"B", b"A"

ARENA_BYTES = 8 << 20
"""Room for a few large bodies on their way; it counts as memory of the parent once it is touched."""
ARENA_FROM_BYTES = 64 << 10
"""From this size on, copying out of shared memory costs the parent less than reading a socket (bench/pool.py)."""
FLUSH_BYTES = 64 << 10
FLUSH_S = 0.005
"""Results wait for company no longer than this: a slow row is sent at once, fast ones share a frame."""
MAX_FILES = 256
ROW_CPU_S = 120
"""No row takes so much of a processor; should the parent be unable to end the process, the kernel does."""
KEY_BYTES = 16
"""Among ten million requests two that differ share such a key once in 10^24 runs."""
OOM_SCORE = "500"
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal and many a supervisor send them to workers too; they are the parent's to judge."""


class Ring:
    """Writes into the arena what there is room for. Positions only grow; the place is position modulo size."""

    def __init__(self, arena: mmap.mmap) -> None:
        self._arena = arena
        self._size = len(arena) - CURRENT_ROW.size
        self._written = 0
        self.acknowledged = 0

    def mark(self, row: int) -> None:
        CURRENT_ROW.pack_into(self._arena, 0, row)

    def place(self, data: bytes) -> tuple[int, int] | None:
        """Offset in the arena and position after it, or None if there is no room now."""
        start = self._written
        if start % self._size + len(data) > self._size:
            start += self._size - start % self._size
        if len(data) > self._size or start + len(data) - self.acknowledged > self._size:
            return None
        offset = CURRENT_ROW.size + start % self._size
        self._arena[offset : offset + len(data)] = data
        self._written = start + len(data)
        return offset, self._written


class Worker:
    """Serves one parent over one socket."""

    def __init__(self, link: socket.socket, arena: mmap.mmap) -> None:
        self._link = link
        self._ring = Ring(arena)
        self._batches: deque[list[Row]] = deque()
        self._items: list[dict[str, Any]] = []
        self._blobs: list[bytes] = []
        self._blob_bytes = 0
        self._flushed_s = 0.0

    def serve(self, encoder: Encoder) -> None:
        """Encode batch after batch. Returns when the parent is gone."""
        self._ring.mark(NO_ROW)
        while True:
            while not self._batches:
                self._hear()
            for row in self._batches.popleft():
                self._ring.mark(row.row)
                allow_cpu(ROW_CPU_S)
                self._say(row, _outcome(encoder, row))
                self._ring.mark(NO_ROW)
            self._flush()

    def _say(self, row: Row, outcome: Request | RowError) -> None:
        if isinstance(outcome, RowError):
            self._items.append({"row": row.row, "kind": str(outcome.kind), "message": str(outcome)[:2000]})
        else:
            self._items.append(self._described(outcome))
        if self._blob_bytes >= FLUSH_BYTES or time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flush()

    def _described(self, request: Request) -> dict[str, Any]:
        item: dict[str, Any] = {
            "row": request.row,
            "head": len(request.head),
            "tail": len(request.tail),
            "tokens": request.est_tokens,
            "frames": request.n_frames,
            "media": request.media,
            "degraded": request.degraded,
            "key": key_of(request).hex(),
        }
        if len(request.head) >= ARENA_FROM_BYTES:
            while select.select([self._link], [], [], 0)[0]:
                self._hear()
            if (placed := self._ring.place(request.head)) is not None:
                item["at"], item["ack"] = placed
        if "at" not in item:
            self._blobs.append(request.head)
        self._blobs.append(request.tail)
        self._blob_bytes += len(request.head) + len(request.tail)
        return item

    def _flush(self) -> None:
        if self._items:
            header = orjson.dumps({"cpu_s": time.process_time(), "items": self._items})
            blob = b"".join(self._blobs)
            self._link.sendall(b"".join((FRAME.pack(len(header), len(blob)), header, blob)))
            self._items, self._blobs, self._blob_bytes = [], [], 0
        self._flushed_s = time.monotonic()

    def _hear(self) -> None:
        """Read one message of the parent's."""
        kind, length = MESSAGE.unpack(self._read(MESSAGE.size))
        payload = self._read(length)
        if kind == BATCH:
            self._batches.append(pickle.loads(payload))  # noqa: S301 - from our own parent, over an inherited socket
        else:
            self._ring.acknowledged = int.from_bytes(payload, "little")

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._link.recv(min(size, 1 << 20))
            if not part:
                raise SystemExit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def first_message(self) -> Any:
        """What the parent sends before any batch: the encoder and the memory cap."""
        _, length = MESSAGE.unpack(self._read(MESSAGE.size))
        return pickle.loads(self._read(length))  # noqa: S301 - as above


def allow_cpu(seconds: int) -> None:
    """From now on, so many seconds of processor time and no more."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if most == resource.RLIM_INFINITY else min(until, most), most))


def _outcome(encoder: Encoder, row: Row) -> Request | RowError:
    try:
        return encoder.encode(row)
    except RowError as error:
        return error
    except MemoryError:
        return RowError(FailureKind.MEDIA_LIMIT, "encoding this row needs more memory than a worker may have")
    except Exception as error:  # noqa: BLE001 - the border of a row: whatever goes wrong in it stays in it
        return RowError(FailureKind.ENCODE, f"{type(error).__name__}: {error}")


def key_of(request: Request) -> bytes:
    """What tells its body from every other: 16 bytes of the SHA-256 of head and tail, and of where one ends."""
    digest = hashlib.sha256(request.head)
    digest.update(b"%d" % len(request.head))
    digest.update(request.tail)
    return digest.digest()[:KEY_BYTES]


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the parent has gone, even while it is stopped or busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def confine(memory_mb: int) -> None:
    """Write no files, keep to the memory cap, be the first the kernel kills for memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))


def main() -> None:
    """Entry of the process; arguments: socket fd, arena fd, parent pid."""
    link_fd, arena_fd, parent = map(int, sys.argv[1:4])
    end_with(parent)
    with socket.socket(fileno=link_fd) as link, mmap.mmap(arena_fd, ARENA_BYTES) as arena:
        worker = Worker(link, arena)
        encoder, memory_mb = worker.first_message()
        confine(memory_mb)
        with contextlib.suppress(ConnectionError):
            worker.serve(encoder)


if __name__ == "__main__":
    main()
