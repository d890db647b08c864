"""Stage 3: requests to records. Admit, attempt, judge the reply, try again, grow max_tokens, give up.

One task a row in flight. A row that waits for its next attempt holds its bytes but no slot: it gives the slot back
before it sleeps and asks for one again afterwards. A stopped run sends nothing more: rows that have no answer by then
end without a record, which means that a resume will meet them again.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from engine.config import PriceConfig, RunConfig
from engine.errors import (
    ApiError,
    AuthRejected,
    CertificateError,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
    ServerError,
)
from engine.limits import Limits
from engine.link import Link
from engine.ports import Client, Reader
from engine.stop import Stop
from engine.types import Failure, Record, Reply, Request, Usage

RATE_JITTER = 0.25
"""Rows told to wait equally long wake spread over a quarter of that time."""
USED_UP_SHARE = 0.98
"""`length` with fewer tokens than this share of those asked for means that the context is full, not the allowance."""


class _StoppedError(Exception):
    """The run was asked to stop while this row waited; it ends without a record."""


@dataclass(slots=True)
class _Tally:
    """What one row has cost so far."""

    started_s: float
    order: int
    attempts: int = 0
    counted: int = 0
    """Attempts that count against the allowance: all but those refused for their rate."""
    usage: Usage | None = None
    unknown_calls: int = 0


@dataclass(slots=True)
class CallCounters:
    """What stage 3 has done, summed over rows; read by `stats.py`."""

    rows: int = 0
    """Rows sent at least once."""
    calls: int = 0
    retries: int = 0
    rate_limited: int = 0
    server_errors: int = 0
    network_errors: int = 0
    truncated: int = 0
    unfinished: int = 0
    """Rows that had been sent and were left without an answer by a stop."""
    latency_s: float = 0.0
    """Sum over answered calls."""
    answered: int = 0


class CallStage:
    """Sends requests and judges replies.

    Args:
        config: of which the retry and price parts count here.
        client: makes one attempt.
        reader: reads labels from the text of a reply.
        limits: decides when an attempt may start.
        stop: the run's early end.
        rng: source of jitter.
    """

    def __init__(
        self, config: RunConfig, *, client: Client, reader: Reader, limits: Limits, stop: Stop, rng: random.Random
    ) -> None:
        self._client = client
        self._reader = reader
        self._limits = limits
        self._retry = config.retry
        self._price = config.price
        self._stop = stop
        self._rng = rng
        self._turn = anyio.Lock(fast_acquire=True)
        self._freed = anyio.Event()
        self.counters = CallCounters()

    async def run(self, source: Link[Request | Record], sink: Link[Record]) -> None:
        """Take requests until the source ends, hand on one record each. Records pass through untouched."""
        async with source.consuming(), sink.producing():
            with self._stop.bounded():
                async with anyio.create_task_group() as rows:
                    async for item in source:
                        if isinstance(item, Record):
                            await sink.put(item)
                        elif not self._stop.asked:
                            await self._start(rows, item, sink)

    async def _start(self, rows: anyio.abc.TaskGroup, request: Request, sink: Link[Record]) -> None:
        """Wait until the row may be held and its first call may start, then give it a task of its own."""
        while not self._limits.may_open(request.n_bytes):
            await self._until_freed(math.inf)
        self._limits.open(request.n_bytes)
        try:
            await self._admit(request, self._retry.max_tokens)
        except _StoppedError:
            self._close(request)
            return
        rows.start_soon(self._row, request, sink)

    async def _row(self, request: Request, sink: Link[Record]) -> None:
        tally = _Tally(started_s=anyio.current_time(), order=self.counters.rows)
        self.counters.rows += 1
        try:
            record = await self._finish(request, tally)
        except _StoppedError:
            self.counters.unfinished += 1
            return
        except anyio.get_cancelled_exc_class():
            self.counters.unfinished += 1
            raise
        finally:
            self._close(request)
        await sink.put(record)

    async def _finish(self, request: Request, tally: _Tally) -> Record:
        """Attempt until there is an answer that is whole, or no sense in going on. Holds a slot on entry."""
        max_tokens = self._retry.max_tokens
        cut: Record | None = None
        while True:
            try:
                reply = await self._answered(request, max_tokens, tally)
            except ApiError as error:
                failure = Failure(kind=error.kind, message=str(error), status=error.status)
                # A cut answer that was paid for is worth more than the failure to get a longer one.
                return cut or self._record(request, failure, tally, max_tokens=max_tokens)
            answer = self._reader.read(reply.text)
            truncated = reply.finish_reason == "length" or answer.cut
            record = self._record(request, reply, tally, max_tokens=max_tokens)
            record = dataclasses.replace(record, answer=answer, truncated=truncated)
            larger = self._grown(reply, max_tokens)
            if not truncated or larger == max_tokens:
                return record
            self.counters.truncated += 1
            cut, max_tokens = record, larger
            await self._admit(request, max_tokens)

    def _grown(self, reply: Reply, max_tokens: int) -> int:
        """The allowance after a cut answer; unchanged where growing is off, capped, or cannot help."""
        retry = self._retry
        if not retry.on_truncation or not _allowance_used_up(reply, max_tokens):
            return max_tokens
        return max(max_tokens, min(int(max_tokens * retry.growth), retry.max_tokens_cap))

    async def _answered(self, request: Request, max_tokens: int, tally: _Tally) -> Reply:
        """One answered call, tried again as long as trying makes sense."""
        try:
            return await self._attempt(request, max_tokens, tally)
        except ApiError as error:
            if not self._worth_retrying(error):
                raise
            first: ApiError | None = error

        async def again() -> Reply:
            nonlocal first
            if first is not None:
                # The first attempt was made outside, so that a row without trouble never pays for the machinery.
                error, first = first, None
                raise error
            await self._admit(request, max_tokens)
            self.counters.retries += 1
            return await self._attempt(request, max_tokens, tally)

        retrying = AsyncRetrying(
            sleep=self._sleep,
            retry=retry_if_exception(self._worth_retrying),
            wait=self._wait_s,
            stop=self._gives_up(tally),
            reraise=True,
        )
        return await retrying(again)

    async def _attempt(self, request: Request, max_tokens: int, tally: _Tally) -> Reply:
        """One call in the slot that is held; gives it back whatever happens."""
        limits, counters = self._limits, self.counters
        reserved = used = request.est_tokens + max_tokens
        tally.attempts += 1
        tally.counted += 1
        counters.calls += 1
        try:
            reply = await self._client.attempt(request.body(max_tokens))
            counters.answered += 1
            counters.latency_s += reply.latency_s
            if reply.usage is None:
                tally.unknown_calls += 1
            else:
                used = reply.usage.prompt_tokens + reply.usage.completion_tokens
                tally.usage = reply.usage if tally.usage is None else tally.usage + reply.usage
        except ApiError as error:
            tally.unknown_calls += error.paid
            self._note(error, tally)
            raise
        else:
            return reply
        finally:
            limits.release(anyio.current_time(), reserved_tokens=reserved, used_tokens=used)
            self._free()

    def _note(self, error: ApiError, tally: _Tally) -> None:
        """Tell limits, counters and, where no row could pass, the run what an error means."""
        now = anyio.current_time()
        match error:
            case LaneRefused() | CertificateError():
                self._stop.ask(str(error), error=AuthRejected(str(error)))
                raise _StoppedError from error
            case RateLimited():
                self.counters.rate_limited += 1
                tally.counted -= 1
                self._limits.pause(now, error.retry_after_s or 0.0)
                self._limits.overloaded(now)
            case ServerError():
                self.counters.server_errors += 1
                self._limits.overloaded(now)
            case NetworkError():
                self.counters.network_errors += 1

    async def _admit(self, request: Request, max_tokens: int) -> None:
        """Wait for a slot and for the rate. First come, first served, rows that try again included."""
        async with self._turn:
            while not self._stop.asked:
                wait_s = self._limits.try_admit(anyio.current_time(), request.est_tokens + max_tokens)
                if wait_s == 0:
                    return
                await self._until_freed(wait_s)
        raise _StoppedError

    async def _until_freed(self, seconds: float) -> None:
        """Wait until a slot or a row's bytes are freed or the run is stopped, at most so long."""
        freed = self._freed
        with anyio.move_on_after(seconds):
            await freed.wait()

    def wake(self) -> None:
        """Let a waiting admission look again; called when the run is asked to stop."""
        self._free()

    def _free(self) -> None:
        self._freed.set()
        self._freed = anyio.Event()

    def _close(self, request: Request) -> None:
        self._limits.close(request.n_bytes)
        self._free()

    async def _sleep(self, seconds: float) -> None:
        await self._stop.sleep(seconds)
        if self._stop.asked:
            raise _StoppedError

    def _wait_s(self, state: RetryCallState) -> float:
        """Full jitter, never less than the server asked for.

        Formula: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), full jitter.
        """
        error = state.outcome.exception() if state.outcome else None
        longest = min(self._retry.longest_wait_s, self._retry.first_wait_s * 2 ** (state.attempt_number - 1))
        backoff_s = self._rng.uniform(0, longest)
        if isinstance(error, ApiError) and error.retry_after_s is not None:
            return max(backoff_s, error.retry_after_s * (1 + self._rng.uniform(0, RATE_JITTER)))
        return backoff_s

    def _gives_up(self, tally: _Tally) -> Callable[[RetryCallState], bool]:
        def gives_up(_: RetryCallState) -> bool:
            late = anyio.current_time() - tally.started_s >= self._retry.row_deadline_s
            return late or tally.counted >= self._retry.attempts

        return gives_up

    def _worth_retrying(self, error: BaseException) -> bool:
        return isinstance(error, ApiError) and not isinstance(error, RequestRefused | LaneRefused)

    def _record(self, request: Request, outcome: Reply | Failure, tally: _Tally, *, max_tokens: int) -> Record:
        return Record(
            row=request.row,
            id=request.id,
            outcome=outcome,
            order=tally.order,
            attempts=tally.attempts,
            max_tokens_used=max_tokens,
            usage=tally.usage,
            cost_usd=None if tally.unknown_calls else cost_usd(self._price, tally.usage),
            unknown_calls=tally.unknown_calls,
            media=request.media,
            degraded=request.degraded,
        )


def cost_usd(price: PriceConfig, usage: Usage | None) -> float | None:
    """Dollars for these tokens, or None where the price is unknown. No tokens cost nothing."""
    if price.input_usd_per_m is None or price.output_usd_per_m is None:
        return None
    if usage is None:
        return 0.0
    dollars = usage.prompt_tokens * price.input_usd_per_m + usage.completion_tokens * price.output_usd_per_m
    return dollars / 1e6


def _allowance_used_up(reply: Reply, max_tokens: int) -> bool:
    """Whether more tokens could help; without usage it is assumed."""
    return reply.usage is None or reply.usage.completion_tokens >= USED_UP_SHARE * max_tokens
