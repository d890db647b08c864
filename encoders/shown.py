"""A decoded frame to a picture as a player would show it: upright, in its true shape and colours.

libswscale reads the frame's own samples and makes RGB planes straight at the size to send; there is no full-size RGB.
From 576x1024 to 315x560 that costs 1.2 ms with the JPEG and 0.1 dB against a full-size conversion and Lanczos. By way
of YUV planes it would be 0.7 ms and lose 0.9 dB, and 2.0 ms for the BT.709 of nearly every phone, since a JPEG holds
BT.601.

What is not done: high dynamic range is brought to 8 bits but not tone-mapped, so it looks pale; interlaced frames are
sent woven, as the file holds them; transparency is ignored.
"""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from encoders.fit import Fit, Picture
from encoders.jpeg import Plane, encode

FILTER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""The same bytes on every processor. Lanczos takes a fifth longer and gains 0.05 dB."""
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""H.273 matrix coefficients as files number them, to libswscale's numbers: BT.709, FCC, BT.601 twice, SMPTE 240M and
BT.2020 twice."""
HD_WIDTH, SD_HEIGHT = 1280, 576
"""A frame that names no matrix is taken for BT.709 from this width on, or above this height, else for BT.601: the
rule of the common players."""
FULL_RANGE = 2
WIDEST_PIXEL = 4
"""A sample aspect ratio beyond 4:1 either way is taken for a mistake."""
Turn = tuple[int, int, int, int]
"""Where right and down of the stored frame point to when it is shown: (a, b) and (c, d), x to the right, y down."""
UPRIGHT: Turn = (1, 0, 0, 1)
ROTATIONS: dict[int, Turn] = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
"""By degrees, counter-clockwise."""


def picture_of(frame: VideoFrame, fit: Fit, pixel_shape: Fraction | None, scaler: VideoReformatter) -> Picture:
    """One frame as JPEG at the size `fit` gives it.

    Args:
        frame: As decoded.
        fit: What the size follows from: that of the frame as it is shown.
        pixel_shape: Width of one pixel by its height, or None for square. Narrow pixels make the picture higher, wide
            ones wider, so that none is lost.
        scaler: Kept from frame to frame, as it keeps its tables.
    """
    turn = _turn(frame)
    width, height = _square(frame.width, frame.height, pixel_shape)
    sideways = turn[0] == 0
    target = fit.size(*((height, width) if sideways else (width, height)))
    across, down = reversed(target) if sideways else target
    planes = scaler.reformat(
        frame,
        across,
        down,
        "gbrp",
        src_colorspace=_matrix(frame),
        src_color_range=_range(frame),
        dst_color_range=ColorRange.JPEG,
        interpolation=FILTER,
        threads=1,
    ).planes
    pixels = np.empty((target[1], target[0], 3), np.uint8)
    for plane, channel in zip(planes, (1, 2, 0), strict=True):
        stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:down, :across]
        pixels[:, :, channel] = _turned(stored, turn)
    return Picture(data=encode(pixels), mime="image/jpeg", width=target[0], height=target[1])


def _square(width: int, height: int, pixel_shape: Fraction | None) -> tuple[int, int]:
    """The size a frame is shown at, in square pixels."""
    shape = pixel_shape or Fraction(1)
    if not Fraction(1, WIDEST_PIXEL) <= shape <= WIDEST_PIXEL:
        return width, height
    return (max(1, round(width * shape)), height) if shape > 1 else (width, max(1, round(height / shape)))


def _matrix(frame: VideoFrame) -> Colorspace | None:
    if frame.format.is_rgb:
        return None
    told = MATRICES.get(frame.colorspace)
    if told is None:
        return Colorspace.ITU709 if frame.width >= HD_WIDTH or frame.height > SD_HEIGHT else Colorspace.ITU601
    return Colorspace(told)


def _range(frame: VideoFrame) -> ColorRange:
    full = frame.format.is_rgb or frame.format.name.startswith("yuvj") or frame.color_range == FULL_RANGE
    return ColorRange.JPEG if full else ColorRange.MPEG


def _turn(frame: VideoFrame) -> Turn:
    """How the frame's display matrix places it, rounded to quarter turns and flips."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # The frame has side data of a kind that the library has no name for; then it gives out none.
        return ROTATIONS.get(frame.rotation, UPRIGHT)
    if not isinstance(matrix, SideData):
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=9i", memoryview(matrix))[:5]
    if abs(a * d) >= abs(b * c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def _turned(stored: Plane, turn: Turn) -> Plane:
    """A view of a plane as it is shown."""
    a, b, c, d = turn
    view = stored[:: d or c, :: a or b]
    return view if a else view.T
