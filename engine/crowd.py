"""The number of requests in flight that a server works on, found from its 5xx and from seconds per output token.

Latency as such says nothing: longer answers take longer on an idle server. A cut for latency is an experiment: if calls
sent after it are no faster, the server is slower for everyone; then the cut is undone and this is the new normal.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from engine.levels import INDEPENDENT, MARGIN, MOST_FORGIVEN, USED_SHARE, Climb, Leak

OPENING = 2.0
"""Slots added for each answer while the server has not objected: fast where answers are, slow where they queue."""
LONG_CALL_S = 10.0
"""Before latency is known the window doubles in this time at least, or minute-long calls would hold it back."""
CAPACITY_FORGIVEN = 0.08
"""5xx for each request sent that are not held against the window."""
CALM_S, DEEPEST_SHARE = 10.0, 0.3
"""Window cuts that follow sooner cut twice as deep, to the second at most: capacity is falling."""
JUDGE_S, JUDGE_CALLS, MOST_SAMPLES = 2.0, 16, 256
"""Latency is judged over so long and so many calls; the median of 256 is no better for being of more."""
TIGHT, CROWDED = 1.25, 1.5
"""Seconds per output token over normal: no growth above the first, a cut above the second (Gradient2: 1.5)."""
TIGHT_S = 60.0
"""So long above the first is a cut as well: otherwise normal would drift up under a queue that never empties."""
DEEPEST_CUT = 0.7
LONG_QUEUE_PAUSE_S = 2.0
"""What a queue made too long counts as, next to a pause: its answers come late but they come."""
NORMAL_RISE = 0.002
"""Each judgement: a server that slows down over hours is not congested."""


STREAK, TESTED_SHARE, HALF_REFUSALS, NO_HALF_S = 3, 0.06, 6.0, 120.0
"""After so many cuts in a row, with such a share refused, half as many are in flight for so many calls that six
refusals are to be expected; if that helped, not soon again."""
HALVED_FROM = 8
"""Fewer in flight take too long to tell."""
LATELY = 64
"""Refusals over which their share is taken."""
SPARED = 2.0
"""5xx in short that may be chance: the third is none."""


class Pace:
    """Seconds per output token against what is normal, for answers of like length.

    Answers are compared with answers of the same power of two of tokens: time to the first token weighs more in short
    ones, so that shorter answers alone would look like congestion.
    """

    def __init__(self) -> None:
        self._normal: dict[int, float] = {}
        self.judged = False
        self.ratio = 1.0
        """The last judgement; 1 is normal."""
        self.latency_s = JUDGE_S
        """The median call."""

    def judge(self, samples: list[tuple[int, float]]) -> None:
        """Take (output tokens, latency) of the calls that ended lately."""
        self.judged = True
        self.latency_s = median(latency_s for _, latency_s in samples)
        classes: dict[int, list[float]] = {}
        for tokens, latency_s in samples:
            if tokens > 0:
                classes.setdefault(tokens.bit_length(), []).append(latency_s / tokens)
        normal = self._normal
        known = [pace / normal[size] for size, paces in classes.items() if size in normal for pace in paces]
        if known:
            self.ratio = median(known)
            self.rescale(1 + (NORMAL_RISE if self.ratio > 1 else 0.2 * (self.ratio - 1)))
        for size, paces in classes.items():
            seen = median(paces) / self.ratio
            before = normal.get(size, seen)
            # A length met for the first time may have met a straggler: a tenth of the way each time puts it right.
            normal[size] = before + 0.1 * (seen - before)

    def rescale(self, factor: float) -> None:
        """Call `factor` times as slow normal."""
        for size in self._normal:
            self._normal[size] *= factor
        self.ratio /= factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """An experiment: half as many in flight, to see whether refusals are about their number at all."""

    share: float
    """Of refusals before it."""
    window: float
    """What to go back to if they are not."""
    held: int
    """What was in flight."""
    admitted: int


class Crowd:
    """A number of requests in flight, steered by 5xx and by seconds per output token."""

    def __init__(self, level: float, *, most: float, fixed: bool, now: float) -> None:
        self.climb = Climb(level, most=most)
        self._fixed = fixed
        self.believed = False
        """Whether the last 5xx was more than one of those that come whatever the load."""
        self.samples: list[tuple[int, float]] = []
        self.sampled_from = now
        """Calls sent before tell nothing of the present window."""
        self._pace = Pace()
        self._leak = Leak(CAPACITY_FORGIVEN)
        self._cut_at, self._cut_share = -math.inf, 1 - MARGIN
        self._grown = (now, 0)
        self._counted = (now, 0)
        self._requests_per_s = 0.0
        self._history: deque[tuple[float, int]] = deque([(now, 0)], maxlen=4096)
        """When, and how many were in flight then; as far back as the calls that end now."""
        self._calm = 1
        """How many were in flight when the server last kept its normal pace."""
        self._judged_at = self._eased_at = now
        self._trial: tuple[float, int, float] | None = None
        """While an experiment with latency lasts: ratio, number in flight and window before it."""
        self._refusals = self._streak = 0
        self._streak_window = level
        """When a streak of cuts began."""
        self._lately: deque[tuple[int, int]] = deque([(0, 0)], maxlen=LATELY)
        """Requests and refusals until then, at each refusal."""
        self._half_refused = 0
        self._share = 0.0
        """Of calls refused lately."""
        self._half: Half | None = None
        self._no_half_until = -math.inf

    def refused(self, now: float, *, in_flight: int, admitted: int, sent_at: float, pause_s: float) -> bool:
        """One 5xx; whether the window was cut for it. `in_flight` is without the call refused."""
        self._refusals += 1
        self.believed = self._leak.drop(admitted, spared=SPARED)
        climb = self.climb
        self._lately.append((admitted, self._refusals))
        self._share = (self._refusals - self._lately[0][1]) / max(1, admitted - self._lately[0][0])
        if self._half and sent_at > self._cut_at:
            self._half_refused += 1
        if self._fixed or self._half:
            return False
        if sent_at <= self._cut_at:
            # Sent before the cut. The server holds what it holds: more would only be refused again.
            if in_flight < climb.level:
                self._hold(in_flight, in_flight)
            return False
        if not self.believed:
            return False
        falling = now - self._cut_at < CALM_S
        self._streak = self._streak + 1 if falling else 1
        if not falling:
            self._streak_window = climb.level
        elif self._streak >= STREAK and now >= self._no_half_until and self._try_half(now, in_flight, admitted):
            return True
        self._cut_share = min(DEEPEST_SHARE, 2 * self._cut_share) if falling else 1 - MARGIN
        self._cut_at, self._trial = now, None
        self._hold((1 - self._cut_share) * in_flight, in_flight, pause_s=pause_s)
        return True

    def _try_half(self, now: float, in_flight: int, admitted: int) -> bool:
        """Begin to find out whether refusals are about the number in flight; False if all is refused anyway."""
        share = self._share
        if not TESTED_SHARE <= share < MOST_FORGIVEN or in_flight < HALVED_FROM:
            return False
        self._half = Half(share=share, window=self._streak_window, held=in_flight, admitted=admitted)
        self._half_refused = 0
        self._cut_at, self._trial = now, None
        climb = self.climb
        climb.cut(max(1.0, in_flight / 2), ceiling=in_flight)
        return True

    def _end_half(self, now: float, half: Half, admitted: int) -> None:
        asked = admitted - half.admitted
        too_long = now - self._cut_at > max(LONG_CALL_S, 16 * self._pace.latency_s)
        if asked < HALF_REFUSALS / half.share and not too_long:
            return
        self._half = None
        share = self._half_refused / max(1, asked)
        if not too_long and INDEPENDENT * half.share <= share < MOST_FORGIVEN:
            self._leak.forgive(max(share, half.share))
            self.climb.start_from(half.window)
        else:
            self._no_half_until = now + NO_HALF_S
            self.climb.cut(MARGIN * half.held, ceiling=half.held)

    def _hold(self, level: float, in_flight: int, *, pause_s: float = 0.0) -> None:
        """Cut, since the server holds `in_flight` calls and no more."""
        climb = self.climb
        if in_flight:
            # A window as small as this cannot be tested; it goes lower only if most calls are refused.
            least = 1.0 if self._share >= MOST_FORGIVEN else min(climb.level, float(HALVED_FROM))
            ceiling = max(in_flight, least)
            climb.cut(max(least, level), ceiling=ceiling, proven=in_flight, pause_s=pause_s)
        else:
            # It holds none at all: that is an outage and says nothing about the limit.
            climb.cut(1.0, ceiling=climb.ceiling or climb.level, proven=climb.level, pause_s=pause_s)

    def tick(self, now: float, *, in_flight: int, peak: int, answered: int, admitted: int) -> bool:
        """Grow, if the window was used and the server kept up; whether it was cut for its latency."""
        if self._half:
            self._end_half(now, self._half, admitted)
        at, before = self._grown
        dt_s, came, self._grown = now - at, answered - before, (now, answered)
        self._history.append((now, in_flight))
        cut = self._count(now, answered)
        climb = self.climb
        if peak >= USED_SHARE * round(climb.level) and self._pace.ratio < TIGHT and not (self._trial or self._half):
            unopposed = climb.level + OPENING * came
            if not self._pace.judged:
                unopposed = max(unopposed, climb.level * 2.0 ** min(dt_s / LONG_CALL_S, 6.0))
            climb.grow(dt_s, unopposed=unopposed, requests_per_s=self._requests_per_s)
        return cut

    def _count(self, now: float, answered: int) -> bool:
        at, before = self._counted
        if now - at < JUDGE_S:
            return False
        self._counted = (now, answered)
        self._requests_per_s += 0.5 * ((answered - before) / (now - at) - self._requests_per_s)
        if len(self.samples) >= JUDGE_CALLS:
            self._judged_at = now
            return self._judge(now)
        if now - self._judged_at > max(TIGHT_S, 4 * self._pace.latency_s):
            # Too few answers to go by: an old judgement must not hold a small window for ever.
            self._pace.ratio, self._trial = 1.0, None
        return False

    def _judge(self, now: float) -> bool:
        """Whether the window had to be cut."""
        pace = self._pace
        pace.judge(self.samples)
        self.samples = []
        crowd = self._crowd_at(now - pace.latency_s)
        if self._trial and self._was_wrong(self._trial, crowd):
            return False
        self._trial = None
        if pace.ratio < TIGHT:
            self._calm = max(self._calm, crowd) if self._eased_at < now - JUDGE_S else crowd
            self._eased_at = now
        if pace.ratio < CROWDED and now - self._eased_at < TIGHT_S:
            return False
        self._experiment(now, crowd)
        return True

    def _experiment(self, now: float, crowd: int) -> None:
        ratio, climb = self._pace.ratio, self.climb
        self._trial = (ratio, crowd, climb.level)
        self._eased_at = self.sampled_from = now
        window = min(climb.level, self._history[-1][1], crowd)
        if crowd > self._calm * math.sqrt(ratio):
            # More calls made each slower: so many the server works on at its normal pace.
            fitting = max(1.0, min(window, crowd / ratio))
            climb.cut(fitting, ceiling=fitting, pause_s=LONG_QUEUE_PAUSE_S)
        else:
            climb.cut(max(1.0, window * max(DEEPEST_CUT, 1 / ratio)), ceiling=max(1.0, window))

    def _was_wrong(self, trial: tuple[float, int, float], crowd: int) -> bool:
        """Whether fewer calls were no faster, or less than half as much as they are where calls queue."""
        ratio, crowd_before, window = trial
        if self._pace.ratio <= ratio * math.sqrt(crowd / crowd_before):
            return False
        self._trial = None
        self._pace.rescale(self._pace.ratio)
        self.climb.start_from(window)
        return True

    def _crowd_at(self, when: float) -> int:
        """How many were in flight then; `when` never goes back far."""
        history = self._history
        while len(history) > 1 and history[1][0] <= when:
            history.popleft()
        return max(1, history[0][1])
