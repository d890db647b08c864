"""Image-token formulas against figures their providers print, and the laws of the size that is sent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.tokens import FAMILIES, PATCH_BUDGET_TOKENS, Measured, family_of, fit_size, image_tokens, within

LLAMA32 = "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo"
LLAMA4 = "meta-llama/Llama-4-Scout-17B-16E-Instruct"


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        (LLAMA32, 480, 720, 1601),
        (LLAMA32, 720, 1280, 3202),
        (LLAMA32, 1920, 1080, 3202),
        (LLAMA32, 1120, 1120, 6404),
        ("gpt-4o", 1024, 1024, 765),
        ("gpt-4o", 2048, 4096, 1105),
        ("gpt-4.1-mini", 1024, 1024, 1659),
        (LLAMA4, 336, 336, 147),
        (LLAMA4, 336, 672, 144 * 3 + 2 + 3),
        (LLAMA4, 720, 1280, 144 * 13 + 4 * 2 + 4 + 3),
        # No canvas of sixteen tiles holds it; two by eight shrinks it least.
        (LLAMA4, 1000, 4000, 144 * 17 + 8 + 8 + 3),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 280, 280, 100),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 10_000, 10_000, 16_384 - 255),
        ("Qwen/Qwen3-VL-8B", 1024, 1024, 1024),
        ("zai-org/GLM-4.5V", 280, 280, 100),
        ("anthropic/claude-opus-4.8", 3840, 2160, 4784),
        ("claude-sonnet-4-5-20250929", 3840, 2160, 1560),
        ("claude-sonnet-4-5-20250929", 1075, 1520, 33 * 47),
        ("claude-3-5-haiku-20241022", 448, 448, 256),
        ("google/gemini-2.5-flash", 384, 384, 258),
        ("google/gemini-2.5-flash", 960, 540, 6 * 258),
        ("gemini-3-pro-preview", 100, 100, 1120),
        ("google/gemma-3-27b-it", 720, 1280, 256),
        ("mistralai/Pixtral-12B-2409", 1024, 1024, 64 * 65),
        ("mistralai/Mistral-Small-3.2-24B", 1540, 1540, 55 * 56),
        ("OpenGVLab/InternVL3-8B", 448, 448, 256),
        ("OpenGVLab/InternVL3-8B", 720, 1280, 256 * 9),
        ("openbmb/MiniCPM-V-2_6", 448, 448, 66),
        ("openbmb/MiniCPM-V-2_6", 720, 1280, 66 * 7 + 2),
        ("microsoft/Phi-3-vision-128k-instruct", 1920, 1080, 16 * 144 + 1 + 4 * 12),
        ("llava-hf/llava-v1.6-mistral-7b-hf", 336, 672, 576 + 48 * 24 + 48),
        ("llava-hf/llava-1.5-7b-hf", 720, 1280, 576),
        ("nvidia/neva-22b", 720, 1280, 256),
        ("nobody/knows-me", 100, 100, None),
        ("o3-mini", 100, 100, None),
        ("gpt-5.2", 100, 100, None),
    ],
)
def test_known_sizes_cost_what_the_provider_says(model: str, width: int, height: int, tokens: int | None) -> None:
    assert image_tokens(model, width, height) == tokens


def test_every_family_says_where_its_formula_stands_and_when_it_was_looked_up() -> None:
    assert all(family.source and re.fullmatch(r"20\d\d-[01]\d", family.checked) for family in FAMILIES)


EXAMPLES = (
    *(LLAMA32, LLAMA4, "Qwen2.5-VL-7B", "Qwen3-VL-8B", "GLM-4.1V-9B", "gpt-4.1-mini", "gpt-4.1-nano", "o4-mini"),
    *("gpt-4o-mini", "gpt-4o", "gpt-5", "o3", "claude-opus-4-7", "claude-3-opus", "gemini-2.0-flash", "gemini-3-flash"),
    *("gemma-3n-e4b", "gemma-3-4b", "pixtral-large", "mistral-small-3.1", "InternVL2_5-8B", "MiniCPM-V-2_6"),
    *("phi-3-vision", "llava-next", "llava-1.5", "neva-22b"),
)
"""One model a family."""
sides = st.integers(1, 5000)


def test_the_laws_below_hold_every_family() -> None:
    assert {id(family_of(model)) for model in EXAMPLES} == {id(family) for family in FAMILIES}


@given(st.sampled_from((*EXAMPLES, "unknown")), sides, sides)
def test_a_fitted_size_is_never_enlarged_and_keeps_its_aspect_within_a_pixel(model: str, w: int, h: int) -> None:
    width, height = fit_size(model, w, h)
    assert 1 <= width <= w
    assert 1 <= height <= h
    assert abs(width * h - height * w) <= max(w, h)


ONE_TILE = (("gpt-4o", 255), ("gpt-4o-mini", 8500), ("gpt-5", 210), ("o3", 225), (LLAMA32, 1601))
"""What the least of each model's tile counts costs, as documented."""


