"""The lanes of a run, and which of them a call goes to.

A lane is an address, a key and a model, with what is known about them: its limits, its health, how long its answers
are, what it cannot take. A call goes to the lane with the least in flight for its weight among those that accept it
now. A lane that refuses its key is shut; one that does not answer rests behind its breaker and is probed. Everything
here is a plain function of this state and a clock; `call.py` waits and sends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from engine.breaker import Breaker
from engine.config import ApiConfig, FormatConfig, LimitConfig, RetryConfig, RunConfig
from engine.errors import ApiError, AuthRejected, ProviderDown, RunError
from engine.lengths import Lengths
from engine.limits import Limits, LimitStatistics
from engine.money import Books
from engine.ports import Client
from engine.types import Request, Usage

Structured = Literal["untried", "works", "off"]
CONFIRMED = 2
"""A lane that has answered before is shut at the second refusal in a row: a gateway may stumble once."""
DOUBTS = 3
"""Different rows, in a row, whose refusal may or may not be their own fault."""
FIRST_PROMPT_RATIO = 1.5
"""Tokens counted over tokens estimated, before the first reply says; on the safe side of the money."""
FIRST_PATIENCE_S = 20.0
"""Two probes; a mistyped address shall not be waited for all night."""
SLEEP_S = 3600.0
"""A server that asks for a longer pause than this means another day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatistics:
    """One lane at one moment."""

    name: str
    state: Literal["open", "resting", "shut"]
    why: str
    """The server's words, unless it is open."""
    probe_s: float
    """Seconds until a resting lane is tried again."""
    limits: LimitStatistics
    calls: int
    max_tokens: int
    """What a first call asks for."""
    structured: Structured
    most_images: int | None


