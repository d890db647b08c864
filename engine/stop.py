"""How a run is asked to end early, and how the stages learn of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from engine.errors import EngineError

PassOn = Callable[[str, EngineError | None, bool], None]


class Stop:
    """Asked once, a run sends nothing new and waits for what is in flight; asked again, it waits no longer.

    Args:
        drain_s: how long answers in flight are waited for after the first request.
        pass_on: told of everything that is asked, with the arguments of `ask`.
    """

    def __init__(self, *, drain_s: float, pass_on: PassOn = lambda *_: None) -> None:
        self._drain_s = drain_s
        self._pass_on = pass_on
        self._event = anyio.Event()
        self._scopes: list[anyio.CancelScope] = []
        self._deadline = math.inf
        self._signal_due = False
        self.reason: str | None = None
        """What asked first, for the closing message; None while the run goes on."""
        self.error: EngineError | None = None
        """The error the run ends with, if it was an error that asked."""

    @property
    def asked(self) -> bool:
        return self.reason is not None

    def ask(self, reason: str, *, error: EngineError | None = None, is_notice: bool = False) -> None:
        """Ask for an orderly end; the second time, for an immediate one.

        A notice that the machine will be taken away hurries nobody, and neither does the signal that the machine itself
        sends after it: both speak of one and the same end.
        """
        now = anyio.current_time()
        if self.reason is None:
            self.reason, self.error = reason, error
            self._deadline = now + self._drain_s
            self._signal_due = is_notice
        elif self._signal_due and error is None:
            self._signal_due = False
        elif error is None and not is_notice:
            self._deadline = now
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self._deadline)
        self._event.set()
        self._pass_on(reason, error, is_notice)

    def bounded(self) -> anyio.CancelScope:
        """A scope that is cancelled once the drain is over."""
        scope = anyio.CancelScope(deadline=self._deadline)
        self._scopes.append(scope)
        return scope

    async def wait(self) -> None:
        """Return when the run is asked to stop."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the run is asked to stop."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
