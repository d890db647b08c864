"""One picture's bytes to the bytes that are sent. The only file that names Pillow.

A picture that fits already is passed on byte for byte. Any other is decoded no larger than need be (`draft` lets
libjpeg scale in the DCT domain: 0.05 to 0.15 dB for three quarters of the time), turned upright, resized and written as
JPEG, quality 80, 4:2:0, without metadata.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

from encoders.fit import Fit, Picture
from encoders.tokens import Size

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
"""A phone's largest photograph; beyond it a few bytes may claim gigabytes."""
QUALITY = 80
ORIENTATION_TAG = 0x0112
UPRIGHT = 1
JPEG_END = b"\xff\xd9"
PADDING = b"\0\r\n "


class BrokenImageError(Exception):
    """These bytes are not a picture that can be sent."""


def prepare(data: bytes | None, fit: Fit) -> Picture:
    """Check a picture and bring it to size.

    Raises:
        BrokenImageError: the bytes are no JPEG, PNG or WebP picture, damaged, or larger than 50 megapixels.
    """
    if data is None:
        raise BrokenImageError("no readable file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that the check below refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _prepared(data, fit)
    except BrokenImageError:
        raise
    except Exception as error:
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error


def _prepared(data: bytes, fit: Fit) -> Picture:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BrokenImageError(f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels")
        turned = _orientation(image) > 4  # noqa: PLR2004 - EXIF 5 to 8 swap width and height
        shown = (height, width) if turned else (width, height)
        target = fit.size(*shown)
        if target == shown and (fit.rule == "none" or _sendable_as_is(image)):
            if not _whole(data, image):
                image.load()
            return Picture(data=data, mime=Image.MIME[image.format or "JPEG"], width=width, height=height)
        return _resized(image, (target[1], target[0]) if turned else target)


def _resized(image: Image.Image, stored: Size) -> Picture:
    """The picture as JPEG; `stored` is the target size before it is turned upright."""
    if image.format == "JPEG":
        image.draft(image.mode, stored)
    picture = _opaque(image)
    if picture.size != stored:
        picture = picture.resize(stored, Image.Resampling.LANCZOS, reducing_gap=2.0)
    picture = _upright(picture, _orientation(image))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return Picture(data=out.getvalue(), mime="image/jpeg", width=picture.width, height=picture.height)


def _opaque(image: Image.Image) -> Image.Image:
    """RGB or grey, transparent parts on white, as a page would show them."""
    if image.mode in {"RGB", "L"}:
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion clips instead of scaling.
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if "transparency" in image.info or "A" in image.getbands():
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ORIENTATION_TAG, UPRIGHT) if "exif" in image.info else UPRIGHT
    return value if isinstance(value, int) else UPRIGHT


def _sendable_as_is(image: Image.Image) -> bool:
    """Whether a provider would show these bytes as we would."""
    return _orientation(image) == UPRIGHT and image.mode in {"RGB", "L", "P", "RGBA", "LA"}


def _whole(data: bytes, image: Image.Image) -> bool:
    """Whether a JPEG has its end marker, which a cut-off file lacks; other formats are decoded to be sure."""
    return image.format == "JPEG" and data[-64:].rstrip(PADDING).endswith(JPEG_END)
