"""The stages of media work, each beside the libraries that do the same.

python -m bench.stages images --rounds 15

Pictures: photographs brought to a phone's size, JPEG quality 90, made to fit 560x560 as JPEG quality 80, 4:2:0. Every
contender is a process of its own, in an environment of its own that is made on first use; rounds go through all of
them in a new order each time. CPU seconds, medians; beside them what is lost against a full decode, a Lanczos filter
and the same JPEG settings.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.peer_images import QUALITY, TARGET
from bench.photographs import PHONE_SIZES, encoded, loss_db, phone_photo, photographs
from bench.throughput import publish

SCRIPT = Path(__file__).with_name("peer_images.py")
VENVS = Path.home() / ".cache" / "reelbatch" / "peers"
INSTALL_S = 1800.0
REASON_CHARS = 200
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "134217728"}
"""What `encoders/jpeg.py` sees to for itself; without it every contender spends up to a quarter on page faults."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Contender(NamedTuple):
    """Who, by which route of `peer_images`, with which packages; none of them means our own environment."""

    name: str
    route: str
    packages: tuple[str, ...] = ()


CONTENDERS = (
    Contender("Reelbatch", "ours"),
    Contender("Pillow, draft", "pillow_draft", ("pillow==13.0.0",)),
    Contender("Pillow", "pillow", ("pillow==13.0.0",)),
    Contender("Pillow-SIMD, draft", "pillow_draft", ("pillow-simd==12.1.1.post0",)),
    Contender("Pillow-SIMD", "pillow", ("pillow-simd==12.1.1.post0",)),
    Contender("simplejpeg, OpenCV", "simplejpeg_opencv", ("simplejpeg==1.9.0", "opencv-python-headless==5.0.0.93")),
    Contender("OpenCV, reduced", "opencv_reduced", ("simplejpeg==1.9.0", "opencv-python-headless==5.0.0.93")),
    Contender("OpenCV", "opencv", ("simplejpeg==1.9.0", "opencv-python-headless==5.0.0.93")),
    Contender("torchvision", "torchvision", ("torchvision", "numpy")),
)
LEFT_OUT = {"torchcodec": "it decodes videos and resizes and encodes no pictures"}


class CannotRunError(Exception):
    """Why a contender is missing from the table."""


