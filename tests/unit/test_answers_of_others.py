"""Answers that another process of the same run remembers."""

from __future__ import annotations

from pathlib import Path

from sinks.answers import ANSWERS, Cache, RunAnswers
from sinks.batch import Answered
from sinks.lines import line_of
from sinks.shards import ShardSink
from tests.fakes.records import failure, result


def key(row: int) -> bytes:
    return bytes([row]) * 16


def test_what_is_remembered_is_found_once_the_reader_looks_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with (
        ShardSink.open(out, manifest={}, shards=2, resume=False) as sink,
        RunAnswers(out, shards=2) as kept,
        RunAnswers(out, shards=2, reads_only=True) as other,
    ):
        sink.remember = kept.remember
        assert other.trouble is None
        for row in range(2):
            assert other.find(key(row)) is None
            sink.put(result(row, f"answer {row}", key=key(row)))
            sink.commit()
            assert other.find(key(row)) is None, "it reads as of one moment"
            other.renew()
            found = other.find(key(row))
            assert found is not None
            assert (found.row, found.reply.text) == (row, f"answer {row}")


def test_a_reader_that_looks_anew_lets_the_log_of_the_writer_end(tmp_path: Path) -> None:
    with Cache(tmp_path, salt=b"s") as kept, Cache(tmp_path, salt=b"s", reads_only=True) as other:
        line = line_of(result(5, "yes"))
        kept.remember([Answered(key=key(1), row=5, name="", at=0, line=line)])
        assert other.find(key(1)) is not None
        kept.remember([Answered(key=key(2), row=5, name="", at=0, line=line)])
        writing = kept._table._writing
        assert writing is not None
        busy = writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        assert busy, "a reader that stays at one moment holds the log"
        other.renew()
        assert not writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def test_a_reader_makes_and_removes_nothing(tmp_path: Path) -> None:
    with RunAnswers(tmp_path, shards=2, reads_only=True) as other:
        assert other.trouble is not None
        assert other.find(key(1)) is None
        other.renew()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ANSWERS).write_bytes(b"damaged" * 1000)
    with RunAnswers(tmp_path, shards=2, reads_only=True) as other:
        assert other.trouble is not None
    assert (tmp_path / ANSWERS).read_bytes() == b"damaged" * 1000


def test_another_process_is_told_which_rows_are_done(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with ShardSink.open(out, manifest={}, shards=2, resume=False) as sink:
        sink.put(result(0))
        sink.put(failure(1))
    for again, only, expected in (
        (False, None, [True, True, False]),
        (True, None, [True, False, False]),
        (False, frozenset({"refused"}), [True, False, True]),
    ):
        with ShardSink.open(out, manifest={}, shards=2, resume=True, retry_failed=again, only=only) as sink:
            done = sink.done_rows()
            assert [done.has(row) for row in range(3)] == [sink.is_done(row) for row in range(3)] == expected
