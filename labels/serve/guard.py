"""Stands between this program and a server that it started: its words go to a file, and it ends when we do.

A script of its own that needs nothing but the standard library. It holds one end of a socket, this program the other,
and nobody else. However this program ends, kill -9 included, the socket closes, and that is what ends the server:
SIGTERM to its process group, SIGKILL after a grace, and then to whatever it started that left the group. On Linux
the guard is the parent of every orphan below it, so that none is missed; elsewhere one that left the group is.

    guard.py FD LOG GRACE_S COMMAND...

Over the socket it says, one JSON object a line: `{"started": PID}`, or `{"failed": WHY}`; and when the server has ended
without being asked to, `{"ended": CODE, "said": ITS LAST WORDS}`. It is told `.` to end the server, `!` to hurry.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

STOP, HURRY = b".", b"!"
HASTY_S = 4.0
"""The grace where somebody waits who will be killed himself: below the six seconds that a stopping run may take."""
KILL_S = 5.0
"""After SIGKILL; what the kernel holds longer is left to it."""
LOG_BYTES = 16 << 20
"""Then the log goes on in a new file; the one before is kept as `.1`, those before that are not."""
LAST_WORDS_BYTES = 4096
READ_BYTES = 1 << 16
TICK_S, ENDING_TICK_S = 0.25, 0.02
PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""


def open_log(path: Path) -> int:
    """A file descriptor to append to; requests may stand in the file, so it is its owner's alone."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)


class Log:
    """A file of bounded size; what does not fit on the disk is lost, for the server must not wait for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.last_words = b""

    def write(self, data: bytes) -> None:
        self.last_words = (self.last_words + data)[-LAST_WORDS_BYTES:]
        with suppress(OSError):
            if self._fd < 0:
                self._open()
            elif os.fstat(self._fd).st_size + len(data) > LOG_BYTES:
                os.close(self._fd)
                self._fd = -1
                self._path.replace(f"{self._path}.1")
                self._open()
            os.write(self._fd, data)

    def _open(self) -> None:
        self._fd = open_log(self._path)


class Guard:
    """Watches one server from its start to its end.

    Args:
        server: has been started, in a process group of its own, with a pipe for all it says.
        control: our end of the socket.
        log: takes what it says.
        grace_s: between SIGTERM and SIGKILL.
    """

    def __init__(self, server: subprocess.Popen[bytes], *, control: socket.socket, log: Log, grace_s: float) -> None:
        assert server.stdout is not None
        self._pid = server.pid
        self._output = server.stdout.fileno()
        os.set_blocking(self._output, False)
        self._control = control
        self._log = log
        self._grace_s = grace_s
        self._listens = True
        self._told: bytes | None = None
        """What was said last; empty if the other end has closed."""
        self._code: int | None = None
        """What the server ended with; None while it lives."""
        self._asked: set[int] = set()
        """Processes outside the group that were sent SIGTERM."""

    def watch(self) -> None:
        """Return when nothing of the server is left."""
        say(self._control, started=self._pid)
        while self._told is None and self._code is None:
            self._attend(TICK_S)
        if self._code is not None:
            self._attend(0.0)
            say(self._control, ended=self._code, said=self._log.last_words.decode(errors="replace"))
        self._end()

    def _end(self) -> None:
        """SIGTERM, the grace, SIGKILL."""
        self._signal_group(signal.SIGTERM)
        until_s = time.monotonic() + self._grace_s
        while self._lives() and time.monotonic() < until_s:
            if self._told == HURRY:
                until_s = min(until_s, time.monotonic() + HASTY_S)
                self._told = STOP
            for pid in set(_children()) - self._asked - {self._pid}:
                self._asked.add(pid)
                _signal(pid, signal.SIGTERM)
            self._attend(ENDING_TICK_S)
        until_s = time.monotonic() + KILL_S
        while self._lives() and time.monotonic() < until_s:
            self._signal_group(signal.SIGKILL)
            for pid in _children():
                _signal(pid, signal.SIGKILL)
            self._attend(ENDING_TICK_S)

    def _attend(self, wait_s: float) -> None:
        """Take what the server says and what we are told, or wait so long for either; then bury who has died."""
        control = self._control.fileno()
        sources = [self._output] * (self._output >= 0) + [control] * self._listens
        ready, _, _ = select.select(sources, [], [], wait_s)
        if self._output in ready:
            self._take_output()
        if control in ready:
            with suppress(OSError):
                self._told = self._control.recv(64)[-1:]
                self._listens = bool(self._told)
        self._bury()

    def _take_output(self) -> None:
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
        else:
            self._output = -1

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    self._code = os.waitstatus_to_exitcode(found[1])

    def _lives(self) -> bool:
        """Whether anything is left, of the group or of what left it."""
        self._bury()
        return self._signal_group(0) or any(_children())

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):  # the second: macOS, of a group that is only to be buried
            return False
        return True


def say(control: socket.socket, **what: object) -> None:
    """Tell the program; it may have gone."""
    with suppress(OSError):
        control.sendall(json.dumps(what).encode() + b"\n")


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _children() -> Iterator[int]:
    """Our children, orphans from below included; none where there is no /proc."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = path.read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                yield int(path.parent.name)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Not ignored, for the server would inherit that."""


def main() -> None:
    fd, log, grace_s, *command = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _heard)
    _adopt_orphans()
    with socket.socket(fileno=int(fd)) as control:
        try:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
            )
        except OSError as error:
            say(control, failed=error.strerror or str(error))
            return
        Guard(server, control=control, log=Log(Path(log)), grace_s=float(grace_s)).watch()


if __name__ == "__main__":
    main()
