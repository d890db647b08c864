"""What `verify` finds, and where it is silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from engine.errors import ConfigError
from sinks.checkpoint import LOG, SLOTS, decode_snapshot, sealed, state_as_json, unsealed
from sinks.findings import Verdict
from sinks.folder import FOLDERS
from sinks.shards import ShardSink
from sinks.verify import MAX_NAMED, verify
from tests.fakes.disk import Disk, PowerCutError
from tests.fakes.records import cut, failure, result

SHARDS = 2
RESULTS_0, FAILURES_1 = "results/shard-00000.jsonl", "failures/shard-00001.jsonl"


def open_run(out: Path, **more: object) -> ShardSink:
    settings: dict[str, object] = {"manifest": {}, "shards": SHARDS, "resume": (out / "run.json").exists()}
    return ShardSink.open(out, **(settings | more))  # type: ignore[arg-type]  # names are checked by `open`


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two commits after an older snapshot, a failed row, a row that failed and then succeeded."""
    out = tmp_path / "run"
    with open_run(out) as sink:
        for record in (result(0), result(2), failure(1), failure(3)):
            sink.put(record)
    with open_run(out, retry_failed=True) as sink:
        for record in (result(3), result(4), cut(6)):
            sink.put(record)
        sink.commit()
        sink.put(result(8))
    return out


def places(verdict: Verdict) -> set[tuple[str, int]]:
    return {(found.file, found.offset) for found in verdict.findings}


def words(verdict: Verdict) -> str:
    return "\n".join(found.what for found in verdict.findings)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def beginnings(path: Path) -> list[int]:
    at, found = 0, []
    for line in path.read_bytes().splitlines(keepends=True):
        found.append(at)
        at += len(line)
    return found


def without_log(out: Path) -> None:
    """Leave a folder whose lines no checksum covers: what a run holds once two snapshots are newer."""
    there = [path for slot in SLOTS if (path := out / "checkpoint" / slot).exists()]
    snapshot = max((path.read_bytes() for path in there), key=lambda data: orjson.loads(unsealed(data) or b"")["seq"])
    for slot in SLOTS:
        (out / "checkpoint" / slot).write_bytes(snapshot)
    (out / "checkpoint" / LOG).write_bytes(b"")


def test_a_sound_folder_is_said_to_be_sound(run: Path) -> None:
    verdict = verify(run)
    assert verdict.sound, verdict
    assert (verdict.findings, verdict.more, verdict.uncommitted_bytes) == ((), 0, 0)
    assert verdict.text().count("ok ") == len(verdict.checks) == len(verdict.text().splitlines())


def test_an_empty_run_is_sound(tmp_path: Path) -> None:
    open_run(tmp_path / "run").close()
    assert verify(tmp_path / "run").sound


def test_a_run_that_was_killed_before_its_first_commit_is_sound(tmp_path: Path) -> None:
    with open_run(tmp_path / "run"):
        (tmp_path / "run" / RESULTS_0).write_bytes(b'{"row":')
        verdict = verify(tmp_path / "run")
        (tmp_path / "run" / RESULTS_0).unlink()
    assert (verdict.sound, verdict.uncommitted_bytes) == (True, 7)


def test_a_run_in_progress_is_sound_at_every_commit(tmp_path: Path) -> None:
    now_s = [0.0]
    with open_run(tmp_path / "run", clock=lambda: now_s[0]) as sink:
        for row in range(30):
            sink.put(failure(row) if row % 7 == 0 else result(row))
            if row % 3 == 0:
                now_s[0] += 20
                sink.commit()
            assert verify(tmp_path / "run").sound


def test_bytes_past_the_last_commit_are_told_and_are_no_error(run: Path) -> None:
    with (run / RESULTS_0).open("ab") as file:
        file.write(b'{"row":10,"me')
    with (run / "checkpoint" / LOG).open("ab") as file:
        file.write(b'{"seq":9')
    verdict = verify(run)
    assert (verdict.sound, verdict.uncommitted_bytes) == (True, 21)
    assert "21 bytes are not yet committed" in verdict.text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        verify(tmp_path)


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_a_line_the_log_covers_is_found(run: Path) -> None:
    shard = run / RESULTS_0
    whole = shard.read_bytes()
    for at in range(beginnings(shard)[2], len(whole)):
        flip(shard, at)
        assert RESULTS_0 in {file for file, _ in places(verify(run))}
        shard.write_bytes(whole)


def test_a_flipped_bit_that_makes_an_older_line_no_line_is_found_at_its_beginning(run: Path) -> None:
    without_log(run)
    second = beginnings(run / RESULTS_0)[1]
    flip(run / RESULTS_0, second + 1)
    assert (RESULTS_0, second) in places(verify(run))


def test_a_flipped_bit_in_a_row_number_is_found_without_a_checksum(run: Path) -> None:
    without_log(run)
    flip(run / RESULTS_0, len('{"row":'))
    assert (RESULTS_0, 0) in places(verify(run))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("at", [0, 20, -9, -2, -1])
