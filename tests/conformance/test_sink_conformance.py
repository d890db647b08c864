"""What every sink promises, the one on disk and its fake alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from engine.errors import ConfigError
from engine.ports import Sink
from engine.types import Failure, FailureKind
from sinks.memory import MemorySink
from sinks.shards import ShardSink
from tests.fakes.commands import lines_of
from tests.fakes.records import cut, failure, result


class Lives(Protocol):
    """A place that holds a run."""

    def begin(self, *, retry_failed: bool = False, only: frozenset[str] | None = None) -> Sink:
        """The next life; the one before has ended without a word."""
        ...

    def results(self) -> list[tuple[int, str]]:
        """Row and text of every result that stands."""
        ...

    def failures(self) -> dict[int, str]:
        """The kind of each row's newest failure."""
        ...

    def withdrawn(self) -> list[tuple[int, str]]:
        """Row and text of every result that was taken back."""
        ...


class OnDisk:
    def __init__(self, out: Path) -> None:
        self._out = out
        self._sink: ShardSink | None = None

    def begin(self, *, retry_failed: bool = False, only: frozenset[str] | None = None) -> Sink:
        resume = self._sink is not None
        self.end()
        self._sink = ShardSink.open(
            self._out, manifest={}, shards=3, resume=resume, retry_failed=retry_failed, only=only
        )
        return self._sink

    def end(self) -> None:
        if self._sink is not None:
            # As a killed process would: the lock goes, nothing is written.
            self._sink._broken = "killed"
            self._sink.close()

    def results(self) -> list[tuple[int, str]]:
        return sorted((line["row"], line["raw"]) for line in lines_of(self._out))

    def failures(self) -> dict[int, str]:
        return {line["row"]: line["kind"] for line in lines_of(self._out, "failures")}

    def withdrawn(self) -> list[tuple[int, str]]:
        lines = [line for path in (self._out / "quarantine").iterdir() for line in path.read_bytes().splitlines()]
        return sorted((said["row"], said["raw"]) for said in map(json.loads, lines))


class InMemory:
    def __init__(self) -> None:
        self._sink = MemorySink()

    def begin(self, *, retry_failed: bool = False, only: frozenset[str] | None = None) -> Sink:
        self._sink = self._sink.reopened(retry_failed=retry_failed, only=only)
        return self._sink

    def results(self) -> list[tuple[int, str]]:
        return sorted(
            (row, record.outcome.text)
            for row, record in self._sink.results.items()
            if not isinstance(record.outcome, Failure)
        )

    def failures(self) -> dict[int, str]:
        return {
            row: str(record.outcome.kind)
            for row, record in self._sink.failures.items()
            if isinstance(record.outcome, Failure)
        }

    def withdrawn(self) -> list[tuple[int, str]]:
        return sorted(
            (record.row, record.outcome.text)
            for record in self._sink.withdrawn
            if not isinstance(record.outcome, Failure)
        )


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


def open_rows(sink: Sink, upto: int = 10) -> list[int]:
    """The rows a life has work to do on."""
    return [row for row in range(upto) if not sink.is_done(row)]


def put_all_kinds(sink: Sink) -> None:
    """Rows 0 to 6 of ten: results, one of them cut off, and failures of three kinds."""
    sink.put(result(0))
    sink.put(cut(1))
    for row, kind in (
        (2, FailureKind.SERVER),
        (3, FailureKind.REFUSED),
        (4, FailureKind.SERVER),
        (5, FailureKind.RATE),
    ):
        sink.put(failure(row, kind=kind))
    sink.put(cut(6))
    sink.commit()


@pytest.mark.parametrize(
    ("only", "rows"),
    [
        ({"server"}, [2, 4]),
        ({"refused", "rate"}, [3, 5]),
        ({"truncated"}, [1, 6]),
        ({"truncated", "server"}, [1, 2, 4, 6]),
        ({"blocked"}, []),
        (set(), []),
    ],
)
def test_a_life_for_certain_kinds_works_on_rows_of_those_kinds_and_no_others(
    lives: Lives, only: set[str], rows: list[int]
) -> None:
    put_all_kinds(lives.begin())
    for retry_failed in (False, True):
        assert open_rows(lives.begin(only=frozenset(only), retry_failed=retry_failed)) == rows


