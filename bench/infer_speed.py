"""`infer` against the simulated provider: rows/s and CPU seconds per 1,000 chats, of text or with pictures inside.

python -m bench.infer_speed --rows 5000 --picture-kb 0 300
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import tempfile
from pathlib import Path

import numpy as np

from bench.throughput import command_once, figures, machine
from encoders.jpeg import encode

TEXT_BYTES = 2_000
CHATS_MADE = 50
"""Different pictures; further chats have them again under other texts."""


def make_chats(path: Path, *, rows: int, picture_kb: int) -> None:
    """Chats of 2 KB of text; if asked for, each with a small picture and so many KB of base64 behind it."""
    rng = random.Random(1)
    picture = encode(np.zeros((560, 315, 3), np.uint8))
    blobs = [base64.b64encode(picture + rng.randbytes(picture_kb * 768)).decode() for _ in range(CHATS_MADE)]
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            text = f"row {row} " + " ".join(rng.choices(["market", "train", "news", "music"], k=TEXT_BYTES // 6))
            url = {"url": f"data:image/jpeg;base64,{blobs[row % CHATS_MADE]}"}
            parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
            messages = [
                {"role": "system", "content": "Label the video. Answer with JSON."},
                {"role": "user", "content": parts if picture_kb else text},
            ]
            file.write(json.dumps({"meta_id": str(row), "messages": messages}) + "\n")


def run_once(folder: Path, *, rows: int, concurrency: int, latency_s: float) -> dict[str, float]:
    """One `infer` on the chats in `folder`; what it took."""
    out = folder / "raw.jsonl"
    words = ("infer", "--val-file", folder / "val.jsonl", "--out", out, "--concurrency", concurrency, "--no-share")
    scenario = {"latency": {"kind": "fixed", "median": latency_s}}
    taken = command_once(folder, *words, run=Path(f"{out}.run"), scenario=scenario)
    if out.read_bytes().count(b"\n") != rows:
        raise SystemExit(f"infer wrote another number of lines than {rows}")
    return figures(taken, rows=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--picture-kb", type=int, nargs="+", default=[0, 300])
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    told = parser.parse_args()
    print(machine())
    for picture_kb in told.picture_kb:
        with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
            make_chats(Path(name) / "val.jsonl", rows=told.rows, picture_kb=picture_kb)
            taken = run_once(Path(name), rows=told.rows, concurrency=told.concurrency, latency_s=told.latency)
        print(json.dumps({"picture_kb": picture_kb} | taken))


if __name__ == "__main__":
    main()
