"""What models count for one picture of a size in pixels: the arithmetic behind `encoders/tokens.py`.

Each function takes width and height, at least one pixel each, and gives prompt tokens. The one or two markers that
some chat templates put around a picture are left out: they are below the error of the text's own estimate.
"""

from __future__ import annotations

import math
from functools import cache

Grid = tuple[int, int]
"""Tiles across and down."""


def llama_vision(width: int, height: int) -> int:
    """Together's documented formula, to the letter: 560-pixel tiles, at most two each way, 1,601 tokens a tile."""
    return min(2, max(height // 560, 1)) * min(2, max(width // 560, 1)) * 1601


def llama4(width: int, height: int) -> int:
    """336-pixel tiles of 144 tokens on the canvas that shrinks the picture least, of at most 16.

    More than one tile brings a thumbnail, a separator between neighbours and one after each line of tiles; start,
    image and end markers come in any case.
    """
    across, down = _llama4_canvas(width, height)
    if across * down == 1:
        return 144 + 3
    return 144 * (across * down + 1) + down * (across - 1) + down + 3


def _llama4_canvas(width: int, height: int) -> Grid:
    """Tiles each way: the least that hold the picture whole, else those that shrink it least; then the fewest."""
    across, down = math.ceil(width / 336), math.ceil(height / 336)
    if across * down <= 16:  # noqa: PLR2004 - the processor's limit of tiles
        return across, down
    return max(_grids(16), key=lambda grid: (min(grid[0] * 336 / width, grid[1] * 336 / height), -grid[0] * grid[1]))


def merged_patches(width: int, height: int, *, factor: int, most_px: int, least_px: int) -> int:
    """Sides rounded to the patch factor, the area brought into bounds, one token a merged patch: Qwen's and GLM's."""
    if max(width, height) > 200 * min(width, height):
        # The processors refuse such a picture.
        return math.ceil(most_px / factor**2)
    across, down = (max(factor, round(side / factor) * factor) for side in (width, height))
    if across * down > most_px:
        shrink = math.sqrt(width * height / most_px)
        across, down = (max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height))
    elif across * down < least_px:
        enlarge = math.sqrt(least_px / (width * height))
        across, down = (math.ceil(side * enlarge / factor) * factor for side in (width, height))
    return across * down // factor**2


def openai_patches(width: int, height: int, *, budget: int, multiplier: float) -> int:
    """32-pixel patches, scaled down to the budget, times the model's multiplier."""
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    if patches > budget:
        scale = math.sqrt(32**2 * budget / (width * height))
        across, down = width * scale / 32, height * scale / 32
        scale *= min(max(1, math.floor(side)) / side for side in (across, down))
        patches = math.ceil(round(width * scale / 32, 6)) * math.ceil(round(height * scale / 32, 6))
    return math.ceil(patches * multiplier)


def openai_tiles(width: int, height: int, *, base: int, per_tile: int) -> int:
    """Fit in 2048 square, then the short side to 768, then 512-pixel tiles."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    across, down = (math.ceil(round(side * scale, 6) / 512) for side in (width, height))
    return base + per_tile * across * down


def claude(width: int, height: int, *, longest_px: int, most_tokens: int) -> int:
    """28-pixel patches of the largest size that keeps within both bounds; a larger picture is brought to it."""
    low, high = 0, min(max(width, height), longest_px) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _claude_patches(width, height, middle) <= most_tokens else (low, middle)
    return _claude_patches(width, height, max(1, low))


def _claude_patches(width: int, height: int, long_px: int) -> int:
    scale = long_px / max(width, height)
    return math.ceil(max(1, round(width * scale)) / 28) * math.ceil(max(1, round(height * scale)) / 28)


def gemini_tiles(width: int, height: int) -> int:
    """258 tokens up to 384 pixels each way; beyond, 258 a tile, whose side is the short side by 1.5, 256 to 768."""
    if max(width, height) <= 384:  # noqa: PLR2004 - the documented size of a picture that is not tiled
        return 258
    side = min(768, max(256, int(min(width, height) / 1.5)))
    return 258 * math.ceil(width / side) * math.ceil(height / side)


def pixtral(width: int, height: int, *, patch: int, longest_px: int) -> int:
    """A token a patch and one at the end of each line, after the longer side is brought within bounds."""
    ratio = max(1.0, max(width, height) / longest_px)
    across, down = (math.ceil(max(1, math.floor(side / ratio)) / patch) for side in (width, height))
    return down * (across + 1)


def dynamic_tiles(width: int, height: int, *, tile: int, per_tile: int, most: int) -> int:
    """Tiles on the grid whose shape is nearest the picture's, a thumbnail besides if there is more than one: InternVL.

    Of grids of one shape the larger is taken once the picture has more than half its pixels.
    """
    shape, best = width / height, (1, 1)
    for grid in _grids(most):
        nearer = abs(shape - grid[0] / grid[1]) - abs(shape - best[0] / best[1])
        if nearer < 0 or (nearer == 0 and width * height > 0.5 * tile**2 * grid[0] * grid[1]):
            best = grid
    tiles = best[0] * best[1]
    return per_tile * (tiles + (tiles > 1))


def minicpm(width: int, height: int) -> int:
    """An overview of 64 tokens, and as many for each of at most nine slices of 448 square; two markers each."""
    wanted = min(math.ceil(width * height / 448**2), 9)
    if wanted <= 1:
        return 66
    grids = [
        (across, count // across)
        for count in (wanted - 1, wanted, wanted + 1)
        if 1 < count <= 9  # noqa: PLR2004 - the processor's limit of slices
        for across in range(1, count + 1)
        if count % across == 0
    ]
    across, down = min(grids, key=lambda grid: abs(math.log(width / height) - math.log(grid[0] / grid[1])))
    return 66 * (1 + across * down) + down - 1


def phi3(width: int, height: int) -> int:
    """Enlarged to as many 336-pixel crops as 16 allow; 144 tokens each, a thumbnail, and line ends."""
    long, ratio = 1, max(width, height) / min(width, height)
    while (long + 1) * math.ceil((long + 1) / ratio) <= 16:  # noqa: PLR2004 - the processor's number of crops
        long += 1
    short = math.ceil(max(1, int(long * 336 / ratio)) / 336)
    down = long if height > width else short
    return (long * short + 1) * 144 + 1 + (down + 1) * 12


def llava_next(width: int, height: int) -> int:
    """24 x 24 tokens for the whole picture, and those of its part of the best of five grids of 336-pixel tiles."""
    grids = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    across, down = max(grids, key=lambda grid: _shown_and_wasted(width, height, (grid[0] * 336, grid[1] * 336)))
    wide, high = 24 * across, 24 * down
    if width / height > wide / high:
        high -= (high - int(height * wide / width)) // 2 * 2
    else:
        wide -= (wide - int(width * high / height)) // 2 * 2
    return 24 * 24 + high * wide + high


def _shown_and_wasted(width: int, height: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Of a canvas: the pixels of the picture that it shows, and, less being better, minus those it leaves empty."""
    scale = min(canvas[0] / width, canvas[1] / height)
    shown = min(int(width * scale) * int(height * scale), width * height)
    return shown, shown - canvas[0] * canvas[1]


@cache
def _grids(most: int) -> tuple[Grid, ...]:
    """Every grid of at most so many tiles, those of few tiles first."""
    found = [(across, down) for across in range(1, most + 1) for down in range(1, most // across + 1)]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))
