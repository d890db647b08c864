"""What a run and its engine processes say to each other, and the socket they say it over.

Both ends are this program, started by it over a socket that has no name, so messages are pickled. A frame is its length
(8 bytes) and one message.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import anyio

from engine.errors import EngineError
from engine.ports import SinkStatistics
from engine.types import Record, Row

LENGTH = struct.Struct("<Q")
READ_BYTES = 1 << 18


class PortClosedError(Exception):
    """The other end is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """To a member, first of all: what it is to do."""

    settings: Any
    """Its share of the run's `RunConfig`, without keys."""
    keys: tuple[str | None, ...]
    """One a lane."""
    learnt: Mapping[str, Any]
    """Its share of what earlier lives know."""
    held: SinkStatistics
    """What the run's sink held at the start of this life."""
    identity: Mapping[str, Any] | None
    """Of the input, as `Parts.input_identity`."""
    kit: Any
    """What stands behind the seams; only the two ends that fill and use it know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """From a member: records to be made safe. The next one comes only after the `Receipt` for this one."""

    records: Sequence[Record]
    carried: Sequence[Row]
    """Of these records the rows with the columns that came along for the observer, as far as they have any."""
    learnt: Mapping[str, Any]
    """What a later life should know, `spent` included; of the marks in the input only if there are more of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """To a member: the records of its delivery are safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """To a member: end early, as `Stop.ask`."""

    reason: str
    for_error: bool
    """Whether it is an error that ends the run; that hurries nobody who is ending already."""
    is_notice: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """To a member: from now on its share is this one."""

    settings: Any
    """As in `Opening`; of it the limits and the money count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """From a member: what the user should know, in a sentence."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """From a member: it has been asked to stop, by others or by an error of its own."""

    error: EngineError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """From a member, last of all: everything it had was delivered."""

    error: EngineError | None
    snapshot: Any
    figures: Mapping[str, float]
    """As `process_figures`."""


class Port:
    """One end of the socket; a context manager. Any number may send, one receives."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setblocking(False)
        self._buffer = bytearray()
        self._turn = anyio.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()

    async def send(self, message: object) -> None:
        """Hand a message over.

        Raises:
            PortClosedError: nobody is there to take it.
        """
        await self.send_packed(packed(message))

    async def send_packed(self, frame: bytes) -> None:
        """Likewise, a frame that `packed` made."""
        # A frame that is begun is ended, or nothing after it could be read.
        async with self._turn:
            with anyio.CancelScope(shield=True), memoryview(frame) as view:
                sent = 0
                while sent < len(view):
                    try:
                        sent += self._link.send(view[sent:])
                    except BlockingIOError:
                        await anyio.wait_writable(self._link)
                    except OSError as error:
                        raise PortClosedError from error

    async def receive(self) -> Any:
        """The next message.

        Raises:
            PortClosedError: there is none, and none will come.
        """
        await self._fill(LENGTH.size)
        size = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
        await self._fill(size)
        with memoryview(self._buffer) as view, view[LENGTH.size : size] as body:
            message = pickle.loads(body)  # noqa: S301 - from our own program, over an inherited socket
        del self._buffer[:size]
        return message

    async def _fill(self, size: int) -> None:
        """Read until so many bytes are there."""
        while len(self._buffer) < size:
            try:
                part = self._link.recv(READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._link)
                continue
            except OSError as error:
                raise PortClosedError from error
            if not part:
                raise PortClosedError
            self._buffer += part


def packed(message: object) -> bytes:
    """A message as it travels."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body
