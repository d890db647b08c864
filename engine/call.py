"""Stage 3: requests to records. Admit, attempt, judge the reply, try again, give up.

One task a row in flight, kept for the next row when it has ended. A row that waits for its next attempt holds its
bytes but no slot: it gives the slot back before it sleeps and asks for one again afterwards. A stopped run sends
nothing more: rows that have no answer by then end without a record, and a resume meets them again.

What may be tried again, and with what:
- the provider or the network failed: the same body, later (`attempt.py` says whether that makes sense);
- the answer was cut off: more tokens, a shorter prompt, or another sampling (`cuts.py`);
- the request is too large: fewer frames, smaller frames, a shorter text (`ladder.py`);
- the answer is no valid answer: once, as text alone (`Reader.repair`).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from functools import partial

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from engine.attempt import Again, Asking, Attempts, CallCounters
from engine.clock import now_s
from engine.config import RunConfig
from engine.cuts import Cut, cut_of
from engine.errors import ApiError, LaneRefused, RequestTooLarge
from engine.gate import Gate, StoppedError
from engine.hands import Hands
from engine.ladder import smaller
from engine.lanes import Lanes
from engine.lengths import LEAST_TOKENS
from engine.link import Link
from engine.ports import EncodeAgain, Reader
from engine.probe import Prober
from engine.sharing import Sharing
from engine.stop import Stop
from engine.types import Answer, Failure, FailureKind, Fix, Record, Reduction, Reply, Request

RATE_JITTER = 0.25
"""Rows told to wait equally long wake spread over a quarter of that time."""
CALMER = b',"frequency_penalty":0.5'
"""Against a repetition loop; a server that does not know it ignores or refuses it, and the cut answer is kept."""
SHRINKS = 2
"""Paid answers after which a context that is still full is left so: the numbers are exact, one is enough as a rule."""
REPAIR_BYTES_PER_TOKEN = 3
"""JSON has more tokens for its length than prose."""


class _EndedError(Exception):
    """The row has ended another way: `record` says how."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


