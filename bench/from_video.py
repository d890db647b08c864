"""The whole engine on videos: rows/s with one worker and with two, and with one file in ten broken.

python -m bench.from_video --rows 200 --rounds 3

Clips of 15 s as in `bench.stages video`, eight uniform frames of each; rows link to a few of them. What is broken was
cut in half, is text, or claims frames of 8,192 pixels a side; rows have text, so that each is asked about all the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.stages_video import make_clip
from bench.throughput import publish, run_once

CLIPS, SECONDS = 4, 15
CASES = {
    "one worker": ("videos", 1),
    "two workers": ("videos", 2),
    "two workers, every tenth video broken": ("some_broken", 2),
}
SCENARIO = {"latency": {"kind": "lognormal", "median": 0.5, "sigma": 0.3}, "tokens_per_image": 1601}


def make_videos(folder: Path, rows: int) -> None:
    """A table, a folder of good videos and one in which every tenth is broken."""
    clips = [folder / f"{at}.mp4" for at in range(CLIPS)]
    for clip in clips:
        make_clip(clip, SECONDS)
    whole = clips[0].read_bytes()
    broken = [whole[: len(whole) // 2], b"no video\n" * 100, _huge(whole)]
    with (folder / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        for row in range(rows):
            table.writerow([str(row), f"what they say in video {row}", f"row {row}"])
            for place in ("videos", "some_broken"):
                target = folder / place / f"{row}.mp4"
                target.parent.mkdir(exist_ok=True)
                if place == "some_broken" and row % 10 == 0:
                    target.write_bytes(broken[row // 10 % len(broken)])
                else:
                    target.hardlink_to(clips[row % CLIPS])


def _huge(whole: bytes) -> bytes:
    """The clip, claiming 8,192 x 8,192 pixels."""
    at = whole.index(b"avc1", whole.index(b"stsd") + 8) + 28
    return whole[:at] + b"\x20\x00\x20\x00" + whole[at + 4 :]


def figures(taken: dict[str, Any], rows: int) -> dict[str, float]:
    report = taken["report"]
    return {
        "rows_per_s": rows / report["elapsed_s"],
        "workers_cpu_s_per_1000": report["encode"]["cpu_s"] / rows * 1000,
        "main_cpu_s_per_1000": report["process"]["main_cpu_s"] / rows * 1000,
        "rows_with_frames": rows - report["degraded"].get("text_only", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        folder = Path(name)
        make_videos(folder, told.rows)
        for _ in range(told.rounds):
            for case, (place, workers) in CASES.items():
                media = ("--videos", folder / place, "--workers", workers, "--fit", "560x560", "--max-failed", "100%")
                once = run_once(folder, *media, concurrency=64, scenario=SCENARIO)
                taken[case].append(figures(once, told.rows))
                print(case, json.dumps(taken[case][-1]), flush=True)
    medians = {
        case: {key: round(statistics.median(once[key] for once in each), 2) for key in each[0]}
        for case, each in taken.items()
    }
    command = " ".join(["from_video", *sys.argv[1:]])
    print(publish("from_video", command, {"rows": told.rows, "medians": medians}))


if __name__ == "__main__":
    main()
