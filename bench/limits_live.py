"""The engine against the simulated provider in real time: how much of what the server would serve it gets served.

    python -m bench.limits_live --seconds 90 --name limits_live

Each trace is a scenario of `python cli.py simulate`; the engine is told neither its limits nor when they change.
Goodput is what the server's own ledger says it delivered; ideal is what its limits allowed, from the first delivery on.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.throughput import CLI, RESULTS, ledger, provider

LATENCY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A server, and what it would serve."""

    scenario: dict[str, Any]
    per_s: Callable[[float], float]
    """Requests a second an omniscient client would get, by the seconds since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of one trace."""

    requests: int
    delivered: int
    rejected: int
    ideal: float

    @property
    def goodput(self) -> float:
        return self.delivered / self.ideal

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.requests


def traces(seconds: float) -> dict[str, Trace]:
    """Three servers that change their mind, scaled to the time there is."""
    third = seconds / 3
    latency = {"kind": "lognormal", "median": LATENCY_S, "sigma": 0.2}
    down = [[third, 0.2], [2 * third, 1.0]]
    waves = [[third, 0.4], [2 * third, 1.0]]
    return {
        "steady, 40/s": Trace(scenario={"latency": latency, "requests_per_min": 2400}, per_s=lambda _: 40.0),
        "step down x0.2 and back up": Trace(
            scenario={"latency": latency, "requests_per_min": 2400, "limit_steps": down},
            per_s=lambda at: 8.0 if third <= at < 2 * third else 40.0,
        ),
        "capacity waves, no 429": Trace(
            scenario={"latency": latency, "slots": 100, "queue": 50, "slot_steps": waves},
            per_s=lambda at: (40 if third <= at < 2 * third else 100) / (LATENCY_S * 1.02),
        ),
    }


def measure(trace: Trace, *, seconds: float) -> Measured:
    """Run the engine against one server for so long."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_rows(folder / "videos.csv", rows=int(seconds * 60))
        with provider(folder, trace.scenario) as server:
            return _against(server.url, folder, trace, seconds=seconds)


def _against(url: str, folder: Path, trace: Trace, *, seconds: float) -> Measured:
    run = [sys.executable, str(CLI), "run", "--input", str(folder / "videos.csv"), "--out", str(folder / "out")]
    run += ["--model", "simulated/vision", "--base-url", url, "--workers", "1", "--response-format", "none"]
    begun = time.monotonic()
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as engine:
        while ledger(url)["delivered"] < 1:
            time.sleep(0.05)
        first_s, first = time.monotonic() - begun, ledger(url)
        time.sleep(max(0.0, seconds - first_s))
        last_s, last = time.monotonic() - begun, ledger(url)
        engine.send_signal(signal.SIGINT)
        engine.send_signal(signal.SIGINT)
    steps = 1000
    span_s = last_s - first_s
    ideal = sum(trace.per_s(first_s + span_s * (at + 0.5) / steps) for at in range(steps)) * span_s / steps
    return Measured(
        requests=last["requests"],
        delivered=last["delivered"] - first["delivered"],
        rejected=sum(count for status, count in last["by_status"].items() if status in {"429", "503"}),
        ideal=ideal,
    )


def _write_rows(path: Path, *, rows: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "meta_desc"])
        table.writerows([str(7_000_000_000_000_000_000 + row), f"row {row}"] for row in range(rows))


def main() -> None:
    """Entry of `python -m bench.limits_live`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0, help="of each trace")
    parser.add_argument("--name", help="also write bench/results/NAME.json")
    told = parser.parse_args()
    print("| server | goodput / ideal | rejected | requests |\n|---|---|---|---|")
    measured = {}
    for name, trace in traces(told.seconds).items():
        each = measured[name] = measure(trace, seconds=told.seconds)
        print(f"| {name} | {each.goodput:.3f} | {each.rejected_share:.2%} | {each.requests:,} |", flush=True)
    if told.name:
        said = {"seconds": told.seconds, "traces": {name: asdict(each) for name, each in measured.items()}}
        (RESULTS / f"{told.name}.json").write_text(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
