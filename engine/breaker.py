"""Whether a lane is alive. Counts how calls end, decides; waits for nothing.

A lane whose calls all fail is left alone, so that neither rows nor money are spent on it: the breaker opens, and a
probe of a few tokens goes out now and then until one is answered. Probes carry no row: a row may be what the server
fails on. The breaker opens only when failures come in a row, from more than one row and over a while: a burst that a
full server turns away at once, or one row that the server cannot digest, is no outage.
"""

from __future__ import annotations

IN_A_ROW = 10
"""Failures without an answer between them. With one failure in five, ten in a row come once in ten million calls."""
IN_A_ROW_UNREACHED = 3
"""Where no connection comes about at all there is less to doubt."""
OVER_S = 2.0
"""Failures that come faster than this may be one wave that a full server turned away."""
FIRST_REST_S, LONGEST_REST_S = 5.0, 60.0
"""Between two probes; doubled after each that fails."""
MEMORY_CALLS = 200
"""The share of failing calls is judged over about so many."""
PRIOR_SHARE = 0.01
"""What is believed of a lane before it is known."""
CHANCE = 2e-6
"""If chance alone fails a row so often less than twice in a million rows, it is the row."""


class Breaker:
    """The health of one lane."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._rows: set[int] = set()
        self._since = 0.0
        self._probe_at: float | None = None
        """When the next probe is due; None while closed."""
        self._share = PRIOR_SHARE
        self.rest_s = FIRST_REST_S
        """How long to wait before the next probe."""
        self.words = ""
        """What the last failure said."""

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def probe_s(self, now: float) -> float:
        """Seconds until the next probe; 0 while one is on its way, or none is needed."""
        return 0.0 if self._probe_at is None else max(0.0, self._probe_at - now)

    def answered(self) -> None:
        """The server gave an answer, or a refusal that shows it is well."""
        self._in_a_row = 0
        self._rows.clear()
        self._probe_at, self.rest_s = None, FIRST_REST_S
        self._share += (0.0 - self._share) / MEMORY_CALLS

    def failed(self, now: float, *, row: int, unreached: bool, words: str) -> bool:
        """A call came to nothing by the server's or the network's fault; `unreached` if there was no connection.

        Returns:
            Whether the breaker opened just now.
        """
        self.words = words
        if self.is_open:
            return False
        self._share += (1.0 - self._share) / MEMORY_CALLS
        if not self._in_a_row:
            self._since = now
        self._in_a_row += 1
        self._rows.add(row)
        enough = IN_A_ROW_UNREACHED if unreached else IN_A_ROW
        if self._in_a_row < enough or now - self._since < OVER_S or not (unreached or len(self._rows) > 1):
            return False
        self._probe_at = now + self.rest_s
        return True

    def probe_failed(self, now: float, *, words: str) -> None:
        """The lane is still down; the next rest is twice as long."""
        if self.is_open:
            self.words = words
            self.rest_s = min(LONGEST_REST_S, self.rest_s * 2)
            self._probe_at = now + self.rest_s

    def blames_row(self, failures: int) -> bool:
        """Whether so many failures of one row, while others are answered, are no longer chance."""
        return failures > 2 and self._share**failures < CHANCE  # noqa: PLR2004 - never before the third
