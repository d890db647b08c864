"""How long a resume takes to its first request, by the number of rows that are done.

python -m bench.resume --rows 0 1000000 10000000

A table of that many rows and some more, a run folder in which they are done, and the command line started on both with
`--resume`: the clock runs from the start of the process to the first byte of a request. The folder is one that a real
first start made, filled with short lines, with the marks that reading the table gives.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.throughput import CLI, publish
from engine.inputs import Resumption
from engine.marks import Marks
from engine.run import FIRST_OPEN, OFFSETS
from engine.source import RowReader, SourceConfig
from sinks.checkpoint import Checkpoint, State
from sinks.files import OS_FILES
from sinks.folder import CHECKPOINT, read_manifest, shard_name
from sinks.folder import RESULTS as DONE
from sinks.rows import RowSet

MORE_ROWS = 10_000
"""Left to do, so that there is something to ask."""
PIECE_ROWS = 100_000
WAIT_S = 120.0


class Taken(NamedTuple):
    """One start."""

    seconds: float
    rss_mb: float
    """The most the main process held until then."""


def make_table(path: Path, *, rows: int) -> None:
    """About 60 bytes a row."""
    with path.open("w", encoding="utf-8") as file:
        file.write("meta_id,subtitle,meta_desc\n")
        for start in range(0, rows, PIECE_ROWS):
            piece = range(start, min(start + PIECE_ROWS, rows))
            file.write("".join(f'{7 * 10**18 + row},"they walk, and talk",row {row:08d}\n' for row in piece))


def start_once(folder: Path, *, resume: bool) -> Taken:
    """Start the command line, and kill it when its first request comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        command = [
            *(sys.executable, str(CLI), "run", "--input", str(folder / "videos.csv"), "--out", str(folder / "run")),
            *("--model", "m", "--base-url", f"http://127.0.0.1:{server.getsockname()[1]}/v1", "--workers", "1"),
        ]
        started = time.perf_counter()
        with subprocess.Popen([*command, *(["--resume"] if resume else [])], stderr=subprocess.DEVNULL) as process:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1)
                    seconds = time.perf_counter() - started
                    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            finally:
                process.kill()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return Taken(seconds, int(found[1]) / 1024)


def fill(folder: Path, *, rows: int) -> None:
    """Make the first `rows` rows done in a folder that a first start has made."""
    out, marks = folder / "run", Marks()
    with RowReader(
        SourceConfig(path=folder / "videos.csv", limit=rows or 1),
        is_done=lambda row: row < rows,
        resume=Resumption(marks=marks),
    ) as reader:
        while reader.next_batch():
            pass
    shards = int(read_manifest(out)["shards"])
    state = State(seq=1, epoch=1, results=RowSet(((1 << rows) - 1).to_bytes((rows + 7) // 8, "little")))
    state.learnt |= {OFFSETS: marks.as_json(), FIRST_OPEN: rows}
    for number in range(shards):
        name = shard_name(DONE, number)
        data = b"".join(b'{"row":%d}\n' % row for row in range(number, rows, shards))
        (out / name).write_bytes(data)
        state.ends[name] = len(data)
    shutil.rmtree(out / CHECKPOINT)
    (out / CHECKPOINT).mkdir()
    checkpoint = Checkpoint(out / CHECKPOINT, OS_FILES)
    checkpoint.snapshot(state)
    checkpoint.snapshot(state)


def measure(rows: int, *, rounds: int, folder: Path) -> dict[str, float]:
    make_table(folder / "videos.csv", rows=rows + MORE_ROWS)
    firsts = []
    for _ in range(rounds):
        shutil.rmtree(folder / "run", ignore_errors=True)
        firsts.append(start_once(folder, resume=False).seconds)
    fill(folder, rows=rows)
    resumed = [start_once(folder, resume=True) for _ in range(rounds)]
    times = [taken.seconds for taken in resumed]
    return {
        "rows_done": rows,
        "input_mb": round((folder / "videos.csv").stat().st_size / 1e6, 1),
        "first_start_s": round(statistics.median(firsts), 3),
        "resume_s": round(statistics.median(times), 3),
        "resume_least_s": round(min(times), 3),
        "resume_most_s": round(max(times), 3),
        "rss_mb": round(max(taken.rss_mb for taken in resumed), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where tables and folders are made, and deleted")
    told = parser.parse_args()
    taken = []
    print("| rows done | input MB | first start s | resume s | least to most | RSS MB |\n|---|---|---|---|---|---|")
    for rows in told.rows:
        with tempfile.TemporaryDirectory(dir=told.folder) as folder:
            found = measure(rows, rounds=told.rounds, folder=Path(folder))
        taken.append(found)
        print(
            f"| {rows:,} | {found['input_mb']} | {found['first_start_s']} | {found['resume_s']} | "
            f"{found['resume_least_s']} to {found['resume_most_s']} | {found['rss_mb']} |",
            flush=True,
        )
    command = f"resume --rows {' '.join(map(str, told.rows))} --rounds {told.rounds}"
    publish("resume", command, {"sizes": taken})


if __name__ == "__main__":
    main()