def test_an_unknown_kind_is_refused_by_name(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    with pytest.raises(ConfigError, match=r"called serve, x; there are bad_row, .*truncated"):
        lives.begin(only=frozenset({"serve", "server", "x"}))


def test_the_newest_failure_of_a_row_says_its_kind(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    sink = lives.begin(only=frozenset({"server"}))
    sink.put(failure(2, kind=FailureKind.BLOCKED))
    sink.put(result(4))
    assert open_rows(sink) == []
    sink.commit()
    assert open_rows(lives.begin(only=frozenset({"server"}))) == []
    assert open_rows(lives.begin(only=frozenset({"blocked"}))) == [2]
    assert counts(lives.begin()) == (4, 3, 7, 0)


def test_a_row_outside_the_kinds_that_fails_is_dropped_and_one_that_was_paid_for_is_kept(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    sink = lives.begin(only=frozenset({"server"}))
    for record in (failure(9), failure(3), result(0), result(8)):
        sink.put(record)
    assert sink.commit() == 1
    assert sink.statistics().duplicates == 3
    assert open_rows(lives.begin()) == [7, 9]


def test_a_cut_answer_that_is_asked_for_again_ends_as_exactly_one_result(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    sink = lives.begin(only=frozenset({"truncated"}))
    assert counts(sink) == (1, 6, 5, 0)
    assert lives.results() == [(0, '{"a":"yes"}')]
    assert lives.failures() == {1: "truncated", 2: "server", 3: "refused", 4: "server", 5: "rate", 6: "truncated"}
    assert lives.withdrawn() == [(1, '{"a":"y'), (6, '{"a":"y')]
    for record in (result(1, "whole"), result(1, "late"), failure(1), result(6, "whole")):
        sink.put(record)
    assert sink.commit() == 2
    assert sink.statistics().duplicates == 2
    assert lives.results() == [(0, '{"a":"yes"}'), (1, "whole"), (6, "whole")]
    assert counts(lives.begin()) == (3, 4, 7, 0)
    assert open_rows(lives.begin(only=frozenset({"truncated"}))) == []


def test_a_cut_answer_that_fails_when_asked_for_again_is_a_failure_and_its_line_is_kept(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    sink = lives.begin(only=frozenset({"truncated"}))
    sink.put(failure(1, kind=FailureKind.SERVER))
    sink.commit()
    assert open_rows(sink) == [6]
    assert lives.results() == [(0, '{"a":"yes"}')]
    assert lives.failures()[1] == "server"
    assert (1, '{"a":"y') in lives.withdrawn()
    assert open_rows(lives.begin(only=frozenset({"truncated"}))) == [6]
    assert open_rows(lives.begin()) == [7, 8, 9]
    assert open_rows(lives.begin(retry_failed=True)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_an_answer_that_is_cut_off_again_can_be_withdrawn_again(lives: Lives) -> None:
    put_all_kinds(lives.begin())
    for text in ("longer", "longer still"):
        sink = lives.begin(only=frozenset({"truncated"}))
        assert open_rows(sink) == [1, 6]
        sink.put(cut(1, text, max_tokens_used=1024))
        sink.put(cut(6, text, max_tokens_used=1024))
        sink.commit()
    lives.begin(only=frozenset({"truncated"}))
    assert lives.withdrawn() == sorted((row, text) for row in (1, 6) for text in ('{"a":"y', "longer", "longer still"))
    assert lives.results() == [(0, '{"a":"yes"}')]


def test_rows_that_failed_and_then_succeeded_are_not_tried_again(lives: Lives) -> None:
    sink = lives.begin()
    sink.put(failure(0))
    sink.commit()
    sink = lives.begin(retry_failed=True)
    sink.put(result(0))
    sink.commit()
    sink = lives.begin(retry_failed=True)
    assert sink.is_done(0)
    assert counts(sink) == (1, 0, 1, 0)


def test_money_spent_is_known_to_the_next_life_after_every_commit(lives: Lives) -> None:
    sink = lives.begin()
    spent = {"cost_usd": 0.25, "unknown_calls": 1}
    sink.learnt["spent"] = spent
    sink.learnt["limits"] = 7
    sink.put(result(0))
    sink.commit()
    spent["cost_usd"] = 9.0
    sink = lives.begin()
    assert sink.learnt == {"spent": {"cost_usd": 0.25, "unknown_calls": 1}}
    sink.learnt["spent"] = {"cost_usd": 0.5, "unknown_calls": 2}
    # Calls cost money although no row has ended.
    assert sink.commit() == 0
    assert lives.begin().learnt == {"spent": {"cost_usd": 0.5, "unknown_calls": 2}}