class Lane:
    """One lane. Its parts are read and told by `Lanes` and `call.py`."""

    def __init__(
        self, name: str, config: ApiConfig, client: Client, told: RunConfig, *, now: float, learnt: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.config = config
        self.client = client
        self.limits = Limits(_limits_of(config, told.limits), now=now, learnt=learnt.get("limits"))
        self.breaker = Breaker()
        self.lengths = Lengths(learnt.get("lengths"))
        self.most_images: int | None = learnt.get("most_images")
        """How many pictures it takes, once a refusal has shown it."""
        self.context_tokens: int | None = learnt.get("context_tokens")
        """Prompt and answer together, once a refusal or a cut answer has shown it."""
        self.structured: Structured = _structured(told.format, learnt.get("structured"))
        """Whether it takes `response_format`; the first rows find out."""
        self.shut: ApiError | None = None
        """The refusal that closed it for good."""
        self.known = bool(learnt.get("answered"))
        """Whether it answered in an earlier life."""
        self.asleep = False
        """Whether it was shut because it asked for a pause of hours."""
        self.calls = 0
        self.answers = 0
        self._refusals = 0
        self._doubts: set[int] = set()
        self._prompt_ratio = FIRST_PROMPT_RATIO
        self.model_json = orjson.dumps(config.model)
        self._plain = b',"model":%b' % self.model_json
        self._formed = self._plain
        if told.format.value is not None:
            self._formed += b',"response_format":%b' % orjson.dumps(told.format.value)

    @property
    def is_open(self) -> bool:
        return self.shut is None and not self.breaker.is_open

    def fields(self) -> tuple[bytes, bool]:
        """What a body gets from its lane, and whether a `response_format` is among it."""
        return (self._plain, False) if self.structured == "off" else (self._formed, self._formed is not self._plain)

    def first_tokens(self, retry: RetryConfig) -> int:
        """What a first call may answer with."""
        return retry.max_tokens or self.lengths.start(retry.max_tokens_cap)

    def worst_usd(self, request: Request, max_tokens: int) -> float:
        """What a call may cost at most; 0 where the price is unknown."""
        return self.config.price.cost_usd(math.ceil(request.est_tokens * self._prompt_ratio), max_tokens) or 0.0

    def answered(self, request: Request, usage: Usage | None) -> None:
        """It gave a completion."""
        self.breaker.answered()
        if not self.answers:
            self._prompt_ratio = 1.0
        self.answers += 1
        self._refusals = 0
        self._doubts.clear()
        if usage is not None and usage.prompt_tokens > request.est_tokens * self._prompt_ratio:
            self._prompt_ratio = usage.prompt_tokens / max(1, request.est_tokens)

    def refused(self, error: ApiError, *, row: int, doubtful: bool) -> None:
        """It refused whatever is sent; shut once that is beyond doubt."""
        self.breaker.answered()
        if doubtful:
            self._doubts.add(row)
            beyond_doubt = len(self._doubts) >= DOUBTS
        else:
            self._refusals += 1
            beyond_doubt = self._refusals >= (CONFIRMED if self.answers else 1)
        if beyond_doubt:
            self.shut = error

    def in_doubt(self) -> bool:
        """Whether enough calls are on their way to tell a lane that refuses everything from rows that it refuses."""
        return bool(self._doubts) and not self.answers and self.limits.in_flight >= DOUBTS - len(self._doubts)

    def takes_images(self, count: int) -> None:
        """A refusal has shown how many pictures it takes."""
        self.most_images = count if self.most_images is None else min(count, self.most_images)

    def learnt(self) -> dict[str, Any]:
        """For the next life, as JSON values."""
        return {
            "answered": self.known or self.answers > 0,
            "limits": self.limits.learnt(),
            "lengths": self.lengths.learnt(),
            "structured": self.structured,
            "most_images": self.most_images,
            "context_tokens": self.context_tokens,
        }

    def statistics(self, now: float, retry: RetryConfig) -> LaneStatistics:
        return LaneStatistics(
            name=self.name,
            state="shut" if self.shut else "open" if self.is_open else "resting",
            why=str(self.shut) if self.shut else self.breaker.words if self.breaker.is_open else "",
            probe_s=self.breaker.probe_s(now),
            limits=self.limits.statistics(now),
            calls=self.calls,
            max_tokens=self.first_tokens(retry),
            structured=self.structured,
            most_images=self.most_images,
        )


@dataclass(slots=True, kw_only=True)
class Admission:
    """A slot in a lane, with what was reserved for the call in it."""

    lane: Lane
    max_tokens: int
    reserved_tokens: int
    worst_usd: float
    sent_s: float
    """When it was given, which is when the call is sent."""


class Lanes:
    """All lanes of a run."""

    def __init__(
        self, told: RunConfig, clients: Sequence[Client], *, books: Books, now: float, learnt: Mapping[str, Any]
    ) -> None:
        self.lanes = [
            Lane(name, config, client, told, now=now, learnt=learnt.get(name, {}))
            for name, config, client in zip(_names(told.lanes), told.lanes, clients, strict=True)
        ]
        self.books = books
        self._most = told.limits.concurrency or math.inf
        self._retry = told.retry
        self._down_since: float | None = None
        self._down_s = 0.0
        self.short_of_money = False
        """Whether the last refusal was for the ceiling."""

    def hold_to(self, told: RunConfig, now: float) -> None:
        """Keep to other ceilings from now on: those of the same lanes, and those over all of them."""
        self._most = told.limits.concurrency or math.inf
        for lane, config in zip(self.lanes, told.lanes, strict=True):
            lane.limits.hold_to(_limits_of(config, told.limits), now)

    @property
    def in_flight(self) -> int:
        return sum(lane.limits.in_flight for lane in self.lanes)

    @property
    def window(self) -> int:
        """Calls that may be in flight at once."""
        return int(min(self._most, sum(lane.limits.window for lane in self.lanes if lane.shut is None)))

    def try_admit(self, now: float, request: Request, max_tokens: int | None) -> Admission | float:
        """A slot for a call, or the seconds until it is worth asking again; infinity until a slot is freed."""
        if len(self.lanes) == 1:
            return self._try_lane(self.lanes[0], now, request, max_tokens)
        wait_s = math.inf
        if self.in_flight < self._most:
            for lane in sorted(self.lanes, key=lambda lane: lane.limits.in_flight / lane.config.weight):
                admitted = self._try_lane(lane, now, request, max_tokens)
                if isinstance(admitted, Admission):
                    return admitted
                wait_s = min(wait_s, admitted)
        return wait_s

    def _try_lane(self, lane: Lane, now: float, request: Request, max_tokens: int | None) -> Admission | float:
        if not lane.is_open or lane.in_doubt():
            return math.inf
        most = max_tokens or lane.first_tokens(self._retry)
        worst_usd = lane.worst_usd(request, most)
        self.short_of_money = not self.books.reserve(worst_usd)
        if self.short_of_money:
            return math.inf
        tokens = request.est_tokens + most
        if (wait_s := lane.limits.try_admit(now, tokens)) > 0:
            self.books.free(worst_usd)
            return wait_s
        lane.calls += 1
        return Admission(lane=lane, max_tokens=most, reserved_tokens=tokens, worst_usd=worst_usd, sent_s=now)

    def give_back(self, admission: Admission, now: float) -> None:
        """Take back a slot in which nothing was sent."""
        admission.lane.limits.failed(now, reserved_tokens=admission.reserved_tokens)
        self.books.free(admission.worst_usd)

    def look(self, now: float) -> None:
        """Keep the time during which no lane is open; to be called when a lane may have changed."""
        if any(lane.is_open for lane in self.lanes):
            if self._down_since is not None:
                self._down_s += now - self._down_since
                self._down_since = None
        elif self._down_since is None:
            self._down_since = now

    def down_s(self, now: float) -> float:
        """For how long no lane has been open, all outages together."""
        return self._down_s + self.outage_s(now)

    def outage_s(self, now: float) -> float:
        """For how long no lane has been open; 0 if one is."""
        return 0.0 if self._down_since is None else now - self._down_since

    def end(self) -> RunError | None:
        """The error that the run must end with when every lane is shut."""
        shut = [(lane, lane.shut) for lane in self.lanes if lane.shut is not None]
        if len(shut) < len(self.lanes):
            return None
        words = "; ".join(f"{lane.name}: {why}" if len(shut) > 1 else str(why) for lane, why in shut)
        return ProviderDown(words) if any(lane.asleep for lane, _ in shut) else AuthRejected(words)

    def patience_s(self, max_outage_s: float) -> float:
        """For how long an outage is waited out: shortly where nothing has ever answered, and so may never do."""
        proven = any(lane.answers or lane.known for lane in self.lanes)
        return max_outage_s if proven else min(max_outage_s, FIRST_PATIENCE_S)

    def outage(self, now: float, max_outage_s: float) -> RunError:
        """The error that an outage ends with."""
        words = "; ".join(f"{lane.name}: {lane.shut or lane.breaker.words}" for lane in self.lanes)
        if self.outage_s(now) < max_outage_s:
            return AuthRejected(f"there has been no answer yet. Check the address, and that the server is up. {words}")
        return ProviderDown(f"no answer for longer than --max-outage allows. {words}")

    def most_images(self) -> int | None:
        """How many pictures the most generous lane takes; None if it may be any number."""
        known = [lane.most_images for lane in self.lanes if lane.shut is None]
        return None if not known or None in known else max(count for count in known if count is not None)

    def learnt(self) -> dict[str, Any]:
        """For the next life, by lane."""
        return {lane.name: lane.learnt() for lane in self.lanes}

    def statistics(self, now: float) -> tuple[LaneStatistics, ...]:
        return tuple(lane.statistics(now, self._retry) for lane in self.lanes)


def _names(configs: Sequence[ApiConfig]) -> list[str]:
    """A name for each lane; those of one model at one address, with keys of their own, are numbered."""
    names: list[str] = []
    for config in configs:
        number = sum(name.partition(" #")[0] == config.name for name in names) + 1
        names.append(config.name if number == 1 else f"{config.name} #{number}")
    return names


def _limits_of(config: ApiConfig, told: LimitConfig) -> LimitConfig:
    """The lane's own ceilings where it has any."""
    return LimitConfig(
        concurrency=told.concurrency,
        max_concurrency=told.max_concurrency,
        requests_per_min=config.requests_per_min or told.requests_per_min,
        tokens_per_min=config.tokens_per_min or told.tokens_per_min,
        max_open_bytes=told.max_open_bytes,
    )


def _structured(told: FormatConfig, learnt: object) -> Structured:
    if told.value is None:
        return "off"
    if not told.optional:
        return "works"
    return "off" if learnt == "off" else "untried"
