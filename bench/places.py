"""What media costs by where it lies: indexing an archive, and reading frames from a folder, a tar and a zip file.

python -m bench.places --members 1000000 --rows 20000

Indexing runs in a process of its own, for its memory. Reading is timed in a process confined as a worker is: ids in
random order, eight frames each, page cache warm; CPU seconds beside the wall clock, for others may use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bench.throughput import publish
from encoders.locate import FrameStore
from encoders.places import frame_store
from engine.worker import confine

FRAMES = 8
FRAME_BYTES = 30_000
"""A phone frame within the single tile of a vision model."""
SMALL_BYTES = 100
"""Members of the archive that is only indexed: a header and one block each."""
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None, help="where everything is made, and deleted")
    parser.add_argument("--inside", nargs=2, metavar=("WHAT", "PLACE"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.inside:
        what, place = told.inside
        print(json.dumps(_index(place) if what == "index" else _read(place, rows=told.rows)))
        return
    with tempfile.TemporaryDirectory(dir=told.folder) as base:
        found = {"index": _indexing(Path(base), members=told.members), "read": _reading(Path(base), rows=told.rows)}
    publish("places", f"places --members {told.members} --rows {told.rows}", found)


def _indexing(base: Path, *, members: int) -> list[dict[str, float | str]]:
    print("| archive | members | indexing s | CPU s | RSS MB | index MB |\n|---|---|---|---|---|---|")
    taken: list[dict[str, float | str]] = []
    names = [f"{identity}/frame_{at}.jpg" for identity in _ids(members // FRAMES) for at in range(FRAMES)]
    for kind, make in (("tar", _tar), ("zip", _zip)):
        path = base / f"small.{kind}"
        make(path, names, SMALL_BYTES)
        said = _child("index", path)
        said |= {"archive": kind, "members": len(names)}
        said["index_mb"] = round((base / f"small.{kind}.index").stat().st_size / 1e6, 1)
        taken.append(said)
        cells = (said[key] for key in ("seconds", "cpu_s", "rss_mb", "index_mb"))
        print(f"| {kind} | {len(names):,} | {' | '.join(map(str, cells))} |", flush=True)
        path.unlink()
    return taken


def _reading(base: Path, *, rows: int) -> list[dict[str, float | str]]:
    print("\n| place | rows/s | rows per CPU s | frames/s | RSS MB of the worker |\n|---|---|---|---|---|")
    names = [f"{identity}/frame_{at}.jpg" for identity in _ids(rows) for at in range(FRAMES)]
    _tar(base / "frames.tar", names, FRAME_BYTES)
    _zip(base / "frames.zip", names, FRAME_BYTES)
    with tarfile.open(base / "frames.tar") as archive:
        archive.extractall(base / "frames", filter="data")
    places = ("frames", "frames.tar", "frames.zip")
    rounds: dict[str, list[dict[str, float | str]]] = {place: [] for place in places}
    for place in places:
        _child("index", base / place)
    for _ in range(ROUNDS):
        for place in places:
            rounds[place].append(_child("read", base / place, rows=rows))
    taken: list[dict[str, float | str]] = []
    for place in places:
        seconds, cpu_s, rss_mb = (
            statistics.median(float(said[key]) for said in rounds[place]) for key in ("seconds", "cpu_s", "rss_mb")
        )
        taken.append(
            {
                "place": place,
                "rows": rows,
                "rows_per_s": round(rows / seconds),
                "rows_per_cpu_s": round(rows / cpu_s),
                "frames_per_s": round(rows * FRAMES / seconds),
                "rss_mb": rss_mb,
            }
        )
        print(
            f"| {place} | {rows / seconds:,.0f} | {rows / cpu_s:,.0f} | {rows * FRAMES / seconds:,.0f} | {rss_mb} |",
            flush=True,
        )
    return taken


def _child(what: str, place: Path, *, rows: int = 0) -> dict[str, float | str]:
    command = [sys.executable, "-m", "bench.places", "--rows", str(rows), "--inside", what, str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    said = json.loads(done.stdout)
    assert isinstance(said, dict)
    return said


def _index(place: str) -> dict[str, float]:
    started, cpu_s = time.perf_counter(), time.process_time()
    frame_store(place).prepare()
    return _cost(started, cpu_s)


def _read(place: str, *, rows: int) -> dict[str, float]:
    store = frame_store(place)
    store.prepare()
    confine(2048)
    ids = list(_ids(rows))
    random.Random(1).shuffle(ids)
    _read_one(store, ids[0])
    started, cpu_s = time.perf_counter(), time.process_time()
    for identity in ids:
        _read_one(store, identity)
    return _cost(started, cpu_s)


def _read_one(store: FrameStore, identity: str) -> None:
    with store.open(identity) as found:
        assert found is not None
        assert sum(1 for data in found.read(found.files()) if data) == FRAMES


def _cost(started: float, cpu_s: float) -> dict[str, float]:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
        "rss_mb": round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1),
    }


def _ids(count: int) -> Iterator[str]:
    """Ids as long as those of real videos, in no order."""
    return (str(7_000_000_000_000_000_000 + at * 7919 * 10**9 % 10**17) for at in range(count))


def _tar(path: Path, names: list[str], size: int) -> None:
    data = os.urandom(size) + bytes(-size % tarfile.BLOCKSIZE)
    with path.open("wb") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + data)
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def _zip(path: Path, names: list[str], size: int) -> None:
    data = os.urandom(size)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), data)


if __name__ == "__main__":
    main()
