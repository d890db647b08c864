"""A sink that keeps records in memory: for tests of the engine. Passes the same conformance suite as the real one."""

from __future__ import annotations

import threading
from typing import Any

from engine.ports import SinkStatistics
from engine.types import Failure, FailureKind, Record
from sinks.checkpoint import SPENT
from sinks.choice import check_kinds
from sinks.lines import withdrawal_message


class MemorySink:
    """Records as they were put. `reopened()` is the next life of the run, with what was committed."""

    def __init__(self) -> None:
        self.results: dict[int, Record] = {}
        """Committed results by row."""
        self.failures: dict[int, Record] = {}
        """Committed failures by row, those that have a result since included."""
        self.withdrawn: list[Record] = []
        """Results that were cut off and taken back."""
        self._batch: list[Record] = []
        self._seen: dict[int, bool] = {}
        """Rows that have a line, and whether that is a result."""
        self._again: set[int] = set()
        self._only_again = False
        self._duplicates = 0
        self._swap = threading.Lock()
        self._learnt: dict[str, Any] = {}
        self._saved: dict[str, Any] = {}
        """What a next life is told."""

    def reopened(self, *, retry_failed: bool = False, only: frozenset[str] | None = None) -> MemorySink:
        """What another life finds: the committed records, and nothing that was not."""
        sink = MemorySink()
        sink.results, sink.failures, sink.withdrawn = dict(self.results), dict(self.failures), list(self.withdrawn)
        sink._saved, sink._learnt = dict(self._saved), dict(self._saved)
        if only is not None:
            check_kinds(only)
            sink._take_up(only)
        elif retry_failed:
            sink._again = sink.failures.keys() - sink.results.keys()
        sink._seen = dict.fromkeys(sink.failures, False) | dict.fromkeys(sink.results, True)
        return sink

    def _take_up(self, only: frozenset[str]) -> None:
        self._only_again = True
        if FailureKind.TRUNCATED in only:
            for row in [row for row, record in self.results.items() if record.truncated]:
                record = self.results.pop(row)
                self.withdrawn.append(record)
                self.failures[row] = _withdrawal(record)
        self._again = {row for row in self.failures.keys() - self.results.keys() if self._kind(row) in only}

    def _kind(self, row: int) -> str:
        failure = self.failures[row].outcome
        assert isinstance(failure, Failure)
        return failure.kind

    def is_done(self, row: int) -> bool:
        return row not in self._again and (self._only_again or row in self._seen)

    def put(self, record: Record) -> None:
        failed = isinstance(record.outcome, Failure)
        if self._seen.get(record.row) or (failed and self.is_done(record.row)):
            self._duplicates += 1
            return
        with self._swap:
            self._batch.append(record)
            self._seen[record.row] = not failed
            self._again.discard(record.row)

    def commit(self) -> int:
        with self._swap:
            batch, self._batch = self._batch, []
        for record in batch:
            kept = self.failures if isinstance(record.outcome, Failure) else self.results
            kept[record.row] = record
        if (spent := self._learnt.get(SPENT)) is not None:
            self._saved[SPENT] = dict(spent)
        return len(batch)

    def close(self) -> None:
        self.commit()
        self._saved |= self._learnt

    @property
    def learnt(self) -> dict[str, Any]:
        return self._learnt

    def free_bytes(self) -> int | None:
        return None

    def statistics(self) -> SinkStatistics:
        failed = len(self.failures.keys() - self.results.keys())
        return SinkStatistics(
            done=len(self.results),
            failed=failed,
            finished=len(self.results) + failed - len(self._again),
            pending=len(self._batch),
            pending_bytes=sum(len(str(record.outcome)) for record in self._batch),
            duplicates=self._duplicates,
            salvaged=0,
            chosen=len(self._again) if self._only_again else None,
        )


def _withdrawal(record: Record) -> Record:
    reply = record.outcome
    assert not isinstance(reply, Failure)
    message = withdrawal_message(record.max_tokens_used, reply.request_id)
    outcome = Failure(kind=FailureKind.TRUNCATED, message=message)
    return Record(row=record.row, id=record.id, outcome=outcome, attempts=record.attempts, usage=record.usage)
