"""A sink that keeps records in memory: for tests of the engine. Passes the same conformance suite as the real one."""

from __future__ import annotations

import threading
from typing import Any

from engine.ports import SinkStatistics
from engine.types import Failure, Record


class MemorySink:
    """Records as they were put. `reopened()` is the next life of the run, with what was committed."""

    def __init__(self, *, retry_failed: bool = False) -> None:
        self.results: dict[int, Record] = {}
        """Committed results by row."""
        self.failures: dict[int, Record] = {}
        """Committed failures by row, those that have a result since included."""
        self._batch: list[Record] = []
        self._seen: dict[int, bool] = {}
        """Rows that have a line, and whether that is a result."""
        self._again: set[int] = set()
        self._retry_failed = retry_failed
        self._duplicates = 0
        self._swap = threading.Lock()
        self._learnt: dict[str, Any] = {}

    def reopened(self, *, retry_failed: bool = False) -> MemorySink:
        """What another life finds: the committed records, and nothing that was not."""
        sink = MemorySink(retry_failed=retry_failed)
        sink.results, sink.failures = dict(self.results), dict(self.failures)
        sink._learnt = dict(self._learnt)
        sink._seen = dict.fromkeys(self.failures, False) | dict.fromkeys(self.results, True)
        sink._again = {row for row in self.failures if row not in self.results} if retry_failed else set()
        return sink

    def is_done(self, row: int) -> bool:
        return row in self._seen and row not in self._again

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
        return len(batch)

    def close(self) -> None:
        self.commit()

    @property
    def learnt(self) -> dict[str, Any]:
        return self._learnt

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
        )
