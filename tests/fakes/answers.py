"""Answers of earlier, kept in memory. Passes the same conformance suite as those on disk."""

from __future__ import annotations

from collections.abc import Sequence

from engine.types import Known, Record, Reply


class MemoryAnswers:
    def __init__(self, *, of_this_run: bool = True) -> None:
        self._known: dict[bytes, Known] = {}
        self._of_this_run = of_this_run

    def find(self, key: bytes) -> Known | None:
        return self._known.get(key)

    def remember(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.key and isinstance(record.outcome, Reply):
                self._known[record.key] = Known(
                    row=record.row if self._of_this_run else None,
                    reply=record.outcome,
                    max_tokens_used=record.max_tokens_used,
                    cost_usd=record.cost_usd,
                )
