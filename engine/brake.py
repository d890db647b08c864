"""When too much goes wrong to go on. Counts rows, decides; waits for nothing."""

from __future__ import annotations

from collections import Counter

from engine.config import BrakeConfig
from engine.errors import AuthRejected, RunError, TooManyFailures
from engine.types import Failure, FailureKind, Record, Reply

_OWN_KINDS = frozenset(
    {
        FailureKind.BAD_ROW,
        FailureKind.INVALID_ID,
        FailureKind.MEDIA_LIMIT,
        FailureKind.BAD_MEDIA,
        FailureKind.POISON_MEDIA,
    }
)
"""Failures that say something of the row; however many there are, they cost nothing."""


class Brake:
    """Judges every ended row."""

    def __init__(self, config: BrakeConfig) -> None:
        self._config = config
        self._ended = 0
        self._failed = 0
        self._first: list[Reply | Failure] = []
        """How the rows ended that were sent first."""
        self.by_kind: Counter[FailureKind] = Counter()
        self.examples: dict[FailureKind, str] = {}
        """The first message of each kind."""

    def judge(self, record: Record) -> RunError | None:
        """Count one ended row; the error the run must end with, or None."""
        self._ended += 1
        outcome = record.outcome
        if record.order is not None and record.order < self._config.alike_rows:
            self._first.append(outcome)
        if not isinstance(outcome, Failure):
            return None
        self.by_kind[outcome.kind] += 1
        self.examples.setdefault(outcome.kind, outcome.message)
        self._failed += 1
        return self._all_alike(outcome) or self._too_many()

    def _all_alike(self, failure: Failure) -> RunError | None:
        """By the rows that were sent first, not those that ended first: a refusal comes faster than an answer."""
        first = self._first
        if len(first) < self._config.alike_rows or failure.kind in _OWN_KINDS:
            return None
        if {_mark(outcome) for outcome in first} != {_mark(failure)}:
            return None
        return AuthRejected(
            f"the first {len(first)} rows all failed alike: {failure.message}. Check --model, --base-url and the "
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


def _mark(outcome: Reply | Failure) -> tuple[FailureKind, int | None] | None:
    return (outcome.kind, outcome.status) if isinstance(outcome, Failure) else None
