"""The seams of the engine. `cli.py` hands in what stands behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.types import Answer, Known, Record, Reply, Request, Row


class Encoder(Protocol):
    """Turns a row into a request. Picklable; lives in worker processes."""

    def encode(self, row: Row) -> Request:
        """Build the request, pure but for reading media.

        Raises:
            RowError: this row cannot be encoded.
        """
        ...


class Client(Protocol):
    """Makes one HTTP attempt."""

    async def attempt(self, *body: bytes) -> Reply:
        """Send one body, given in pieces, return its reply.

        Raises:
            ApiError: the one subclass that fits what went wrong.
        """
        ...


EncodeAgain = Callable[[Row], Awaitable[Request | Record]]
"""Makes the request of one row within its `reduction`; a record if it cannot be made."""


class Reader(Protocol):
    """Reads labels out of a reply's text."""

    def read(self, text: str) -> Answer: ...

    def repair(self, text: str) -> bytes | None:
        """The head of a request, as in `Request.head`, that asks a model to put this answer into its right form.

        It holds the text alone, no frames. None if no such request makes sense.
        """
        ...


class Answers(Protocol):
    """Remembers whole answers by the keys of their requests. Never the truth: what it forgets is asked for again."""

    def find(self, key: bytes) -> Known | None:
        """The answer to a request with this key, if there is one; raises nothing and does not wait.

        One that is said to be a row's is in the sink, and safe.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an observer has seen so far."""

    lines: tuple[tuple[str, str], ...] = ()
    """For a person: what it is about, and what it is."""
    alarms: tuple[str, ...] = ()
    """What a person should look at, in sentences, the first one first; it only ever grows."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """For programs, as JSON values."""


class Observer(Protocol):
    """Looks at rows as they are read and at records as they end. Changes nothing, raises nothing, waits for nothing."""

    def read(self, batch: Sequence[Row | Record]) -> None: ...

    def ended(self, record: Record) -> None: ...

    def findings(self) -> Findings: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatistics:
    """What a sink holds."""

    done: int
    """Rows with a committed result."""
    failed: int
    """Rows whose committed end is a failure."""
    finished: int
    """Rows that need no further work: done, or failed and not to be tried again."""
    pending: int
    """Records put and not yet committed."""
    pending_bytes: int
    duplicates: int
    """Records dropped because their row had ended already."""
    salvaged: int
    """Lines found after the last commit when the folder was opened, and kept."""
    chosen: int | None = None
    """Rows still to be worked on by a life that takes up certain kinds alone; None for any other."""


class Sink(Protocol):
    """Keeps records. `put` is cheap and holds them in memory; `commit` makes them last."""

    def is_done(self, row: int) -> bool:
        """Whether this life has no work to do on the row."""
        ...

    def put(self, record: Record) -> None:
        """Take a record. A second record for a finished row is dropped and counted."""
        ...

    def commit(self) -> int:
        """Make everything put so far survive a crash; blocking, one caller at a time; `put` may go on meanwhile.

        Returns:
            How many records this commit acknowledged.

        Raises:
            SinkBroken: they are not safe. Nothing of this commit counts as done.
        """
        ...

    def close(self) -> None:
        """Commit what is left and release the folder."""
        ...

    @property
    def learnt(self) -> dict[str, Any]:
        """What a later life of the run should know, as JSON values; kept with the rows.

        `spent`, a small object of numbers, is kept with every commit; the rest less often, and when the sink closes.
        """
        ...

    def statistics(self) -> SinkStatistics: ...

    def free_bytes(self) -> int | None:
        """How many bytes there is room for; None if nobody knows. May block."""
        ...
