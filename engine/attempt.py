"""One call of one row, and what its end means: for the row, its lane, the books, and the run.

`make` sends the row's request in the slot it holds and settles everything that was reserved, whatever happens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

import anyio

from engine.clock import now_s
from engine.errors import (
    ApiError,
    BadReply,
    CertificateError,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
    ServerError,
)
from engine.gate import Gate, StoppedError
from engine.lanes import DOUBTS, SLEEP_S, Admission, Lane, Lanes
from engine.probe import Prober
from engine.stop import Stop
from engine.types import Answer, Failure, Record, Reply, Request, Usage

INTERNAL_ERROR, UNAVAILABLE = 500, 503
"""The first may be the row's doing, the second never is."""
OWN_TROUBLE = frozenset({408, 409, 424, 425, 499, INTERNAL_ERROR})
"""Errors that do not say that there are too many calls at once."""


class Again(Enum):
    """Whether the call that failed is worth another try."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


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
    """Calls repeated because an answer was cut off."""
    reduced: int = 0
    """Requests made again, smaller."""
    repairs: int = 0
    """Text-only calls for an answer that was none; likewise below, those that helped."""
    repaired: int = 0
    unfinished: int = 0
    """Rows that had been sent and were left without an answer by a stop."""
    latency_s: float = 0.0
    """Sum over answered calls."""
    answered: int = 0


@dataclass(slots=True, kw_only=True)
class Asking:
    """A row on its way to its end."""

    request: Request
    admission: Admission | None
    """The slot it holds."""
    order: int
    started_s: float
    idle_before_s: float
    """Seconds without an open lane before it was started."""
    lane: Lane = dataclasses.field(init=False)
    """Where its last call went."""
    max_tokens: int | None = None
    """What the next call shall be allowed; None leaves it to the lane."""
    max_tokens_used: int = 0
    extra: bytes = b""
    """Further members of the body."""
    again: Again = Again.NEVER
    attempts: int = 0
    counted: int = 0
    """Attempts that count against the allowance."""
    truncations: int = 0
    shrunk: int = 0
    """Answers cut off by a full context."""
    grown_blind: bool = False
    """Whether it got more tokens once although the server did not say that it ran out."""
    doubts: int = 0
    """Refusals that may have been meant for the lane."""
    alike: int = 0
    """Server errors in a row with the same words."""
    words: str = ""
    answers_before: int = 0
    """What its lane had answered when those began."""
    poison: bool = False
    usage: Usage | None = None
    cost_usd: float | None = 0.0
    """Of all attempts; None once one is unknown."""
    unknown_calls: int = 0

    def __post_init__(self) -> None:
        if self.admission is not None:
            self.lane = self.admission.lane

    def record(
        self, outcome: Reply | Failure, *, answer: Answer | None = None, truncated: bool = False, key: bytes = b""
    ) -> Record:
        """The row's end as it stands now."""
        return Record(
            row=self.request.row,
            id=self.request.id,
            outcome=outcome,
            answer=answer,
            truncated=truncated,
            key=key,
            order=self.order,
            attempts=self.attempts,
            max_tokens_used=self.max_tokens_used,
            usage=self.usage,
            cost_usd=self.cost_usd,
            unknown_calls=self.unknown_calls,
            media=self.request.media,
            degraded=self.request.degraded,
        )

    def brought_up_to_date(self, record: Record | None) -> Record | None:
        """An earlier end, with what was spent since."""
        if record is None:
            return None
        return dataclasses.replace(
            record,
            attempts=self.attempts,
            usage=self.usage,
            cost_usd=self.cost_usd,
            unknown_calls=self.unknown_calls,
        )


