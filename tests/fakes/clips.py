"""Small videos made on the spot, from photographs or from grey levels that tell each frame's index."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

from tests.fakes.photos import phone_photo

SIZE = (64, 48)
FPS = 12
FRAMES = 24
TICKS = 100
"""Of the clock of every clip, in the time of one frame."""
SOUND_HZ = 8000
FAST = {
    "libx264": {"preset": "ultrafast", "crf": "10"},
    "libx265": {"preset": "ultrafast", "crf": "10", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "2M", "auto-alt-ref": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"},
    "libsvtav1": {"preset": "11", "crf": "20", "svtav1-params": "lp=1"},
    "mpeg4": {"flags": "qscale", "global_quality": "236"},
}
"""Options that make tiny files in little time without losing the grey levels."""
MATRIX_IN_FILE = {Colorspace.ITU709: 1, Colorspace.ITU601: 6, Colorspace.BT2020: 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """How to encode a clip."""

    container: str = "mp4"
    codec: str = "libx264"
    size: tuple[int, int] = SIZE
    gop: int = 8
    b_frames: int = 0
    pix_fmt: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    muxer: tuple[tuple[str, str], ...] = ()
    times: tuple[int, ...] | None = None
    """When each frame is shown, in ticks; None for evenly from 0."""
    matrix: Colorspace | None = None
    """None for BT.601 that is not named in the file."""
    told: bool = True
    """Whether the file names its matrix."""
    full_range: bool = False
    rotation: int | None = None
    """Degrees counter-clockwise."""
    hflip: bool = False
    shape: Fraction | None = None
    """Of a pixel."""
    sound: bool = False
    cover: bool = False
    second_video: bool = False


PLAIN = Clip()


def grey(index: int) -> int:
    """The level of a frame that holds its own index, 0 to 29."""
    return 20 + 7 * index


def index_of(level: float) -> int:
    return round((level - 20) / 7)


def numbered(size: tuple[int, int] = SIZE, count: int = FRAMES) -> list[Image.Image]:
    """Flat frames, each of the level of its index."""
    return [Image.new("RGB", size, (grey(i),) * 3) for i in range(count)]


@cache
def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    return phone_photo("coffee", (size[0] * 2, size[1] * 2)).resize(size, Image.Resampling.LANCZOS)


@cache
def plain(clip: Clip = PLAIN, count: int = FRAMES) -> bytes:
    """A clip of numbered frames."""
    return encoded(numbered(clip.size, count), clip)


def encoded(images: Sequence[Image.Image], clip: Clip) -> bytes:
    """A file that holds these frames."""
    with tempfile.NamedTemporaryFile() as file:
        # By name: to put the index first the muxer opens what it wrote.
        with av.open(file.name, "w", format=clip.container, options=dict(clip.muxer)) as container:
            stream = _stream(container, clip)
            other = added(container, "libx264", clip.size) if clip.second_video else None
            if clip.sound:
                with_sound = container.add_stream("aac", rate=SOUND_HZ)
            if clip.cover:
                add_cover(container)
            for index, image in enumerate(images):
                container.mux(stream.encode(_frame(image, index, clip)))
                if other is not None:
                    container.mux(other.encode(_frame(Image.new("RGB", clip.size), index, PLAIN)))
            container.mux(stream.encode(None))
            if other is not None:
                container.mux(other.encode(None))
            if clip.sound:
                container.mux([packet for part in _silence() for packet in with_sound.encode(part)])
        return file.read()


def sound_alone(kind: str, *, cover: bool = False) -> bytes:
    """A second of silence, with a cover or without."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("aac", rate=SOUND_HZ)
        if cover:
            add_cover(container)
        for part in _silence():
            container.mux(stream.encode(part))
    return out.getvalue()


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Where each packet of the video lies, or the block around it, and its bytes."""
    with reading(data) as container:
        return [(packet.pos or 0, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def reading(data: bytes) -> InputContainer:
    container = av.open(io.BytesIO(data))
    assert isinstance(container, InputContainer)
    return container


def added(container: OutputContainer, codec: str, size: tuple[int, int], pix_fmt: str = "yuv420p") -> VideoStream:
    stream = container.add_stream(codec, rate=FPS)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt
    stream.codec_context.thread_count = 1
    return stream


def add_cover(container: OutputContainer) -> None:
    stream = added(container, "mjpeg", (32, 32), "yuvj420p")
    stream.disposition = Disposition.attached_pic
    container.mux(stream.encode(_from_image(Image.new("RGB", (32, 32), "red"))))


def _stream(container: OutputContainer, clip: Clip) -> VideoStream:
    stream = added(container, clip.codec, clip.size, clip.pix_fmt)
    coder = stream.codec_context
    coder.time_base = Fraction(1, FPS * TICKS)
    coder.gop_size = clip.gop
    coder.max_b_frames = clip.b_frames
    coder.options = FAST.get(clip.codec, {}) | dict(clip.options)
    coder.color_range = ColorRange.JPEG if clip.full_range else ColorRange.MPEG
    if clip.matrix is not None and clip.told:
        coder.colorspace = MATRIX_IN_FILE[clip.matrix]
    if clip.rotation is not None:
        stream.set_display_rotation(clip.rotation, hflip=clip.hflip)
    if clip.shape is not None:
        coder.sample_aspect_ratio = clip.shape
    return stream


def _frame(image: Image.Image, index: int, clip: Clip) -> av.VideoFrame:
    frame = _from_image(image).reformat(
        format=clip.pix_fmt,
        dst_colorspace=clip.matrix or Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if clip.full_range else ColorRange.MPEG,
    )
    frame.pts = index * TICKS if clip.times is None else clip.times[index]
    frame.time_base = Fraction(1, FPS * TICKS)
    return frame


def _from_image(image: Image.Image) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")


def _silence() -> list[av.AudioFrame | None]:
    """One second, and what ends a stream."""
    parts: list[av.AudioFrame | None] = []
    for start in range(0, SOUND_HZ, 1024):
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        part.rate, part.pts, part.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
        parts.append(part)
    return [*parts, None]
