"""One way to take frames from a video, driven line by line from `bench.stages_video`. Runs in any environment.

python peer_videos.py ROUTE

A line read is JSON, a path and the indices wanted; answered with the CPU seconds of one pass. Everybody has one thread
and gives RGB arrays of the full size, but `ours`, which goes all the way to the JPEG that is sent.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Route = Callable[[str, Sequence[int]], int]
"""Path and indices in, the number of frames out."""
BOX = (560, 560)


def ours() -> tuple[Route, str]:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    video, sample, fit = (importlib.import_module(f"encoders.{name}") for name in ("video", "sample", "fit"))
    box = fit.Fit(rule="560x560", model="m", box=BOX)

    def route(path: str, indices: Sequence[int]) -> int:
        with Path(path).open("rb") as file:
            frames = video.video_frames(file, sample.Choice(num_frames=len(indices)), box)
        assert [frame.index for frame in frames] == list(indices), [frame.index for frame in frames]
        return len(frames)

    return route, f"PyAV {importlib.import_module('av').__version__}"


def everything() -> tuple[Route, str]:
    av = importlib.import_module("av")

    def route(path: str, indices: Sequence[int]) -> int:
        wanted = set(indices)
        with av.open(path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            found = [
                frame.to_ndarray(format="rgb24", threads=1)
                for index, frame in enumerate(container.decode(video=0))
                if index in wanted
            ]
        return len(found)

    return route, f"PyAV {av.__version__}"


def _torchcodec(seek_mode: str) -> tuple[Route, str]:
    decoders, torch = importlib.import_module("torchcodec.decoders"), importlib.import_module("torch")
    torch.set_num_threads(1)

    def route(path: str, indices: Sequence[int]) -> int:
        decoder = decoders.VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode, dimension_order="NHWC")
        return len(decoder.get_frames_at(list(indices)).data.numpy())

    return route, f"torchcodec {importlib.import_module('torchcodec').__version__}, torch {torch.__version__}"


def torchcodec() -> tuple[Route, str]:
    return _torchcodec("exact")


def torchcodec_approximate() -> tuple[Route, str]:
    return _torchcodec("approximate")


def decord() -> tuple[Route, str]:
    library = importlib.import_module("decord")

    def route(path: str, indices: Sequence[int]) -> int:
        return len(library.VideoReader(path, num_threads=1).get_batch(list(indices)).asnumpy())

    return route, f"decord {library.__version__}"


def opencv() -> tuple[Route, str]:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def route(path: str, indices: Sequence[int]) -> int:
        capture, found = cv2.VideoCapture(path, cv2.CAP_FFMPEG), 0
        for index in indices:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            found += bool(capture.read()[0])
        capture.release()
        return found

    return route, f"OpenCV {cv2.__version__}"


ROUTES = {route.__name__: route for route in (ours, everything, torchcodec, torchcodec_approximate, decord, opencv)}


def main() -> None:
    route, libraries = ROUTES[sys.argv[1]]()
    _say({"libraries": libraries})
    for line in sys.stdin:
        told = json.loads(line)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = route(told["path"], told["indices"])
        _say({"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s, "frames": found})


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
