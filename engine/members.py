"""The engine processes of a run, seen from the run: started clean, spoken to over a socket."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from anyio import to_thread

from engine.config import RunConfig
from engine.money import Books
from engine.port import Opening, Port
from engine.process import started
from engine.stats import Snapshot

REAP_S = 5.0
"""A member that has delivered its end has nothing left to do but to leave."""
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REELBATCH_DEBUG")
"""Of the environment: whom it believes to be the provider, and how it tells of a bug."""


class MemberProcess:
    """Owns a process and its socket; a context manager that leaves nothing of them.

    Args:
        opening: what it is to do.
        program: the module it runs; given the number of its socket and the id of this process.
        variables: names of the environment that it is told besides the few that Python needs.
    """

    def __init__(self, opening: Opening, *, program: str, variables: Sequence[str]) -> None:
        self.opening = opening
        self.settings: RunConfig = opening.settings
        """Its share, as it is now."""
        self.spent: Mapping[str, Any] = {}
        """The books of its own calls, as it last delivered them."""
        self.lanes: Mapping[str, Any] = opening.learnt.get("lanes", {})
        """What it has learnt of the lanes; likewise."""
        self.snapshot: Snapshot | None = None
        self.figures: Mapping[str, float] = {}
        """What the process has taken, once it has ended."""
        self.opened = False
        """Whether it has been told what it is to do, and so may be told of changes."""
        self.goes_on = True
        self._hangs = False
        ours, theirs = socket.socketpair()
        try:
            self._process = started(program, (theirs.fileno(),), variables=(*variables, *VARIABLES))
        finally:
            theirs.close()
        self.port = Port(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.port.close()
        self._process.kill()
        self._process.wait()

    @property
    def left_usd(self) -> float:
        """What it has not spent of the money it may."""
        books = Books(None, self.spent)
        return max(0.0, (self.settings.brake.max_cost_usd or 0.0) - books.cost_usd - books.unknown_usd)

    def end(self) -> None:
        """End the process, which was asked to end and does not."""
        self._hangs = True
        self._process.kill()

    async def leave(self) -> int | None:
        """Wait until it has gone; its exit code, or None if it does not go."""
        with suppress(subprocess.TimeoutExpired):
            return await to_thread.run_sync(self._process.wait, REAP_S)
        return None

    def died(self, code: int | None) -> str:
        """That it did and how, in words; what it had in flight may have been charged."""
        self.goes_on = False
        self.spent = Books(None, self.spent).as_json()
        how = "closed its socket" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        if self._hangs:
            how = "did not end when it was asked to, and was killed"
        return f"an engine process (pid {self._process.pid}) {how}; the others ended in order"
