"""The command line and the simulated provider as a user has them: real processes, real sockets, real files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
CLI = ROOT / "cli.py"
KEY = "sk-canary-7f3a9b2c5d8e"
KEY_VARIABLES = ("TOGETHER_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without keys, on a machine that names no cloud, with `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
    return kept | {"PYTHONUNBUFFERED": "1", "REELBATCH_DMI_FOLDER": os.devnull} | more


def start_cli(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start one command line; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, str(CLI), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(env or environment()),
        cwd=ROOT,
    )


def finished(process: subprocess.Popen[str], *, timeout_s: float = 50.0) -> Said:
    """Wait for a command to end by itself."""
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return Said(code=process.returncode, out=out, err=err)


def cli(*arguments: object, env: Mapping[str, str] | None = None) -> Said:
    """Run one command line to its end."""
    return finished(start_cli(*arguments, env=env))


class Simulated:
    """A simulated provider in a process of its own."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def ledger(self) -> dict[str, Any]:
        return dict(self._get("/ledger"))

    def entries(self) -> list[dict[str, Any]]:
        return list(self._get("/ledger/rows")["rows"])

    def tell(self, scenario: Mapping[str, object]) -> None:
        """Replace the scenario."""
        request = urllib.request.Request(self.url + "/scenario", data=json.dumps(scenario).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.load(response)


@contextmanager
def simulated(folder: Path, scenario: Mapping[str, object] | None = None) -> Iterator[Simulated]:
    """`python cli.py simulate` while the context lasts. Rows are known by the `row N` in their description."""
    path = folder / "scenario.json"
    path.write_text(json.dumps({"row_pattern": r"row (\d+)", "ledger_rows": 1_000_000} | dict(scenario or {})))
    with start_cli("simulate", "--port", 0, "--scenario", path) as process:
        assert process.stdout is not None
        try:
            yield Simulated(process.stdout.readline().strip(), process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=10)


def write_table(path: Path, rows: int, *, transcript: str = "they walk through the market") -> Path:
    """A CSV of that many rows; ids are nineteen digits long."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        for row in range(rows):
            table.writerow([str(7_000_000_000_000_000_000 + row), f"{transcript} {row}", f"row {row}"])
    return path


def lines_of(out: Path, kind: str = "results") -> list[dict[str, Any]]:
    """Every line of a run folder, whole files, parsed with the standard library."""
    found = []
    for path in sorted((out / kind).glob("shard-*.jsonl")):
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found


def run_arguments(table: Path, out: Path, url: str, *more: object) -> Sequence[object]:
    """A plain run."""
    return ("run", "--input", table, "--out", out, "--model", "simulated/vision", "--base-url", url, *more)


def report_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


def wait_for_commits(out: Path, count: int, *, within_s: float = 30.0) -> None:
    """Return once the commit log speaks of so many rows."""
    deadline = time.monotonic() + within_s
    while _committed(out) < count:
        assert time.monotonic() < deadline, f"{count} rows were never committed"
        time.sleep(0.02)


def wait_for_end(pids: Iterable[int], *, within_s: float = 5.0) -> None:
    """Return once none of these processes is there."""
    pids, deadline = list(pids), time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a process outlived the run"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _committed(out: Path) -> int:
    log = out / "checkpoint" / "commit.log"
    records = log.read_bytes().splitlines() if log.exists() else []
    return int(json.loads(records[-1].rpartition(b" ")[0])["done"]) if records else 0
