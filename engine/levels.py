"""What rate and window have in common: a level that goes down where the server objects, and comes back to look again.

A level that was cut comes back quickly to where the server objected, stays a while just below, and goes past it slowly
at first and then ever faster. A trial costs refusals, or the pause the server asks for: the dearer, the rarer.
"""

from __future__ import annotations

USED_SHARE = 0.8
"""A level that was not used to this share tells nothing and does not grow."""
TICK_S = 0.25
"""How often growth is considered; at low rates every fourth request."""
MARGIN = 0.97
"""Of what the server was seen to accept: 3 % is what counting some 40 requests can be wrong by."""
DOUBLING_S = 20.0
"""Past its ceiling a level grows by (t / 20 s)^3 of it: 2 % after 5 s, twofold after 20 s."""
MEMORY, OUTAGE_CUT, OUTAGE_SHARE = 0.25, 0.1, 0.005
"""Of the highest level once proven: how steep the way out of a hole is. Of a level: what an outage leaves of it, but
never less than the last, again of the highest."""
TRIAL_REQUESTS, PAUSE_PRICE = 50.0, 8.0
"""So many requests lie between trials above the limit at least, since each costs two or three; and for each second of
pause that one cost, so many without another. Both are the least:"""
SUREST, SUREST_PAUSED, SAME_SHARE = 8.0, 4.0, 0.15
"""each time the limit is found where it was, to 15 %, they double; eightfold and fourfold at most."""
LONGEST_PAUSE_S, DEAR_PAUSE_S = 120.0, 0.5
"""A longer pause is asked again after the first; one shorter than the second is no loss."""

INDEPENDENT, MOST_FORGIVEN, FORGIVEN_TIMES, FORGOTTEN = 0.5, 0.6, 2.0, 10_000.0
"""Refusals come whatever the load if they are at least half as frequent under half of it. Then twice their share is
forgiven, but never more than the second; after so many requests the extra has halved."""

FEW = 25
"""Requests before which every refusal's pause is obeyed by all; later one alone is no reason for everybody to wait."""


class Climb:
    """A level that looks for the highest value the server accepts.

    Without a ceiling it follows its owner. With one it follows ceiling + scale * ((t - arrival) / DOUBLING_S)^3, the
    curve of TCP CUBIC (RFC 9438), with a rest just below the ceiling.
    """

    __slots__ = ("_busiest_per_s", "_most", "_rest_s", "_scale", "_sure", "_time_s", "ceiling", "highest", "level")

    def __init__(self, level: float, *, most: float) -> None:
        self.level = min(level, most)
        self.ceiling: float | None = None
        self.highest = 0.0
        """What the server once accepted for certain."""
        self._most = most
        self._scale = self._time_s = self._rest_s = self._busiest_per_s = 0.0
        self._sure = 1.0

    def allow(self, most: float) -> None:
        """Let it go no higher than this from now on, and no less high."""
        self._most = most
        self.level = min(self.level, most)

    def grow(self, dt_s: float, *, unopposed: float, requests_per_s: float) -> None:
        """What `dt_s` seconds of real use do; without a ceiling the level becomes `unopposed`."""
        if self.ceiling is None:
            self.level = min(self._most, unopposed)
            return
        near = self.level >= MARGIN * self.ceiling
        if near and self._rest_s > 0:
            self._rest_s -= dt_s
            return
        self._busiest_per_s = max(self._busiest_per_s, requests_per_s)
        expected_per_s = max(requests_per_s, MEMORY * self._busiest_per_s)
        haste = expected_per_s * DOUBLING_S / (TRIAL_REQUESTS * self._sure)
        self._time_s += dt_s * (min(1.0, haste) if near else 1.0)
        level = self.ceiling + self._scale * (self._time_s / DOUBLING_S) ** 3
        # One look at a low level may be a long time after the last.
        self.level = min(self._most, level, 2 * self.level)

    def cut(self, level: float, *, ceiling: float, proven: float = 0.0, pause_s: float = 0.0) -> None:
        """Go down to `level`; `ceiling` is where the server objected, `proven` what it accepted for certain."""
        same = self.ceiling is not None and abs(ceiling - self.ceiling) < SAME_SHARE * self.ceiling
        self._sure = min(SUREST, 2 * self._sure) if same else 1.0
        self.level, self.ceiling = level, ceiling
        self._rest_s = PAUSE_PRICE * min(self._sure, SUREST_PAUSED) * pause_s
        self.highest = max(proven, self.highest)
        # Steep enough to leave a hole: one dug by an outage says nothing about the limit.
        self._scale = max(ceiling, MEMORY * self.highest)
        self._time_s = -DOUBLING_S * (max(0.0, ceiling - level) / self._scale) ** (1 / 3)

    def start_from(self, level: float) -> None:
        """Go on as if the server had never objected."""
        self.level, self.ceiling = min(level, self._most), None


class Leak:
    """Refusals that outnumber a share of the requests sent."""

    def __init__(self, forgiven: float) -> None:
        self._least = self.forgiven = forgiven
        """The share."""
        self._level, self._sent = 0.0, 0

    def drop(self, sent: int, *, spared: float) -> bool:
        """One refusal after so many requests in all; whether more than `spared` before it stand unforgiven."""
        passed = sent - self._sent
        level = max(0.0, self._level - self.forgiven * passed)
        self.forgiven = self._least + (self.forgiven - self._least) * 0.5 ** (passed / FORGOTTEN)
        self._level, self._sent = level + 1, sent
        return level > spared

    def forgive(self, share: float) -> None:
        """So many were found to come whatever the load; forgotten after a while, should that change."""
        self.forgiven = max(self._least, min(MOST_FORGIVEN, FORGIVEN_TIMES * share))
        self.empty()

    def empty(self) -> None:
        self._level = 0.0