class CallStage:
    """Sends requests and judges replies.

    Args:
        config: of which the retry part counts here.
        lanes: where calls go.
        gate: where rows wait.
        reader: reads labels from the text of a reply.
        encode_again: makes the request of a row anew, smaller.
        sharing: which requests are sent at all.
        stop: the run's early end.
        rng: source of jitter.
    """

    def __init__(  # noqa: PLR0913 - the seams of the stage
        self,
        config: RunConfig,
        *,
        lanes: Lanes,
        gate: Gate,
        reader: Reader,
        encode_again: EncodeAgain,
        sharing: Sharing,
        stop: Stop,
        rng: random.Random,
    ) -> None:
        self._lanes = lanes
        self._gate = gate
        self._reader = reader
        self._encode_again = encode_again
        self._sharing = sharing
        self._retry = config.retry
        self._stop = stop
        self._rng = rng
        self.counters = CallCounters()
        self._attempts = Attempts(
            lanes, prober=Prober(lanes, gate=gate, stop=stop), gate=gate, stop=stop, counters=self.counters
        )

    async def run(self, source: Link[Request | Record], sink: Link[Record]) -> None:
        """Take requests until the source ends, hand on one record each. Records pass through untouched."""
        async with source.consuming(), sink.producing():
            with self._stop.bounded():
                async with anyio.create_task_group() as probes:
                    self._attempts.probes = probes
                    async with anyio.create_task_group() as group:
                        rows = Hands(group, partial(self._row, sink=sink))
                        group.start_soon(self._share, rows, sink)
                        async for item in source:
                            await self._take(rows, item, sink)
                            if self._sharing.full:
                                await self._sharing.room()
                        self._sharing.close()
                    probes.cancel_scope.cancel()

    async def _take(self, rows: Hands[Asking], item: Request | Record, sink: Link[Record]) -> None:
        if isinstance(item, Record):
            await sink.put(item)
        elif not self._stop.asked:
            met = self._sharing.meet(item)
            if isinstance(met, Record):
                await sink.put(met)
            elif met is not None:
                await self._start(rows, met)

    async def _share(self, rows: Hands[Asking], sink: Link[Record]) -> None:
        """Hand on the rows that waited for others, until none can wait any more."""
        while (item := await self._sharing.released()) is not None:
            await self._take(rows, item, sink)
        rows.dismiss()

    async def _start(self, rows: Hands[Asking], request: Request) -> None:
        """Wait until the row may be held and its first call may start, then put it into a task of its own."""
        await self._gate.open_row(request)
        try:
            admission = await self._gate.admit(request, None)
        except StoppedError:
            self._gate.close_row(request)
            self._sharing.left(request.key)
            return
        asking = Asking(
            request=request,
            admission=admission,
            order=self.counters.rows,
            started_s=admission.sent_s,
            idle_before_s=self._gate.idle_s(admission.sent_s),
        )
        self.counters.rows += 1
        rows.take(asking)

    async def _row(self, asking: Asking, sink: Link[Record]) -> None:
        key = asking.request.key
        try:
            record = await self._finish(asking)
        except StoppedError:
            self.counters.unfinished += 1
            self._sharing.left(key)
            return
        except _EndedError as ended:
            record = ended.record
        except anyio.get_cancelled_exc_class():
            self.counters.unfinished += 1
            self._sharing.left(key)
            raise
        finally:
            self._gate.close_row(asking.request)
        self._sharing.ended(key, record, asking.request)
        # tenacity leaves cycles around a row that it tried again: the body is not to wait there for the collector.
        del asking.request
        await sink.put(record)

    async def _finish(self, asking: Asking) -> Record:
        """Attempt until there is an answer that is whole, or no sense in going on."""
        kept: Record | None = None
        while True:
            try:
                reply = await self._answered(asking)
            except RequestTooLarge as error:
                if await self._made_smaller(asking, error, keep_prompt=kept is None):
                    continue
                return asking.brought_up_to_date(kept) or asking.record(_failure(error))
            except ApiError as error:
                # A cut answer that was paid for is worth more than the failure to get a longer one.
                return asking.brought_up_to_date(kept) or asking.record(_failure(error, poison=asking.poison))
            answer = self._reader.read(reply.text)
            cut = cut_of(reply, answer, max_tokens=asking.max_tokens_used)
            whole = cut is Cut.NONE and answer.error is None
            record = asking.record(
                reply, answer=answer, truncated=cut is not Cut.NONE, key=asking.request.key if whole else b""
            )
            if cut is not Cut.NONE and await self._tries_again(asking, cut, reply):
                self.counters.truncated += 1
                kept = record
                continue
            if reply.usage is not None:
                asking.lane.lengths.add(reply.usage.completion_tokens)
            return await self._repaired(asking, record, reply, answer)

    async def _answered(self, asking: Asking) -> Reply:
        """One answered call, tried again as long as trying makes sense."""
        try:
            return await self._attempt(asking)
        except ApiError as error:
            if asking.again is Again.NEVER:
                raise
            first: ApiError | None = error

        async def again() -> Reply:
            nonlocal first
            if first is not None:
                # The first attempt was made outside, so that a row without trouble never pays for the machinery.
                error, first = first, None
                raise error
            self.counters.retries += 1
            return await self._attempt(asking)

        retrying = AsyncRetrying(
            sleep=self._sleep,
            retry=retry_if_exception(lambda error: isinstance(error, ApiError) and asking.again is not Again.NEVER),
            wait=lambda state: self._wait_s(state, asking),
            stop=self._gives_up(asking),
            reraise=True,
        )
        return await retrying(again)

    async def _attempt(self, asking: Asking) -> Reply:
        """One call, in the slot that is held or in the next that is free."""
        if asking.admission is None:
            asking.admission = await self._gate.admit(asking.request, asking.max_tokens)
        lane = asking.lane = asking.admission.lane
        if lane.most_images is not None and asking.request.n_frames > lane.most_images > 0:
            try:
                await self._reduce(asking, Reduction(max_frames=lane.most_images))
                asking.admission.sent_s = now_s()
            except BaseException:
                self._attempts.unused(asking)
                raise
        return await self._attempts.make(asking)

    async def _tries_again(self, asking: Asking, cut: Cut, reply: Reply) -> bool:
        """Prepare the next call after a cut answer; False where none would help, or none is allowed."""
        retry, lane, now = self._retry, asking.lane, asking.max_tokens_used
        if not retry.on_truncation or asking.truncations >= retry.attempts:
            return False
        asking.truncations += 1
        if cut is Cut.CALM:
            calmed, asking.extra = bool(asking.extra), CALMER
            asking.max_tokens = now
            return not calmed
        if cut is Cut.SHRINK and reply.usage is not None:
            asking.shrunk += 1
            if asking.shrunk > SHRINKS:
                return False
            lane.context_tokens = reply.usage.prompt_tokens + reply.usage.completion_tokens
            words = "the answer was cut off because the context is full"
            full = RequestTooLarge(
                words, status=None, fix=Fix.CONTEXT, limit=lane.context_tokens, counted=reply.usage.prompt_tokens
            )
            asking.max_tokens = now
            return await self._made_smaller(asking, full, keep_prompt=False)
        if reply.finish_reason != "length":
            blind, asking.grown_blind = asking.grown_blind, True
            if blind:
                return False
        larger = max(now, min(int(now * retry.growth), retry.max_tokens_cap))
        if lane.context_tokens is not None and reply.usage is not None:
            larger = min(larger, lane.context_tokens - reply.usage.prompt_tokens)
        asking.max_tokens = larger
        return larger > now

    async def _made_smaller(self, asking: Asking, error: RequestTooLarge, *, keep_prompt: bool) -> bool:
        """Make what is asked fit, by one step; False where there is none."""
        lane, asked = asking.lane, asking.max_tokens_used
        if error.fix is Fix.CONTEXT and error.limit is not None:
            lane.context_tokens = error.limit
            if keep_prompt and error.counted is not None:
                room = error.limit - error.counted
                if LEAST_TOKENS <= room < asked:
                    # Only the allowance is too large: the frames stay.
                    asking.max_tokens = room
                    return True
        if error.fix is Fix.IMAGES and asking.request.n_frames > 1:
            lane.takes_images(error.limit or asking.request.n_frames // 2)
        step = smaller(asking.request, error, answer_tokens=asked)
        if step is None:
            return False
        self.counters.reduced += 1
        await self._reduce(asking, step)
        return True

    async def _reduce(self, asking: Asking, reduction: Reduction) -> None:
        """Make the row's request again within these bounds."""
        row = asking.request.made_of
        assert row is not None
        made = await self._encode_again(dataclasses.replace(row, reduction=row.reduction & reduction))
        if isinstance(made, Record):
            assert isinstance(made.outcome, Failure)
            raise _EndedError(asking.record(made.outcome))
        self._gate.exchange(asking.request, made)
        asking.request = made

    async def _repaired(self, asking: Asking, record: Record, reply: Reply, answer: Answer) -> Record:
        """The record with labels from a second, text-only call, if the answer has none and that call gives some."""
        head = None if answer.error is None or record.truncated else self._reader.repair(reply.text)
        if head is None:
            return record
        est_tokens = len(head) // REPAIR_BYTES_PER_TOKEN
        request = Request(
            row=record.row, id=record.id, head=head, tail=asking.request.tail, est_tokens=est_tokens, n_frames=0
        )
        self._gate.exchange(asking.request, request)
        asking.request, asking.max_tokens, asking.extra = request, None, b""
        self.counters.repairs += 1
        try:
            mended = await self._answered(asking)
        except ApiError:
            return asking.brought_up_to_date(record) or record
        better = self._reader.read(mended.text)
        if better.error is not None or cut_of(mended, better, max_tokens=asking.max_tokens_used) is not Cut.NONE:
            return asking.brought_up_to_date(record) or record
        self.counters.repaired += 1
        now = asking.brought_up_to_date(record) or record
        degraded = (*record.degraded, f"repaired:{answer.error}")
        return dataclasses.replace(now, outcome=mended, answer=better, degraded=degraded)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await self._stop.sleep(seconds)
        if self._stop.asked:
            raise StoppedError

    def _wait_s(self, state: RetryCallState, asking: Asking) -> float:
        """Full jitter, never less than the server asked for.

        Formula: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), full jitter.
        """
        if asking.again is Again.NOW:
            return 0.0
        error = state.outcome.exception() if state.outcome else None
        longest = min(self._retry.longest_wait_s, self._retry.first_wait_s * 2 ** min(30, state.attempt_number - 1))
        backoff_s = self._rng.uniform(0, longest)
        if isinstance(error, ApiError) and error.retry_after_s is not None:
            return max(backoff_s, error.retry_after_s * (1 + self._rng.uniform(0, RATE_JITTER)))
        return backoff_s

    def _gives_up(self, asking: Asking) -> Callable[[RetryCallState], bool]:
        def gives_up(_: RetryCallState) -> bool:
            now = now_s()
            spent_s = now - asking.started_s - (self._gate.idle_s(now) - asking.idle_before_s)
            return spent_s >= self._retry.row_deadline_s or asking.counted >= self._retry.attempts

        return gives_up


def _failure(error: ApiError, *, poison: bool = False) -> Failure:
    # A refusal that nothing confirmed to be meant for the lane was meant for the row.
    kind = FailureKind.REFUSED if isinstance(error, LaneRefused) else error.kind
    return Failure(kind=FailureKind.POISON_REQUEST if poison else kind, message=str(error), status=error.status)
