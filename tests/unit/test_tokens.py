"""Image-token formulas against figures their providers print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.tokens import PATCH_BUDGET_TOKENS, fit_size, image_tokens, within

LLAMA32 = "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo"


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
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 336, 336, 147),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 280, 280, 100),
        ("Qwen/Qwen3-VL-8B", 1024, 1024, 1024),
        ("nobody/knows-me", 100, 100, None),
    ],
)
def test_known_sizes_cost_what_the_provider_says(model: str, width: int, height: int, tokens: int | None) -> None:
    assert image_tokens(model, width, height) == tokens


MODELS = (LLAMA32, "gpt-4o", "gpt-4.1-mini", "Llama-4-Maverick", "Qwen2.5-VL-7B", "Qwen3-VL-8B", "unknown")
sides = st.integers(1, 5000)


@given(st.sampled_from(MODELS), sides, sides)
def test_a_fitted_size_is_never_larger_and_never_dearer_than_a_tile_or_the_budget(model: str, w: int, h: int) -> None:
    width, height = fit_size(model, w, h)
    assert 1 <= width <= w
    assert 1 <= height <= h
    tokens = image_tokens(model, width, height)
    if tokens is not None and max(w, h) <= 150 * min(w, h):
        assert tokens <= max(PATCH_BUDGET_TOKENS * 1.62, 1601)


@given(sides, sides, sides, sides)
def test_within_keeps_aspect_and_stays_inside(w: int, h: int, bw: int, bh: int) -> None:
    width, height = within(w, h, (bw, bh))
    assert width <= max(bw, 1)
    assert height <= max(bh, 1)
    if (width, height) != (w, h):
        assert width == bw or height == bh
        assert abs(width * h - height * w) <= max(w, h)
