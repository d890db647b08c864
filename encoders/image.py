"""One picture's bytes to the bytes that are sent. The only file that names Pillow.

A picture that fits already is passed on byte for byte. Any other is decoded no larger than need be, resized, turned
upright and written as JPEG, quality 80, 4:2:0, without metadata. Pillow reads every header. A plain JPEG then goes
through `jpeg.py` and `scale.py`, in half of Pillow's time; all else, and what these two decline, Pillow does itself.
"""

from __future__ import annotations

import io
import warnings

import PIL
from PIL import Image

from encoders.fit import JPEG_QUALITY, Fit, Picture
from encoders.tokens import Size

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
"""A phone's largest photograph; beyond it a few bytes may claim gigabytes."""
JPEGS = {"JPEG", "MPO"}
"""MPO is a JPEG with more pictures behind the first, as some phones write."""
FIXED = (13, 0)
"""The version of Pillow that closes the JPEG heap overflows."""
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


def size_of(data: bytes) -> Size | None:
    """Width and height in pixels as the header says, nothing decoded; None if these bytes are no picture of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


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
            mime = "image/jpeg" if image.format in JPEGS else Image.MIME[image.format or ""]
            return Picture(data=data, mime=mime, width=width, height=height)
        stored = (target[1], target[0]) if turned else target
        made = _straight(data, image, stored) if image.format in JPEGS and image.mode in {"RGB", "L"} else None
        return made or _resized(image, stored)


def _straight(data: bytes, image: Image.Image, stored: Size) -> Picture | None:
    """The picture as JPEG without Pillow, or None if only Pillow can; `stored` as below."""
    from encoders import jpeg, scale  # noqa: PLC0415 - 35 MB that only pictures too large need

    try:
        pixels = jpeg.decode(data, size=image.size, target=stored)
        pixels = scale.turn(scale.resize(pixels, stored), _orientation(image))
    except (jpeg.ForeignJpegError, scale.UnscalableError):
        return None
    height, width, _ = pixels.shape
    return Picture(data=jpeg.encode(pixels), mime="image/jpeg", width=width, height=height)


def _resized(image: Image.Image, stored: Size) -> Picture:
    """The picture as JPEG by Pillow; `stored` is the target size before it is turned upright."""
    picture = _opaque(image)
    if picture.size != stored:
        picture = picture.resize(stored, Image.Resampling.LANCZOS, reducing_gap=2.0)
    picture = _upright(picture, _orientation(image))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
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
    return image.format in JPEGS and data[-64:].rstrip(PADDING).endswith(JPEG_END)


def picture_libraries() -> str:
    """Which libraries make pictures small, in one line, with what an old one lacks."""
    from encoders import jpeg, scale  # noqa: PLC0415 - as above

    return f"{jpeg.library()}, {scale.library()}; other than plain JPEG: {pillow()}"


def pillow(version: str = PIL.__version__) -> str:
    """Pillow or what stands in its place, by its version."""
    simd = ".post" in version
    name = f"Pillow-SIMD {version.partition('.post')[0]}" if simd else f"Pillow {version}"
    major, minor = (int(part) for part in version.split(".")[:2])
    return name if (major, minor) >= FIXED else f"{name}, which lacks the security fixes of Pillow 13.0"
