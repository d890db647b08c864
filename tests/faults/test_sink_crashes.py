"""A run folder after a crash at every operation, with every damage a power loss may do."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import FolderInUse, ResumeMismatch, RunError, SinkBroken
from engine.types import Failure, Record
from sinks.checkpoint import LOG, SLOTS
from sinks.files import OS_FILES, Files
from sinks.lines import line_of
from sinks.shards import ShardSink
from tests.fakes.commands import ROOT, lines_of
from tests.fakes.disk import DAMAGES, Disk, PowerCutError
from tests.fakes.records import failure, result

ROWS, COMMIT_EVERY, SHARDS = 24, 3, 3
FAILED = {4, 11, 17}


def record(row: int) -> Record:
    return failure(row) if row in FAILED else result(row, text=f"answer {row}")


class Life:
    """One life of a scripted run: some rows a commit, a snapshot every other commit."""

    def __init__(self, out: Path, files: Files) -> None:
        self.acknowledged: set[int] = set()
        self._out, self._files = out, files
        self._now_s = 0.0
        self._sink: ShardSink | None = None

    def run(self, *, resume: bool) -> None:
        self._sink = sink = ShardSink.open(
            self._out, manifest={}, shards=SHARDS, resume=resume, files=self._files, clock=lambda: self._now_s
        )
        self.acknowledged = {row for row in range(ROWS) if sink.is_done(row)}
        put: set[int] = set()
        for row in range(ROWS):
            if not sink.is_done(row):
                sink.put(record(row))
                put.add(row)
            if row % COMMIT_EVERY == COMMIT_EVERY - 1:
                self._now_s += 20
                sink.commit()
                self.acknowledged |= put
        sink.close()
        self.acknowledged |= put

    def die(self) -> None:
        """Give back what the kernel takes from a dead process."""
        if self._sink is not None:
            self._sink._pool.shutdown()
            self._sink._lock.release()
        if isinstance(self._files, Disk):
            self._files.abandon()


def has_run(out: Path) -> bool:
    return (out / "run.json").exists()


def rows_in(out: Path) -> dict[str, list[int]]:
    return {kind: sorted(line["row"] for line in lines_of(out, kind)) for kind in ("results", "failures")}


def assert_whole(out: Path) -> None:
    """Exactly one line a row, each in its place, and nothing left to recover."""
    held = rows_in(out)
    assert held == {"results": sorted(set(range(ROWS)) - FAILED), "failures": sorted(FAILED)}
    with ShardSink.open(out, manifest={}, shards=SHARDS, resume=True) as sink:
        assert (sink.statistics().done, sink.statistics().failed) == (ROWS - len(FAILED), len(FAILED))
        assert sink.statistics().salvaged == 0


def crash(out: Path, at: int, *, resume: bool = False) -> tuple[Disk, set[int]] | None:
    """A life that ends before operation `at`; None if it ended well before that."""
    disk = Disk(crash_at=at)
    life = Life(out, disk)
    try:
        life.run(resume=resume)
    except PowerCutError:
        life.die()
        return disk, life.acknowledged
    return None


def operations() -> int:
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk()
        Life(Path(folder) / "run", disk).run(resume=False)
        return disk.operations


TOTAL = operations()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_acknowledged_is_lost_whatever_operation_the_power_fails_at(tmp_path: Path, damage: str) -> None:
    for at in range(TOTAL):
        out = tmp_path / f"run-{at}"
        crashed = crash(out, at)
        assert crashed is not None
        disk, acknowledged = crashed
        disk.lose_power(out, damage, seed=at)
        if not has_run(out):
            assert not acknowledged
            continue
        life = Life(out, OS_FILES)
        life.run(resume=True)
        assert acknowledged <= life.acknowledged
        assert_whole(out)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["nothing", "half", "garbage"])
def test_a_recovery_that_crashes_is_begun_again(tmp_path: Path, damage: str) -> None:
    for first in (TOTAL // 3, TOTAL // 2, TOTAL - 5):
        for second in range(60):
            out = tmp_path / f"run-{first}-{second}"
            crashed = crash(out, first)
            assert crashed is not None
            crashed[0].lose_power(out, damage, seed=first)
            again = crash(out, second, resume=True)
            if again is not None:
                # What the first life had synced is on the disk; the second knows only of its own.
                for path in out.rglob("*"):
                    if path.is_file():
                        again[0]._synced.setdefault(path, path.read_bytes())
                        again[0]._lasting.setdefault(path, again[0]._synced[path])
                again[0].lose_power(out, "nothing", seed=second)
            Life(out, OS_FILES).run(resume=True)
            assert_whole(out)


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_operation_ends_the_run_and_nothing_of_that_commit_counts(tmp_path: Path, error: int) -> None:
    for at in range(1, TOTAL + 1):
        out = tmp_path / f"run-{at}"
        disk = Disk(fail_at=at, error=error)
        life = Life(out, disk)
        with suppress(RunError):
            life.run(resume=False)
        life.die()
        acknowledged = life.acknowledged
        if not has_run(out):
            assert not acknowledged
            continue
        again = Life(out, OS_FILES)
        again.run(resume=True)
        assert acknowledged <= again.acknowledged
        assert_whole(out)


def finished_run(out: Path) -> Path:
    Life(out, OS_FILES).run(resume=False)
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
