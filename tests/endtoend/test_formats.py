"""A run folder read by docs/formats.md alone: nothing of the program's own readers is used here."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import ROOT, cli, run_arguments, simulated, write_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROWS = 40
DOCUMENT = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def castagnoli(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def whole(line: bytes) -> dict[str, Any] | None:
    """What a sealed line says; None if it is torn."""
    body, _, seal = line.rpartition(b" ")
    if not re.fullmatch(rb"[0-9a-f]{8}\n", seal) or int(seal, 16) != castagnoli(body):
        return None
    return dict(json.loads(body))


def rows_in(packed: str) -> set[int]:
    bits = zlib.decompress(base64.b64decode(packed))
    return {row for row in range(8 * len(bits)) if bits[row // 8] >> row % 8 & 1}


class Folder:
    """What a stranger to the program finds out about a run."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.run = json.loads((out / "run.json").read_bytes())
        paths = [out / "checkpoint" / name for name in ("snapshot-a", "snapshot-b")]
        self.snapshots = [said for path in paths if path.exists() and (said := whole(path.read_bytes()))]
        nothing: dict[str, Any] = {"seq": 0, "ends": {}, "learnt": {}}
        newest = max(self.snapshots, key=lambda said: int(said["seq"]), default=nothing)
        self.log: list[dict[str, Any]] = []
        for line in (out / "checkpoint" / "commit.log").read_bytes().splitlines(keepends=True):
            said = whole(line)
            if said is None or (self.log and said["seq"] <= self.log[-1]["seq"]):
                break
            self.log.append(said)
        self.ends: dict[str, int] = dict(newest["ends"])
        self.spent = newest["learnt"].get("spent")
        for record in self.log:
            if record["seq"] > newest["seq"]:
                self.ends |= {name: end for name, (end, _, _) in record["shards"].items()}
                self.spent = record["spent"] or self.spent
        self.results, self.failures = self._lines("results"), self._lines("failures")

    def _lines(self, folder: str) -> list[dict[str, Any]]:
        lines = []
        for number in range(self.run["shards"]):
            name = f"{folder}/shard-{number:05d}.jsonl"
            if name in self.ends:
                data = (self._out / name).read_bytes()[: self.ends[name]]
                assert len(data) == self.ends[name], "committed bytes are missing"
                lines += [json.loads(line) for line in data.split(b"\n")[:-1]]
                assert all(line["row"] % self.run["shards"] == number for line in lines[-data.count(b"\n") :])
        return lines

    def check_pieces(self) -> int:
        """Compare the bytes each record speaks of; how many pieces there were."""
        before: dict[str, int] = next(
            (said["ends"] for said in self.snapshots if self.log[0]["seq"] == said["seq"] + 1), {}
        )
        assert before or self.log[0]["seq"] == 1, "the log begins after the older snapshot, or with the run"
        pieces = 0
        for record in self.log:
            for name, (end, lines, crc) in record["shards"].items():
                piece = (self._out / name).read_bytes()[before.get(name, 0) : end]
                assert (piece.count(b"\n"), castagnoli(piece)) == (lines, crc)
                pieces += 1
            before = before | {name: end for name, (end, _, _) in record["shards"].items()}
        return pieces


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two lives, of which the first left failed rows and the second tried them again."""
    folder = tmp_path_factory.mktemp("run")
    table, out = write_table(folder / "videos.csv", ROWS), folder / "out"
    refusing = {"kind": "status", "status": 400, "message": "no", "containing": "row 1"}
    with simulated(folder) as provider:
        arguments = run_arguments(table, out, provider.url, "--shards", 3, "--max-failed", ROWS)
        provider.tell({"row_pattern": r"row (\d+)", "faults": [refusing]})
        assert cli(*arguments).code == 1
        provider.tell({"row_pattern": r"row (\d+)", "faults": [refusing | {"containing": "row 12"}]})
        assert cli(*arguments, "--resume", "--retry-failed").code == 1
    return out


def test_a_stranger_reads_the_same_run_as_the_program(out: Path) -> None:
    assert f"{castagnoli(b'123456789'):08x}" in DOCUMENT
    found = Folder(out)
    rows = {line["row"]: line for line in found.results}
    failed = {line["row"]: line for line in found.failures if line["row"] not in rows}
    assert sorted([*rows, *failed]) == list(range(ROWS))
    assert [*failed] == [12]
    assert len(found.results) == len(rows), "no row twice"
    assert len(found.failures) == 12, "a line for each time it failed"
    status = json.loads(cli("status", out, "--json").out)
    assert (status["done"], status["failed"], status["rows_total"]) == (len(rows), 1, ROWS)
    assert status["spent"] == found.spent


def test_both_snapshots_and_the_records_agree_with_the_lines(out: Path) -> None:
    found = Folder(out)
    assert len(found.snapshots) == 2
    older, newer = sorted(found.snapshots, key=lambda said: said["seq"])
    assert rows_in(older["results"]) < rows_in(newer["results"]) == {line["row"] for line in found.results}
    assert rows_in(newer["failures"]) == {line["row"] for line in found.failures}
    assert newer["superseded"] == len(rows_in(newer["results"]) & rows_in(newer["failures"])) == 10
    assert [record["seq"] for record in found.log] == list(range(older["seq"] + 1, newer["seq"] + 1))
    assert found.check_pieces() > 0
    assert (found.log[-1]["done"], found.log[-1]["failed"]) == (ROWS - 1, 1)
    assert found.log[-1]["epoch"] == newer["epoch"] == 2


def test_a_torn_record_ends_the_log_for_a_stranger_as_well(out: Path) -> None:
    log = out / "checkpoint" / "commit.log"
    data = log.read_bytes()
    log.write_bytes(data + data[: len(data) // 2])
    try:
        assert Folder(out).ends == Folder(out).snapshots[-1]["ends"]
    finally:
        log.write_bytes(data)


def test_the_document_names_every_file_and_every_key_of_a_run(out: Path) -> None:
    found = Folder(out)
    named = set(re.findall(r"[\w.]+", DOCUMENT))
    files = {re.sub(r"\d{5}", "00000", str(path.relative_to(out))) for path in out.rglob("*") if path.is_file()}
    assert {part for name in files for part in re.findall(r"[\w.]+", name)} <= named
    report = json.loads((out / "report.json").read_bytes())
    event = json.loads((out / "events.jsonl").read_bytes().splitlines()[-1])
    assert report.keys() - event.keys() == {"model", "out", "left_in_flight", "examples", "findings", "process"}
    keys = {*found.run, *found.run["input"], *found.run["settings"], *found.results[0], *found.failures[0]}
    keys |= {
        *found.results[0]["usage"],
        *found.snapshots[0],
        *found.log[0],
        *found.snapshots[0]["learnt"],
        *found.spent,
    }
    keys |= {*report, *report["lanes"][0], *report["sink"], *report["call"], *report["encode"], *report["process"]}
    keys |= {*json.loads((out / "run.lock").read_bytes()), *next(iter(found.snapshots[0]["learnt"]["lanes"].values()))}
    assert keys - named == set()
