"""How fast raw answers become labels: `parse` on a file of made-up ones, as a process of its own.

python -m bench.parsing --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from bench.invented import damaged, made_answer
from bench.throughput import CLI, publish
from labels.codebook import Codebook, load_codebook

FIRST_ID = 7_000_000_000_000_000_000
FENCED_SHARE, DAMAGED_SHARE, FAILED_SHARE = 0.05, 0.02, 0.01
"""Of the answers: ones in a code fence, ones with one thing wrong, and requests that got none."""
KINDS = 5000
"""Different answers made; more would only take longer to make."""
MODE = "by-category"


def make_raw(path: Path, book: Codebook, *, rows: int, grouped: bool, seed: int = 1) -> None:
    """A raw file of so many records; in groups, those of a video stand together."""
    rng = random.Random(seed)
    groups = [(MODE, name) for name in book.groups[MODE]] if grouped else [None]
    texts = {group: _texts(book, group, rng) for group in groups}
    with path.open("wb") as file:
        for row in range(rows):
            group = groups[row % len(groups)]
            video = str(FIRST_ID + row // len(groups))
            file.write(orjson.dumps(_record(row, video, group, texts[group], rng), option=orjson.OPT_APPEND_NEWLINE))


def _texts(book: Codebook, group: tuple[str, str] | None, rng: random.Random) -> list[str]:
    schema = book.json_schema(group)
    found = []
    for _ in range(KINDS):
        made = made_answer(schema, rng)
        if rng.random() < DAMAGED_SHARE:
            made = damaged(made, schema, rng)
        text = json.dumps(made, separators=(",", ":"))
        found.append(f"```json\n{text}\n```" if rng.random() < FENCED_SHARE else text)
    return found


def _record(
    row: int, video: str, group: tuple[str, str] | None, texts: list[str], rng: random.Random
) -> dict[str, Any]:
    failed = rng.random() < FAILED_SHARE
    grouped = {"group_id": group[1], "original_meta_id": video} if group else {}
    return {
        "idx": row,
        "meta_id": f"{video}__group_{group[1]}" if group else video,
        "raw": "<<REQUEST FAILED: timeout>>" if failed else rng.choice(texts),
        "attempt": 1,
        "latency_s": 1.234,
        "model": "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
        "finish_reason": None if failed else "stop",
        "truncated": None if failed else False,
        "max_tokens_used": 512,
        **grouped,
        "usage": {"prompt_tokens": 7626, "completion_tokens": 120, "cached_tokens": 0},
        "cost_usd": 0.0014,
        "error_kind": "timeout" if failed else None,
    }


def measure(raw: Path, out: Path, *more: str, rows: int) -> dict[str, Any]:
    """One run of the command line."""
    started = time.perf_counter()
    command = [sys.executable, str(CLI), "parse", "--raw", str(raw), "--out", str(out), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"parse ended with {process.returncode}:\n{said}")
    print(said, end="")
    return {
        "rows": rows,
        "flags": list(more),
        "raw_mb": round(raw.stat().st_size / 1e6, 1),
        "wall_s": round(wall_s, 2),
        "rows_per_s": round(rows / wall_s),
        "cpu_s_per_1000": round((used.ru_utime + used.ru_stime) / rows * 1000, 4),
        "peak_rss_mb": round(used.ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where files are made, and deleted")
    told = parser.parse_args()
    book, taken = load_codebook("comprehensive"), []
    with tempfile.TemporaryDirectory(dir=told.folder) as name:
        folder = Path(name)
        raw, out = folder / "raw.jsonl", folder / "parsed.jsonl"
        for rows in (told.rows // 10, told.rows):
            make_raw(raw, book, rows=rows, grouped=False)
            taken.append(measure(raw, out, rows=rows))
            print(json.dumps(taken[-1]), flush=True)
        make_raw(raw, book, rows=told.rows, grouped=True)
        for more in ((), ("--merge",)):
            taken.append(measure(raw, out, "--group-mode", MODE, *more, rows=told.rows))
            print(json.dumps(taken[-1]), flush=True)
    publish("parsing", f"parsing --rows {told.rows}", {"runs": taken})


if __name__ == "__main__":
    main()
