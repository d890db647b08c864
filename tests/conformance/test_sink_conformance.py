"""What every sink promises, the one on disk and its fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from engine.ports import Sink
from sinks.memory import MemorySink
from sinks.shards import ShardSink
from tests.fakes.records import failure, result


class Lives(Protocol):
    """A place that holds a run."""

    def begin(self, *, retry_failed: bool = False) -> Sink:
        """The next life; the one before has ended without a word."""
        ...


class OnDisk:
    def __init__(self, out: Path) -> None:
        self._out = out
        self._sink: ShardSink | None = None

    def begin(self, *, retry_failed: bool = False) -> Sink:
        resume = self._sink is not None
        self.end()
        self._sink = ShardSink.open(self._out, manifest={}, shards=3, resume=resume, retry_failed=retry_failed)
        return self._sink

    def end(self) -> None:
        if self._sink is not None:
            # As a killed process would: the lock goes, nothing is written.
            self._sink._broken = "killed"
            self._sink.close()


class InMemory:
    def __init__(self) -> None:
        self._sink: MemorySink | None = None

    def begin(self, *, retry_failed: bool = False) -> Sink:
        self._sink = MemorySink() if self._sink is None else self._sink.reopened(retry_failed=retry_failed)
        return self._sink


@pytest.fixture(params=["disk", "memory"])
def lives(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lives]:
    if request.param == "memory":
        yield InMemory()
        return
    on_disk = OnDisk(tmp_path / "run")
    yield on_disk
    on_disk.end()


def counts(sink: Sink) -> tuple[int, int, int, int]:
    held = sink.statistics()
    return held.done, held.failed, held.finished, held.pending


def test_a_record_counts_once_it_is_committed(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(result(0))
    sink.put(failure(1))
    assert counts(sink) == (0, 0, 0, 2)
    assert sink.statistics().pending_bytes > 0
    assert sink.commit() == 2
    assert counts(sink) == (1, 1, 2, 0)
    assert sink.commit() == 0


def test_a_row_is_done_as_soon_as_it_is_put(lives: Lives) -> None:
    sink = lives.begin()
    assert not sink.is_done(4)
    sink.put(result(4))
    assert sink.is_done(4)


def test_what_was_not_committed_is_gone_in_the_next_life(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(result(0))
    sink.commit()
    sink.put(result(1))
    sink = lives.begin()
    assert (sink.is_done(0), sink.is_done(1)) == (True, False)
    assert counts(sink) == (1, 0, 1, 0)


def test_a_second_result_is_dropped_and_counted(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(result(0))
    sink.put(result(0))
    sink.put(failure(0))
    assert sink.commit() == 1
    assert sink.statistics().duplicates == 2
    assert counts(sink) == (1, 0, 1, 0)


def test_a_result_beats_a_failure(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(failure(0))
    sink.commit()
    assert counts(sink) == (0, 1, 1, 0)
    sink.put(result(0))
    sink.commit()
    assert counts(sink) == (1, 0, 1, 0)
    assert counts(lives.begin()) == (1, 0, 1, 0)


def test_failed_rows_are_done_unless_they_are_to_be_tried_again(lives: Lives) -> None:
    sink = lives.begin()
    for record in (failure(0), failure(1), result(2)):
        sink.put(record)
    sink.commit()
    sink = lives.begin()
    assert [sink.is_done(row) for row in range(3)] == [True, True, True]
    sink = lives.begin(retry_failed=True)
    assert [sink.is_done(row) for row in range(3)] == [False, False, True]
    assert counts(sink) == (1, 2, 1, 0)
    sink.put(result(0))
    sink.put(failure(1))
    sink.commit()
    assert [sink.is_done(row) for row in range(3)] == [True, True, True]
    assert counts(sink) == (2, 1, 3, 0)
    assert counts(lives.begin()) == (2, 1, 3, 0)


def test_what_was_learnt_is_known_to_the_next_life_once_the_sink_was_closed(lives: Lives) -> None:
    sink = lives.begin()
    sink.learnt["rows_total"] = 7
    sink.put(result(0))
    sink.close()
    assert lives.begin().learnt == {"rows_total": 7}


def test_closing_commits_what_is_left(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(result(5))
    sink.close()
    assert lives.begin().is_done(5)
