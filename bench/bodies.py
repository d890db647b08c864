"""Inputs whose requests have a given size: a table of texts, frames that pass untouched, a codebook of a few words."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bench.throughput import make_input
from encoders.jpeg import encode
from engine.source import RowReader, SourceConfig
from engine.types import Row
from labels.flags import RunFlags
from labels.job import Job
from labels.told import job_of

FIRST_ID = 7_000_000_000_000_000_000
FRAMES = 4
FOLDERS = 40
"""Frame folders of bytes of their own; further rows link to them."""
TEXTS = 1000
"""Transcripts of their own; each row has its number besides, so that no two ask the same."""
COMMENT_BYTES, MOST_COMMENT_BYTES = 4, 65_000
"""Of a JPEG: a comment's marker and length, and a whole comment at most."""
DIMENSION = """
[[dimensions]]
key = "{key}"
title = "{key}"
kind = "categorical"
definition = "Whether it is about {key}."
evidence = "Text and frames."
values = ["yes", "no"]
"""
CODEBOOK = 'name = "short"\ntitle = "Short"\nrole = "You label short videos."\n' + "".join(
    DIMENSION.format(key=key) for key in ("politics", "food", "travel")
)
"""Two pages of questions, as in the shipped ones, would be larger than the smallest body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Requests of a kind."""

    name: str
    n_bytes: int = 0
    """Of the whole request; 0 takes what comes."""
    text_bytes: int = 600
    frame_bytes: int = 0
    """Of each of the frames, which are sent as they are."""
    fitted: bool = False
    """Whether there are frames of 360x640 that are decoded, fitted and encoded again."""


BODIES = {
    body.name: body
    for body in (
        Body(name="2 KB", n_bytes=2_000),
        Body(name="300 KB", n_bytes=300_000, frame_bytes=55_500),
        Body(name="1 MB", n_bytes=1_000_000, frame_bytes=186_500),
        Body(name="4 frames", fitted=True),
    )
}


def make_rows(folder: Path, body: Body, *, rows: int) -> None:
    """`videos.csv`, `codebook.toml` and, where the body has frames, `frames/<id>/frame_<n>.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "codebook.toml").write_text(CODEBOOK, encoding="utf-8")
    if body.fitted:
        make_input(folder, rows=rows, frames=FRAMES, text_bytes=body.text_bytes)
        return
    if body.frame_bytes:
        _make_frames(folder, body, rows=rows)
    n_bytes = body.text_bytes
    _make_table(folder / "videos.csv", rows=1, text_bytes=n_bytes)
    if body.n_bytes:
        n_bytes += body.n_bytes - len(next(requests(folder, body)))
    _make_table(folder / "videos.csv", rows=rows, text_bytes=n_bytes)


def flags(folder: Path, body: Body) -> tuple[object, ...]:
    """Of `run`, for what `make_rows` made in the folder."""
    frames = ("--frames-dir", folder / "frames", "--fit", "tokens" if body.fitted else "none")
    media = frames if body.fitted or body.frame_bytes else ()
    return ("--input", folder / "videos.csv", "--codebook", folder / "codebook.toml", *media)


def job(folder: Path, body: Body, *, url: str = "http://127.0.0.1:9/v1") -> Job:
    """The same as settings."""
    frames = folder / "frames" if body.fitted or body.frame_bytes else None
    told = RunFlags(
        input=folder / "videos.csv",
        out=folder / "run",
        model="simulated/vision",
        base_url=url,
        codebook=str(folder / "codebook.toml"),
        frames_dir=str(frames) if frames else None,
        fit="tokens" if body.fitted else "none",
    )
    return job_of(told).job


def rows_of(folder: Path, *, count: int) -> list[Row]:
    """The first rows of the table."""
    found: list[Row] = []
    with RowReader(SourceConfig(path=folder / "videos.csv"), is_done=lambda _: False) as reader:
        while len(found) < count and (batch := reader.next_batch()):
            found += [row for row in batch if isinstance(row, Row)]
    return found[:count]


def requests(folder: Path, body: Body, *, count: int = 1) -> Iterator[bytes]:
    """The first requests a run would send."""
    made = job(folder, body)
    for row in rows_of(folder, count=count):
        request = made.encoder.encode(row)
        yield request.head + str(made.settings.retry.max_tokens or 512).encode() + request.tail


def _make_table(path: Path, *, rows: int, text_bytes: int) -> None:
    rng = random.Random(1)
    words = ["market", "train", "noodles", "protest", "news", "music", "river", "factory", "school", "festival"]
    # No blank at the end, which would be taken off.
    texts = [" ".join(rng.choices(words, k=text_bytes // 5))[: text_bytes - 1] + "." for _ in range(min(rows, TEXTS))]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc"])
        table.writerows([str(FIRST_ID + row), texts[row % len(texts)], f"row {row:08d}"] for row in range(rows))


def _make_frames(folder: Path, body: Body, *, rows: int) -> None:
    rng = random.Random(1)
    for row in range(rows):
        target = folder / "frames" / str(FIRST_ID + row)
        target.mkdir(parents=True)
        for at in range(FRAMES):
            if row < FOLDERS:
                (target / f"frame_{at}.jpg").write_bytes(_jpeg_of(body.frame_bytes, rng))
            else:
                model = folder / "frames" / str(FIRST_ID + row % FOLDERS)
                (target / f"frame_{at}.jpg").hardlink_to(model / f"frame_{at}.jpg")


def _jpeg_of(n_bytes: int, rng: random.Random) -> bytes:
    """A whole JPEG of so many bytes: a small picture, and comments of noise, which take as long to send."""
    start, picture = _picture()
    left = n_bytes - len(start) - len(picture)
    count = -(-left // MOST_COMMENT_BYTES)
    sizes = [left // count + (at < left % count) for at in range(count)]
    comments = [b"\xff\xfe" + (size - 2).to_bytes(2, "big") + rng.randbytes(size - COMMENT_BYTES) for size in sizes]
    return b"".join([start, *comments, picture])


@cache
def _picture() -> tuple[bytes, bytes]:
    """A JPEG of 360x640, parted where comments may stand."""
    noise = np.random.default_rng(1).integers(0, 256, (80, 45, 3), dtype=np.uint8)
    whole = encode(np.ascontiguousarray(noise.repeat(8, 0).repeat(8, 1)))
    return whole[:2], whole[2:]
