"""What a commit record carries beside the rows, and folders written before it did."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import orjson
import pytest

from engine.errors import SinkBroken
from sinks.batch import Batch
from sinks.checkpoint import LOG, SLOTS, State, sealed, unsealed
from sinks.files import Files
from sinks.lines import line_of
from sinks.recovery import end_row
from sinks.shards import ShardSink
from sinks.verify import verify
from tests.fakes.records import failure, result

SPENT = {"cost_usd": 1.25, "unknown_calls": 3}


def open_run(out: Path) -> ShardSink:
    return ShardSink.open(out, manifest={}, shards=2, resume=(out / "run.json").exists())


def kill(sink: ShardSink) -> None:
    sink._broken = "killed"
    sink.close()


def records(out: Path) -> list[dict[str, object]]:
    lines = (out / "checkpoint" / LOG).read_bytes().splitlines(keepends=True)
    return [json.loads(body) for body in map(unsealed, lines) if body is not None]


def test_every_commit_record_says_what_has_been_spent(tmp_path: Path) -> None:
    sink = open_run(tmp_path / "run")
    sink.put(result(0))
    sink.commit()
    sink.learnt["spent"] = dict(SPENT)
    sink.put(result(1))
    sink.commit()
    sink.commit()
    assert [record["spent"] for record in records(tmp_path / "run")] == [None, SPENT]
    kill(sink)


def test_money_is_restored_from_the_log_when_both_snapshots_are_lost(tmp_path: Path) -> None:
    out, now_s = tmp_path / "run", 0.0
    sink = ShardSink.open(out, manifest={}, shards=2, resume=False, clock=lambda: now_s)
    for row in range(8):
        sink.learnt["spent"] = {"cost_usd": float(row)}
        sink.put(result(row))
        now_s += 20
        sink.commit()
    sink.put(result(8))
    sink.commit()
    kill(sink)
    for slot in SLOTS:
        (out / "checkpoint" / slot).unlink()
    with open_run(out) as sink:
        assert sink.statistics().done == 9
        assert sink.learnt["spent"] == {"cost_usd": 7.0}


def without_money(out: Path) -> None:
    """Rewrite the log as it was written before commit records knew of money."""
    old = [{key: value for key, value in record.items() if key != "spent"} for record in records(out)]
    (out / "checkpoint" / LOG).write_bytes(b"".join(sealed(orjson.dumps(record)) for record in old))


@pytest.mark.parametrize("closed", [True, False])
def test_a_folder_written_before_commits_carried_money_is_read_as_before(tmp_path: Path, *, closed: bool) -> None:
    out = tmp_path / "run"
    sink = open_run(out)
    sink.put(result(0))
    sink.put(failure(1))
    sink.commit()
    if closed:
        sink.close()
    else:
        kill(sink)
    without_money(out)
    assert json.loads((out / "run.json").read_bytes())["format"] == 1
    with open_run(out) as sink:
        assert (sink.statistics().done, sink.statistics().failed) == (1, 1)
        assert sink.learnt == {}
        sink.learnt["spent"] = dict(SPENT)
        sink.put(result(2))
        sink.commit()
    with open_run(out) as sink:
        assert sink.learnt == {"spent": SPENT}
        assert sink.statistics().done == 2


def test_a_row_with_a_result_does_not_count_as_failed_whichever_line_came_first() -> None:
    state, batch = State(), Batch()
    for row, failed in ((0, False), (1, True), (2, True)):
        end_row(state, row, failed=failed)
    for row, failed in ((0, True), (1, False), (3, True), (3, False), (4, True), (2, True)):
        batch.add("shard", b"line", row=row, failed=failed)
    promised = batch.counts_after(state)
    for row, failed in batch.rows:
        end_row(state, row, failed=failed)
    assert promised == (state.results.count, state.failed()) == (3, 2)


class SlowFiles(Files):
    """Syncs take a moment: time enough for another commit to come between."""

    def sync_data(self, fd: int) -> None:
        time.sleep(0.05)
        super().sync_data(fd)


def test_commits_of_two_threads_come_one_after_the_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ShardSink.open(out, manifest={}, shards=1, resume=False, files=SlowFiles()) as sink:
        sink.put(result(0))
        first = threading.Thread(target=sink.commit)
        first.start()
        time.sleep(0.02)
        sink.put(result(1))
        sink.commit()
        first.join()
    with ShardSink.open(out, manifest={}, shards=1, resume=True) as sink:
        assert sink.notes == []
        assert sink.statistics().done == 2
    assert verify(out).sound


@pytest.mark.parametrize("off", [-1, 1, 7])
def test_an_end_in_the_middle_of_a_line_is_refused_and_nothing_is_cut(tmp_path: Path, off: int) -> None:
    out = tmp_path / "out"
    with ShardSink.open(out, manifest={}, shards=1, resume=False) as sink:
        for row in range(3):
            sink.put(result(row))
        sink.commit()
        sink._state.ends["results/shard-00000.jsonl"] -= len(line_of(result(2))) + off
    before = (out / "results" / "shard-00000.jsonl").read_bytes()
    with pytest.raises(SinkBroken, match="in the middle of a line"):
        ShardSink.open(out, manifest={}, shards=1, resume=True)
    assert (out / "results" / "shard-00000.jsonl").read_bytes() == before
    assert list((out / "quarantine").iterdir()) == []