class Attempts:
    """Makes calls and judges how they end."""

    def __init__(self, lanes: Lanes, *, prober: Prober, gate: Gate, stop: Stop, counters: CallCounters) -> None:
        self._lanes = lanes
        self._prober = prober
        self._gate = gate
        self._stop = stop
        self._counters = counters
        self.probes: anyio.abc.TaskGroup | None = None
        """Where the probes of resting lanes run; the stage opens it and ends them with itself."""

    async def make(self, asking: Asking) -> Reply:
        """One call in the slot that is held; gives it back whatever happens.

        Raises:
            ApiError: it came to nothing; `asking.again` says whether another try makes sense.
            StoppedError: and no other call of the run could do better.
        """
        admission, asking.admission = asking.admission, None
        assert admission is not None
        lane = admission.lane
        fields, formed = lane.fields()
        asking.attempts += 1
        asking.max_tokens_used = admission.max_tokens
        self._counters.calls += 1
        try:
            reply = await lane.client.attempt(*asking.request.pieces(admission.max_tokens, fields + asking.extra))
        except ApiError as error:
            # Whatever keeps the error, and be it a cycle, does not keep the body that was sent.
            error.__traceback__ = None
            now = now_s()
            self._settle_error(asking, admission, error)
            try:
                self._judge(asking, admission, error, formed=formed, now=now, latency_s=now - admission.sent_s)
            finally:
                self._ended(now)
            raise
        except BaseException:
            # Cancelled on its way: the provider goes on, and charges.
            now = now_s()
            self._unknown(asking, admission)
            lane.limits.failed(now, reserved_tokens=admission.reserved_tokens)
            self._ended(now)
            raise
        now = now_s()
        self._settle_reply(asking, admission, reply, formed=formed, now=now)
        self._ended(now)
        return reply

    def _ended(self, now: float) -> None:
        self._lanes.look(now)
        self._gate.wake()

    def unused(self, asking: Asking) -> None:
        """Give back a slot in which nothing was sent."""
        admission, asking.admission = asking.admission, None
        assert admission is not None
        self._lanes.give_back(admission, now_s())
        self._gate.wake()

    def _settle_reply(self, asking: Asking, admission: Admission, reply: Reply, *, formed: bool, now: float) -> None:
        lane, counters, usage = admission.lane, self._counters, reply.usage
        counters.answered += 1
        counters.latency_s += reply.latency_s
        if usage is None:
            self._unknown(asking, admission)
        else:
            self._charge(asking, admission, usage)
        if formed and lane.structured == "untried":
            lane.structured = "works"
        lane.answered(asking.request, usage)
        lane.limits.answered(
            now,
            reserved_tokens=admission.reserved_tokens,
            used_tokens=admission.reserved_tokens if usage is None else usage.prompt_tokens + usage.completion_tokens,
            latency_s=reply.latency_s,
            output_tokens=None if usage is None else usage.completion_tokens,
        )
        if reply.hint is not None:
            lane.limits.hint(now, requests_per_s=reply.hint.requests_per_s, tokens_per_s=reply.hint.tokens_per_s)

    def _settle_error(self, asking: Asking, admission: Admission, error: ApiError) -> None:
        if error.usage is not None:
            self._charge(asking, admission, error.usage)
        elif error.paid:
            self._unknown(asking, admission)
        else:
            self._lanes.books.free(admission.worst_usd)

    def _charge(self, asking: Asking, admission: Admission, usage: Usage) -> None:
        cost_usd = admission.lane.config.price.cost_usd(usage.prompt_tokens, usage.completion_tokens)
        self._lanes.books.charged(admission.worst_usd, usage, cost_usd)
        asking.usage = usage if asking.usage is None else asking.usage + usage
        asking.cost_usd = None if cost_usd is None or asking.cost_usd is None else asking.cost_usd + cost_usd

    def _unknown(self, asking: Asking, admission: Admission) -> None:
        self._lanes.books.charged_unknown(admission.worst_usd)
        asking.unknown_calls += 1
        asking.cost_usd = None

    def _judge(
        self, asking: Asking, admission: Admission, error: ApiError, *, formed: bool, now: float, latency_s: float
    ) -> None:
        """Tell limits, health and counters what an error means, and the row whether to try again."""
        lane, reserved = admission.lane, admission.reserved_tokens
        asking.again = Again.LATER
        match error:
            case RateLimited():
                self._counters.rate_limited += 1
                lane.limits.rate_limited(now, reserved_tokens=reserved, retry_after_s=error.retry_after_s)
                lane.breaker.answered()
                self._perhaps_asleep(lane, error)
            case ServerError():
                self._counters.server_errors += 1
                if error.status in OWN_TROUBLE:
                    lane.limits.failed(now, reserved_tokens=reserved)
                else:
                    # Only a 503 speaks of everybody's calls; the wait that another error asks for is this row's.
                    pause_s = error.retry_after_s if error.status == UNAVAILABLE else None
                    lane.limits.overloaded(now, reserved_tokens=reserved, latency_s=latency_s, retry_after_s=pause_s)
                self._count_failure(asking, admission, error, now)
                self._look_for_poison(asking, lane, error)
            case LaneRefused() | CertificateError():
                lane.limits.failed(now, reserved_tokens=reserved)
                self._lane_refused(asking, lane, error)
            case NetworkError():
                self._counters.network_errors += 1
                lane.limits.failed(now, reserved_tokens=reserved)
                self._count_failure(asking, admission, error, now)
            case RequestRefused():
                lane.limits.failed(now, reserved_tokens=reserved)
                lane.breaker.answered()
                asking.again = Again.NEVER
                if type(error) is RequestRefused and formed and lane.structured != "works":
                    # It may be the form of the answer that the lane does not know: the same row will tell.
                    lane.structured = "off"
                    asking.again = Again.NOW
            case BadReply():
                lane.limits.failed(now, reserved_tokens=reserved)
                lane.breaker.answered()
                asking.counted += 1

    def _count_failure(self, asking: Asking, admission: Admission, error: ApiError, now: float) -> None:
        """A row is charged with a failure only while its lane gets calls through."""
        breaker = admission.lane.breaker
        unreached = isinstance(error, NetworkError) and not error.paid
        was_open = breaker.is_open
        if breaker.failed(now, row=asking.request.row, unreached=unreached, words=str(error)):
            assert self.probes is not None
            self.probes.start_soon(self._prober.until_back, admission.lane)
        if not (unreached or was_open):
            asking.counted += 1

    def _look_for_poison(self, asking: Asking, lane: Lane, error: ApiError) -> None:
        """The same internal error time after time, while the lane answers others, is the row's own."""
        words = f"{error.status}{error}"
        if error.status != INTERNAL_ERROR or words != asking.words:
            asking.alike, asking.words, asking.answers_before = 0, words, lane.answers
        asking.alike += 1
        answers = lane.answers > asking.answers_before
        if error.status == INTERNAL_ERROR and answers and lane.breaker.blames_row(asking.alike):
            asking.poison, asking.again = True, Again.NEVER

    def _lane_refused(self, asking: Asking, lane: Lane, error: ApiError) -> None:
        doubtful = isinstance(error, LaneRefused) and error.doubtful
        lane.refused(error, row=asking.request.row, doubtful=doubtful)
        self._end_without_lanes(error)
        if lane.shut is not None:
            asking.again = Again.NOW
        elif doubtful:
            asking.doubts += 1
            if asking.doubts >= DOUBTS:
                asking.again = Again.NEVER

    def _perhaps_asleep(self, lane: Lane, error: RateLimited) -> None:
        if (error.retry_after_s or 0.0) >= SLEEP_S:
            lane.shut, lane.asleep = error, True
            self._end_without_lanes(error)

    def _end_without_lanes(self, cause: ApiError) -> None:
        """Where every lane is shut the run ends, and this row with it, unburnt."""
        if (end := self._lanes.end()) is not None:
            self._stop.ask(str(end), error=end)
            raise StoppedError from cause
