"""JPEG bytes to pixels no larger than need be, and back, by libjpeg-turbo. The only file that names simplejpeg.

libjpeg scales while it decodes, by any number of eighths, and that is most of what can be saved. What it costs depends
on the picture: after everything, 0.1 dB at most where a phone's frames are as soft as enlarged photographs, 0.5 dB at
four eighths and 0.3 dB at three where every pixel is sharp. So a tenth stays to be resized, and two eighths, which lose
several times as much, are never taken. Nor are seven, which take longer than all eight.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import simplejpeg

from encoders.fit import JPEG_QUALITY
from encoders.tokens import Size

Plane = npt.NDArray[np.uint8]
"""Samples of one component, `(height, width)`, rows of any stride."""
Pixels = npt.NDArray[np.uint8]
"""`(height, width, bytes a pixel)`: one for grey, three for RGB, four where a byte without meaning follows RGB."""

EIGHTHS = (3, 4, 5, 6)
SPARE = Fraction(11, 10)
"""How much larger than the target a picture is decoded, at least."""
DAMAGE = ("Corrupt JPEG data", "Premature end")
HARMLESS = "extraneous bytes"
"""Cameras pad; the picture is whole."""
COLOURS = {"YCbCr": "RGBX", "RGB": "RGBX", "Gray": "GRAY"}
"""Of a file, and of the pixels: four bytes each, which libswscale reads faster than three."""
LAYOUTS = {1: ("GRAY", "Gray"), 3: ("RGB", "420"), 4: ("RGBX", "420")}
"""Bytes a pixel to what simplejpeg calls them, and the subsampling written."""
KEPT_BYTES = 24 << 20
"""glibc hands the memory of each picture back to the kernel and asks for it anew, a quarter of the CPU time, until it
has seen a block this large come and go. Above 32 MiB it does not learn; no page of it is touched."""

np.empty(KEPT_BYTES, np.uint8)


class DamagedJpegError(Exception):
    """Part of the picture is lost."""


class ForeignJpegError(Exception):
    """Not of the plain kind that is read here: CMYK, rare subsamplings, oddities of the header."""


def decode(data: bytes, *, size: Size, target: Size) -> Pixels:
    """The picture, at least as large as `target` and as little larger as quality allows.

    Args:
        data: A whole JPEG.
        size: Width and height in pixels that its header was seen to give, against files that tell two stories.
        target: Width and height in pixels.

    Raises:
        DamagedJpegError: the samples are not all there.
        ForeignJpegError: another decoder must be asked.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != size or colours not in COLOURS:
            raise ForeignJpegError(f"{width}x{height} in {colours}")
        least_width, least_height = _decoded_size(size, target)
        pixels: Pixels = simplejpeg.decode_jpeg(data, COLOURS[colours], min_height=least_height, min_width=least_width)
    except ValueError as error:
        said = str(error)
        if said.startswith(DAMAGE) and HARMLESS not in said:
            raise DamagedJpegError(said) from error
        raise ForeignJpegError(said) from error
    return pixels


def _decoded_size(size: Size, target: Size) -> Size:
    """What the picture measures at the fewest eighths that will do.

    Where an eighth leaves part of a pixel over, libjpeg rounds up, and all resized later would be out of place: up to
    5 dB on sharp pictures.
    """
    for eighths in EIGHTHS:
        if all(
            side * eighths >= 8 * SPARE * to and side * eighths % 8 == 0 for side, to in zip(size, target, strict=True)
        ):
            return size[0] * eighths // 8, size[1] * eighths // 8
    return size


def encode(pixels: Pixels) -> bytes:
    """A baseline JPEG, 4:2:0 or grey, of pixels that lie without gaps."""
    colours, subsampling = LAYOUTS[pixels.shape[2]]
    made: bytes = simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, colours, subsampling)
    return made


def library() -> str:
    return f"libjpeg-turbo by simplejpeg {simplejpeg.__version__}"
