"""What a provider counts for one image, and the largest size that counts no more than need be.

Formulas as their providers publish them, checked 2026-11: Together's vision overview, OpenAI's images and vision guide,
the Qwen2.5-VL and Qwen3-VL processors, Meta's Llama 4 processor. A model no pattern fits is unknown: None, not a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

Size = tuple[int, int]
"""Width and height in pixels."""
Formula = Callable[[int, int], int]

UNKNOWN_MODEL_BOX_PX = 560
"""The tile of the Llama vision models; small enough for one image unit on every model seen."""
PATCH_BUDGET_TOKENS = 1024
"""For models that count small patches there are no tiles to stay below; this much keeps a 720p frame legible."""


def llama_vision(width: int, height: int) -> int:
    """Together's documented formula, to the letter: 560-pixel tiles, at most two each way, 1,601 tokens a tile."""
    return min(2, max(height // 560, 1)) * min(2, max(width // 560, 1)) * 1601


def llama4(width: int, height: int) -> int:
    """336-pixel tiles of 144 tokens, at most 16, plus a thumbnail when tiled, separators and three markers."""
    across, down = math.ceil(width / 336), math.ceil(height / 336)
    if across * down > 16:  # noqa: PLR2004 - the processor's tile limit
        shrink = math.sqrt(16 / (across * down))
        across, down = max(1, int(across * shrink)), max(1, int(down * shrink))
    tiles = across * down
    return 144 * (tiles + (tiles > 1)) + down * (across - 1) + down + 2


def qwen(width: int, height: int, *, factor: int, most_px: int, least_px: int) -> int:
    """Sides rounded to the patch factor, the area brought into bounds, one token a merged patch."""
    if max(width, height) > 200 * min(width, height):
        return math.ceil(most_px / factor**2)
    across, down = (max(factor, round(side / factor) * factor) for side in (width, height))
    if across * down > most_px:
        shrink = math.sqrt(width * height / most_px)
        across, down = (max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height))
    elif across * down < least_px:
        enlarge = math.sqrt(least_px / (width * height))
        across, down = (math.ceil(side * enlarge / factor) * factor for side in (width, height))
    return across * down // factor**2


def qwen25(width: int, height: int) -> int:
    return qwen(width, height, factor=28, most_px=1_003_520, least_px=3136)


def qwen3(width: int, height: int) -> int:
    return qwen(width, height, factor=32, most_px=16_777_216, least_px=65_536)


def openai_patches(width: int, height: int, *, budget: int, multiplier: float) -> int:
    """32-pixel patches, scaled down to the budget, times the model's multiplier."""
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    if patches > budget:
        scale = math.sqrt(32**2 * budget / (width * height))
        across, down = width * scale / 32, height * scale / 32
        scale *= min(math.floor(across) / across, math.floor(down) / down)
        patches = math.ceil(round(width * scale / 32, 6)) * math.ceil(round(height * scale / 32, 6))
    return math.ceil(patches * multiplier)


def openai_tiles(width: int, height: int, *, base: int, per_tile: int) -> int:
    """Fit in 2048 square, then the short side to 768, then 512-pixel tiles."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    across, down = (math.ceil(round(side * scale, 6) / 512) for side in (width, height))
    return base + per_tile * across * down


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that count alike."""

    pattern: re.Pattern[str]
    formula: Formula
    box_px: Size | None
    """The largest frame that costs a single tile, or None where patches are counted."""


def _family(pattern: str, formula: Formula, box_px: Size | None = None) -> Family:
    return Family(pattern=re.compile(pattern, re.IGNORECASE), formula=formula, box_px=box_px)


FAMILIES = (
    # 559: below the tile under both readings of Together's page, which disagrees with itself from 561 to 1,119.
    _family(r"llama-3\.2.*vision", llama_vision, (559, 559)),
    # One tile would be 336 square, too little to read captions; two down fit a phone frame.
    _family(r"llama-?4", llama4, (336, 672)),
    _family(r"qwen2(\.5)?-?vl", qwen25),
    _family(r"qwen3-?vl", qwen3),
    _family(r"gpt-4\.1-mini|gpt-5(\.4)?-mini", lambda w, h: openai_patches(w, h, budget=1536, multiplier=1.62)),
    _family(r"gpt-4\.1-nano|gpt-5(\.4)?-nano", lambda w, h: openai_patches(w, h, budget=1536, multiplier=2.46)),
    _family(r"o4-mini", lambda w, h: openai_patches(w, h, budget=1536, multiplier=1.72)),
    _family(r"gpt-4o-mini", lambda w, h: openai_tiles(w, h, base=2833, per_tile=5667), (512, 512)),
    _family(r"gpt-4o|gpt-4\.1|gpt-4\.5", lambda w, h: openai_tiles(w, h, base=85, per_tile=170), (512, 512)),
    _family(r"gpt-5(?!\.)", lambda w, h: openai_tiles(w, h, base=70, per_tile=140), (512, 512)),
    _family(r"\bo[13]\b", lambda w, h: openai_tiles(w, h, base=75, per_tile=150), (512, 512)),
)
"""The first pattern found in the model's name decides."""


def image_tokens(model: str, width: int, height: int) -> int | None:
    """Tokens one image of this size costs on this model; None if the model is unknown."""
    family = _find(model)
    return None if family is None else family.formula(width, height)


def fit_size(model: str, width: int, height: int) -> Size:
    """The largest size, aspect kept and never enlarged, that costs one tile, or the patch budget, on this model."""
    family = _find(model)
    if family is None:
        return within(width, height, (UNKNOWN_MODEL_BOX_PX, UNKNOWN_MODEL_BOX_PX))
    if family.box_px is not None:
        short, long = family.box_px
        return within(width, height, (short, long) if height >= width else (long, short))
    return _within_budget(family.formula, width, height)


def within(width: int, height: int, box: Size) -> Size:
    """The size scaled into the box, aspect kept, never enlarged, at least one pixel each way."""
    if width <= box[0] and height <= box[1]:
        return width, height
    if width * box[1] > height * box[0]:
        return box[0], max(1, height * box[0] // width)
    return max(1, width * box[1] // height), box[1]


@lru_cache(maxsize=64)
def _find(model: str) -> Family | None:
    return next((family for family in FAMILIES if family.pattern.search(model)), None)


@lru_cache(maxsize=1024)
def _within_budget(formula: Formula, width: int, height: int) -> Size:
    """Bisects the width; token formulas do not fall as an image grows at a fixed aspect, but for rounding."""
    if formula(width, height) <= PATCH_BUDGET_TOKENS:
        return width, height
    low, high = 1, width
    while high - low > 1:
        middle = (low + high) // 2
        if formula(middle, max(1, height * middle // width)) <= PATCH_BUDGET_TOKENS:
            low = middle
        else:
            high = middle
    return low, max(1, height * low // width)
