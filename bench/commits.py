"""What a commit every second costs: the engine at full speed with it, and with one commit at the end, in turns.

python -m bench.commits --rows 30000 --rounds 5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.throughput import CLI, make_input, publish
from engine.config import WriteConfig
from labels.flags import RunFlags
from labels.job import run_job
from labels.told import job_of

NEVER_S = 1e6
EACH = {"every second": WriteConfig(), "at the end": WriteConfig(commit_interval_s=NEVER_S, commit_records=10**9)}
CONCURRENCY = 256
LATENCY_S = 0.1


def one_run(folder: Path, out: Path, url: str, how: str) -> None:
    """Run, and print what it took; in a process of its own."""
    flags = RunFlags(
        input=folder / "videos.csv", out=out, model="simulated/vision", base_url=url, concurrency=CONCURRENCY
    )
    job = job_of(flags).job
    write = dataclasses.replace(EACH[how], max_pending_bytes=1 << 40)
    job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, write=write))
    started = time.monotonic()
    last = run_job(job, say=lambda _: None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    taken = {"wall_s": time.monotonic() - started, "cpu_s": used.ru_utime + used.ru_stime, "commit_s": last.commit_s}
    print(json.dumps(taken))


def measure(*, rows: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, and the shares of the slower way."""
    taken: dict[str, list[dict[str, float]]] = {how: [] for how in EACH}
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        folder = Path(name)
        make_input(folder, rows=rows, frames=0, text_bytes=2000)
        (folder / "scenario.json").write_text(json.dumps({"latency": {"kind": "fixed", "median": LATENCY_S}}))
        provider = [sys.executable, str(CLI), "simulate", "--port", "0", "--scenario", str(folder / "scenario.json")]
        with subprocess.Popen(provider, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            for at in range(rounds):
                for how in EACH if at % 2 else reversed(EACH):
                    command = [sys.executable, "-m", "bench.commits", "--one", how, name, f"{name}/{at}-{how}", url]
                    said = subprocess.run(command, capture_output=True, check=True, cwd=CLI.parent, text=True)
                    taken[how].append(json.loads(said.stdout))
                    print(how, said.stdout.strip(), flush=True)
            server.terminate()
    medians = {
        how: {key: round(statistics.median(once[key] for once in each), 3) for key in each[0]}
        for how, each in taken.items()
    }
    with_them, without = medians["every second"], medians["at the end"]
    # Pairs of one round met the same weather on a shared machine.
    pairs = list(zip(taken["every second"], taken["at the end"], strict=True))
    return {
        "rows": rows,
        "medians": medians,
        "cpu_overhead": round(statistics.median(a["cpu_s"] / b["cpu_s"] - 1 for a, b in pairs), 4),
        "wall_overhead": round(statistics.median(a["wall_s"] / b["wall_s"] - 1 for a, b in pairs), 4),
        "rows_per_s": {
            "every second": round(rows / with_them["wall_s"]),
            "at the end": round(rows / without["wall_s"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one is not None:
        how, folder, out, url = told.one
        one_run(Path(folder), Path(out), url, how)
        return
    taken = measure(rows=told.rows, rounds=told.rounds)
    print(publish("commits", " ".join(["commits", *sys.argv[1:]]), taken))


if __name__ == "__main__":
    main()
