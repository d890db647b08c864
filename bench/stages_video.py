"""Frames of a video, beside the libraries that take them too, and what one frame costs from decoder to JPEG.

python -m bench.stages video --rounds 7

Clips of 15, 30 and 60 s, 576x1024, 30 frames a second, H.264 with B-frames and a keyframe per 250 frames; eight uniform
frames of each. Every contender is a process of its own, in an environment of its own that is made on first use; rounds
go through all of them in a new order each time. CPU seconds of one thread, medians. torchcodec needs FFmpeg's shared
libraries from elsewhere: LD_LIBRARY_PATH may name them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from bench.photographs import encoded, phone_photo, photographs, psnr_db
from bench.stages import CannotRunError, Contender, Running, interpreter
from bench.throughput import publish
from encoders.fit import Fit
from encoders.shown import picture_of

SCRIPT = Path(__file__).with_name("peer_videos.py")
SECONDS = (15, 30, 60)
SIZE, FPS, GOP, WANTED = (576, 1024), 30, 250, 8
CUT_FRAMES = 75
"""After so many the photograph changes; within them the view wanders."""
FIT = Fit(rule="560x560", model="m", box=(560, 560))
MATRICES = {"BT.601": Colorspace.ITU601, "BT.709": Colorspace.ITU709}
IN_FILE = {"BT.601": 6, "BT.709": 1}
WHOLE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without these flags libswscale doubles the colour samples instead of interpolating them."""
REPEATS = 25

CONTENDERS = (
    Contender("Reelbatch, to JPEG", "ours"),
    Contender("everything decoded", "everything"),
    Contender("torchcodec", "torchcodec", ("torchcodec", "torch", "numpy")),
    Contender("torchcodec, approximate", "torchcodec_approximate", ("torchcodec", "torch", "numpy")),
    Contender("decord", "decord", ("decord", "numpy")),
    Contender("OpenCV", "opencv", ("opencv-python-headless==5.0.0.93",)),
)


def one_clip(contender: Running, path: Path, indices: Sequence[int]) -> float:
    """CPU milliseconds of one clip."""
    told = contender.ask(json.dumps({"path": str(path), "indices": indices}))
    assert told["frames"] == len(indices), f"{contender.name} gave {told['frames']} frames of {len(indices)}"
    return 1000.0 * float(told["cpu_s"])


