"""What a run is doing, as one frozen object: panel, plain lines, `events.jsonl` and `report.json` all show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio

from engine.lanes import LaneStatistics
from engine.link import LinkStatistics
from engine.ports import Findings, SinkStatistics
from engine.types import Usage

RATE_WINDOW_S = 30.0
"""Rows/s and the time left are judged over the last half minute."""
NOTICEABLE_SHARE = 0.2
"""A link blocked for less than this share of the last moments points at nobody."""

STAGES = ("source", "encode", "call", "write")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSnapshot:
    """The worker pool, as far as a user wants to know."""

    workers: int
    crashes: int
    timeouts: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSnapshot:
    """The calls of this life of the run."""

    calls: int
    retries: int
    rate_limited: int
    server_errors: int
    network_errors: int
    grown: int
    """Calls repeated after a cut answer."""
    reduced: int
    """Requests made again, smaller."""
    repairs: int
    """Text-only calls for an answer that was none."""
    repaired: int
    """Those that helped."""
    unfinished: int
    mean_latency_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """The fields of a `Snapshot` that those know who read, encode and call, under its names."""

    rows_total: int
    rows_known: bool
    in_flight: int
    window: int
    open_rows: int
    open_bytes: int
    lanes: tuple[LaneStatistics, ...]
    outage_s: float
    encode: EncodeSnapshot
    call: CallSnapshot
    links: Mapping[str, LinkStatistics]
    held: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment. Counts are of this life of the run unless said otherwise."""

    elapsed_s: float
    rows_total: int
    """Rows the run covers."""
    rows_known: bool
    """Whether that is counted; until the input has been read to its end it is judged by the bytes read."""
    done_before: int
    """Rows that earlier lives had finished."""
    ended: int
    failed: int
    truncated: int
    unlabelled: int
    shared: int
    """Results that are the answer to another row's call, or from the cache."""
    spared_usd: float
    """What calls of their own would have cost those, as far as it is known."""
    rows_per_s: float
    eta_s: float | None
    usage: Usage
    """Of every call of all lives of the run, those that came to nothing included; likewise below."""
    cost_usd: float
    """Of the calls whose price and usage are known."""
    unpriced_calls: int
    """Calls with a usage and no price."""
    unknown_calls: int
    """Calls that may have been charged and did not say what they took."""
    unknown_usd: float
    """What those cost at most, as far as there is a price."""
    failures: Mapping[str, int]
    examples: Mapping[str, str]
    degraded: Mapping[str, int]
    in_flight: int
    window: int
    open_rows: int
    """Encoded rows held."""
    open_bytes: int
    lanes: tuple[LaneStatistics, ...]
    outage_s: float
    """For how long no lane has been open; 0 if one is."""
    encode: EncodeSnapshot
    call: CallSnapshot
    sink: SinkStatistics
    links: Mapping[str, LinkStatistics]
    """Keyed `source-encode`, `encode-call`, `call-write`."""
    bottleneck: str
    """The stage the others wait for."""
    commit_s: float
    findings: Findings | None
    """What the run's observer has seen; None if it has none."""
    held: str | None
    """What nothing new is asked for until it is there; None as a rule."""
    stopping: str | None

    @property
    def done(self) -> int:
        """Rows with a result of this life."""
        return self.ended - self.failed

    @property
    def left(self) -> int:
        """Rows without an end, over all lives."""
        return max(0, self.rows_total - self.done_before - self.ended)


class Watcher(Protocol):
    """Shows snapshots somewhere."""

    def show(self, snapshot: Snapshot) -> None: ...


class Pace:
    """Rows per second over the last `RATE_WINDOW_S`, from a few remembered points."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = [(anyio.current_time(), 0)]

    def rows_per_s(self, ended: int) -> float:
        now = anyio.current_time()
        self._points.append((now, ended))
        while len(self._points) > 2 and now - self._points[1][0] >= RATE_WINDOW_S:  # noqa: PLR2004 - a span has two ends
            del self._points[0]
        then, before = self._points[0]
        return (ended - before) / (now - then) if now > then else 0.0


class Pressure:
    """Names the bottleneck from how long the stages waited for each other since the last look."""

    def __init__(self) -> None:
        self._at = anyio.current_time()
        self._before: dict[str, LinkStatistics] = {}
        self._named = "source"

    def bottleneck(self, links: Mapping[str, LinkStatistics]) -> str:
        """The last stage whose input piled up; without any, the first: nothing can be waiting for the others."""
        now = anyio.current_time()
        span_s = now - self._at
        if span_s <= 0:
            return self._named
        self._named = STAGES[0]
        for (name, link), consumer in zip(links.items(), STAGES[1:], strict=True):
            before = self._before.get(name)
            blocked_s = link.blocked_put_s - (before.blocked_put_s if before else 0.0)
            if blocked_s >= NOTICEABLE_SHARE * span_s:
                self._named = consumer
        self._at, self._before = now, dict(links)
        return self._named
