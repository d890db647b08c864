"""A server of the user's own that lives as long as a command: started, waited for, watched, and ended with it.

What is started is the guard (`guard.py`), and by it the server, in a session that the terminal's Ctrl-C does
not reach: while answers in flight are waited for, the server must go on. It ends when this process does, however
that ends.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from engine.errors import AuthRejected, ConfigError, ProviderDown, RunError
from labels.serve import guard
from labels.serve.address import ServePlan, is_healthy, is_taken
from labels.serve.guard import HURRY, KILL_S, STOP

GRACE_S = 15.0
"""Between SIGTERM and SIGKILL, where nobody hurries."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_GROWTH = 0.1, 2.0, 1.5
"""Between two looks whether the server answers."""
REPORT_S = 30.0
"""How often the user is told that it is still waited for."""
LAST_LINES = 10


class LocalServer:
    """Owns the guard and, through it, the server. `close()` leaves nothing of them.

    Args:
        plan: what to start.
        grace_s: between SIGTERM and SIGKILL.

    Raises:
        ConfigError: the command cannot be run.
    """

    def __init__(self, plan: ServePlan, *, grace_s: float = GRACE_S) -> None:
        self._plan = plan
        self._grace_s = grace_s
        self._hurried = False
        self._heard = b""
        self._says: dict[str, Any] = {}
        self.gone: RunError | None = None
        """Why the server is no longer there."""
        self._socket, theirs = socket.socketpair()
        words = [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), str(plan.log), str(grace_s)]
        with theirs:
            # A signal that comes here leaves the socket to nobody, and the guard ends what it has begun.
            self._guard = subprocess.Popen(
                [*words, *plan.command],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Of the server; None before it is known."""
        return self._says.get("started")

    def wait_until_healthy(self, say: Callable[[str], None]) -> None:
        """Return once the server answers.

        Raises:
            ConfigError: the command cannot be run.
            AuthRejected: it ended before, or took too long; the message holds the last lines of what it said.
        """
        began_s = time.monotonic()
        pause_s, report_s = FIRST_PAUSE_S, REPORT_S
        while not (self._look() or is_healthy(self._plan.base_url)):
            waited_s = time.monotonic() - began_s
            if waited_s > self._plan.timeout_s:
                raise AuthRejected(
                    f"the server did not answer at {self._plan.base_url} within {self._plan.timeout_s:g} s "
                    f"(--serve-timeout); what it said is in {self._plan.log}{_last_lines(tail_of(self._plan.log))}"
                )
            if waited_s > report_s:
                say(f"Still waiting for the server ({waited_s:.0f} s); what it says is in {self._plan.log}")
                report_s += REPORT_S
            select.select([self._socket], [], [], pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * PAUSE_GROWTH)
        if self._look():
            assert self.gone is not None
            raise AuthRejected(f"the server did not start: {self.gone}") from self.gone
        say(f"The server answers after {time.monotonic() - began_s:.0f} s")

    async def ended(self) -> RunError:
        """Wait until the server ends by itself; the error to end a run with."""
        while not self._look():
            await anyio.wait_readable(self._socket)
        assert self.gone is not None
        return self.gone

    def hurry(self) -> None:
        """Have the server ended in a few seconds, for whoever ends this process will not wait longer."""
        self._hurried = True

    def close(self) -> None:
        """End the server and all it has started; return when nothing of them is left."""
        with suppress(OSError):
            self._socket.send(HURRY if self._hurried else STOP)
        try:
            self._guard.wait(self._grace_s + 2 * KILL_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
        finally:
            # Also where a signal ends the wait: the guard then goes on alone.
            self._socket.close()
        if self._guard.wait() != 0:
            self._end_group()

    def _look(self) -> bool:
        """Whether the server has gone, by what the guard has said so far."""
        while self.gone is None and select.select([self._socket], [], [], 0)[0]:
            data = b""
            with suppress(OSError):
                data = self._socket.recv(1 << 16)
            if not data:
                self._end_group()
                self.gone = ProviderDown("the process that guards the server was killed, and the server with it")
                break
            *lines, self._heard = (self._heard + data).split(b"\n")
            for line in lines:
                self._says |= json.loads(line)
            self._judge()
        return self.gone is not None

    def _judge(self) -> None:
        if "failed" in self._says:
            raise ConfigError(f"--serve {shlex.join(self._plan.command)}: {self._says['failed']}")
        if "ended" in self._says:
            self.gone = ProviderDown(
                f"the server {_ending(self._says['ended'])}; what it said is in {self._plan.log}"
                f"{_last_lines(self._says['said'])}"
            )

    def _end_group(self) -> None:
        """In the place of a guard that did not live to do it."""
        # Once: later the number may be another's.
        pid = self._says.pop("started", None)
        if pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


@contextmanager
def served(plan: ServePlan, *, say: Callable[[str], None], grace_s: float = GRACE_S) -> Iterator[LocalServer]:
    """A server that answers, while the context lasts.

    Args:
        plan: what to start.
        say: takes what the user should know, in sentences.
        grace_s: between SIGTERM and SIGKILL.

    Raises:
        ConfigError: the command cannot be run, or somebody else answers at its address.
        AuthRejected: the server ended before it answered, or took too long.
    """
    if is_taken(plan.base_url):
        raise ConfigError(
            f"something listens at {plan.base_url} already: leave --serve out to use it, or give the server another "
            "--port"
        )
    try:
        os.close(guard.open_log(plan.log))
    except OSError as error:
        raise ConfigError(f"the server's log {plan.log} cannot be written: {error.strerror}") from error
    say(f"Starting a server, which may take minutes; what it says is in {plan.log}")
    server = LocalServer(plan, grace_s=grace_s)
    try:
        server.wait_until_healthy(say)
        yield server
    except KeyboardInterrupt:
        server.hurry()
        raise
    finally:
        server.close()


def tail_of(log: Path) -> str:
    """The end of a log, as far as it can be read."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - guard.LAST_WORDS_BYTES))
        return file.read().decode(errors="replace")
    return ""


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    named = -code in set(signal.Signals)
    return f"was ended by {signal.Signals(-code).name if named else f'signal {-code}'}"
