"""A run folder after a crash at every operation, with every damage a power loss may do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from engine.errors import FolderInUse, ResumeMismatch, SinkBroken
from engine.types import Failure, Record
from sinks.checkpoint import LOG, SLOTS
from sinks.lines import line_of
from sinks.shards import ShardSink
from tests.fakes.commands import ROOT, lines_of
from tests.fakes.disk import MORE_DAMAGES, Disk
from tests.fakes.records import failure, result
from tests.soak.checks import passed
from tests.soak.explore import OCCURRENCES, points

ROWS, COMMIT_EVERY, SHARDS = 24, 3, 3
FAILED = {4, 11, 17}


def record(row: int) -> Record:
    return failure(row) if row in FAILED else result(row, text=f"answer {row}")


def rows_in(out: Path) -> dict[str, list[int]]:
    return {kind: sorted(line["row"] for line in lines_of(out, kind)) for kind in ("results", "failures")}


def assert_whole(out: Path) -> None:
    """Exactly one line a row, each in its place, and nothing left to recover."""
    held = rows_in(out)
    assert held == {"results": sorted(set(range(ROWS)) - FAILED), "failures": sorted(FAILED)}
    with ShardSink.open(out, manifest={}, shards=SHARDS, resume=True) as sink:
        assert (sink.statistics().done, sink.statistics().failed) == (ROWS - len(FAILED), len(FAILED))
        assert sink.statistics().salvaged == 0


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_step_the_power_fails_at() -> None:
    assert passed("power_loss").states > 350


@pytest.mark.slow
def test_every_step_is_crashed_before_and_halfway_at_its_first_second_third_and_last_time() -> None:
    known = Counter(point.step for point in points())
    crashed = passed("power_loss").steps
    assert crashed == {step: min(times, len(OCCURRENCES)) for step, times in known.items()}
    assert all(damage in passed("power_loss").damages for damage in MORE_DAMAGES)
    named = """
        open: sync_folder the run folder, open: rename run.json, commit: open_append results/shard
        commit: write results/shard, commit: write results/shard half, commit: sync_data results/shard
        commit: sync_folder results, commit: write checkpoint/commit.log, commit: write checkpoint/commit.log half
        commit: sync_data checkpoint/commit.log, commit: write checkpoint/snapshot.partial half
        commit: sync_data checkpoint/snapshot.partial, commit: rename checkpoint/snapshot
        commit: sync_folder checkpoint, commit: rename checkpoint/commit.log, open anew: truncate results/shard
        open anew: write_at results/shard half, open anew: sync_data results/shard
        open anew: rename quarantine/shard, close: rename checkpoint/snapshot
    """
    for step in named.replace("\n", ",").split(","):
        assert crashed[step.strip()] or not step.strip(), step


@pytest.mark.slow
def test_a_killed_run_that_was_gone_on_with_survives_a_power_loss() -> None:
    assert passed("kill_then_power_loss").states > 200


@pytest.mark.slow
def test_a_recovery_that_crashes_is_begun_again() -> None:
    assert passed("crashed_recovery").states > 150


@pytest.mark.slow
@pytest.mark.parametrize("check", ["lost_snapshot", "damaged_committed_bytes"])
def test_what_a_disk_loses_is_made_good_or_refused(check: str) -> None:
    assert passed(check).states


def test_a_commit_that_does_not_end_by_an_error_of_the_disk_lets_nothing_follow(tmp_path: Path) -> None:
    sink = ShardSink.open(tmp_path / "run", manifest={}, shards=SHARDS, resume=False)
    sink.put(result(0))
    sink.learnt["spent"] = {"cost_usd": object()}
    with pytest.raises(TypeError):
        sink.commit()
    with pytest.raises(SinkBroken, match="did not end"):
        sink.put(result(1))
    sink.close()
    with resume(tmp_path / "run") as sink:
        assert sink.statistics().salvaged == 1


def test_a_record_missing_within_the_log_makes_every_line_be_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sink = ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    for row in range(3):
        sink.put(result(row))
        sink.commit()
    sink._broken = "killed"
    sink.close()
    log = out / "checkpoint" / LOG
    first, _, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + third)
    with resume(out) as sink:
        assert sink.notes[0] == "a record is missing in the commit log; every line of every shard was read again"
        assert sink.statistics().done == 3
    with resume(out) as sink:
        assert sink.notes == []


def test_older_records_that_show_through_behind_the_log_are_cut(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sink = ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    for row in range(3):
        sink.put(result(row))
        sink.commit()
    sink._broken = "killed"
    sink.close()
    log = out / "checkpoint" / LOG
    stale = log.read_bytes().splitlines(keepends=True)[1]
    log.write_bytes(log.read_bytes() + stale)
    with resume(out) as sink:
        assert "a torn record at the end of the commit log" in sink.notes[0]
        assert sink.statistics().done == 3


def test_the_names_of_new_folders_above_a_run_are_synced(tmp_path: Path) -> None:
    disk = Disk()
    out = tmp_path / "a" / "b" / "run"
    ShardSink.open(out, manifest={}, shards=SHARDS, resume=False, files=disk).close()
    synced = {path for _, kind, path in disk.journal if kind == "sync_folder"}
    assert {out, out.parent, out.parent.parent, tmp_path} <= synced


def finished_run(out: Path) -> Path:
    now_s = 0.0
    with ShardSink.open(out, manifest={}, shards=SHARDS, resume=False, clock=lambda: now_s) as sink:
        for row in range(ROWS):
            sink.put(record(row))
            if row % COMMIT_EVERY == COMMIT_EVERY - 1:
                now_s += 20
                sink.commit()
    return out


def resume(out: Path, **settings: object) -> ShardSink:
    return ShardSink.open(out, manifest={}, shards=SHARDS, resume=True, **settings)  # type: ignore[arg-type]  # of `open`


def test_committed_bytes_that_are_missing_are_never_redone_silently(tmp_path: Path) -> None:
    out = finished_run(tmp_path / "run")
    shard = out / "results" / "shard-00001.jsonl"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(SinkBroken, match=r"shard-00001\.jsonl has .* committed bytes are missing"):
        resume(out)
    assert shard.read_bytes() == whole[:-10]
    shard.unlink()
    with pytest.raises(SinkBroken, match="shard-00001"):
        resume(out)
    shard.write_bytes(whole)
    resume(out).close()


def test_a_flipped_bit_after_the_snapshot_is_found(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sink = ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    sink.put(result(0))
    sink.commit()
    sink._broken = "killed"
    sink.close()
    shard = out / "results" / "shard-00000.jsonl"
    damaged = bytearray(shard.read_bytes())
    damaged[20] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(SinkBroken, match="damaged"):
        resume(out)
    assert shard.read_bytes() == damaged


def test_a_torn_tail_goes_to_quarantine_and_whole_lines_before_it_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sink = ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    sink.put(result(0))
    sink.close()
    paid, torn = line_of(result(3)), line_of(result(6))[:-30]
    with (out / "results" / "shard-00000.jsonl").open("ab") as file:
        file.write(paid + torn)
    with resume(out) as sink:
        assert sink.statistics().salvaged == 1
        assert (sink.is_done(3), sink.is_done(6)) == (True, False)
        assert any("quarantine" in note for note in sink.notes)
    assert [path.read_bytes() for path in (out / "quarantine").iterdir()] == [torn]
    assert rows_in(out)["results"] == [0, 3]


def test_a_line_of_another_shard_or_a_second_line_of_a_row_is_not_taken_in(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sink = ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    sink.put(result(0))
    sink.close()
    for strange in (line_of(result(1)), line_of(result(0, "another"))):
        with (out / "results" / "shard-00000.jsonl").open("ab") as file:
            file.write(strange)
        resume(out).close()
        assert rows_in(out)["results"] == [0]


def test_both_snapshots_lost_is_survived_by_reading_every_line(tmp_path: Path) -> None:
    out = finished_run(tmp_path / "run")
    for slot in SLOTS:
        (out / "checkpoint" / slot).unlink(missing_ok=True)
    assert (out / "checkpoint" / LOG).exists()
    with resume(out) as sink:
        assert sink.statistics().salvaged == ROWS
    assert_whole(out)


def test_a_folder_with_a_run_needs_resume_and_one_with_other_files_is_refused(tmp_path: Path) -> None:
    out = finished_run(tmp_path / "run")
    with pytest.raises(FolderInUse, match="--resume"):
        ShardSink.open(out, manifest={}, shards=SHARDS, resume=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(FolderInUse, match=r"notes\.txt"):
        ShardSink.open(tmp_path / "other", manifest={}, shards=SHARDS, resume=False)


def test_a_mismatch_names_every_field_that_differs(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stored = {"input": {"size_bytes": 3, "path": "a"}, "settings": {"model": "m", "recipe": {"fit": "none", "n": 1}}}
    ShardSink.open(out, manifest=stored, shards=2, resume=False).close()
    moved = {"input": {"size_bytes": 3, "path": "b"}, "settings": stored["settings"]}
    ShardSink.open(out, manifest=moved, shards=2, resume=True).close()
    other = {"input": {"size_bytes": 4}, "settings": {"model": "m", "recipe": {"fit": "tokens", "n": 1, "more": None}}}
    with pytest.raises(ResumeMismatch) as raised:
        ShardSink.open(out, manifest=other, shards=2, resume=True)
    said = str(raised.value)
    assert "input.size_bytes: the run has 3, now it is 4" in said
    assert 'settings.recipe.fit: the run has "none", now it is "tokens"' in said
    assert said.count(": the run has") == 2


def test_the_number_of_shards_a_run_began_with_wins(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ShardSink.open(out, manifest={}, shards=5, resume=False).close()
    with ShardSink.open(out, manifest={}, shards=64, resume=True) as sink:
        assert sink.shards == 5


HOLDER = """\
    import sys, time
    from pathlib import Path
    from sinks.shards import ShardSink
    with ShardSink.open(Path(sys.argv[1]), manifest={}, shards=2, resume=False) as sink:
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse, match=f"process {holder.pid} on {os.uname().nodename}"):
            resume(out)
        holder.send_signal(signal.SIGKILL)
    resume(out).close()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    out = finished_run(tmp_path / "run")
    (out / "run.json").write_text("{")
    with pytest.raises(SinkBroken, match=r"run\.json is damaged"):
        resume(out)


def test_the_commit_log_is_cut_back_once_two_snapshots_cover_it(tmp_path: Path) -> None:
    now_s = 0.0
    with ShardSink.open(tmp_path / "run", manifest={}, shards=2, resume=False, clock=lambda: now_s) as sink:
        for row in range(40):
            sink.put(result(row))
            now_s += 10
            sink.commit()
    log = (tmp_path / "run" / "checkpoint" / LOG).read_bytes().splitlines()
    assert len(log) < 10
    assert json.loads(log[-1].rpartition(b" ")[0])["done"] == 40


def test_failures_are_data_of_their_own_folder(tmp_path: Path) -> None:
    assert isinstance(record(4).outcome, Failure)
    out = finished_run(tmp_path / "run")
    assert rows_in(out)["failures"] == sorted(FAILED)
