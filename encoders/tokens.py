"""What a provider counts for one picture, and the largest size that counts no more than need be.

The table says for each family of models where its formula stands and when that was last looked up. A model that no
pattern fits is unknown: None, not a guess; what a run measured of it (`Measured`) may stand in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from encoders import formulas
from encoders.budget import image_token_len

Size = tuple[int, int]
"""Width and height in pixels."""
Formula = Callable[[int, int], int]

UNKNOWN_MODEL_BOX_PX = 560
"""The tile of the Llama vision models; small enough for one image unit on every model seen."""
PATCH_BUDGET_TOKENS = 1024
"""For models that count small patches there are no tiles to stay below; this much keeps a 720p frame legible."""
LEAST_SIDE_PX = 64
"""The longer side of the smallest picture that is asked for: what a shape costs at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that count alike."""

    pattern: re.Pattern[str]
    formula: Formula
    source: str
    """Where the formula stands."""
    checked: str
    """When it was last looked up, year and month."""
    box_px: Size | None = None
    """Short and long side of the largest frame that costs the fewest tiles; None where a budget of tokens bounds it."""


def _family(pattern: str, formula: Formula, source: str, box_px: Size | None = None) -> Family:
    compiled = re.compile(pattern, re.IGNORECASE)
    return Family(pattern=compiled, formula=formula, source=source, checked="2026-11", box_px=box_px)


_OPENAI = "OpenAI, images and vision guide, calculating costs"
_QWEN = partial(formulas.merged_patches, factor=28, least_px=3136)
_CLAUDE = "Anthropic, vision guide, resolution and token cost"
_TILE_PX = (512, 512)
_ANY_PX = (1280, 1280)
"""Where every size costs the same: beyond this only bytes would grow."""

FAMILIES = (
    # 559: below the tile by the formula and by the table of that page, which disagree from 560 to 1,119.
    _family(r"llama-3\.2.*vision", formulas.llama_vision, "Together, vision guide, pricing", (559, 559)),
    # One tile would be 336 square, too little to read captions; two hold a phone frame.
    _family(r"llama-?4", formulas.llama4, "transformers, processor and image processor of llama4", (336, 672)),
    _family(
        r"qwen-?2(\.5)?-?vl", partial(_QWEN, most_px=12_845_056), "Qwen2-VL and Qwen2.5-VL, preprocessor_config.json"
    ),
    _family(
        r"qwen-?3-?vl",
        partial(formulas.merged_patches, factor=32, most_px=16_777_216, least_px=65_536),
        "Qwen3-VL, preprocessor_config.json",
    ),
    # The processor counts a picture as two frames, so its bounds are half of what they say.
    _family(
        r"glm-4\.[156]v", partial(_QWEN, most_px=5_880_000, least_px=6272), "transformers, image processor of glm4v"
    ),
    _family(r"gpt-(4\.1|5(\.4)?)-mini", partial(formulas.openai_patches, budget=1536, multiplier=1.62), _OPENAI),
    _family(r"gpt-(4\.1|5(\.4)?)-nano", partial(formulas.openai_patches, budget=1536, multiplier=2.46), _OPENAI),
    _family(r"\bo4-mini", partial(formulas.openai_patches, budget=1536, multiplier=1.72), _OPENAI),
    _family(r"gpt-4o-mini", partial(formulas.openai_tiles, base=2833, per_tile=5667), _OPENAI, _TILE_PX),
    _family(r"gpt-4(o|\.1|\.5)", partial(formulas.openai_tiles, base=85, per_tile=170), _OPENAI, _TILE_PX),
    _family(r"gpt-5(?!\.)", partial(formulas.openai_tiles, base=70, per_tile=140), _OPENAI, _TILE_PX),
    _family(r"\bo[13]\b(?!-mini)", partial(formulas.openai_tiles, base=75, per_tile=150), _OPENAI, _TILE_PX),
    _family(
        r"claude-(opus|sonnet|haiku|fable|mythos)-?(4[.-][7-9]|[5-9])(?!\d)",
        partial(formulas.claude, longest_px=2576, most_tokens=4784),
        _CLAUDE,
    ),
    _family(r"claude", partial(formulas.claude, longest_px=1568, most_tokens=1568), _CLAUDE),
    _family(
        r"gemini-(1\.5|2\.[05])", formulas.gemini_tiles, "Google, Gemini API and Vertex AI, image understanding, tokens"
    ),
    _family(r"gemini-3", lambda _width, _height: 1120, "Google, Gemini API, media resolution, default", _ANY_PX),
    _family(r"gemma-?3n", lambda _width, _height: 256, "Google, Gemma, vision, token cost", (768, 768)),
    _family(r"gemma-?3", lambda _width, _height: 256, "Google, Gemma, vision, token cost", (896, 896)),
    _family(r"pixtral", partial(formulas.pixtral, patch=16, longest_px=1024), "transformers, processor of pixtral"),
    _family(
        r"mistral-small-(3\.[12]|250[36])",
        partial(formulas.pixtral, patch=28, longest_px=1540),
        "Mistral Small 3.1, processor_config.json",
    ),
    _family(
        r"internvl-?(2|3)", partial(formulas.dynamic_tiles, tile=448, per_tile=256, most=12), "vLLM, model internvl"
    ),
    _family(r"minicpm-[vo]", formulas.minicpm, "MiniCPM-V 2.6, image processor"),
    _family(r"phi-?3-vision", formulas.phi3, "vLLM, model phi3v", (1008, 1680)),
    _family(r"llava-?(v?1\.6|next)", formulas.llava_next, "transformers, processor of llava_next", (336, 672)),
    _family(
        r"llava-?v?1\.5",
        lambda _width, _height: image_token_len(336, 336, 14),
        "transformers, processor of llava",
        (336, 336),
    ),
    _family(
        r"\bneva|video-neva", lambda _width, _height: image_token_len(224, 224, 14), "NeMo, Video NeVA", (224, 224)
    ),
)
"""The first pattern found in the model's name decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a server was seen to count for one picture of a model that no formula is known for."""

    width: int
    """Pixels, like `height`."""
    height: int
    tokens: int

    def image_tokens(self, width: int, height: int) -> int:
        """What another picture should cost: as much, and more in proportion where it has more pixels.

        Where a server counts tiles, a smaller picture costs no less; where it counts patches, it does. So this errs
        on the dear side for small ones, and is right for frames brought to the size that was measured.
        """
        return math.ceil(self.tokens * max(1.0, width * height / (self.width * self.height)))


