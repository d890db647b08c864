"""The suite `resume`: how long the first request takes, by the number of rows that are done; and `--help`.

A table of that many rows and some more, a run folder in which they are done, and the command line started on both with
`--resume`: the clock runs from the start of the process to the first byte of a request. The folder is one that a real
first start made, filled with short lines, with the marks that reading the table gives. The page cache is warm.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.suite import Case, Figures, Told
from bench.throughput import CLI
from engine.inputs import Resumption
from engine.life import FIRST_OPEN, OFFSETS
from engine.marks import Marks
from engine.source import RowReader, SourceConfig
from sinks.checkpoint import Checkpoint, State
from sinks.files import OS_FILES
from sinks.folder import CHECKPOINT, read_manifest, shard_name
from sinks.folder import RESULTS as DONE
from sinks.rows import RowSet

ROWS = (0, 100_000, 1_000_000, 10_000_000)
QUICK_ROWS = ROWS[:2]
MORE_ROWS = 10_000
"""Left to do, so that there is something to ask."""
HELP = (("--help",), ("run", "--help"))
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


def cases(told: Told) -> list[Case]:
    """A fresh run and a resume for each number of rows, and what the program takes to say what it can do."""
    found: list[Case] = []
    for rows in QUICK_ROWS if told.quick else ROWS:
        start = _Start(told.folder / str(rows), rows)
        about = {"rows": rows, "input_rows": rows + MORE_ROWS}
        found.append(Case(name=f"fresh, {start.more}", about={"what": "fresh run"} | about, once=start.first))
        found.append(Case(name=f"resume, {start.more}", about={"what": "resume"} | about, once=start.again))
    said = [(" ".join(words), words) for words in HELP]
    return [*found, *(Case(name=name, about={"what": name}, once=partial(_help, words)) for name, words in said)]


class _Start:
    """A table, a folder for the fresh run and one in which rows are done; made when they are first needed."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self.more = f"{rows:,} rows"

    def first(self, at: int) -> Figures:
        """A fresh run of the whole table."""
        del at
        folder = self._made("fresh")
        shutil.rmtree(folder / "run", ignore_errors=True)
        return _figures(start_once(folder, resume=False))

    def again(self, at: int) -> Figures:
        """A resume after these rows."""
        folder = self._made("resumed")
        if not at:
            start_once(folder, resume=False)
            fill(folder, rows=self._rows)
        return _figures(start_once(folder, resume=True))

    def _made(self, name: str) -> Path:
        table = self._folder / "videos.csv"
        if not table.exists():
            self._folder.mkdir()
            make_table(table, rows=self._rows + MORE_ROWS)
        folder = self._folder / name
        if not folder.exists():
            folder.mkdir()
            (folder / "videos.csv").hardlink_to(table)
        return folder


def _figures(taken: Taken) -> Figures:
    return {"first_request_s": taken.seconds, "main_peak_rss_mb": taken.rss_mb}


def _help(words: Sequence[str], at: int) -> Figures:
    """From process start to its end."""
    del at
    started = time.perf_counter()
    subprocess.run([sys.executable, str(CLI), *words], stdout=subprocess.DEVNULL, check=True)
    return {"whole_s": time.perf_counter() - started}
