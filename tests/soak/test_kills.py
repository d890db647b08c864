"""`kill -9` at random moments of a run from the command line: nothing lost, nothing doubled, and what it costs."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.commands import Simulated, cli, finished, run_arguments, simulated, start_cli, write_table
from tests.soak.report import note

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SEED = 20_26
IN_FLIGHT = 64
LATENCY_S = 0.15
WINDOW_S = 1.5
"""A commit is due every second; half a second more for a busy machine."""
ROWS, KILLS = 60_000, 200


def test_kills_at_random_lose_no_row_and_double_none(tmp_path: Path) -> None:
    """`SOAK_ROWS` and `SOAK_KILLS` make it smaller."""
    rows, kills = int(os.environ.get("SOAK_ROWS", ROWS)), int(os.environ.get("SOAK_KILLS", KILLS))
    began, rng = time.monotonic(), random.Random(SEED)
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    scenario: dict[str, object] = {"latency": {"kind": "fixed", "median": LATENCY_S}}
    paid_again: list[int] = []
    with simulated(tmp_path, scenario) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", IN_FLIGHT, "--resume")
        for _ in range(kills):
            _kill_one(arguments, provider, rng, rows_a_life=max(1, rows * 9 // 10 // kills))
            paid_again.append(_lost_calls(out, provider) - sum(paid_again))
        said = finished(start_cli(*arguments), timeout_s=3000)
        assert said.code == 0, said.err
        calls = Counter(entry["row"] for entry in provider.entries())
    found = Counter(row for path in (out / "results").iterdir() for row in _rows(path))
    lost, doubled = rows - len(found), found.total() - len(found)
    note(
        "kill -9 at random moments of a run from the command line",
        time.monotonic() - began,
        tried=kills,
        lost=lost,
        doubled=doubled,
        rows=rows,
        calls_paid_again_in_all=calls.total() - rows,
        per_kill_mean=round((calls.total() - rows) / kills, 1),
        per_kill_max=max(paid_again),
        in_flight=IN_FLIGHT,
        seed=str(SEED),
    )
    assert (lost, doubled) == (0, 0)
    assert len(calls) == rows
    assert calls.total() - rows <= kills * (IN_FLIGHT + IN_FLIGHT / LATENCY_S * WINDOW_S)
    assert cli("verify", out).code == 0


def _kill_one(arguments: object, provider: Simulated, rng: random.Random, *, rows_a_life: int) -> None:
    """One life that is killed after some calls."""
    process = start_cli(*arguments)  # type: ignore[misc]  # the words of a command
    before, until = provider.ledger()["requests"], rng.randint(1, 2 * rows_a_life)
    while provider.ledger()["requests"] - before < until and process.poll() is None:
        time.sleep(0.005)
    time.sleep(rng.random() * 2 * LATENCY_S)
    process.kill()
    assert finished(process).code in {-signal.SIGKILL, 0}


def _lost_calls(out: Path, provider: Simulated) -> int:
    """Calls made so far of which no whole line is left: those that are, or will be, paid again."""
    held = len({row for path in (out / "results").glob("*.jsonl") for row in _rows(path)})
    return int(provider.ledger()["requests"]) - held


def _rows(path: Path) -> list[int]:
    """Of the whole lines of a shard; a torn one at its end belongs to no row yet."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line)["row"] for line in lines if line.endswith(b"}")]
