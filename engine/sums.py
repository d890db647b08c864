"""The snapshots of several engine processes as one, as far as they know: what the run itself counts is not theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.lanes import LaneStatistics, Structured
from engine.limits import LimitStatistics
from engine.link import LinkStatistics
from engine.shares import total_of
from engine.stats import AtWork, CallSnapshot, EncodeSnapshot, Snapshot

STATES = ("open", "resting", "shut")
"""A lane is as well as it is for whom it is best."""
STRUCTURED: tuple[Structured, ...] = ("off", "works", "untried")
"""What one has found out, the others will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one process last said, and whether it goes on."""

    snapshot: Snapshot
    goes_on: bool


def sum_of(members: Sequence[Said]) -> AtWork:
    """All of them together. What can only be of the present is taken from those that go on, if any do."""
    said = [member.snapshot for member in members]
    present = [member.snapshot for member in members if member.goes_on] or said
    known = next((each for each in said if each.rows_known), None)
    return AtWork(
        # Each reads the whole input, so each knows how many rows there are.
        rows_total=known.rows_total if known else max((each.rows_total for each in said), default=0),
        rows_known=known is not None,
        in_flight=sum(each.in_flight for each in present),
        window=sum(each.window for each in present),
        open_rows=sum(each.open_rows for each in present),
        open_bytes=sum(each.open_bytes for each in present),
        lanes=_lanes(said, present),
        outage_s=min((each.outage_s for each in present), default=0.0),
        encode=_encode([each.encode for each in said]),
        call=_call([each.call for each in said]),
        links=_links([each.links for each in said]),
        held=next((each.held for each in present if each.held), None),
    )


def _encode(said: Sequence[EncodeSnapshot]) -> EncodeSnapshot:
    return EncodeSnapshot(
        workers=sum(each.workers for each in said),
        crashes=sum(each.crashes for each in said),
        timeouts=sum(each.timeouts for each in said),
        cpu_s=sum(each.cpu_s for each in said),
    )


def _call(said: Sequence[CallSnapshot]) -> CallSnapshot:
    timed = [(each.calls, each.mean_latency_s) for each in said if each.mean_latency_s is not None]
    calls = sum(count for count, _ in timed)
    return CallSnapshot(
        calls=sum(each.calls for each in said),
        retries=sum(each.retries for each in said),
        rate_limited=sum(each.rate_limited for each in said),
        server_errors=sum(each.server_errors for each in said),
        network_errors=sum(each.network_errors for each in said),
        grown=sum(each.grown for each in said),
        reduced=sum(each.reduced for each in said),
        repairs=sum(each.repairs for each in said),
        repaired=sum(each.repaired for each in said),
        unfinished=sum(each.unfinished for each in said),
        mean_latency_s=sum(count * latency_s for count, latency_s in timed) / calls if calls else None,
    )


def _links(said: Sequence[Mapping[str, LinkStatistics]]) -> dict[str, LinkStatistics]:
    """Items are counted together; for how long one waited is the mean, so that a share of the time stays one."""
    names = list(dict.fromkeys(name for links in said for name in links))
    return {name: _link([links[name] for links in said]) for name in names}


def _link(said: Sequence[LinkStatistics]) -> LinkStatistics:
    return LinkStatistics(
        items=sum(each.items for each in said),
        blocked_put_s=sum(each.blocked_put_s for each in said) / len(said),
        blocked_get_s=sum(each.blocked_get_s for each in said) / len(said),
        waiting=sum(each.waiting for each in said),
    )


def _lanes(said: Sequence[Snapshot], present: Sequence[Snapshot]) -> tuple[LaneStatistics, ...]:
    """Lane by lane; every member has the same ones in the same order."""
    now = zip(*(each.lanes for each in present), strict=True)
    ever = zip(*(each.lanes for each in said), strict=True)
    return tuple(_lane(those, all_of_them) for those, all_of_them in zip(now, ever, strict=True))


def _lane(present: Sequence[LaneStatistics], ever: Sequence[LaneStatistics]) -> LaneStatistics:
    best = min(present, key=lambda lane: STATES.index(lane.state))
    limits = [lane.limits for lane in present]
    structured = {lane.structured for lane in ever}
    return LaneStatistics(
        name=best.name,
        state=best.state,
        why=best.why,
        probe_s=min(lane.probe_s for lane in present),
        limits=LimitStatistics(
            in_flight=sum(each.in_flight for each in limits),
            window=sum(each.window for each in limits),
            rate_per_s=total_of(each.rate_per_s for each in limits),
            paused_s=max(each.paused_s for each in limits),
            cuts=sum(lane.limits.cuts for lane in ever),
            blocked=next((each.blocked for each in limits if each.blocked), None),
            admitted=sum(lane.limits.admitted for lane in ever),
            admitted_tokens=sum(lane.limits.admitted_tokens for lane in ever),
        ),
        calls=sum(lane.calls for lane in ever),
        max_tokens=max(lane.max_tokens for lane in present),
        structured=next(word for word in STRUCTURED if word in structured),
        most_images=min((lane.most_images for lane in ever if lane.most_images is not None), default=None),
    )
