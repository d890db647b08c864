"""The whole engine against the simulated provider: rows/s, CPU seconds per 1,000 rows, memory.

python -m bench.throughput --rows 20000 --frames 4 --concurrency 512
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

CLI = Path(__file__).parent.parent / "cli.py"
RESULTS = Path(__file__).parent / "results"
POOL_OF_VIDEOS = 200
"""Frame folders made; further rows link to them, so that disk and set-up time stay small."""
FRAME_PX = (360, 640)
SAMPLE_S = 0.2


def make_input(folder: Path, *, rows: int, frames: int, text_bytes: int, seed: int = 1) -> None:
    """`videos.csv` and, if frames are asked for, `frames/<id>/frame_<n>.jpg`; folders are hard links to a few."""
    rng = random.Random(seed)
    words = ["market", "train", "noodles", "protest", "news", "music", "river", "factory", "school", "festival"]
    with (folder / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        for row in range(rows):
            text = " ".join(rng.choices(words, k=text_bytes // 7))
            table.writerow([str(7_000_000_000_000_000_000 + row), text, f"row {row}"])
    if not frames:
        return
    for row in range(rows):
        target = folder / "frames" / str(7_000_000_000_000_000_000 + row)
        target.mkdir(parents=True)
        for at in range(frames):
            if row < POOL_OF_VIDEOS:
                _picture(rng).save(target / f"frame_{at}.jpg", quality=80)
            else:
                model = folder / "frames" / str(7_000_000_000_000_000_000 + row % POOL_OF_VIDEOS)
                (target / f"frame_{at}.jpg").hardlink_to(model / f"frame_{at}.jpg")


def _picture(rng: random.Random) -> Image.Image:
    """Noise over a gradient, about as hard to compress as a photograph of this size."""
    width, height = FRAME_PX
    noise = Image.frombytes("RGB", (width // 4, height // 4), rng.randbytes(3 * (width // 4) * (height // 4)))
    gradient = Image.linear_gradient("L").resize(FRAME_PX).convert("RGB")
    return Image.blend(gradient, noise.resize(FRAME_PX, Image.Resampling.BICUBIC), 0.4)


class Memory:
    """Watches the resident memory of a process while it runs."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self.points: list[tuple[float, float]] = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(SAMPLE_S):
            try:
                pages = int(Path(f"/proc/{self._pid}/statm").read_text(encoding="utf-8").split()[1])
            except OSError:
                return
            rss_mb = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            self.peak_mb = max(self.peak_mb, rss_mb)
            self.points.append((time.monotonic() - started, rss_mb))


def run_once(folder: Path, *more: object, concurrency: int, scenario: dict[str, Any]) -> dict[str, Any]:
    """One run of the command line on `folder`, with further flags; what it took."""
    words = (
        *("run", "--input", folder / "videos.csv", "--out", folder / "run", "--concurrency", concurrency),
        *("--price-in", "0.18", "--price-out", "0.59", *more),
    )
    shutil.rmtree(folder / "run", ignore_errors=True)
    return command_once(folder, *words, run=folder / "run", scenario=scenario)


def command_once(folder: Path, *words: object, run: Path, scenario: dict[str, Any]) -> dict[str, Any]:
    """One command that makes calls, against a simulated provider; what it took.

    Args:
        folder: for the scenario.
        words: the command, but for its model and address.
        run: where it keeps its run.
        scenario: the provider's.
    """
    (folder / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
    provider = [sys.executable, str(CLI), "simulate", "--port", "0", "--scenario", str(folder / "scenario.json")]
    with subprocess.Popen(provider, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        command = [sys.executable, str(CLI), *map(str, words), "--model", "simulated/vision", "--base-url", url]
        started = time.monotonic()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as engine:
            memory = Memory(engine.pid)
            _, said = engine.communicate()
            memory.end()
        wall_s = time.monotonic() - started
        server.terminate()
    if engine.returncode > 1:
        raise SystemExit(f"the run ended with {engine.returncode}:\n{said}")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {"wall_s": wall_s, "report": report, "memory": memory.points}


def figures(taken: dict[str, Any], *, rows: int) -> dict[str, float]:
    """The published figures of one run."""
    report, process = taken["report"], taken["report"]["process"]
    lines = sum(path.read_bytes().count(b"\n") for path in Path(report["out"]).glob("results/*.jsonl"))
    if lines != rows:
        raise SystemExit(f"{lines} result lines for {rows} rows")
    return {
        "rows": rows,
        "wall_s": round(taken["wall_s"], 2),
        "rows_per_s": round(rows / taken["wall_s"], 1),
        "main_cpu_s_per_1000": round(process["main_cpu_s"] / rows * 1000, 3),
        "workers_cpu_s_per_1000": round(report["encode"]["cpu_s"] / rows * 1000, 3),
        "main_peak_rss_mb": round(max(rss for _, rss in taken["memory"]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--text-bytes", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds, median of a lognormal")
    parser.add_argument("--fit", default="tokens")
    parser.add_argument("--name", default="throughput")
    told = parser.parse_args()
    scenario = {"latency": {"kind": "lognormal", "median": told.latency, "sigma": 0.3}, "tokens_per_image": 1601}
    taken = []
    for rows in (told.rows // 10, told.rows):
        with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
            folder = Path(name)
            make_input(folder, rows=rows, frames=told.frames, text_bytes=told.text_bytes)
            media = ("--frames-dir", folder / "frames") if told.frames else ()
            once = run_once(folder, "--fit", told.fit, *media, concurrency=told.concurrency, scenario=scenario)
            taken.append(figures(once, rows=rows))
            print(json.dumps(taken[-1]))
    publish(told.name, " ".join(["throughput", *sys.argv[1:]]), {"runs": taken})


def publish(name: str, command: str, taken: Mapping[str, object]) -> str:
    """Write what was measured to `bench/results/<name>.json`, with the command, the day and the machine.

    Args:
        name: of the file.
        command: what stands after `python -m bench.`.
        taken: JSON values.

    Returns:
        What was written.
    """
    about = {
        "command": f"python -m bench.{command}",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    text = json.dumps(about | dict(taken), indent=2) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    return text


def machine() -> str:
    """Processor, cores, Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{os.cpu_count()} cores of {model}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
