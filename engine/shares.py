"""What of a run's settings and knowledge each of its processes gets, so that together they keep to the whole.

A member's share never becomes smaller while others go on: whoever ends leaves its share to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.clouds import NoticeConfig
from engine.config import ApiConfig, LimitConfig, RunConfig, WriteConfig
from engine.money import Books
from engine.source import Part

NOTHING_USD = 1e-12
"""A ceiling that is spent; it must be above 0, and no call fits below this one."""
HAND_OVERS = 2
"""Commits of a member, and of the run, in one commit interval: a record waits for both, one after the other."""


def settings_for(config: RunConfig, at: int, of: int, *, money_usd: float | None) -> RunConfig:
    """The settings of one member. Its brake, notices and keys are the run's to keep.

    Args:
        config: the run's.
        at: which of those that go on it is, from 0.
        of: how many go on.
        money_usd: what its own calls may cost; None without a ceiling.
    """
    limits = config.limits
    return replace(
        config,
        processes=1,
        encode=replace(config.encode, workers=part_of(config.encode.workers, at, of)),
        lanes=tuple(_lane(lane, of) for lane in config.lanes),
        limits=LimitConfig(
            concurrency=None if limits.concurrency is None else part_of(limits.concurrency, at, of),
            max_concurrency=part_of(limits.max_concurrency, at, of),
            requests_per_min=_of(limits.requests_per_min, of),
            tokens_per_min=_of(limits.tokens_per_min, of),
            max_open_bytes=part_of(limits.max_open_bytes, at, of),
        ),
        brake=replace(
            config.brake,
            max_failed_share=None,
            max_failed_rows=None,
            alike_rows=0,
            max_cost_usd=None if money_usd is None else max(NOTHING_USD, money_usd),
        ),
        write=shared_write(config.write),
        notices=NoticeConfig(),
    )


def opened_for(config: RunConfig, at: int, *, money_usd: float | None) -> RunConfig:
    """The settings that a member begins with: a share of everything, and the rows that are its own."""
    of = config.processes
    share = settings_for(config, at, of, money_usd=money_usd)
    return replace(share, source=replace(config.source, part=Part(at=at, of=of)))


def shared_write(write: WriteConfig) -> WriteConfig:
    """When a member, and the run itself, commits."""
    return replace(write, commit_interval_s=write.commit_interval_s / HAND_OVERS)


def part_of(whole: int, at: int, of: int) -> int:
    """One of `of` parts, as even as can be, the larger ones first; at least 1."""
    return max(1, whole // of + (at < whole % of))


def _of(whole: float | None, of: int) -> float | None:
    return None if whole is None else whole / of


def _lane(lane: ApiConfig, of: int) -> ApiConfig:
    return replace(
        lane,
        key=None,
        requests_per_min=_of(lane.requests_per_min, of),
        tokens_per_min=_of(lane.tokens_per_min, of),
    )


def money_left(ceiling_usd: float | None, spent: Mapping[str, Any] | None) -> float | None:
    """What of the ceiling earlier lives have left."""
    if ceiling_usd is None:
        return None
    books = Books(None, spent)
    return ceiling_usd - books.cost_usd - books.unknown_usd


def lanes_learnt_for(learnt: Mapping[str, Any], of: int) -> dict[str, Any]:
    """A member's share of what earlier lives know of the lanes: levels and counts are parts, facts are whole."""
    return {name: _lane_learnt_for(lane, of) for name, lane in learnt.items()}


def _lane_learnt_for(lane: Mapping[str, Any], of: int) -> dict[str, Any]:
    limits = {
        name: value / of if isinstance(value, int | float) else None
        for name, value in (lane.get("limits") or {}).items()
    }
    # Rounded up: the rare long answers are what an allowance is there for.
    lengths = {bucket: math.ceil(count / of) for bucket, count in (lane.get("lengths") or {}).items()}
    return {**lane, "limits": limits, "lengths": lengths}


def lanes_learnt_of(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the members know of the lanes, together."""
    names = list(dict.fromkeys(name for member in members for name in member))
    return {name: _lane_learnt_of([member[name] for member in members if name in member]) for name in names}


def _lane_learnt_of(lanes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lengths: Counter[str] = Counter()
    for lane in lanes:
        lengths.update(lane.get("lengths") or {})
    limits = [lane.get("limits") or {} for lane in lanes]
    structured = {lane.get("structured") for lane in lanes}
    return {
        "answered": any(lane.get("answered") for lane in lanes),
        "limits": {name: total_of(said.get(name) for said in limits) for name in ("window", "rate_per_s")},
        "lengths": dict(lengths),
        "structured": next((word for word in ("off", "works") if word in structured), "untried"),
        "most_images": _least(lane.get("most_images") for lane in lanes),
        "context_tokens": _least(lane.get("context_tokens") for lane in lanes),
    }


def total_of(values: Iterable[float | None]) -> float | None:
    """The sum of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def spent_of(before: Mapping[str, Any] | None, members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The books of all lives: what they held before this one, and what its members add."""
    total: Counter[str] = Counter(Books(None, before).as_json())
    for member in members:
        total.update(member)
    return dict(total)
