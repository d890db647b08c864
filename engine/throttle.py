"""The rate of requests a second that a server accepts, found from its 429."""

from __future__ import annotations

import math
from collections import deque

from engine.levels import (
    DEAR_PAUSE_S,
    FEW,
    MARGIN,
    OUTAGE_CUT,
    OUTAGE_SHARE,
    TICK_S,
    USED_SHARE,
    Climb,
    Leak,
)

FIRST_PER_S, FASTEST_PER_S, FIRST_DOUBLING_S = 32.0, 8192.0, 1.0
"""A start is paced, doubling every second: a small limit is met by tens of requests, thousands a second take 8 s."""
SLOWEST_PER_S, SLOW_PER_S = 1 / 60, 5.0
"""The least rate; and below the second, refusals are counted one by one."""
SPAN_S, MARKS = 1.0, 64
"""A rate is measured over a second at least, from 64 ticks (16 s) back at most."""
REFUSAL_S, DEAF_S = 0.1, 0.3
"""A refusal is back after the first; after the second no refusal of a call sent before a cut is still to come."""
WATCHED_SHARE = 0.9
"""Of the rate last taken: low enough to cost few refusals, high enough to still meet the limit."""
RATE_FORGIVEN = 0.04
"""Refusals for each request sent that are not held against the rate."""


class Throttle:
    """A rate of requests, steered by 429.

    After a cut the server's own burst is spent, so what it accepts in the second that follows is its limit exactly:
    that second is watched. Where it asks for pauses there is no such second, since its bucket fills up meanwhile;
    there the longer past counts, less one second of burst.
    """

    def __init__(self, *, now: float, learnt_per_s: float | None) -> None:
        self.climb = Climb(FIRST_PER_S, most=FASTEST_PER_S)
        if learnt_per_s:
            ceiling = min(FASTEST_PER_S, max(SLOWEST_PER_S, learnt_per_s))
            self.climb.cut(MARGIN * ceiling, ceiling=ceiling, proven=ceiling)
        self.believed = False
        """Whether the last 429 was more than one of those that come whatever the load."""
        self._refused = 0
        self._leak = Leak(RATE_FORGIVEN)
        self._marks: deque[tuple[float, int]] = deque([(now, 0)], maxlen=MARKS)
        """When, and how many were accepted until then."""
        self._grown = (now, 0)
        self._busy_from = now
        self._deaf_until = -math.inf
        self._watch_from = math.inf
        self._watched: tuple[float, int, int] | None = None

    def refused(self, now: float, *, admitted: int, pause_s: float) -> bool:
        """One 429; whether the rate was cut for it."""
        self._refused += 1
        level = self.climb.level
        self.believed = self._leak.drop(admitted, spared=1.0 if level >= SLOW_PER_S else 0.0) or admitted < FEW
        dear = pause_s >= max(DEAR_PAUSE_S, 2 / level)
        if now < self._deaf_until or not self.believed or not (dear or self._watch_from == math.inf):
            return False
        least_per_s, taken_per_s = self._taken_per_s(now, admitted)
        if not dear:
            self._cut(WATCHED_SHARE * taken_per_s, ceiling=taken_per_s, proven=least_per_s, pause_s=pause_s)
            self._watch(now)
            return True
        # The dearer a trial is, the nearer to the careful estimate, once that rests on some seconds.
        weight = 1.0 if now - self._busy_from < 3 * SPAN_S else 1 / (1 + pause_s / 2)
        ceiling = least_per_s * (taken_per_s / least_per_s) ** weight if least_per_s else taken_per_s
        self._cut(MARGIN * least_per_s, ceiling=ceiling, proven=least_per_s, pause_s=pause_s)
        self._resume(now + pause_s, admitted)
        return True

    def tick(self, now: float, *, admitted: int) -> None:
        """Grow, if what was allowed since the last tick was used; end a watch that is over."""
        if now >= self._watch_from:
            self._end_watch(now, admitted)
        level = self.climb.level
        at, before = self._grown
        dt_s = now - at
        if dt_s < max(TICK_S, 4 / level):
            return
        self._grown = (now, admitted)
        self._marks.append((now, admitted - self._refused))
        if admitted + 1 - before < USED_SHARE * level * dt_s:
            self._busy_from = now
        elif self._watch_from == math.inf:
            # After a long gap an exponent would overflow; a minute of doubling is more than any rate needs.
            self.climb.grow(dt_s, unopposed=level * 2.0 ** min(dt_s / FIRST_DOUBLING_S, 60.0), requests_per_s=level)

    def _watch(self, now: float) -> None:
        self._watch_from, self._watched = now + DEAF_S, None

    def _end_watch(self, now: float, admitted: int) -> None:
        if self._watched is None:
            self._watched = (now, admitted, self._refused)
            return
        at, admitted_before, refused_before = self._watched
        level, passed_s = self.climb.level, now - at
        # Eight requests, but no longer than that takes after an outage.
        if passed_s < max(SPAN_S, 8 / max(level, 4 * OUTAGE_SHARE * self.climb.highest)):
            return
        asked, refused = admitted - admitted_before, self._refused - refused_before
        self._resume(now, admitted)
        used = asked + 1 >= USED_SHARE * level * passed_s
        if refused <= RATE_FORGIVEN * asked or not used:
            return
        taken_per_s = max(0, asked - refused) / passed_s
        if taken_per_s and level < SLOW_PER_S:
            # A server that holds one request refuses every other one at a rate just above its limit.
            taken_per_s = max(taken_per_s, WATCHED_SHARE * level)
        self._cut(MARGIN * taken_per_s, ceiling=taken_per_s, proven=taken_per_s)
        if not taken_per_s:
            self._watch(now)

    def _resume(self, now: float, admitted: int) -> None:
        """Count anew from `now` on, which may lie ahead."""
        self._marks.clear()
        self._marks.append((now, admitted - self._refused))
        self._busy_from, self._deaf_until, self._watch_from = now, now + DEAF_S, math.inf
        self._leak.empty()

    def _taken_per_s(self, now: float, admitted: int) -> tuple[float, float]:
        """The least the limit can be, if the server holds one second of burst, and what was taken lately."""
        level, accepted = self.climb.level, admitted - self._refused
        spans = [(now - at, max(0, accepted - before)) for at, before in self._marks]
        undecided = REFUSAL_S * level
        least = max(max(count / 2, count - undecided) / (span_s + SPAN_S) for span_s, count in spans)
        enough_s = min(max(SPAN_S, 8 / level), now - self._busy_from)
        span_s, count = next((span for span in reversed(spans) if span[0] >= enough_s), spans[0])
        taken = min(level, count / max(TICK_S, span_s))
        return min(least, taken), taken

    def _cut(self, level: float, *, ceiling: float, proven: float, pause_s: float = 0.0) -> None:
        climb = self.climb
        if level > 0:
            ceiling = max(SLOWEST_PER_S, ceiling)
            climb.cut(max(SLOWEST_PER_S, level), ceiling=ceiling, proven=proven, pause_s=pause_s)
        else:
            # Nothing at all got through: that is an outage and says nothing about the limit.
            level = max(SLOWEST_PER_S, OUTAGE_SHARE * climb.highest, OUTAGE_CUT * climb.level)
            climb.cut(level, ceiling=climb.ceiling or climb.level, pause_s=pause_s)