def test_a_flipped_bit_in_a_snapshot_is_found(run: Path, slot: str, at: int) -> None:
    flip(run / "checkpoint" / slot, at)
    assert (f"checkpoint/{slot}", 0) in places(verify(run))


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_the_commit_log_is_found(run: Path) -> None:
    log = run / "checkpoint" / LOG
    whole, starts = log.read_bytes(), beginnings(log)
    for at in range(len(whole)):
        flip(log, at)
        found = verify(run)
        start = max(start for start in starts if start <= at)
        assert not found.sound
        assert ("checkpoint/" + LOG, start) in places(found)
        log.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"{", b"z", "damaged"),
        (b'"shards"', b'"shardr"', "names no shards"),
        (b'"shards": 2', b'"shards": 0', "0 shards"),
        (b'"shards": 2', b'"shards": 2000000000', "2000000000 shards"),
        (b'"format": 1', b'"format": 9', "format 9"),
        (b'"created"', b'"creatdd"', "created"),
        (b'"shards": 2', b'"input": [], "shards": 2', "input is no object"),
    ],
)
def test_a_damaged_manifest_is_found(run: Path, old: bytes, new: bytes, words: str) -> None:
    manifest = run / "run.json"
    assert old in manifest.read_bytes()
    manifest.write_bytes(manifest.read_bytes().replace(old, new, 1))
    verdict = verify(run)
    assert verdict.findings[0].file == "run.json"
    assert words in verdict.text()


def test_another_number_of_shards_is_found(run: Path) -> None:
    for shards in ("3", "1"):
        said = json.loads((run / "run.json").read_text()) | {"shards": int(shards)}
        (run / "run.json").write_text(json.dumps(said))
        assert not verify(run).sound


def test_a_cut_shard_is_named_with_its_new_end(run: Path) -> None:
    size = (run / RESULTS_0).stat().st_size
    with (run / RESULTS_0).open("r+b") as file:
        file.truncate(size - 5)
    verdict = verify(run)
    assert (RESULTS_0, size - 5) in places(verdict)
    assert f"committed bytes are missing: there are {size - 5:,}, {size:,} were committed" in words(verdict)


@pytest.mark.parametrize("name", [RESULTS_0, FAILURES_1])
def test_a_deleted_shard_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    verdict = verify(run)
    assert (name, 0) in places(verdict)
    assert "the file is gone" in words(verdict)


def rewrite(out: Path, change: Callable[[list[bytes]], list[bytes]], name: str = RESULTS_0) -> None:
    """Change the lines of a shard, and its committed end with them: damage that no length betrays."""
    lines = change((out / name).read_bytes().splitlines(keepends=True))
    (out / name).write_bytes(b"".join(lines))
    without_log(out)
    for slot in SLOTS:
        path = out / "checkpoint" / slot
        state = decode_snapshot(path.read_bytes())
        assert state is not None
        state.ends[name] = len(b"".join(lines))
        path.write_bytes(sealed(orjson.dumps(state_as_json(state))))


def test_a_duplicated_line_is_found_where_it_stands_again(run: Path) -> None:
    rewrite(run, lambda lines: [*lines, lines[0]])
    verdict = verify(run)
    assert places(verdict) == {(RESULTS_0, beginnings(run / RESULTS_0)[-1])}
    assert "a second time" in words(verdict)


def test_a_line_that_is_gone_is_found_by_the_snapshots(run: Path) -> None:
    rewrite(run, lambda lines: lines[1:])
    assert places(verify(run)) == {(f"checkpoint/{slot}", 0) for slot in SLOTS}


def test_a_line_no_snapshot_knows_is_found(run: Path) -> None:
    rewrite(run, lambda lines: [*lines, lines[0].replace(b'"row":0', b'"row":90')])
    assert "row 90 is not in snapshot-a" in words(verify(run))


def test_a_row_in_a_wrong_shard_is_found(run: Path) -> None:
    rewrite(run, lambda lines: [lines[0].replace(b'"row":0', b'"row":1'), *lines[1:]])
    verdict = verify(run)
    assert (RESULTS_0, 0) in places(verdict)
    assert "row 1 does not belong here" in words(verdict)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (RESULTS_0, "row", -2),
        (RESULTS_0, "row", True),
        (RESULTS_0, "row", 1 << 40),
        (RESULTS_0, "meta_id", 7),
        (RESULTS_0, "raw", None),
        (RESULTS_0, "labels", []),
        (RESULTS_0, "label_error", "cut"),
        (RESULTS_0, "truncated", 0),
        (RESULTS_0, "attempt", -1),
        (RESULTS_0, "latency_s", -0.5),
        (RESULTS_0, "latency_s", None),
        (RESULTS_0, "usage", {"prompt_tokens": 1}),
        (RESULTS_0, "usage", {"prompt_tokens": 1, "completion_tokens": 1.5, "cached_tokens": 0}),
        (RESULTS_0, "cost_usd", "1"),
        (RESULTS_0, "frames", None),
        (RESULTS_0, "frames", [{"index": 0}]),
        (RESULTS_0, "degraded", []),
        (RESULTS_0, "request_id", 1),
        (FAILURES_1, "kind", "bad luck"),
        (FAILURES_1, "status", "400"),
        (FAILURES_1, "message", "x" * 2001),
    ],
)
def test_a_field_of_another_type_or_range_is_found(run: Path, name: str, key: str, value: object) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        return [orjson.dumps(orjson.loads(lines[0]) | {key: value}) + b"\n", *lines[1:]]

    rewrite(run, change, name)
    verdict = verify(run)
    assert (name, 0) in places(verdict)
    assert any(word in words(verdict) for word in (f"{key} is not what it must be", "a label_error", "belong"))


