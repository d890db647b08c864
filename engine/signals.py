"""The signals that end a run, from the first step of a command to its last, and an end even if something hangs.

Until the run takes them over, a signal raises `Interrupted`: nothing has been asked yet, and every step of the opening
may be broken off. From then on they wait in line until the run looks at them.

A disk, a name server or a terminal that takes no more text can keep a process for ever. So a thread that does nothing
else counts the signals too, and ends the process when the orderly end takes too long, or at the third.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

import anyio

from engine.worker import STOP_SIGNALS

GRACE_S = 6.0
"""For the last commit and the last snapshot: five syncs one after the other, on a disk that takes a second for each.
With a drain of 20 s the process has ended four seconds before a supervisor kills it, which is after 30 s as a rule."""
ENOUGH = 3
"""So many signals end the process at once."""
LINGER_S = 1.0
"""A thread that has nothing to do any more ends in far less."""


class Interrupted(KeyboardInterrupt):
    """A signal came before the run could take it; `str()` names it."""


class Signals:
    """Hears `STOP_SIGNALS`; those that are ignored already, as SIGHUP is under `nohup`, stay so.

    Iterate over it to get them in order. As a context manager it gives back the handlers it found.

    Args:
        overdue: ends the process; called in a thread of its own, while anything else may hang. None: nobody does.
    """

    def __init__(self, *, overdue: Callable[[], object] | None = None) -> None:
        self._overdue = overdue
        self.drain_s = 0.0
        """How long the run may wait for answers after the first signal."""
        self._raises = True
        self._came: deque[signal.Signals] = deque()
        self._bell, self._ringer = socket.socketpair()
        self._alarm, self._alarmer = socket.socketpair()
        for end in (self._bell, self._ringer, self._alarmer):
            end.setblocking(False)
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._watch = threading.Thread(target=self._wait_in_vain, name="overdue", daemon=True)

    def __enter__(self) -> Self:
        self.install()
        return self

    def install(self) -> None:
        """Hear them from now on. Without a context: to the last step of the process."""
        if self._overdue is not None:
            self._watch.start()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._alarmer.close()
        if self._watch.is_alive():
            self._watch.join()
        for end in (self._bell, self._ringer, self._alarm):
            end.close()

    def hand_over(self, *, drain_s: float) -> None:
        """From here on signals wait in line: the run will look at them."""
        self.drain_s = drain_s
        self._raises = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> signal.Signals:
        while not self._came:
            await anyio.wait_readable(self._bell)
            with suppress(BlockingIOError):
                self._bell.recv(64)
        return self._came.popleft()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        with suppress(OSError):  # full after some hundred signals, which have been heard
            self._alarmer.send(b"!")
        if self._raises:
            self._raises = False
            raise Interrupted(signal.Signals(number).name)
        self._came.append(signal.Signals(number))
        with suppress(OSError):
            self._ringer.send(b"!")

    def _wait_in_vain(self) -> None:
        assert self._overdue is not None
        signals, until_s = 0, math.inf
        while signals < ENOUGH and (left_s := until_s - time.monotonic()) > 0:
            if not select.select([self._alarm], [], [], None if math.isinf(left_s) else left_s)[0]:
                continue
            more = len(self._alarm.recv(64))
            if not more:
                return
            signals += more
            # The second asks that nothing is waited for any more.
            until_s = min(until_s, time.monotonic() + GRACE_S + (self.drain_s if signals == 1 else 0.0))
        self._overdue()


def leave(code: int) -> None:
    """End the process with this code; a thread that hangs in a system call is not waited for.

    Raises:
        SystemExit: with the code, as a rule.
    """
    until_s = time.monotonic() + LINGER_S
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    for thread in others:
        thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        os._exit(code)
    raise SystemExit(code)
