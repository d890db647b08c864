"""The commands that read a run folder, as a user types them: what they print, their exit codes, no traceback."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sinks.shards import ShardSink
from tests.fakes.commands import Said, cli, finished, lines_of, run_arguments, simulated, start_cli, write_table
from tests.fakes.records import failure, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = 60
REFUSING: dict[str, object] = {"faults": [{"kind": "status", "status": 400, "message": "no", "containing": "row 1"}]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    with ShardSink.open(out, manifest={}, shards=3, resume=False) as sink:
        for row in (5, 0, 3, 1):
            sink.put(result(row))
        sink.put(failure(2))
    return out


def refused(said: Said, *, code: int, words: str) -> None:
    assert (said.code, said.out) == (code, ""), said
    assert words in said.err, said.err
    assert "Traceback" not in said.err
    assert "bug" not in said.err


def status(out: Path) -> dict[str, Any]:
    said = cli("status", out, "--json")
    assert said.code == 0, said.err
    return dict(json.loads(said.out))


def wait_until_done(out: Path, rows: int, *, within_s: float = 30.0) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (out / "run.json").exists() and (found := status(out))["done"] >= rows:
            return found
    raise AssertionError(f"no {rows} rows within {within_s} s")


def test_a_stopped_run_is_resharded_resumed_verified_and_exported(tmp_path: Path) -> None:
    table, out, new = write_table(tmp_path / "videos.csv", ROWS), tmp_path / "out", tmp_path / "new"
    # Slow enough to be still at it when four commands have looked at it, on a busy machine too.
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 1.5}}) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 3)
        process = start_cli(*arguments)
        while_running = wait_until_done(out, 5)
        assert while_running["held_by"]["pid"] == process.pid
        assert f"in use      by process {process.pid} on " in cli("status", out).out
        said = cli("verify", out)
        assert said.code == 0, said
        assert cli("export", out, "--to", tmp_path / "early.csv").code == 0
        refused(cli("reshard", out, new, "--shards", 5), code=73, words=f"in use by process {process.pid}")
        assert not new.exists()
        process.send_signal(signal.SIGINT)
        assert finished(process).code == 75
        assert status(out)["held_by"] is None

        said = cli("reshard", out, new, "--shards", 5)
        assert (said.code, said.out) == (0, ""), said
        assert "every line was read back" in said.err
        assert cli("verify", new).code == 0
        provider.tell({})
        said = cli(*run_arguments(table, new, provider.url, "--resume"))
        assert said.code == 0, said.err
    assert cli("verify", new).code == 0
    assert [line["row"] for line in sorted(lines_of(new), key=lambda line: line["row"])] == list(range(ROWS))
    assert cli("export", new, "--to", tmp_path / "t.parquet").code == 0
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["row"] for row in rows] == list(range(ROWS))
    assert {row["meta_id"]: row["raw"] for row in rows} == {line["meta_id"]: line["raw"] for line in lines_of(new)}
    assert rows[7]["china_related"] in {"yes", "no"}


def test_failed_rows_are_exported_when_asked_for(tmp_path: Path) -> None:
    table, out, to = write_table(tmp_path / "videos.csv", 20), tmp_path / "out", tmp_path / "t.csv"
    with simulated(tmp_path, REFUSING) as provider:
        assert cli(*run_arguments(table, out, provider.url, "--max-failed", 20)).code == 1
        said = cli("export", out, "--to", to, "--failures")
        assert "20 rows, 11 of them failed" in said.err
        with to.open(newline="") as file:
            assert sum(line["failure_kind"] == "refused" for line in csv.DictReader(file)) == 11
        provider.tell({})
        assert cli(*run_arguments(table, out, provider.url, "--resume", "--retry-failed")).code == 0
    assert "20 rows, 0 of them failed" in cli("export", out, "--to", to, "--failures", "--force").err
    assert cli("verify", out).code == 0


def test_a_sound_folder_gets_one_line_a_check(run: Path) -> None:
    said = cli("verify", run)
    assert (said.code, said.err) == (0, "")
    assert [line.split()[:2] for line in said.out.splitlines()] == [
        ["ok", name] for name in ("run.json", "checkpoint", "lines", "checksums", "rows", "folder")
    ]
    told = json.loads(cli("verify", run, "--json").out)
    assert (told["sound"], told["findings"], told["uncommitted_bytes"]) == (True, [], 0)


def test_damage_is_named_by_file_and_byte_with_what_is_safe_and_what_to_type(run: Path) -> None:
    shard = run / "results" / "shard-00002.jsonl"
    shard.write_bytes(shard.read_bytes()[:-9])
    said = cli("verify", run)
    assert said.code == 74
    assert f"results/shard-00002.jsonl, byte {shard.stat().st_size}: committed bytes are missing" in said.out
    assert "Nothing was changed" in said.err
    assert f"verify {run}" in said.err
    told = cli("verify", run, "--json")
    assert told.code == 74
    assert json.loads(told.out)["findings"][0]["file"] == "results/shard-00002.jsonl"


@pytest.mark.parametrize("command", [("status",), ("export", "--to", "t.csv"), ("reshard", "new", "--shards", 2)])
def test_other_tools_stop_at_damage_and_point_to_verify(run: Path, tmp_path: Path, command: tuple[object, ...]) -> None:
    shard = run / "results" / "shard-00002.jsonl"
    shard.write_bytes(shard.read_bytes()[:-9])
    name, *rest = command
    rest = [tmp_path / str(word) if word in {"t.csv", "new"} else word for word in rest]
    said = cli(name, run, *rest)
    assert said.code == 74
    assert "committed bytes are missing" in said.err
    assert f"verify {run}" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "t.csv").exists()
    assert not (tmp_path / "new" / "run.json").exists()


def test_a_damaged_manifest_is_one_finding(run: Path) -> None:
    (run / "run.json").write_text("{")
    said = cli("verify", run)
    assert said.code == 74
    assert "BAD  run.json" in said.out
    refused(cli("export", run, "--to", run.parent / "t.csv"), code=74, words="run.json is damaged")


def test_status_tells_of_quarantine_and_of_nobody_holding_the_lock(run: Path) -> None:
    (run / "quarantine" / "results-shard-00000.jsonl.1.00000000").write_bytes(b"torn")
    said = cli("status", run)
    assert "quarantine  1 files, 4 bytes" in said.out
    assert "in use      no" in said.out
    told = status(run)
    assert (told["quarantine_files"], told["quarantine_bytes"], told["held_by"]) == (1, 4, None)


def test_asking_for_the_status_does_not_keep_the_lock(run: Path) -> None:
    assert status(run)["held_by"] is None
    with ShardSink.open(run, manifest={}, shards=3, resume=True):
        assert status(run)["held_by"]["pid"] == os.getpid()
    assert status(run)["held_by"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("verify", "nowhere"), 64, "holds no run"),
        (("export", "nowhere", "--to", "t.csv"), 64, "holds no run"),
        (("reshard", "nowhere", "new", "--shards", 2), 64, "holds no run"),
        (("export", "run"), 64, "--to"),
        (("export", "run", "--to", "t.xlsx"), 64, "must end in"),
        (("export", "run", "--to", "there.csv"), 73, "--force"),
        (("export", "run", "--to", "no/t.csv"), 73, "no folder"),
        (("export", "run", "--to", "run/t.csv"), 64, "inside the run folder"),
        (("export", "run", "--to", "t.jsonl", "--csv-raw"), 64, "--csv-raw"),
        (("reshard", "run", "new"), 64, "--shards"),
        (("reshard", "run", "new", "--shards", 0), 64, "--shards must be at least 1"),
        (("reshard", "run", "run", "--shards", 2), 64, "two folders"),
        (("reshard", "run", "full", "--shards", 2), 73, "not empty"),
        (("reshard", "run", "other", "--shards", 2), 73, "holds a run"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").touch()
    ShardSink.open(tmp_path / "other", manifest={}, shards=1, resume=False).close()
    here = {"run": run} | {name: tmp_path / name for name in ("there.csv", "full", "other", "new", "t.csv", "no/t.csv")}
    here |= {name: tmp_path / name for name in ("nowhere", "t.xlsx", "t.jsonl", "run/t.csv")}
    refused(cli(*(here.get(str(word), word) for word in arguments)), code=code, words=words)
    assert not (tmp_path / "new").exists()


def test_a_reshard_that_is_killed_leaves_no_run_or_a_sound_one(tmp_path: Path) -> None:
    out, new = tmp_path / "run", tmp_path / "new"
    with ShardSink.open(out, manifest={}, shards=3, resume=False) as sink:
        for row in range(30_000):
            sink.put(result(row))
    with start_cli("reshard", out, new, "--shards", 7) as process:
        assert process.stderr is not None
        assert "may be deleted" in process.stderr.readline()
        process.kill()
        process.communicate()
    if (new / "run.json").exists():
        assert cli("verify", new).code == 0
    else:
        refused(cli("verify", new), code=64, words="holds no run")
        again = cli("reshard", out, new, "--shards", 7)
        # Killed before its first file it has left nothing that could be in the way.
        assert again.code in {0, 73}, again
        assert cli("verify", new).code == (0 if again.code == 0 else 64)
    assert cli("verify", out).code == 0


@pytest.mark.parametrize("command", ["verify", "export", "reshard"])
def test_help_goes_to_stdout(command: str) -> None:
    said = cli(command, "--help")
    assert (said.code, "Usage:" in said.out) == (0, True)