def interpreter(contender: Contender, venvs: Path) -> Path:
    """Its environment's Python, made if need be.

    Raises:
        CannotRunError: it cannot be installed.
    """
    if not contender.packages:
        return Path(sys.executable)
    folder = venvs / contender.packages[0].replace("==", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [*(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")]
        try:
            subprocess.run(
                [*command, *contender.packages], check=True, capture_output=True, timeout=INSTALL_S, text=True
            )
        except subprocess.CalledProcessError as error:
            raise CannotRunError(_last_line(error.stderr) or "pip failed") from error
        except subprocess.TimeoutExpired as error:
            raise CannotRunError(f"not installed within {INSTALL_S:.0f} s") from error
        ready.touch()
    return python


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or [""])[-1][-REASON_CHARS:]


class Running:
    """A contender's process."""

    def __init__(self, contender: Contender, command: Sequence[object], **more_environment: str) -> None:
        """Start it: a program that says which libraries it has, and then a line for every line it is given.

        Raises:
            CannotRunError: its libraries cannot be imported.
        """
        self.name = contender.name
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **more_environment},
        )
        self.libraries = str(self._read()["libraries"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            told: dict[str, Any] = json.loads(line)
            return told
        _, said = self._process.communicate()
        raise CannotRunError(_last_line(said))

    def ask(self, line: str) -> dict[str, Any]:
        """What it says to one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def one_pass(contender: Running, size: str, *, keep: str = "") -> float:
    """CPU milliseconds a picture, of one pass over the pictures of a size."""
    told = contender.ask(f"keep {keep} {size}" if keep else size)
    return 1000.0 * float(told["cpu_s"]) / int(told["pictures"])


def make_pictures(folder: Path) -> dict[str, float]:
    """`<width>x<height>/<name>.jpg`; the mean size of a file in KB, by size."""
    sizes = {}
    for width, height in PHONE_SIZES:
        inside = folder / f"{width}x{height}"
        inside.mkdir()
        for name in photographs():
            (inside / f"{name}.jpg").write_bytes(encoded(phone_photo(name, (width, height)), quality=90))
        sizes[inside.name] = round(statistics.mean(path.stat().st_size for path in inside.iterdir()) / 1000, 1)
    return sizes


def images(told: argparse.Namespace) -> None:
    """Measure, print the table, keep the figures."""
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        folder = Path(name)
        kilobytes = make_pictures(folder)
        running, missing = start(folder, told.venvs)
        try:
            rows = measure(running, tuple(kilobytes), folder, rounds=told.rounds)
        finally:
            for contender in running:
                contender.end()
    print(table(rows, tuple(kilobytes)))
    for left_out, reason in missing.items():
        print(f"\n{left_out}: not measured: {reason}")
    taken = {
        "target": f"fit 560x560 ({TARGET[0]}x{TARGET[1]}), JPEG quality {QUALITY}, 4:2:0",
        "source_kb": kilobytes,
        "contenders": rows,
        "not_measured": missing,
    }
    publish("stages_images", f"stages images --rounds {told.rounds}", taken)


def _started(contender: Contender, folder: Path, venvs: Path) -> Running:
    python = interpreter(contender, venvs)
    return Running(contender, (python, SCRIPT, contender.route, folder), **ONE_THREAD, **KEEP_MEMORY)


def start(folder: Path, venvs: Path) -> tuple[list[Running], dict[str, str]]:
    """Those that run, and why the others do not."""
    running, missing = [], dict(LEFT_OUT)
    for contender in CONTENDERS:
        try:
            running.append(_started(contender, folder, venvs))
        except CannotRunError as error:
            missing[contender.name] = str(error)
    return running, missing


def measure(running: Sequence[Running], sizes: Sequence[str], folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """Figures by contender and size; the first round warms up and is where the pictures to judge come from."""
    rng = random.Random(1)
    taken: dict[tuple[str, str], list[float]] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    for number, contender in enumerate(running):
        for size in sizes:
            one_pass(contender, size, keep=str(number))
            paths = sorted((folder / size).glob("*.jpg"))
            losses[contender.name, size] = [
                loss_db(path.with_suffix(f".{number}").read_bytes(), path.read_bytes(), TARGET, quality=QUALITY)
                for path in paths
            ]
    for _ in range(rounds):
        for contender in rng.sample(running, len(running)):
            for size in sizes:
                taken.setdefault((contender.name, size), []).append(one_pass(contender, size))
    return [
        {
            "name": contender.name,
            "libraries": contender.libraries,
            "sizes": {
                size: {
                    "images_per_cpu_s": round(1000 / statistics.median(taken[contender.name, size]), 1),
                    "cpu_ms": round(statistics.median(taken[contender.name, size]), 3),
                    "cpu_ms_least": round(min(taken[contender.name, size]), 3),
                    "cpu_ms_most": round(max(taken[contender.name, size]), 3),
                    "loss_db_mean": round(statistics.mean(losses[contender.name, size]), 2),
                    "loss_db_most": round(max(losses[contender.name, size]), 2),
                }
                for size in sizes
            },
        }
        for contender in running
    ]


def table(rows: Sequence[dict[str, Any]], sizes: Sequence[str]) -> str:
    """Markdown, fastest first."""
    head = "| | " + " | ".join(f"{size}: images/s/core | loss dB, mean and most" for size in sizes) + " |"
    lines = [head, "|---" * (1 + 2 * len(sizes)) + "|"]
    for row in sorted(rows, key=lambda row: -float(row["sizes"][sizes[0]]["images_per_cpu_s"])):
        cells = [
            f"{told['images_per_cpu_s']:.0f} | {told['loss_db_mean']:.2f}, {told['loss_db_most']:.2f}"
            for told in (row["sizes"][size] for size in sizes)
        ]
        lines.append(f"| {row['name']} ({row['libraries']}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["images", "video", "all"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--venvs", type=Path, default=VENVS, help="where the contenders' environments are made")
    told = parser.parse_args()
    if told.stage in {"images", "all"}:
        images(told)
    if told.stage in {"video", "all"}:
        importlib.import_module("bench.stages_video").video(told)


if __name__ == "__main__":
    main()
