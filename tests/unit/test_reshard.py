"""A run in another number of shards: the same lines, a checkpoint to go on from, no half folder that looks whole."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import orjson
import pytest

from engine.errors import ConfigError, FolderInUse, ResumeMismatch, SinkBroken
from sinks.checkpoint import LOG
from sinks.files import Files
from sinks.reshard import reshard
from sinks.shards import ShardSink
from sinks.verify import verify
from tests.fakes.commands import lines_of
from tests.fakes.disk import DAMAGES, Disk, PowerCutError
from tests.fakes.records import cut, failure, result

MANIFEST = {"input": {"size": 7}, "settings": {"model": "m"}}
ORDER = (9, 2, 0, 5, 70_000, 3, 1)


def open_run(out: Path, **more: object) -> ShardSink:
    settings: dict[str, object] = {"manifest": MANIFEST, "shards": 3, "resume": (out / "run.json").exists()}
    return ShardSink.open(out, **(settings | more))  # type: ignore[arg-type]  # names are checked by `open`


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    with open_run(out) as sink:
        sink.learnt.update(rows_total=12, spent={"cost_usd": 1.5})
        for row in ORDER:
            sink.put(result(row))
        for row in (4, 8, 6):
            sink.put(failure(row))
    with open_run(out, retry_failed=True) as sink:
        sink.put(result(6))
        sink.put(failure(4, "HTTP 400: no again"))
    return out


def everything(out: Path) -> list[str]:
    return sorted(json.dumps(line) for kind in ("results", "failures") for line in lines_of(out, kind))


def untouched(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.lock"}


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 64])
def test_every_line_is_there_in_its_shard_in_the_order_of_rows(run: Path, tmp_path: Path, shards: int) -> None:
    before = untouched(run)
    done = reshard(run, tmp_path / "new", shards=shards)
    assert (done.results, done.failures, done.shards_before, done.shards) == (8, 4, 3, shards)
    assert everything(tmp_path / "new") == everything(run)
    for path in (tmp_path / "new" / "results").iterdir():
        rows = [json.loads(line)["row"] for line in path.read_bytes().splitlines()]
        assert rows == sorted(rows)
        assert {row % shards for row in rows} == {int(path.stem.removeprefix("shard-"))}
    assert verify(tmp_path / "new").sound, verify(tmp_path / "new")
    assert untouched(run) == before


def test_of_a_row_that_failed_twice_the_last_failure_still_comes_last(run: Path, tmp_path: Path) -> None:
    reshard(run, tmp_path / "new", shards=1)
    assert [(line["row"], line["message"]) for line in lines_of(tmp_path / "new", "failures")][:2] == [
        (4, "HTTP 400: no"),
        (4, "HTTP 400: no again"),
    ]


def test_the_manifest_is_the_same_but_for_the_shards_and_where_they_come_from(run: Path, tmp_path: Path) -> None:
    reshard(run, tmp_path / "new", shards=5)
    old, new = (json.loads((out / "run.json").read_text()) for out in (run, tmp_path / "new"))
    assert new.pop("resharded_from") == {"path": str(run), "shards": 3, "lines": 12}
    assert new == old | {"shards": 5}


def test_a_resume_goes_on_where_the_old_run_stood(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    reshard(run, new, shards=5)
    with open_run(new, retry_failed=True) as sink:
        assert (sink.statistics().done, sink.statistics().failed, sink.statistics().salvaged) == (8, 2, 0)
        assert sink.shards == 5
        assert sink.learnt == {"rows_total": 12, "spent": {"cost_usd": 1.5}}
        assert [row for row in range(12) if not sink.is_done(row)] == [4, 7, 8, 10, 11]
        sink.put(result(4))
        sink.put(result(7))
        sink.commit()
        assert verify(new).sound
    assert verify(new).sound
    with open_run(new) as sink:
        assert (sink.statistics().done, sink.statistics().failed) == (10, 1)
    assert verify(new).sound


def test_answers_past_the_last_commit_come_along(run: Path, tmp_path: Path) -> None:
    with (run / "results" / "shard-00001.jsonl").open("ab") as file:
        file.write(orjson.dumps(lines_of(run)[0] | {"row": 10}) + b'\n{"row":13')
    done = reshard(run, tmp_path / "new", shards=2)
    assert done.results == 9
    assert any("were kept" in note for note in done.notes)
    assert any("quarantine/" in note for note in done.notes)
    assert verify(run).sound
    assert verify(tmp_path / "new").sound


def test_an_empty_run_becomes_an_empty_run(tmp_path: Path) -> None:
    open_run(tmp_path / "run").close()
    (tmp_path / "new").mkdir()
    assert reshard(tmp_path / "run", tmp_path / "new", shards=2).results == 0
    assert verify(tmp_path / "new").sound
    with open_run(tmp_path / "new") as sink:
        sink.put(result(0))
    assert verify(tmp_path / "new").sound


def test_a_reshard_and_one_back_is_the_same_run(run: Path, tmp_path: Path) -> None:
    reshard(run, tmp_path / "there", shards=7)
    reshard(tmp_path / "there", tmp_path / "back", shards=3)
    assert everything(tmp_path / "back") == everything(run)
    assert verify(tmp_path / "back").sound


@pytest.mark.slow
def test_a_withdrawal_that_was_interrupted_is_completed_first(tmp_path: Path) -> None:
    for at in range(1, 200):
        out, new = tmp_path / f"{at}", tmp_path / f"{at}-new"
        with open_run(out) as sink:
            for row in range(6):
                sink.put(cut(row) if row % 2 else result(row))
        disk = Disk(crash_at=at)
        try:
            open_run(out, only=frozenset({"truncated"}), files=disk).close()
        except PowerCutError:
            disk.abandon()
        else:
            return
        reshard(out, new, shards=2)
        assert verify(out).sound
        assert verify(new).sound
        assert everything(new) == everything(out)


def crash(out: Path, new: Path, at: int) -> Disk | None:
    disk = Disk(crash_at=at)
    try:
        reshard(out, new, shards=2, files=disk)
    except PowerCutError:
        disk.abandon()
        return disk
    return None


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_kill_anywhere_leaves_no_run_or_a_whole_one(run: Path, tmp_path: Path, damage: str) -> None:
    before, whole = everything(run), 0
    for at in range(500):
        new = tmp_path / f"new-{at}"
        disk = crash(run, new, at)
        if disk is None:
            assert at > 20
            break
        disk.lose_power(new, damage, seed=at)
        assert everything(run) == before
        if (new / "run.json").exists():
            whole += 1
            assert everything(new) == before
            assert verify(new).sound, (at, verify(new))
        elif new.exists():
            with pytest.raises(ConfigError, match="holds no run"):
                verify(new)
    # After a power loss the last rename may be undone; a killed process alone leaves the whole run.
    assert whole or damage != "nothing"
    assert verify(run).sound


def test_what_a_kill_left_is_refused_as_a_place_and_as_a_run(run: Path, tmp_path: Path) -> None:
    disk = Disk()
    reshard(run, tmp_path / "whole", shards=2, files=disk)
    assert crash(run, tmp_path / "new", disk.operations - 3) is not None
    with pytest.raises(FolderInUse, match="holds no run"):
        reshard(run, tmp_path / "new", shards=2)
    with pytest.raises(FolderInUse, match="holds no run"):
        open_run(tmp_path / "new")


@pytest.mark.parametrize("at", range(3, 40, 4))
def test_a_failing_disk_says_what_is_safe_and_leaves_no_run(run: Path, tmp_path: Path, at: int) -> None:
    with pytest.raises(SinkBroken, match=r"No space left.*No answer in .* was touched.*delete it") as raised:
        reshard(run, tmp_path / "new", shards=4, files=Disk(fail_at=at, error=errno.ENOSPC))
    assert str(tmp_path / "new") in str(raised.value)
    assert not (tmp_path / "new" / "run.json").exists()
    assert verify(run).sound


class Forgetful(Files):
    """A disk that reads other bytes than were written."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return super().write(fd, bytes(data).replace(b'"attempt":1,', b'"attempt":2,'))