def test_a_line_with_other_keys_is_found(run: Path) -> None:
    rewrite(run, lambda lines: [lines[0].replace(b'"meta_id"', b'"id"'), *lines[1:]])
    assert (RESULTS_0, 0) in places(verify(run))


def resealed(path: Path, **changes: object) -> None:
    """Change what a sealed line says, with the right seal."""
    body = unsealed(path.read_bytes().splitlines(keepends=True)[-1])
    assert body is not None
    rest = path.read_bytes().splitlines(keepends=True)[:-1]
    path.write_bytes(b"".join([*rest, sealed(orjson.dumps(orjson.loads(body) | changes))]))


@pytest.mark.parametrize("changes", [{"done": 9}, {"failed": 0}, {"seq": 12}, {"epochs": 1}])
def test_a_commit_record_that_counts_wrongly_is_found(run: Path, changes: dict[str, object]) -> None:
    resealed(run / "checkpoint" / LOG, **changes)
    assert "checkpoint/" + LOG in {file for file, _ in places(verify(run))}


@pytest.mark.parametrize("changes", [{"superseded": 0}, {"failures": ""}, {"seqs": 1}])
def test_a_snapshot_that_counts_wrongly_is_found(run: Path, changes: dict[str, object]) -> None:
    newest = max(SLOTS, key=lambda slot: json.loads(unsealed((run / "checkpoint" / slot).read_bytes()) or b"")["seq"])
    resealed(run / "checkpoint" / newest, **changes)
    assert (f"checkpoint/{newest}", 0) in places(verify(run))


def test_a_log_that_lost_its_end_is_found(run: Path) -> None:
    (run / "checkpoint" / LOG).write_bytes(b"")
    assert "a snapshot covers" in words(verify(run))


def test_a_checkpoint_that_is_gone_is_found(run: Path) -> None:
    for path in (run / "checkpoint").iterdir():
        path.unlink()
    assert "is missing, and there are lines" in words(verify(run))


@pytest.mark.parametrize("name", ["thesis.docx", "results/notes.txt", "results/shard-00002.jsonl", "checkpoint/x"])
def test_a_foreign_file_is_named(run: Path, name: str) -> None:
    (run / name).touch()
    assert places(verify(run)) == {(name, 0)}


def test_what_a_run_leaves_besides_is_not_foreign(run: Path) -> None:
    for name in ("events.jsonl", "report.json", "report.json.partial", "quarantine/results-shard-00000.jsonl.1.0"):
        (run / name).touch()
    assert verify(run).sound


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_missing_folder_is_named(tmp_path: Path, folder: str) -> None:
    out = tmp_path / "run"
    open_run(out).close()
    for path in (out / folder).iterdir():
        path.unlink()
    (out / folder).rmdir()
    assert (folder, 0) in places(verify(out))


def test_of_many_findings_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with open_run(out) as sink:
        for row in range(100):
            sink.put(result(row))
    rewrite(out, lambda lines: [line.replace(b'"raw"', b'"rav"') for line in lines])
    verdict = verify(out)
    assert len(verdict.findings) == MAX_NAMED
    assert verdict.text().endswith(f"and {verdict.more:,} more")
    assert verdict.more >= 50 - MAX_NAMED


@pytest.mark.slow
def test_a_withdrawal_is_sound_after_a_kill_at_every_operation(tmp_path: Path) -> None:
    seen: set[tuple[str, ...]] = set()
    for at in range(1, 200):
        out = tmp_path / str(at)
        with open_run(out) as sink:
            for row in range(6):
                sink.put(cut(row) if row % 2 else result(row))
        disk = Disk(crash_at=at)
        try:
            open_run(out, only=frozenset({"truncated"}), files=disk).close()
        except PowerCutError:
            disk.abandon()
        else:
            assert any("being withdrawn" in note for notes in seen for note in notes)
            return
        verdict = verify(out)
        assert verdict.sound, (at, verdict)
        seen.add(verdict.notes)
