"""From a signal to the end of the process, with the default drain, whatever hangs meanwhile."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import pytest

from tests.fakes.stopping import (
    SLOW_SERVER,
    Case,
    Life,
    closed_pipe,
    complete,
    deaf,
    frozen_workers,
    full_pipe,
    hung_server,
    nobody,
    provider,
    stop_one,
    tracing,
)
from tests.soak.report import note

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

DRAIN_S = 20.0
IDLE_S, LONGEST_S = 2.0, 27.0
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


def workers_frozen_at_start(life: Life) -> None:
    life.until(lambda: bool(life.workers()))
    for pid in life.workers():
        os.kill(pid, signal.SIGSTOP)


def some_ended(life: Life) -> None:
    life.until(lambda: life.snapshot().get("ended", 0) >= 8)


def in_outage(life: Life) -> None:
    life.until(lambda: life.snapshot().get("outage_s", 0) > 0)


def told_to_wait(life: Life) -> None:
    life.until(lambda: life.snapshot().get("call", {}).get("rate_limited", 0) > 0)


def folder_begun(life: Life) -> None:
    life.until((life.out / "run.lock").exists)


def last_rows_answered(life: Life) -> None:
    life.until(lambda: sum(path.read_bytes().count(b"\n") for path in life.out.glob("results/*.jsonl")) >= 8)


def source_hung(life: Life) -> None:
    """A tracer is put between the run and its input once it has begun to read."""
    life.until(lambda: life.snapshot().get("ended", 0) >= 1)
    table = life.out.parent / "videos.csv"
    life.trace(tracing("pread64:delay_enter=600000000", "read:delay_enter=600000000", path=table))
    time.sleep(3.0)


CASES = (
    Case(name="nothing in flight", moment=some_ended, more=("--rpm", 30)),
    Case(name="a healthy server"),
    Case(name="a server that never answers", serve=hung_server, drains=True),
    Case(
        name="a server that sends a byte a second",
        serve=lambda folder: provider(folder, {"faults": [{"kind": "drip", "after_bytes": 1}]}),
        drains=True,
    ),
    Case(name="connections that never come about", serve=lambda _: deaf(), drains=True),
    Case(name="encoders that hang", moment=frozen_workers),
    Case(name="encoders that hang at their start", moment=workers_frozen_at_start),
    Case(name="an outage", serve=lambda _: nobody(), moment=in_outage),
    Case(
        name="a pause of five minutes that the server asked for",
        serve=lambda folder: provider(folder, {"faults": [{"kind": "status", "status": 429, "retry_after": "300"}]}),
        moment=told_to_wait,
    ),
    Case(
        name="a disk that takes a second for each sync",
        tracer=lambda _: tracing("fdatasync:delay_enter=1000000", "fsync:delay_enter=1000000"),
        drains=True,
        ends_s=7.0,
    ),
    Case(
        name="a commit that never ends",
        tracer=lambda table: tracing(
            "fdatasync:delay_enter=600000000", path=table.parent / "out" / "checkpoint" / "commit.log"
        ),
        drains=True,
        ends_s=7.0,
    ),
    Case(
        name="the opening of the folder on a slow disk",
        tracer=lambda _: tracing("fsync:delay_enter=1000000"),
        moment=folder_begun,
    ),
    Case(
        name="the last commit on a slow disk",
        tracer=lambda _: tracing("fdatasync:delay_enter=1000000"),
        moment=last_rows_answered,
        drains=True,
        ends_s=7.0,
        rows=8,
        codes=frozenset({0, 75}),
    ),
    Case(name="a standard error that takes no more text", err=full_pipe, drains=True, ends_s=7.0),
    Case(name="a standard error that nobody reads any more", err=closed_pipe),
    Case(name="SIGINT, a healthy server", signals=((0.0, INT),)),
    Case(name="SIGHUP, a healthy server", signals=((0.0, HUP),)),
    Case(name="SIGTERM twice, a server that never answers", serve=hung_server, signals=((0.0, TERM), (0.5, TERM))),
    Case(
        name="SIGTERM, then SIGINT, a server that never answers", serve=hung_server, signals=((0.0, TERM), (0.5, INT))
    ),
    Case(
        name="SIGTERM three times, a commit that never ends",
        tracer=lambda table: tracing(
            "fdatasync:delay_enter=600000000", path=table.parent / "out" / "checkpoint" / "commit.log"
        ),
        signals=((0.0, TERM), (0.3, TERM), (0.3, TERM)),
    ),
    Case(
        name="an input that hangs",
        serve=lambda folder: provider(folder, SLOW_SERVER | {"latency": {"kind": "fixed", "median": 0.02}}),
        moment=source_hung,
        drains=True,
        ends_s=7.0,
        rows=3000,
        transcript="they walk through the market " * 700,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stopped_run_ends_in_time_and_leaves_nothing(tmp_path: Path, case: Case) -> None:
    """`SOAK_STOPS` makes more of them."""
    if (case.tracer or case.moment is source_hung) and not tracing("read"):
        pytest.skip("needs strace")
    began, took_s = time.monotonic(), []
    for at in range(int(os.environ.get("SOAK_STOPS", "3"))):
        ending = stop_one(case, tmp_path / str(at), drain_s=DRAIN_S)
        assert ending.code in case.codes, ending
        assert not ending.left
        took_s.append(ending.took_s)
        complete(ending, tmp_path / str(at), rows=case.rows)
    note(
        f"stopped: {case.name}",
        time.monotonic() - began,
        tried=len(took_s),
        lost=0,
        doubled=0,
        p50_s=round(statistics.median(took_s), 2),
        max_s=round(max(took_s), 2),
    )
    assert max(took_s) <= (min(LONGEST_S, DRAIN_S + case.ends_s) if case.drains else case.ends_s)