def by_the_table(model: str, width: int, height: int) -> int | None:
    """As `image_tokens`, but for Llama 3.2 by the table on Together's page, which is stricter than its formula."""
    if model != LLAMA32:
        return image_tokens(model, width, height)
    return (1 + (width > 559)) * (1 + (height > 559)) * 1601


@given(st.sampled_from(ONE_TILE), sides, sides)
def test_a_fitted_size_costs_one_tile_and_a_step_more_would_cost_another(
    priced: tuple[str, int], w: int, h: int
) -> None:
    model, least = priced
    width, height = fit_size(model, w, h)
    assert by_the_table(model, width, height) == least
    if (width, height) != (w, h):
        grown = by_the_table(model, *within(w, h, (max(width, height) + 1,) * 2))
        assert grown is not None
        assert grown > least


@given(sides, sides)
def test_llama_4_gets_the_two_tiles_that_a_phone_frame_needs(w: int, h: int) -> None:
    width, height = fit_size(LLAMA4, w, h)
    tokens = image_tokens(LLAMA4, width, height)
    assert tokens in {147, 437}
    if (width, height) != (w, h):
        short, long = (337, 673) if h >= w else (673, 337)
        assert (image_tokens(LLAMA4, *within(w, h, (short, long))) or 0) > 437


PATCHED = ("Qwen2.5-VL-7B", "Qwen3-VL-8B", "GLM-4.1V-9B", "gpt-4.1-mini", "o4-mini", "claude-opus-4-7", "pixtral-12b")


@given(st.sampled_from(PATCHED), st.integers(64, 5000), st.integers(64, 5000))
def test_where_patches_are_counted_the_fitted_size_keeps_the_budget_and_a_step_more_does_not(
    model: str, w: int, h: int
) -> None:
    width, height = fit_size(model, w, h)
    shape_costs = image_tokens(model, *within(w, h, (64, 64))) or 0
    budget = max(PATCH_BUDGET_TOKENS, shape_costs)
    assert (image_tokens(model, width, height) or 0) <= budget
    if (width, height) != (w, h):
        assert (image_tokens(model, *within(w, h, (max(width, height) + 1,) * 2)) or 0) > budget


def test_a_shape_that_is_dear_at_any_size_is_not_shrunk_for_nothing() -> None:
    """InternVL puts 3:4 on three by four tiles however small it is."""
    assert image_tokens("InternVL3-8B", 96, 128) == 13 * 256
    assert fit_size("InternVL3-8B", 960, 1280) == (960, 1280)


@given(sides, sides, sides, sides)
def test_within_keeps_aspect_and_stays_inside(w: int, h: int, bw: int, bh: int) -> None:
    width, height = within(w, h, (bw, bh))
    assert width <= max(bw, 1)
    assert height <= max(bh, 1)
    if (width, height) != (w, h):
        assert width == bw or height == bh
        assert abs(width * h - height * w) <= max(w, h)


def test_a_measured_picture_stands_for_smaller_ones_and_larger_ones_cost_more_by_their_area() -> None:
    measured = Measured(width=315, height=560, tokens=300)
    assert measured.image_tokens(315, 560) == 300
    assert measured.image_tokens(100, 100) == 300
    assert measured.image_tokens(630, 1120) == 1200