def make_clip(path: Path, seconds: int, *, matrix: str = "BT.709") -> None:
    """Photographs under a moving window, with a little noise so that motion is not free."""
    width, height = SIZE
    views = [np.asarray(phone_photo(name, (width * 5 // 4, height * 5 // 4)), np.int16) for name in photographs()]
    noise = np.random.default_rng(1).integers(-4, 5, (8, height, width, 1), dtype=np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace = IN_FILE[matrix]
        stream.codec_context.options = {
            "crf": "23",
            "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0",
        }
        for index in range(seconds * FPS):
            left, top = index * 3 % (width // 4), index * 2 % (height // 4)
            view = views[index // CUT_FRAMES % len(views)][top : top + height, left : left + width]
            pixels = np.clip(view + noise[index % len(noise)], 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=MATRICES[matrix])
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decoder_to_jpeg(path: Path, matrix: str) -> dict[str, float]:
    """One frame from the decoder's planes to JPEG: CPU ms, and what is lost against a full conversion and Lanczos."""
    with av.open(str(path)) as container:
        frames = [frame for index, frame in enumerate(container.decode(video=0)) if index % CUT_FRAMES == 0]
    scaler, taken = VideoReformatter(), []
    for _ in range(REPEATS):
        started = time.process_time()
        pictures = [picture_of(frame, FIT, None, scaler) for frame in frames]
        taken.append((time.process_time() - started) * 1000 / len(frames))
    losses, psnrs = [], []
    for frame, picture in zip(frames, pictures, strict=True):
        whole = scaler.reformat(
            frame, format="rgb24", src_colorspace=MATRICES[matrix], interpolation=WHOLE, threads=1
        ).to_ndarray()
        best = Image.fromarray(whole).resize((picture.width, picture.height), Image.Resampling.LANCZOS)
        reference = Image.open(io.BytesIO(encoded(best, quality=80, subsampling="4:2:0")))
        psnrs.append(psnr_db(best, Image.open(io.BytesIO(picture.data))))
        losses.append(psnr_db(best, reference) - psnrs[-1])
    return {
        "cpu_ms": round(statistics.median(taken), 3),
        "cpu_ms_least": round(min(taken), 3),
        "psnr_db": round(statistics.mean(psnrs), 2),
        "loss_db": round(statistics.mean(losses), 2),
        "loss_db_most": round(max(losses), 2),
    }


def measure(running: Sequence[Running], clips: dict[str, Path], *, rounds: int) -> list[dict[str, Any]]:
    """CPU milliseconds by contender and clip; a first round warms up."""
    rng = random.Random(1)
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for contender in rng.sample(running, len(running)):
            for name, path in clips.items():
                length = int(name.removesuffix(" s")) * FPS
                indices = [(2 * i + 1) * length // (2 * WANTED) for i in range(WANTED)]
                cpu_ms = one_clip(contender, path, indices)
                if number:
                    taken.setdefault((contender.name, name), []).append(cpu_ms)
    return [
        {
            "name": contender.name,
            "libraries": contender.libraries,
            "cpu_ms": {
                name: {
                    "median": round(statistics.median(taken[contender.name, name]), 1),
                    "least": round(min(taken[contender.name, name]), 1),
                    "most": round(max(taken[contender.name, name]), 1),
                }
                for name in clips
            },
        }
        for contender in running
    ]


def video(told: argparse.Namespace) -> None:
    """Measure, print the table, keep the figures."""
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        clips = {f"{seconds} s": Path(name) / f"{seconds}.mp4" for seconds in SECONDS}
        for seconds, path in zip(SECONDS, clips.values(), strict=True):
            make_clip(path, seconds)
        other = Path(name) / "601.mp4"
        make_clip(other, SECONDS[0], matrix="BT.601")
        running, missing = start(told.venvs)
        load_before = os.getloadavg()
        try:
            rows = measure(running, clips, rounds=told.rounds)
        finally:
            for contender in running:
                contender.end()
        frames = {"BT.709": decoder_to_jpeg(clips["15 s"], "BT.709"), "BT.601": decoder_to_jpeg(other, "BT.601")}
    print(table(rows))
    for matrix, figures in frames.items():
        print(f"\n{matrix}, decoder to JPEG: {figures['cpu_ms']} ms a frame, {figures['loss_db']} dB lost")
    for left_out, reason in missing.items():
        print(f"\n{left_out}: not measured: {reason}")
    taken = {
        "load_before": load_before,
        "load_after": os.getloadavg(),
        "clips": f"{SIZE[0]}x{SIZE[1]}, {FPS} frames/s, H.264, a keyframe per {GOP} frames; {WANTED} uniform frames",
        "contenders": rows,
        "decoder_to_jpeg": frames,
        "not_measured": missing,
    }
    publish("stages_video", f"stages video --rounds {told.rounds}", taken)


def start(venvs: Path) -> tuple[list[Running], dict[str, str]]:
    """Those that run, and why the others do not."""
    running, missing = [], {}
    for contender in CONTENDERS:
        try:
            running.append(Running(contender, (interpreter(contender, venvs), SCRIPT, contender.route)))
        except CannotRunError as error:
            missing[contender.name] = str(error)
    return running, missing


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, CPU milliseconds a clip."""
    names = list(rows[0]["cpu_ms"])
    lines = ["| CPU ms | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for row in rows:
        cells = " | ".join(f"{row['cpu_ms'][name]['median']:.0f}" for name in names)
        lines.append(f"| {row['name']} ({row['libraries']}) | {cells} |")
    return "\n".join(lines)
