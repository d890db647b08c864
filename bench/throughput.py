"""What benchmarks of the whole engine share: inputs, the simulated provider, one run and its figures, their file."""

from __future__ import annotations

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
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from bench.watching import watched
from labels.terminal import EXIT_SOME_FAILED

CLI = Path(__file__).parent.parent / "cli.py"
RESULTS = Path(__file__).parent / "results"
POOL_OF_VIDEOS = 200
"""Frame folders made; further rows link to them, so that disk and set-up time stay small."""
FRAME_PX = (360, 640)


class BenchError(Exception):
    """Something was not measured; says what happened."""


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
    with provider(folder, scenario) as server:
        return asked_once(folder, *words, run=run, url=server.url)


class Served(NamedTuple):
    """A server that is there."""

    url: str
    """Up to and with `/v1`."""
    pid: int


@contextmanager
def provider(folder: Path, scenario: Mapping[str, Any], *, codebook: Path | None = None) -> Iterator[Served]:
    """A simulated provider in a process of its own.

    Args:
        folder: for the scenario.
        scenario: what it is told.
        codebook: what its answers are to be labels of; None takes its default.
    """
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False) as told:
        json.dump(scenario, told)
    command = [sys.executable, str(CLI), "simulate", "--port", "0", "--scenario", told.name]
    command += ["--codebook", str(codebook)] if codebook else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield Served(server.stdout.readline().strip(), server.pid)
        finally:
            server.terminate()


def ledger(url: str) -> dict[str, Any]:
    """What a simulated provider has received and answered.

    Raises:
        OSError: it is not to be reached.
    """
    with urllib.request.urlopen(f"{url}/ledger", timeout=10) as response:  # noqa: S310 - our own server on loopback
        return dict(json.load(response))


def delivered(url: str) -> int:
    """How many answers it has given; raises as `ledger`."""
    return int(ledger(url)["delivered"])


def asked_once(folder: Path, *words: object, run: Path, url: str, tree: Path = CLI.parent) -> dict[str, Any]:
    """One command that makes calls; what it took.

    Args:
        folder: for what it says.
        words: the command, but for its model and address.
        run: where it keeps its run.
        url: whom it asks.
        tree: where the program stands.
    """
    command = [sys.executable, tree / "cli.py", *words, "--model", "simulated/vision", "--base-url", url]
    said = folder / "said.txt"
    # Worker processes find the program's packages in the folder it was started in.
    taken = watched(command, said=said, cwd=tree, progress=lambda: delivered(url))
    if taken.code > EXIT_SOME_FAILED:
        raise BenchError(f"the run ended with {taken.code}:\n{said.read_text(encoding='utf-8')}")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {"wall_s": taken.wall_s, "report": report, "watched": taken}


def figures(taken: dict[str, Any], *, rows: int) -> dict[str, float]:
    """The published figures of one run, start-up included.

    Raises:
        BenchError: there are not as many results as rows.
    """
    report, process, seen = taken["report"], taken["report"]["process"], taken["watched"]
    lines = sum(path.read_bytes().count(b"\n") for path in Path(report["out"]).glob("results/*.jsonl"))
    if lines != rows:
        raise BenchError(f"{lines} result lines for {rows} rows")
    return {
        "rows": rows,
        "wall_s": round(taken["wall_s"], 2),
        "rows_per_s": round(rows / taken["wall_s"], 1),
        "main_cpu_s_per_1000": round(process["main_cpu_s"] / rows * 1000, 3),
        "workers_cpu_s_per_1000": round((seen.cpu_s - process["main_cpu_s"]) / rows * 1000, 3),
        "main_peak_rss_mb": round(seen.main_peak_mb, 1),
        "tree_peak_rss_mb": round(seen.tree_peak_mb, 1),
    }


def publish(name: str, command: str, taken: Mapping[str, object], *, folder: Path = RESULTS) -> str:
    """Write what was measured to `<folder>/<name>.json`, with the command, the day and the machine.

    Args:
        name: of the file.
        command: what stands after `python -m bench.`, or a whole command that begins with `python `.
        taken: JSON values.
        folder: where to; made if it is missing.

    Returns:
        What was written.
    """
    about = {
        "command": command if command.startswith("python ") else f"python -m bench.{command}",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    text = json.dumps(about | dict(taken), indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
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
