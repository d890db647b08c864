"""Pixels to pixels of another size, by the libswscale of PyAV, which is the only library named here.

libswscale takes RGB through YUV, at half the width for the colours and half a level off, 0.4 dB in all. So the three
components are called by other names: as 4:4:4 YUV each goes through the same Lanczos filter and nothing else.
"""

from __future__ import annotations

import threading

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from encoders.tokens import Size

Pixels = npt.NDArray[np.uint8]
"""`(height, width, bytes a pixel)`: one for grey, three for RGB, four where a byte without meaning follows RGB."""

PACKED = {1: "gray", 4: "uyva"}
PLANAR = {1: "gray", 4: "yuv444p"}
COMPONENTS = {1: (0,), 4: (1, 0, 2)}
"""Which plane holds what was the first, second and third byte of a pixel."""
LEAST_PX = 16
"""Below it libswscale's filters are wrong by tens of levels."""
MOST_TIMES = 16
"""At 32 times its rounding shows, and from a hundred on it cuts filters off without a word."""


class UnscalableError(Exception):
    """Too small, or too far from the target, for libswscale."""


class _Own(threading.local):
    """A scaler keeps its filter tables while sizes stay the same; threads must not share one."""

    def __init__(self) -> None:
        self.scaler = VideoReformatter()


_OWN = _Own()


def resize(pixels: Pixels, size: Size) -> Pixels:
    """The picture at another size, by a Lanczos filter with three lobes.

    Args:
        pixels: Grey, or RGB and a byte without meaning, which is left out unless there is nothing to do.
        size: Width and height in pixels.

    Raises:
        UnscalableError: libswscale is not the one to do it.
    """
    height, width, depth = pixels.shape
    if (width, height) == size:
        return pixels
    too_far = width > MOST_TIMES * size[0] or height > MOST_TIMES * size[1]
    if too_far or min(width, height, *size) < LEAST_PX:
        raise UnscalableError(f"{width}x{height} to {size[0]}x{size[1]}")
    frame = VideoFrame(width, height, PACKED[depth])
    _rows(frame.planes[0])[:, : width * depth] = pixels.reshape(height, width * depth)
    full = ColorRange.JPEG
    made = _OWN.scaler.reformat(
        frame,
        *size,
        PLANAR[depth],
        interpolation=Interpolation.LANCZOS,
        src_color_range=full,
        dst_color_range=full,
        threads=1,
    )
    out = np.empty((size[1], size[0], len(COMPONENTS[depth])), np.uint8)
    for component, plane in enumerate(COMPONENTS[depth]):
        out[..., component] = _rows(made.planes[plane])[:, : size[0]]
    return out


def _rows(plane: VideoPlane) -> npt.NDArray[np.uint8]:
    """The memory of a plane, padding at the end of rows included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """The picture upright; `orientation` as EXIF counts, anything outside 2 to 8 changes nothing."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def library() -> str:
    return f"libswscale {'.'.join(map(str, av.library_versions['libswscale']))} by PyAV {av.__version__}"
