"""Identical requests are sent once: the first one leads, the others wait for its answer and share it.

Requests are the same if their keys are. What waits holds neither a slot nor its body. It is told the answer only once
the sink has made the leader's line last, so that no line ever shares with a row that has none. How a leader ends:

- with an answer, cut off or not: every row that waits has it too;
- with a failure that any body like it meets (refused, blocked, too large): so has every row that waits;
- with a failure of its own or of the call: nobody else's row fails for that. The rows that wait are met anew, the first
  of them leads; after `LEADERS` such failures each is sent by itself, or a thousand would fail one after the other;
- not at all, since the run stops: the rows that wait are not done either.

Answers of earlier, from this run or from a cache, come from `Answers`: those that are whole, to the very request.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from engine.ports import Answers, Reader
from engine.types import Answer, Failure, FailureKind, Known, MediaNote, Record, Reply, Request, Shares, Usage

OF_THE_BODY = frozenset({FailureKind.REFUSED, FailureKind.BLOCKED, FailureKind.TOO_LARGE})
"""Failures that an identical body cannot escape."""
LEADERS = 3
"""One failure may be bad luck, and so may two."""
MOST_WAITING = 10_000
"""Rows that wait for others, about 3 KB each at sixteen frames; more must not be read ahead."""


@dataclass(slots=True, kw_only=True)
class _Flight:
    """A request that is being asked, or whose answer is not safe yet."""

    media: tuple[MediaNote, ...]
    degraded: tuple[str, ...]
    """Of the leader's request as it was first made; likewise above."""
    failures: int
    """Leaders that this request has cost before."""
    record: Record | None = None
    """How its leader ended."""
    followers: list[Request] = field(default_factory=list)


class Sharing:
    """Which requests are sent, and who shares whose answer. Single-threaded; only `room` and `released` wait.

    Args:
        answers: where answers of earlier are looked for, in this order.
        reader: reads their labels.
        on: whether anything is shared at all.
    """

    def __init__(self, answers: Sequence[Answers], *, reader: Reader, on: bool = True) -> None:
        self._answers = answers
        self._reader = reader
        self._on = on
        self._flights: dict[bytes, _Flight] = {}
        self._answered: dict[int, bytes] = {}
        """Rows that have led to an answer that is not safe yet."""
        self._failures: dict[bytes, int] = {}
        """Of requests that are about to be met anew."""
        self._ready: deque[Request | Record] = deque()
        self._waiting = 0
        self._closed = False
        self._changed = anyio.Event()

    @property
    def waiting(self) -> int:
        """Rows that wait for another row's answer."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether no further row should be met before some are released."""
        return self._waiting + len(self._ready) >= MOST_WAITING

    def meet(self, request: Request) -> Request | Record | None:
        """What comes of a request: itself if it is to be sent, its end if that is known, None if it has to wait."""
        key = request.key
        if not key or not self._on:
            return request
        flight = self._flights.get(key)
        if flight is not None:
            flight.followers.append(dataclasses.replace(request, head=b"", tail=b"", made_of=None))
            self._waiting += 1
            return None
        for answers in self._answers:
            known = answers.find(key)
            if known is not None and (record := self._given(known, request)) is not None:
                return record
        failures = self._failures.pop(key, 0) if self._failures else 0
        self._flights[key] = _Flight(media=request.media, degraded=request.degraded, failures=failures)
        return request

    def ended(self, key: bytes, record: Record, request: Request) -> None:
        """A row has its end; to be told before the sink learns of it.

        Args:
            key: of the request that `meet` gave back.
            record: the end.
            request: what was asked in the end; it may have become smaller.
        """
        flight = self._flights.get(key)
        if flight is None:
            return
        if not isinstance(record.outcome, Failure):
            flight.record = record
            self._answered[record.row] = key
            return
        del self._flights[key]
        if record.outcome.kind in OF_THE_BODY:
            self._release([_failed_alike(follower, record.row, record.outcome) for follower in flight.followers])
        elif flight.followers:
            again = request.key if flight.failures + 1 < LEADERS else b""
            if again:
                self._failures[again] = flight.failures + 1
            self._release([_with_body_of(request, flight, follower, key=again) for follower in flight.followers])

    def left(self, key: bytes) -> None:
        """A row that led ends without an end, for the run stops; those that wait for it are left as well."""
        flight = self._flights.pop(key, None)
        if flight is not None:
            self._waiting -= len(flight.followers)
            self._wake()

    def acknowledged(self, rows: Sequence[int]) -> None:
        """The lines of these rows are safe, and may be shared."""
        answered = self._answered
        if not answered:
            return
        for row in rows:
            key = answered.pop(row, None)
            if key is None:
                continue
            flight = self._flights.pop(key)
            if flight.followers:
                self._release([_alike(flight, follower) for follower in flight.followers])

    def close(self) -> None:
        """No further request will be met but those that are released."""
        self._closed = True
        self._wake()

    async def room(self) -> None:
        """Return once another row may wait; not for the one that takes what is released."""
        while self.full:
            await self._changed.wait()

    async def released(self) -> Request | Record | None:
        """The next row that need not wait any longer: its end, or a request to be met anew. None when nothing waits."""
        while not self._ready:
            if self._closed and not self._waiting:
                return None
            await self._changed.wait()
        released = self._ready.popleft()
        if not self._ready:
            self._wake()
        return released

    def _release(self, items: Sequence[Request | Record]) -> None:
        self._waiting -= len(items)
        self._ready.extend(items)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _given(self, known: Known, request: Request) -> Record | None:
        """The end that an answer of earlier makes, if it still is one."""
        answer = self._reader.read(known.reply.text)
        if answer.cut or answer.error is not None or known.row == request.row:
            return None
        return _shared(
            request,
            known.reply,
            answer,
            max_tokens_used=known.max_tokens_used,
            shares=Shares(row=known.row, spared_usd=known.cost_usd),
        )


