"""Runs that are stopped while something hangs; `tests/soak/test_stopping.py` measures all of it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.commands import cli, run_arguments, simulated, write_table
from tests.fakes.stopping import (
    SLOW_SERVER,
    Case,
    Life,
    closed_pipe,
    complete,
    frozen_workers,
    full_pipe,
    hung_server,
    session,
    stop_one,
    tracing,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

TERM = signal.SIGTERM


def test_hung_encoders_do_not_hold_up_a_stop_and_no_process_is_left(tmp_path: Path) -> None:
    ending = stop_one(Case(name="encoders", moment=frozen_workers, rows=30), tmp_path, drain_s=1.0)
    assert (ending.code, ending.left) == (75, [])
    assert ending.took_s < 3
    assert "SIGTERM" in ending.err
    assert "--resume" in ending.err
    said = complete(ending, tmp_path, rows=30)
    assert "did not close" not in said


def test_a_third_signal_ends_the_process_even_where_nothing_can_be_said_any_more(tmp_path: Path) -> None:
    case = Case(
        name="stderr",
        serve=hung_server,
        err=full_pipe,
        signals=((0.0, TERM), (0.1, TERM), (0.5, TERM)),
    )
    ending = stop_one(case, tmp_path, drain_s=20.0)
    assert (ending.code, ending.left) == (75, [])
    assert ending.took_s < 3


def test_a_signal_before_the_first_call_ends_the_opening_with_75(tmp_path: Path) -> None:
    if not tracing("fsync"):
        pytest.skip("needs strace")
    case = Case(
        name="opening",
        tracer=lambda _: tracing("fsync:delay_enter=300000"),
        moment=lambda life: life.until((life.out / "run.lock").exists),
    )
    ending = stop_one(case, tmp_path, drain_s=20.0)
    assert (ending.code, ending.left) == (75, []), ending.err
    assert ending.took_s < 3
    assert "Stopped by SIGTERM" in ending.err
    assert "--resume" in ending.err


def test_a_standard_error_that_nobody_reads_ends_no_run(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 5), tmp_path / "out"
    # A frames folder without frames makes a warning in the middle of the run.
    (tmp_path / "frames").mkdir()
    reader, writer = closed_pipe()
    with simulated(tmp_path, SLOW_SERVER) as provider:
        life = Life(out, run_arguments(table, out, provider.url, "--frames-dir", tmp_path / "frames"), err=writer)
        try:
            assert life.process.wait(30) == 0
        finally:
            life.end()
            os.close(reader)
            os.close(writer)


def in_flight_at_last_commit(out: Path) -> int:
    records = (out / "checkpoint" / "commit.log").read_bytes().splitlines()
    spent = json.loads(records[-1].rpartition(b" ")[0])["spent"] if records else None
    return int(spent["in_flight"]) if spent else 0


def test_a_killed_run_leaves_no_process_and_the_next_life_says_what_may_be_paid_twice(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 40), tmp_path / "out"
    with simulated(tmp_path, {"faults": [{"kind": "stall"}]}) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 4, "--workers", 2)
        life = Life(out, arguments, err=tmp_path / "stderr")
        try:
            frozen_workers(life)
            life.until(lambda: in_flight_at_last_commit(out) > 0)
            life.process.kill()
            life.process.wait()
            deadline = time.monotonic() + 2.0
            while session(life.process.pid):
                assert time.monotonic() < deadline, "a worker outlived the run"
                time.sleep(0.01)
        finally:
            life.end()
        provider.tell({"row_pattern": r"row (\d+)"})
        said = cli(*arguments, "--resume")
    assert said.code == 0, said.err
    report = json.loads((out / "report.json").read_text())
    assert 1 <= report["left_in_flight"] <= 4
    assert f"{report['left_in_flight']} calls were in flight at its last commit" in said.err
    assert report["unknown_calls"] == report["left_in_flight"]
