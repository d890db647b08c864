"""When too much goes wrong to go on. Counts rows, decides; waits for nothing."""

from __future__ import annotations

from collections import Counter

from engine.config import BrakeConfig
from engine.errors import AuthRejected, RunError, TooManyFailures
from engine.types import Failure, FailureKind, Record

_OWN_KINDS = frozenset({FailureKind.BAD_ROW, FailureKind.INVALID_ID, FailureKind.MEDIA_LIMIT, FailureKind.POISON_MEDIA})
"""Failures that say something of the row; however many there are, they cost nothing."""


class Brake:
    """Judges every ended row."""

    def __init__(self, config: BrakeConfig) -> None:
        self._config = config
        self._ended = 0
        self._failed = 0
        self._alike: tuple[FailureKind, int | None] | None = None
        self.by_kind: Counter[FailureKind] = Counter()
        self.examples: dict[FailureKind, str] = {}
        """The first message of each kind."""

    def judge(self, record: Record) -> RunError | None:
        """Count one ended row; the error the run must end with, or None."""
        self._ended += 1
        outcome = record.outcome
        if not isinstance(outcome, Failure):
            return None
        self.by_kind[outcome.kind] += 1
        self.examples.setdefault(outcome.kind, outcome.message)
        self._failed += 1
        return self._all_alike(outcome) or self._too_many()

    def _all_alike(self, failure: Failure) -> RunError | None:
        if failure.kind in _OWN_KINDS or self._failed < self._ended:
            self._alike = None
            return None
        mark = (failure.kind, failure.status)
        if self._failed == 1:
            self._alike = mark
        elif self._alike != mark:
            self._alike = None
        if self._alike is None or self._failed != self._config.alike_rows:
            return None
        return AuthRejected(
            f"the first {self._failed} rows all failed alike: {failure.message}. Check --model, --base-url and the "
            "request settings; rows in failures/ are tried again with --resume --retry-failed"
        )

    def _too_many(self) -> RunError | None:
        config = self._config
        if config.max_failed_rows is not None and self._failed > config.max_failed_rows:
            return TooManyFailures(f"{self._failed} rows failed, more than --max-failed {config.max_failed_rows}")
        if config.max_failed_share is None or self._ended < config.probation_rows:
            return None
        share = self._failed / self._ended
        if share <= config.max_failed_share:
            return None
        return TooManyFailures(
            f"{self._failed} of {self._ended} rows failed ({share:.1%}), "
            f"more than --max-failed {config.max_failed_share:.0%}"
        )
