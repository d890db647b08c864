"""Snapshots of a run, made up."""

from __future__ import annotations

from engine.lanes import LaneStatistics
from engine.limits import LimitStatistics
from engine.link import LinkStatistics
from engine.ports import SinkStatistics
from engine.stats import CallSnapshot, EncodeSnapshot, Snapshot
from engine.types import Usage

LINKS = ("source-encode", "encode-call", "call-write")
LIMITS = LimitStatistics(
    in_flight=3, window=8, rate_per_s=None, paused_s=0.0, cuts=1, blocked=None, admitted=9, admitted_tokens=90
)
LANE = LaneStatistics(
    name="m at one",
    state="open",
    why="",
    probe_s=0.0,
    limits=LIMITS,
    calls=9,
    max_tokens=512,
    structured="untried",
    most_images=None,
)
CALLS = CallSnapshot(
    calls=9,
    retries=1,
    rate_limited=2,
    server_errors=3,
    network_errors=4,
    grown=5,
    reduced=6,
    repairs=7,
    repaired=8,
    unfinished=9,
    mean_latency_s=1.0,
)


def snapshot(*, lane: LaneStatistics = LANE, calls: CallSnapshot = CALLS, **changes: object) -> Snapshot:
    settings: dict[str, object] = {
        "elapsed_s": 10.0,
        "rows_total": 100,
        "rows_known": False,
        "done_before": 0,
        "ended": 6,
        "failed": 0,
        "truncated": 0,
        "unlabelled": 0,
        "shared": 0,
        "spared_usd": 0.0,
        "rows_per_s": 1.0,
        "eta_s": None,
        "usage": Usage(),
        "cost_usd": 0.0,
        "unpriced_calls": 0,
        "unknown_calls": 0,
        "unknown_usd": 0.0,
        "failures": {},
        "examples": {},
        "degraded": {},
        "in_flight": 3,
        "window": 8,
        "open_rows": 4,
        "open_bytes": 400,
        "outage_s": 0.0,
        "encode": EncodeSnapshot(workers=2, crashes=1, timeouts=0, cpu_s=1.5),
        "sink": SinkStatistics(
            done=0, failed=0, finished=0, pending=0, pending_bytes=0, duplicates=0, salvaged=0, chosen=None
        ),
        "links": {name: LinkStatistics(items=6, blocked_put_s=2.0, blocked_get_s=4.0, waiting=1) for name in LINKS},
        "bottleneck": "call",
        "commit_s": 0.0,
        "findings": None,
        "held": None,
        "stopping": None,
    }
    return Snapshot(lanes=(lane,), call=calls, **(settings | changes))  # type: ignore[arg-type]  # names are checked by the dataclass
