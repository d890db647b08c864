"""Real photographs from the scikit-image and scikit-learn wheels in phone format, and how alike pictures are."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import sklearn.datasets
from PIL import Image

LEAST_PHOTOGRAPHS = 4
PHONE_SIZES = ((720, 1280), (1080, 1920))


@cache
def photographs() -> dict[str, Image.Image]:
    """By name; only files that lie in the wheels themselves."""
    inside = Path(skimage.__file__).parent / "data"
    paths = {name: inside / f"{name}.png" for name in ("astronaut", "coffee", "chelsea")}
    paths |= {"rocket": inside / "rocket.jpg", "retina": inside / "retina.jpg"}
    images = Path(sklearn.datasets.__file__).parent / "images"
    paths |= {"china": images / "china.jpg", "flower": images / "flower.jpg"}
    found = {name: Image.open(path).convert("RGB") for name, path in paths.items() if path.exists()}
    assert len(found) >= LEAST_PHOTOGRAPHS, f"only {sorted(found)} are inside the wheels"
    return found


def phone_photo(name: str, size: tuple[int, int]) -> Image.Image:
    """A photograph cropped to 9:16 and brought to a phone's size."""
    image = photographs()[name]
    width, height = image.size
    crop = min(width, height * size[0] // size[1])
    left = (width - crop) // 2
    return image.crop((left, 0, left + crop, min(height, crop * size[1] // size[0]))).resize(
        size, Image.Resampling.LANCZOS
    )


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def psnr_db(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio of two pictures of one size, in dB."""
    difference = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    return float(10 * np.log10(255**2 / max(np.mean(difference**2), 1e-12)))


def loss_db(sent: bytes, source: bytes, size: tuple[int, int], *, quality: int = 80) -> float:
    """PSNR lost on the way from `source` to `sent`, in dB.

    Both are held against a full decode and a Lanczos filter, and so is what the same JPEG settings make of just that.
    """
    full = Image.open(io.BytesIO(source)).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    best = Image.open(io.BytesIO(encoded(full, quality=quality, subsampling="4:2:0")))
    return psnr_db(full, best) - psnr_db(full, Image.open(io.BytesIO(sent)).convert("RGB"))