def image_tokens(model: str, width: int, height: int) -> int | None:
    """Tokens one picture of this size costs on this model; None if the model is unknown."""
    family = family_of(model)
    return None if family is None else family.formula(width, height)


def fit_size(model: str, width: int, height: int) -> Size:
    """The largest size, aspect kept and never enlarged, that costs one tile, or the patch budget, on this model.

    A shape that costs more than the budget at any size is sent at the largest size that costs no more than its least.
    """
    family = family_of(model)
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
def family_of(model: str) -> Family | None:
    """How the model of this name counts; None if nobody knows."""
    return next((family for family in FAMILIES if family.pattern.search(model)), None)


@lru_cache(maxsize=1024)
def _within_budget(formula: Formula, width: int, height: int) -> Size:
    """Bisects the longer side; token formulas do not fall as an image grows at a fixed aspect, but for rounding."""
    longest = max(width, height)
    least = formula(*within(width, height, (LEAST_SIDE_PX, LEAST_SIDE_PX)))
    budget = max(PATCH_BUDGET_TOKENS, least)
    if formula(width, height) <= budget:
        return width, height
    low, high = min(LEAST_SIDE_PX, longest), longest
    while high - low > 1:
        middle = (low + high) // 2
        if formula(*within(width, height, (middle, middle))) <= budget:
            low = middle
        else:
            high = middle
    return within(width, height, (low, low))
