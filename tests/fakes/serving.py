"""Servers for `--serve`: their commands, their processes, and whether anything of them is left."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SCRIPT = Path(__file__).parent / "local_server.py"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) != 0


def command(folder: Path, port: int, *more: object) -> str:
    """A line for `--serve`; its processes note themselves in the folder."""
    return shlex.join(
        [sys.executable, str(SCRIPT), "--port", str(port), "--pids", str(folder / "pids"), *map(str, more)]
    )


def pids(folder: Path) -> list[int]:
    """Of every process that the servers of this folder have started."""
    with suppress(FileNotFoundError):
        return [int(line) for line in (folder / "pids").read_text().splitlines()]
    return []


def living(numbers: Iterable[int]) -> list[int]:
    """Those that have not ended; one that is only waiting to be reaped has."""
    return [pid for pid in numbers if _lives(pid)]


def left_after(numbers: Iterable[int], within_s: float) -> list[int]:
    """Those that still live after so long, or none as soon as none does."""
    numbers, deadline = list(numbers), time.monotonic() + within_s
    while (left := living(numbers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return not Path("/proc/self").exists()
