"""One encoder process, seen from the parent: started clean, spoken to over a socket, believed only after checking."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson

from engine.ports import Encoder
from engine.types import Failure, FailureKind, MediaNote, Record, Request, Row
from engine.worker import ACK, ARENA_BYTES, BATCH, CURRENT_ROW, FRAME, MESSAGE, STARTING, STOP_SIGNALS

PASSED_ON = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})
"""All that a worker learns of the parent's environment; keys are not among it."""
MAX_HEADER_BYTES = 8 << 20
MAX_BLOB_BYTES = 512 << 20
STDERR_BYTES = 4096
READ_BYTES = 1 << 18
REAP_S = 2.0
"""A process that the disk holds takes longer to die; it is left to the system."""


class WorkerDiedError(Exception):
    """The process ended, hung or sent what no worker of ours sends; `str()` says which, after "encoding this row"."""

    def __init__(self, message: str, *, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a worker sent at once."""

    outcomes: Sequence[Request | Record]
    cpu_s: float


class WorkerProcess:
    """Owns a process, its socket, its arena and its stderr. `close()` leaves nothing of them."""

    def __init__(self, encoder: bytes, *, variables: Iterable[str] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        arena_fd = _anonymous_file(ARENA_BYTES)
        self._stderr, stderr_fd = os.pipe()
        # A full pipe must not stop a noisy C library; what does not fit is lost.
        os.set_blocking(stderr_fd, False)
        try:
            self._arena = mmap.mmap(arena_fd, ARENA_BYTES)
            self._arena[: CURRENT_ROW.size] = CURRENT_ROW.pack(STARTING)
            inherited = (theirs.fileno(), arena_fd)
            self._process = started("engine.worker", inherited, stderr=stderr_fd, variables=variables)
        finally:
            theirs.close()
            os.close(arena_fd)
            os.close(stderr_fd)
        self._buffer = bytearray()
        self._unsent = bytearray(MESSAGE.pack(BATCH, len(encoder)) + encoder)
        self._acknowledge: int | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, rows: Sequence[Row]) -> None:
        """Hand over a batch.

        Raises:
            WorkerDiedError: it is no longer there.
        """
        await self.send_payload(pack(rows))

    async def send_payload(self, payload: bytes) -> None:
        """Hand over a batch that is packed already."""
        self._unsent += MESSAGE.pack(BATCH, len(payload)) + payload
        while self._unsent:
            if not self._push():
                await anyio.wait_writable(self._socket)

    def _push(self) -> bool:
        """Send what the socket takes now; False if it takes nothing."""
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError as error:
            raise WorkerDiedError(self._epitaph()) from error
        del self._unsent[:sent]
        return True

    async def receive(self, expected: Sequence[Row], *, timeout_s: float) -> Frame:
        """The next frame; `expected` are the rows it may speak of.

        Raises:
            WorkerDiedError: the process is dead, silent for too long, or not to be believed.
        """
        with anyio.move_on_after(timeout_s):
            while (size := self._frame_size()) > len(self._buffer):
                if not self._pull():
                    await anyio.wait_readable(self._socket)
            return self._parse(size, {row.row: row for row in expected})
        raise WorkerDiedError(f"hung its worker for {timeout_s:g} s", hung=True)

    def current_row(self) -> int:
        """The row the process was encoding when it last said so, or a negative number."""
        return int(CURRENT_ROW.unpack_from(self._arena, 0)[0])

    def has_started(self) -> bool:
        """Whether the process ever got as far as waiting for rows."""
        return self.current_row() != STARTING

    def kill(self, *, reap_s: float = REAP_S) -> None:
        """End the process, at once, and reap it; what it last said of itself can still be read."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(reap_s)

    def close(self, *, reap_s: float = REAP_S) -> None:
        """Kill the process and give everything back."""
        self.kill(reap_s=reap_s)
        self._socket.close()
        self._arena.close()
        os.close(self._stderr)

    def _pull(self) -> bool:
        """Read what is there; False if nothing is."""
        try:
            part = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise WorkerDiedError(self._epitaph()) from error
        if not part:
            raise WorkerDiedError(self._epitaph())
        self._buffer += part
        return True

    def _frame_size(self) -> int:
        if len(self._buffer) < FRAME.size:
            return FRAME.size
        header, blob = FRAME.unpack_from(self._buffer)
        if header > MAX_HEADER_BYTES or blob > MAX_BLOB_BYTES:
            raise WorkerDiedError("made its worker send garbage")
        return FRAME.size + int(header) + int(blob)

    def _parse(self, size: int, expected: dict[int, Row]) -> Frame:
        header, _ = FRAME.unpack_from(self._buffer)
        inline = FRAME.size + header
        with memoryview(self._buffer) as frame, memoryview(self._arena) as arena, frame[inline:size] as rest:
            blobs = _Blobs(rest, arena)
            try:
                said = orjson.loads(frame[FRAME.size : inline])
                outcomes = [_outcome(item, expected, blobs) for item in said["items"]]
                cpu_s = float(said["cpu_s"])
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise WorkerDiedError("made its worker send garbage") from error
        del self._buffer[:size]
        if blobs.acknowledge is not None:
            self._unsent += MESSAGE.pack(ACK, 8) + blobs.acknowledge.to_bytes(8, "little")
            self._push()
        return Frame(outcomes=outcomes, cpu_s=cpu_s)

    def _epitaph(self) -> str:
        """How the process ended, and its last words."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)
        code = self._process.returncode
        if code is None:
            return "made its worker close its socket"
        os.set_blocking(self._stderr, False)
        try:
            words = os.read(self._stderr, STDERR_BYTES).decode(errors="replace").strip().splitlines()
        except BlockingIOError:
            words = []
        cause = f"killed its worker ({signal.Signals(-code).name})" if code < 0 else f"ended its worker (code {code})"
        return cause + (f": {words[-1][:300]}" if words else "")


class _Blobs:
    """Reads heads and tails in the order of the frame's items, from the frame or from the arena."""

    def __init__(self, inline: memoryview, arena: memoryview) -> None:
        self._inline = inline
        self._arena = arena
        self._read = 0
        self.acknowledge: int | None = None

    def take(self, size: int) -> bytes:
        end = self._read + _count(size)
        if end > len(self._inline):
            raise ValueError("blob beyond the frame")
        data = bytes(self._inline[self._read : end])
        self._read = end
        return data

    def take_from_arena(self, size: int, *, at: int, acknowledge: int) -> bytes:
        end = _count(at) + _count(size)
        if end > len(self._arena):
            raise ValueError("blob beyond the arena")
        self.acknowledge = _count(acknowledge)
        return bytes(self._arena[at:end])


def pack(rows: Sequence[Row]) -> bytes:
    """A batch as it travels to a worker."""
    return pickle.dumps(list(rows), protocol=pickle.HIGHEST_PROTOCOL)


def pack_encoder(encoder: Encoder, *, memory_mb: int) -> bytes:
    """The first message to a worker."""
    return pickle.dumps((encoder, memory_mb), protocol=pickle.HIGHEST_PROTOCOL)


def _outcome(item: dict[str, Any], expected: dict[int, Row], blobs: _Blobs) -> Request | Record:
    """One item of a frame, checked field by field."""
    row = expected.pop(item["row"])
    if "kind" in item:
        failure = Failure(kind=FailureKind(item["kind"]), message=_text(item["message"]))
        return Record(row=row.row, id=row.id, outcome=failure)
    if "at" in item:
        head = blobs.take_from_arena(item["head"], at=item["at"], acknowledge=item["ack"])
    else:
        head = blobs.take(item["head"])
    return Request(
        row=row.row,
        id=row.id,
        head=head,
        tail=blobs.take(item["tail"]),
        est_tokens=_count(item["tokens"]),
        n_frames=_count(item["frames"]),
        media=tuple(map(_media, item["media"])),
        degraded=tuple(map(_text, item["degraded"])),
        made_of=row,
        key=bytes.fromhex(item["key"]),
    )


def _media(said: dict[str, Any]) -> MediaNote:
    time_s, tokens = said["time_s"], said["tokens"]
    return MediaNote(
        index=_count(said["index"]),
        time_s=None if time_s is None else float(time_s),
        digest=_text(said["digest"]),
        width=_count(said["width"]),
        height=_count(said["height"]),
        tokens=None if tokens is None else _count(tokens),
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("no count")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value


def started(
    program: str, inherited: Sequence[int], *, stderr: int | None = None, variables: Iterable[str]
) -> subprocess.Popen[bytes]:
    """Start a program of ours in a fresh interpreter, which hears no stop signal: those are this process's to judge.

    Args:
        program: a module; its arguments are the file descriptors and the id of this process.
        inherited: file descriptors.
        stderr: another; None leaves it that of this process.
        variables: names of the environment that it is told besides the few that Python needs.
    """
    # What is blocked here stays so in the child, from its first instruction to its last.
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", program, *map(str, inherited), str(os.getpid())],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(variables),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _environment(variables: Iterable[str]) -> dict[str, str]:
    passed_on = PASSED_ON.union(variables)
    kept = {name: value for name, value in os.environ.items() if name in passed_on}
    return kept | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def _anonymous_file(size: int) -> int:
    """A file descriptor of shared memory that has no name and so cannot be left behind."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("reelbatch-arena")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
