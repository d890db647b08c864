"""Pictures in, pictures ready to send out: sizes, formats, and what is not a picture."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from encoders.fit import Fit, Picture, parse_fit
from encoders.image import BrokenImageError, prepare
from engine.errors import ConfigError
from tests.fakes.photos import PHONE_SIZES, encoded, phone_photo, photographs, psnr_db

TOKENS = Fit(rule="tokens", model="meta-llama/Llama-3.2-11B-Vision-Instruct")
NONE = Fit(rule="none", model="m")
BOX = Fit(rule="560x560", model="m", box=(560, 560))


def decoded(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert image.size == (picture.width, picture.height)
    assert Image.MIME[image.format or ""] == picture.mime
    return image


@pytest.mark.parametrize("size", PHONE_SIZES)
@pytest.mark.parametrize("name", sorted(photographs()))
def test_a_real_photograph_comes_out_at_the_promised_size_and_looks_the_same(name: str, size: tuple[int, int]) -> None:
    photo = phone_photo(name, size)
    sent = prepare(encoded(photo, quality=90), BOX)
    assert (sent.width, sent.height) == (315, 560)
    full = photo.resize((315, 560), Image.Resampling.LANCZOS)
    reference = Image.open(io.BytesIO(encoded(full, quality=80, subsampling="4:2:0")))
    loss_db = psnr_db(full, reference) - psnr_db(full, decoded(sent))
    assert loss_db < 1.0
    assert psnr_db(full, decoded(sent)) > 28


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_fits_is_passed_on_byte_for_byte(kind: str) -> None:
    data = encoded(phone_photo("chelsea", (300, 500)), kind)
    sent = prepare(data, BOX)
    assert sent.data == data
    assert sent.mime == f"image/{kind.lower()}"


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


@pytest.mark.parametrize("rule", ["", "560", "0x560", "560x0", "axb", "560x560x3", "-1x5", "TOKENS"])
def test_a_wrong_fit_is_named(rule: str) -> None:
    with pytest.raises(ConfigError, match="--fit"):
        parse_fit(rule, model="m")
