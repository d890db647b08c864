"""One long run with three violent ends on the way: what it takes, and that nothing is lost or doubled.

python -m bench.million --rows 1000000

Text and small frames against the simulated provider, which also fails now and then. The command is killed with SIGKILL
at a quarter of the rows, told to stop with SIGTERM at the half, killed again at three quarters, and gone on with by
`--resume` each time. In the end every row must have its one line, `verify` must find nothing, and the provider's own
ledger says how many calls were paid for twice.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.bodies import CODEBOOK, FIRST_ID
from bench.throughput import CLI, BenchError, delivered, provider, publish
from bench.watching import Point, Watched, watched
from encoders.jpeg import encode
from labels.terminal import EXIT_RESUMABLE

VIDEOS = 20_000
"""Frame folders; each is that of many rows, which say different things."""
PICTURES = 200
FRAMES = 2
FRAME_PX = (96, 160)
TEXT_WORDS = 60
ENDS = ((0.25, signal.SIGKILL), (0.5, signal.SIGTERM), (0.75, signal.SIGKILL))
"""Part of the rows at which the command meets its end, and how."""
STOPPED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: EXIT_RESUMABLE}
SCENARIO = {
    "latency": {"kind": "lognormal", "median": 0.1, "sigma": 0.4},
    "tokens_per_image": 85,
    "faults": [
        {"kind": "status", "status": 500, "share": 0.002},
        {"kind": "status", "status": 429, "share": 0.001},
    ],
}
CURVE_S = 10.0
"""Between two points of the curve that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One start of the command, to its end."""

    ended_by: str
    watched: Watched
    rows: int
    """That had a line when it ended, all lives together."""

    def as_json(self) -> dict[str, Any]:
        points = self.watched.points
        return {
            "ended_by": self.ended_by,
            "code": self.watched.code,
            "wall_s": round(self.watched.wall_s, 1),
            "main_cpu_s": round(points[-1].main_cpu_s, 1),
            "tree_cpu_s": round(self.watched.cpu_s, 1),
            "main_peak_rss_mb": round(self.watched.main_peak_mb, 1),
            "tree_peak_rss_mb": round(self.watched.tree_peak_mb, 1),
            "rows": self.rows,
            "curve": _curve(points),
        }


def make_input(folder: Path, *, rows: int) -> None:
    """`videos.csv`, and `frames/<id>/frame_<n>.jpg` as hard links to a few pictures."""
    rng = random.Random(1)
    pictures = folder / "pictures"
    pictures.mkdir()
    width, height = FRAME_PX
    for number in range(PICTURES):
        coarse = np.frombuffer(rng.randbytes(width * height * 3 // 64), np.uint8).reshape(height // 8, width // 8, 3)
        (pictures / f"{number}.jpg").write_bytes(encode(coarse.repeat(8, axis=0).repeat(8, axis=1)))
    for video in range(min(rows, VIDEOS)):
        place = folder / "frames" / str(FIRST_ID + video)
        place.mkdir(parents=True)
        for frame in range(FRAMES):
            (place / f"frame_{frame}.jpg").hardlink_to(pictures / f"{(video * FRAMES + frame) % PICTURES}.jpg")
    words = ["market", "train", "noodles", "protest", "news", "music", "river", "factory", "school", "festival"]
    with (folder / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        for row in range(rows):
            text = " ".join(rng.choices(words, k=TEXT_WORDS))
            table.writerow([str(FIRST_ID + row % VIDEOS), text, f"row {row}"])
    (folder / "codebook.toml").write_text(CODEBOOK, encoding="utf-8")


def live(
    folder: Path, url: str, *, words: Sequence[object], until: float = math.inf, by: signal.Signals | None = None
) -> Life:
    """One life, ended by a signal once the provider has given so many answers."""
    sent, before = False, delivered(url)

    def look(process: subprocess.Popen[bytes], point: Point) -> None:
        nonlocal sent
        if not sent and by is not None and before + point.rows >= until:
            sent = True
            process.send_signal(by)

    command = [sys.executable, CLI, *words, "--model", "simulated/vision", "--base-url", url]
    taken = watched(command, said=folder / "said.txt", cwd=CLI.parent, progress=lambda: delivered(url), look=look)
    if taken.code not in {STOPPED.get(by) if by else 0, 0, 1}:
        raise BenchError(f"it ended with {taken.code}: {(folder / 'said.txt').read_text(encoding='utf-8')[-3000:]}")
    return Life(ended_by=by.name if by and sent else "its last row", watched=taken, rows=len(_lines(folder / "run")))


def _lines(run: Path) -> Counter[int]:
    """How many lines each row has, whole ones alone."""
    found: Counter[int] = Counter()
    for path in [*run.glob("results/*.jsonl"), *run.glob("failures/*.jsonl")]:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    found[orjson.loads(line)["row"]] += 1
    return found


def _curve(points: Sequence[Point]) -> list[dict[str, float]]:
    kept: list[dict[str, float]] = []
    for point in points:
        if not kept or point.at_s - kept[-1]["at_s"] >= CURVE_S:
            kept.append(
                {
                    "at_s": round(point.at_s, 1),
                    "rows": point.rows,
                    "main_mb": round(point.main_mb, 1),
                    "tree_mb": round(point.tree_mb, 1),
                }
            )
    return kept


def measure(folder: Path, *, rows: int, concurrency: int) -> dict[str, Any]:
    """All lives, and what is there in the end.

    Raises:
        BenchError: a row has no line or several, or the folder does not pass `verify`.
    """
    make_input(folder, rows=rows)
    run = folder / "run"
    words = [
        *("run", "--input", folder / "videos.csv", "--frames-dir", folder / "frames", "--fit", "none", "--out", run),
        *("--codebook", folder / "codebook.toml", "--concurrency", concurrency, "--price-in", "0.18"),
        *("--price-out", "0.59", "--shards", 64),
    ]
    with provider(folder, SCENARIO, codebook=folder / "codebook.toml") as server:
        lives = [
            live(folder, server.url, words=[*words, *(["--resume"] if at else [])], until=part * rows, by=by)
            for at, (part, by) in enumerate(ENDS)
        ]
        lives.append(live(folder, server.url, words=[*words, "--resume"]))
        paid = delivered(server.url)
    found = _lines(run)
    if sorted(found) != list(range(rows)) or found.total() != rows:
        raise BenchError(f"{len(found)} rows have {found.total()} lines; {rows} were asked for")
    verified = subprocess.run([sys.executable, CLI, "verify", run], capture_output=True, text=True, check=False)
    if verified.returncode:
        raise BenchError(f"verify: {verified.stdout}{verified.stderr}")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    folders = ("results", "failures", "checkpoint")
    sizes = {name: sum(path.stat().st_size for path in run.glob(f"{name}/*")) for name in folders}
    return {
        "rows": rows,
        "concurrency": concurrency,
        "wall_s": round(sum(life.watched.wall_s for life in lives), 1),
        "main_cpu_s": round(sum(life.watched.points[-1].main_cpu_s for life in lives), 1),
        "tree_cpu_s": round(sum(life.watched.cpu_s for life in lives), 1),
        "lives": [life.as_json() for life in lives],
        "answers_paid": paid,
        "paid_twice": paid - rows,
        "bytes": sizes,
        "input_bytes": (folder / "videos.csv").stat().st_size,
        "verify": verified.stdout.strip().splitlines(),
        "report": report | {"out": run.name},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--name", default="million")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        taken = measure(Path(name), rows=told.rows, concurrency=told.concurrency)
    print(publish(told.name, " ".join(["million", *sys.argv[1:]]), taken))


if __name__ == "__main__":
    main()