def _shared(request: Request, reply: Reply, answer: Answer | None, *, max_tokens_used: int, shares: Shares) -> Record:
    return Record(
        row=request.row,
        id=request.id,
        outcome=reply,
        answer=answer,
        max_tokens_used=max_tokens_used,
        usage=Usage(),
        cost_usd=0.0,
        media=request.media,
        degraded=request.degraded,
        shares=shares,
    )


def _alike(flight: _Flight, follower: Request) -> Record:
    """What the leader's answer makes of a row that waited for it."""
    record = flight.record
    assert record is not None
    assert isinstance(record.outcome, Reply)
    media, degraded = _sent(flight, follower, record.media, record.degraded)
    shared = _shared(
        dataclasses.replace(follower, media=media, degraded=degraded),
        record.outcome,
        record.answer,
        max_tokens_used=record.max_tokens_used,
        shares=Shares(row=record.row, spared_usd=record.cost_usd),
    )
    return dataclasses.replace(shared, truncated=True) if record.truncated else shared


def _sent(
    flight: _Flight, follower: Request, media: tuple[MediaNote, ...], degraded: tuple[str, ...]
) -> tuple[tuple[MediaNote, ...], tuple[str, ...]]:
    """Frames and losses of a follower, if the leader ended with these: its own, and what the provider made it lose."""
    gained = tuple(code for code in degraded if code not in flight.degraded)
    return follower.media if media == flight.media else media, (*follower.degraded, *gained)


def _failed_alike(follower: Request, row: int, failure: Failure) -> Record:
    words = f"as row {row}, whose request is the same: {failure.message}"
    return Record(
        row=follower.row,
        id=follower.id,
        outcome=dataclasses.replace(failure, message=words),
        media=follower.media,
        degraded=follower.degraded,
    )


def _with_body_of(request: Request, flight: _Flight, follower: Request, *, key: bytes) -> Request:
    """The follower as a request of its own, with the body that the leader was last asked with."""
    media, degraded = _sent(flight, follower, request.media, request.degraded)
    made_of = request.made_of and dataclasses.replace(request.made_of, row=follower.row, id=follower.id)
    return dataclasses.replace(
        request, row=follower.row, id=follower.id, media=media, degraded=degraded, made_of=made_of, key=key
    )
