"""Pictures in, pictures ready to send out: sizes, formats, and what is not a picture."""

from __future__ import annotations

import io
import platform
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoders.fit import Fit, Picture, parse_fit
from encoders.image import BrokenImageError, picture_libraries, pillow, prepare
from engine.errors import ConfigError
from tests.fakes.photos import PHONE_SIZES, encoded, loss_db, phone_photo, photographs, psnr_db

ROOT = Path(__file__).parents[2]
TOKENS = Fit(rule="tokens", model="meta-llama/Llama-3.2-11B-Vision-Instruct")
NONE = Fit(rule="none", model="m")
BOX = Fit(rule="560x560", model="m", box=(560, 560))


def decoded(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert image.size == (picture.width, picture.height)
    assert Image.MIME[image.format or ""] == picture.mime
    return image


def lost_db(sent: Picture, data: bytes) -> float:
    return loss_db(sent.data, data, (sent.width, sent.height))


@pytest.mark.parametrize("size", PHONE_SIZES)
def test_real_photographs_come_out_at_the_promised_size_and_lose_less_than_can_be_seen(size: tuple[int, int]) -> None:
    losses = []
    for name in sorted(photographs()):
        data = encoded(phone_photo(name, size), quality=90)
        sent = prepare(data, BOX)
        assert (sent.width, sent.height) == (315, 560)
        losses.append(lost_db(sent, data))
    assert max(losses) < 0.2
    assert sum(losses) / len(losses) < 0.1


SUBSAMPLINGS = ["444", "422", "420", "440", "411"]


@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    box=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    subsampling=st.sampled_from([*SUBSAMPLINGS, "Gray"]),
    quality=st.integers(20, 100),
    name=st.sampled_from(["coffee", "astronaut"]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_jpeg_it_comes_out_at_the_fitted_size_and_near_the_best_that_can_be_had(
    size: tuple[int, int], box: tuple[int, int], subsampling: str, quality: int, name: str
) -> None:
    pixels = np.ascontiguousarray(phone_photo(name, (400, 400)).resize(size).convert("RGB"))
    grey = subsampling == "Gray"
    data = simplejpeg.encode_jpeg(
        pixels[..., :1].copy() if grey else pixels, quality, "GRAY" if grey else "RGB", subsampling
    )
    fit = Fit(rule="box", model="m", box=box)
    sent = prepare(data, fit)
    assert (sent.width, sent.height) == fit.size(*size)
    assert decoded(sent).mode == ("L" if grey else "RGB")
    if (sent.width, sent.height) == size:
        assert sent.data == data
    elif min(sent.width, sent.height) >= 32:
        assert lost_db(sent, data) < 1.5


@pytest.mark.parametrize("how", [{"progressive": True}, {"restart_marker_rows": 1}, {"keep_rgb": True}], ids=str)
def test_every_kind_of_jpeg_is_read(how: dict[str, Any]) -> None:
    data = encoded(phone_photo("coffee", (720, 1280)), quality=90, **how)
    assert lost_db(prepare(data, BOX), data) < 0.2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_fits_is_passed_on_byte_for_byte(kind: str) -> None:
    data = encoded(phone_photo("chelsea", (300, 500)), kind)
    sent = prepare(data, BOX)
    assert sent.data == data
    assert sent.mime == f"image/{kind.lower()}"


def test_a_jpeg_with_more_pictures_behind_it_is_called_a_jpeg() -> None:
    photo = phone_photo("chelsea", (300, 500))
    data = encoded(photo, "MPO", save_all=True, append_images=[photo])
    assert prepare(data, BOX) == Picture(data=data, mime="image/jpeg", width=300, height=500)
    assert decoded(prepare(data, Fit(rule="box", model="m", box=(100, 100)))).size == (60, 100)


def test_fit_none_touches_nothing_however_large() -> None:
    data = encoded(phone_photo("chelsea", (1080, 1920)))
    assert prepare(data, NONE).data == data


def test_the_token_rule_keeps_one_tile() -> None:
    sent = prepare(encoded(phone_photo("rocket", (720, 1280))), TOKENS)
    assert (sent.width, sent.height) == (314, 559)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_sent_upright_without_its_metadata(orientation: int) -> None:
    upright = phone_photo("astronaut", (720, 1280))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    sent = prepare(encoded(stored, quality=95, exif=exif), BOX)
    shown = decoded(sent)
    assert shown.size == (315, 560)
    assert psnr_db(shown, upright.resize((315, 560), Image.Resampling.LANCZOS)) > 25
    assert "exif" not in shown.info


def test_a_small_turned_photograph_is_not_passed_on_as_it_lies() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(phone_photo("astronaut", (300, 400)), exif=exif)
    sent = prepare(data, BOX)
    assert sent.data != data
    assert (sent.width, sent.height) == (400, 300)


@pytest.mark.parametrize(
    "image",
    [
        phone_photo("coffee", (720, 1280)).convert("CMYK"),
        phone_photo("coffee", (720, 1280)).convert("L"),
    ],
    ids=["cmyk", "grey"],
)
def test_jpegs_of_other_colour_spaces_are_sent_as_rgb_or_grey(image: Image.Image) -> None:
    shown = decoded(prepare(encoded(image), BOX))
    assert shown.mode in {"RGB", "L"}
    wanted = image.convert("RGB").resize(shown.size, Image.Resampling.LANCZOS)
    assert psnr_db(shown.convert("RGB"), wanted) > 25


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1", "I;16"])
def test_pngs_of_every_mode_are_sent(mode: str) -> None:
    image = phone_photo("chelsea", (720, 1280))
    if mode == "I;16":
        image = Image.frombytes("I;16", (720, 1280), b"".join(bytes((0, v)) for v in image.convert("L").tobytes()))
    else:
        image = image.convert("RGB").convert(mode)
    shown = decoded(prepare(encoded(image, "PNG"), BOX))
    assert shown.size == (315, 560)
    wanted = phone_photo("chelsea", (315, 560)).convert("L")
    assert psnr_db(shown.convert("L"), wanted) > (8 if mode == "1" else 18)


def test_what_is_transparent_is_sent_white() -> None:
    shown = decoded(prepare(encoded(Image.new("RGBA", (800, 800), (0, 0, 0, 0)), "PNG"), BOX))
    assert shown.getpixel((100, 100)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_is_sent() -> None:
    first, second = Image.new("RGB", (800, 800), "red"), Image.new("RGB", (800, 800), "blue")
    data = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    pixel = decoded(prepare(data, BOX)).convert("RGB").getpixel((50, 50))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200
    assert pixel[2] < 60


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"just text",
        b"\xff\xd8\xff",
        png_claiming(20_000, 20_000),
        png_claiming(60_000, 60_000),
        b"GIF89a" * 9,
    ],
    ids=["missing", "empty", "text", "jpeg_start", "bomb", "larger_bomb", "gif"],
)
@pytest.mark.parametrize("fit", [BOX, NONE, TOKENS], ids=["box", "none", "tokens"])
def test_what_is_no_picture_is_broken_and_nothing_worse(data: bytes | None, fit: Fit) -> None:
    with pytest.raises(BrokenImageError):
        prepare(data, fit)


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("size", [(300, 500), (720, 1280)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_cut_off_picture_is_broken_wherever_it_is_cut(kind: str, size: tuple[int, int], tenth: int) -> None:
    data = encoded(phone_photo("flower", size), kind)
    for fit in (BOX, NONE):
        with pytest.raises(BrokenImageError):
            prepare(data[: len(data) * tenth // 10], fit)


PAGES = """
import resource, sys
from encoders.fit import Fit
from encoders.image import prepare
data, fit = sys.stdin.buffer.read(), Fit(rule="box", model="m", box=(560, 560))
for _ in range(3):
    prepare(data, fit)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    prepare(data, fit)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator has other habits")
def test_memory_is_kept_from_picture_to_picture() -> None:
    data = encoded(phone_photo("coffee", (720, 1280)))
    said = subprocess.run([sys.executable, "-c", PAGES], input=data, capture_output=True, check=True, cwd=ROOT)
    assert int(said.stdout) < 500, "page faults of ten pictures; it was 7000"


def test_damage_inside_a_jpeg_is_not_sent_as_a_picture() -> None:
    data = bytearray(encoded(phone_photo("coffee", (720, 1280))))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd5"  # a restart marker where there are none
    with pytest.raises(BrokenImageError, match="Corrupt JPEG"):
        prepare(bytes(data), BOX)


def test_padding_before_the_end_marker_is_no_damage() -> None:
    data = encoded(phone_photo("coffee", (720, 1280)))
    padded = data[:-2] + b"\0" * 40 + data[-2:]
    assert lost_db(prepare(padded, BOX), data) < 0.2


def test_a_jpeg_that_claims_to_be_huge_is_refused_unread() -> None:
    data = bytearray(encoded(Image.new("RGB", (720, 1280))))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 8_000, 8_000)
    with pytest.raises(BrokenImageError, match="8000x8000 is more than 50 megapixels"):
        prepare(bytes(data), BOX)


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (9, 700), (4_000, 40)])
def test_strips_are_made_small_too(size: tuple[int, int]) -> None:
    data = encoded(phone_photo("coffee", (400, 400)).resize(size))
    sent = prepare(data, BOX)
    assert (sent.width, sent.height) == BOX.size(*size)
    assert lost_db(sent, data) < 0.5


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("13.0.0", "Pillow 13.0.0"),
        ("13.1.0.post0", "Pillow-SIMD 13.1.0"),
        ("12.1.1.post0", "Pillow-SIMD 12.1.1, which lacks the security fixes of Pillow 13.0"),
        ("12.9.0", "Pillow 12.9.0, which lacks the security fixes of Pillow 13.0"),
    ],
)
def test_a_library_that_lacks_fixes_is_named_as_such(version: str, said: str) -> None:
    assert pillow(version) == said
    assert picture_libraries().endswith(pillow())


@pytest.mark.parametrize("rule", ["", "560", "0x560", "560x0", "axb", "560x560x3", "-1x5", "TOKENS"])
def test_a_wrong_fit_is_named(rule: str) -> None:
    with pytest.raises(ConfigError, match="--fit"):
        parse_fit(rule, model="m")
