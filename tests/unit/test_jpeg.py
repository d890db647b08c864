"""Pixels out of JPEG bytes and back, and from one size to another."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from encoders.jpeg import DamagedJpegError, ForeignJpegError, decode, encode
from encoders.scale import UnscalableError, resize, turn
from encoders.tokens import Size
from tests.fakes.photos import encoded, phone_photo, psnr_db

Bytes = npt.NDArray[np.uint8]
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return phone_photo("coffee", (360, 640))


@pytest.mark.parametrize(
    ("size", "target", "decoded"),
    [
        ((720, 1280), (315, 560), (360, 640)),
        ((1080, 1920), (315, 560), (405, 720)),
        ((720, 1280), (265, 471), (360, 640)),  # 270x480 would leave too little to resize
        ((720, 1280), (100, 177), (270, 480)),  # two eighths lose too much
        ((720, 1280), (360, 640), (450, 800)),
        ((720, 1280), (608, 1080), (720, 1280)),  # seven eighths would take longer
        ((724, 1280), (100, 177), (362, 640)),  # three eighths of 724 are no whole number
        ((721, 1280), (100, 177), (721, 1280)),
        ((33, 47), (33, 47), (33, 47)),
    ],
)
def test_a_picture_is_decoded_no_larger_than_quality_asks(size: Size, target: Size, decoded: Size) -> None:
    pixels = decode(encoded(Image.new("RGB", size, "teal")), size=size, target=target)
    assert (pixels.shape[1], pixels.shape[0]) == decoded


def test_a_header_that_tells_two_sizes_is_not_trusted(photo: Image.Image) -> None:
    with pytest.raises(ForeignJpegError):
        decode(encoded(photo), size=(640, 360), target=(64, 36))


def test_four_colours_are_left_to_another_decoder(photo: Image.Image) -> None:
    with pytest.raises(ForeignJpegError):
        decode(encoded(photo.convert("CMYK")), size=photo.size, target=(64, 36))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_off_file_is_damaged(photo: Image.Image, share: float) -> None:
    data = encoded(photo)
    with pytest.raises(DamagedJpegError):
        decode(data[: int(len(data) * share)], size=photo.size, target=photo.size)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_survive_the_way_to_jpeg(photo: Image.Image, mode: str) -> None:
    picture = photo.convert(mode)
    pixels = np.asarray(picture).reshape(640, 360, -1)
    shown = Image.open(io.BytesIO(encode(pixels)))
    assert (shown.mode, shown.size) == (mode, picture.size)
    again = Image.open(io.BytesIO(encoded(picture, quality=80, subsampling="4:2:0")))
    assert psnr_db(shown, again) > 45


sides = st.integers(32, 240)


@given(to=st.tuples(sides, sides), mode=st.sampled_from(["RGBX", "L"]))
@settings(max_examples=40, deadline=None)
def test_resizing_gives_what_a_lanczos_filter_gives(to: Size, mode: str) -> None:
    picture = phone_photo("astronaut", (240, 240)).convert(mode)
    mine = resize(np.asarray(picture).reshape(240, 240, -1), to)
    other = np.asarray(picture.resize(to, Image.Resampling.LANCZOS), dtype=float)
    other = other.reshape(*mine.shape[:2], -1)[..., : mine.shape[2]]
    assert np.abs(mine - other).mean() < 0.8
    assert np.abs((mine - other).mean(axis=(0, 1))).max() < 0.4, "a shift of a colour"


@pytest.mark.parametrize(
    ("size", "to"), [((8, 300), (8, 100)), ((300, 300), (300, 15)), ((300, 8), (100, 16)), ((1_700, 16), (100, 16))]
)
def test_what_libswscale_would_get_wrong_is_refused(size: Size, to: Size) -> None:
    with pytest.raises(UnscalableError):
        resize(np.zeros((size[1], size[0], 4), np.uint8), to)


def test_threads_do_not_disturb_each_other(photo: Image.Image) -> None:
    pixels = np.asarray(photo.convert("RGBX"))
    sizes = [(40 + at, 300 - at) for at in range(40)]
    alone = [resize(pixels, size) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(resize, [pixels] * len(sizes), sizes))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("orientation", range(10))
def test_turning_is_what_exif_says(orientation: int) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    picture = Image.fromarray(pixels)
    picture.getexif()[ORIENTATION] = orientation
    turned = turn(pixels, orientation)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(picture)))
    assert turned.flags["C_CONTIGUOUS"]
    assert simplejpeg.decode_jpeg_header(encode(turned))[:2] == turned.shape[:2]
