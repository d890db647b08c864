"""The main job on sample videos drawn here, against the simulated provider in a process of its own."""

from __future__ import annotations

import csv
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from engine.errors import ConfigError
from labels.terminal import say

FRAMES = 4
WIDTH_PX, HEIGHT_PX = 720, 1280
CLI = Path(__file__).parent.parent / "cli.py"
MARK = ".reelbatch-demo"
TOPICS = (
    ("A walk through the night market", "Look at these stalls, everything is made fresh in front of you"),
    ("New high speed line opens", "It takes four hours less than last year and the train is spotless"),
    ("They want us to stay silent", "Tomorrow at noon we all meet in front of the town hall, bring your friends"),
    ("Evening news, part two", "The minister said on Tuesday that talks will go on next week"),
    ("Watch till the end", "You will not believe number three, like and share before it is gone"),
    ("Grandma's noodle soup", "First the broth, six hours at least, then the noodles by hand"),
)


def demo(*, out: Path = Path("out/demo"), rows: int = 24) -> int:
    """The main job on generated sample videos against the simulated provider: no key, no network, no cost.

    Args:
        out: where samples and results go; what an earlier demo left there is replaced.
        rows: how many sample videos.
    """
    return show_demo(out, rows=rows, say=say)


def show_demo(out: Path, *, rows: int, say: Callable[[str], None]) -> int:
    """Make samples, start the provider, run, show what came out.

    Raises:
        ConfigError: the folder holds something that no demo made.
    """
    if out.exists() and not (out / MARK).exists():
        raise ConfigError(f"{out} exists and is no earlier demo; take another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    say(f"1. {rows} sample videos, {FRAMES} frames of {WIDTH_PX}x{HEIGHT_PX} each, into {out}")
    make_samples(out, rows=rows)
    with subprocess.Popen(
        [sys.executable, str(CLI), "simulate", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            command = [
                *("run", "--input", str(out / "videos.csv"), "--frames-dir", str(out / "frames")),
                *("--spot-notices", "off", "--out", str(out / "run"), "--model", "simulated/vision", "--base-url", url),
                *("--shards", "4", "--price-in", "0.18", "--price-out", "0.59"),
            ]
            say(f"2. python cli.py {' '.join(command)}")
            code = subprocess.run([sys.executable, str(CLI), *command], check=False).returncode
        finally:
            server.terminate()
    say(f"3. python cli.py status {out / 'run'}")
    subprocess.run([sys.executable, str(CLI), "status", str(out / "run")], check=False)
    say(f"4. one line of {out}/run/results/shard-00000.jsonl (labels are made up by the simulated provider)")
    with (out / "run" / "results" / "shard-00000.jsonl").open(encoding="utf-8") as file:
        print(file.readline().strip())
    return code


def make_samples(folder: Path, *, rows: int, seed: int = 1) -> None:
    """`videos.csv` and `frames/<id>/frame_<n>.jpg` in the folder."""
    rng = random.Random(seed)
    with (folder / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        for row in range(rows):
            identity = str(7_531_309_745_475_554_591 + row)
            description, transcript = TOPICS[row % len(TOPICS)]
            table.writerow([identity, transcript, f"{description} #{row}"])
            target = folder / "frames" / identity
            target.mkdir(parents=True)
            hue = rng.randrange(256)
            for at in range(FRAMES):
                _frame(hue, at, f"{description} #{row}").save(target / f"frame_{at}.jpg", quality=88)


def _frame(hue: int, at: int, caption: str) -> Image.Image:
    """A sky, a sun that moves from frame to frame, hills, and a caption."""
    gradient = Image.linear_gradient("L").resize((WIDTH_PX, HEIGHT_PX))
    plane = Image.new("L", gradient.size, hue)
    image = Image.merge("HSV", (plane, plane.point(lambda _: 120), gradient.point(lambda v: 255 - v // 2))).convert(
        "RGB"
    )
    draw = ImageDraw.Draw(image)
    x = WIDTH_PX * (at + 1) // (FRAMES + 1)
    draw.ellipse((x - 80, 260, x + 80, 420), fill=(255, 236, 170))
    for back in range(3):
        hill = [
            (px, 760 + back * 130 + round(60 * math.sin(px / (90 + 40 * back) + hue + at / 9)))
            for px in range(0, WIDTH_PX + 1, 8)
        ]
        draw.polygon([*hill, (WIDTH_PX, HEIGHT_PX), (0, HEIGHT_PX)], fill=(40, 90 - 20 * back, 70 - 15 * back))
    draw.text((40, 1140), caption, fill="white", font_size=40)
    return image