def test_a_disk_that_keeps_other_bytes_is_caught_before_the_folder_is_a_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SinkBroken, match="not what was written"):
        reshard(run, tmp_path / "new", shards=2, files=Forgetful())
    assert not (tmp_path / "new" / "run.json").exists()


def test_a_folder_in_use_is_refused_and_its_holder_named(run: Path, tmp_path: Path) -> None:
    with open_run(run), pytest.raises(FolderInUse, match=r"in use by process \d+ on .* since"):
        reshard(run, tmp_path / "new", shards=2)
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").touch()
    (tmp_path / "file").touch()
    for new, kind, words in (
        (run, ConfigError, "two folders"),
        (run / "inner", ConfigError, "two folders"),
        (tmp_path, ConfigError, "two folders"),
        (tmp_path / "full", FolderInUse, "not empty"),
        (tmp_path / "file", FolderInUse, "cannot be"),
        (tmp_path / "file" / "new", FolderInUse, "cannot be"),
    ):
        with pytest.raises(kind, match=words):
            reshard(run, new, shards=2)
    with pytest.raises(ConfigError, match="--shards"):
        reshard(run, tmp_path / "new", shards=0)
    with pytest.raises(ConfigError, match="holds no run"):
        reshard(tmp_path / "full", tmp_path / "new", shards=2)
    assert not (tmp_path / "new").exists()


def test_a_run_of_a_newer_version_is_left_alone(run: Path, tmp_path: Path) -> None:
    said = json.loads((run / "run.json").read_text()) | {"format": 2}
    (run / "run.json").write_text(json.dumps(said))
    with pytest.raises(ResumeMismatch, match="newer version"):
        reshard(run, tmp_path / "new", shards=2)


def test_damage_is_not_carried_over(run: Path, tmp_path: Path) -> None:
    shard = run / "results" / "shard-00000.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b'"row":9', b'"row":6', 1))
    (run / "checkpoint" / LOG).write_bytes(b"")
    with pytest.raises(SinkBroken, match="not those its checkpoint speaks of"):
        reshard(run, tmp_path / "new", shards=2)
    assert not (tmp_path / "new" / "run.json").exists()
