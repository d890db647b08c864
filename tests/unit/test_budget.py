"""What fits into a model's context, against the figures of NeVA's documents and the laws of adding up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.budget import Budget, image_token_len
from engine.errors import ConfigError

small = st.integers(0, 5000)


def make_budget(**settings: int | bool | None) -> Budget:
    told = {"answer_tokens": 512, "context_tokens": 4096, **settings}
    return Budget(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("height", "width", "patch", "downsample", "tokens"),
    [
        (224, 224, 14, False, 256),
        (336, 336, 14, False, 576),
        (224, 224, 16, False, 196),
        (230, 345, 14, False, 16 * 24),
        (336, 336, 14, True, 144),
        (224, 224, 14, True, 64),
        # Twenty-seven patches a side become twenty-eight.
        (384, 384, 14, True, 196),
        (14, 42, 14, True, 2),
        (13, 224, 14, False, 0),
    ],
)
def test_a_frame_costs_a_token_for_every_whole_patch(
    height: int, width: int, patch: int, *, downsample: bool, tokens: int
) -> None:
    assert image_token_len(height, width, patch, downsample=downsample) == tokens


def test_eight_frames_of_336_pixels_do_not_fit_where_eight_of_224_do() -> None:
    """The shipped configuration of Video NeVA has a context of 4,096 tokens and frames of 336 pixels."""
    budget = make_budget()
    assert budget.fits([image_token_len(224, 224, 14)] * 8, text_tokens=100)
    assert not budget.fits([image_token_len(336, 336, 14)] * 8, text_tokens=100)
    # 4,096 less 512 for the answer and 200 for the text.
    assert budget.most_frames(576, text_tokens=200) == 5


def test_the_message_holds_every_number_and_their_sum() -> None:
    said = make_budget(answer_tokens=256).overflow([576] * 8, text_tokens=1000)
    for number in ("8 frames of 576", "4,608", "1,000", "256", "5,864", "4,096", "--auto-frames"):
        assert number in said


def test_frames_of_different_costs_are_given_as_their_sum() -> None:
    said = make_budget().overflow([576, 1152], text_tokens=4000)
    assert "2 frames (1,728 tokens)" in said


def test_a_text_that_is_too_long_alone_is_not_said_to_have_too_many_frames() -> None:
    said = make_budget().overflow([], text_tokens=5000)
    assert "frames" not in said
    assert said.startswith("about 5,000 tokens of text")


def test_without_a_context_anything_fits() -> None:
    budget = make_budget(context_tokens=None)
    assert budget.fits([10**9], text_tokens=10**9)
    assert budget.most_frames(576, text_tokens=10**9) is None


@given(st.integers(513, 10_000), st.integers(1, 3000), small)
def test_the_most_frames_fit_and_one_more_does_not(context: int, frame_tokens: int, text_tokens: int) -> None:
    budget = make_budget(context_tokens=context)
    most = budget.most_frames(frame_tokens, text_tokens=text_tokens)
    assert most is not None
    assert not budget.fits([frame_tokens] * (most + 1), text_tokens=text_tokens)
    assert most == 0 or budget.fits([frame_tokens] * most, text_tokens=text_tokens)


@given(st.integers(513, 10_000), st.lists(st.integers(1, 3000), min_size=1), small)
def test_of_frames_that_do_not_fit_fewer_are_allowed(context: int, frames: list[int], text_tokens: int) -> None:
    """So thinning them ends."""
    budget = make_budget(context_tokens=context)
    most = budget.most_frames(max(frames), text_tokens=text_tokens)
    assert most is not None
    assert budget.fits(frames, text_tokens=text_tokens) or most < len(frames)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"context_tokens": 512}, "leaves no room"),
        ({"image_token_len": 0}, "--image-token-len"),
        ({"context_tokens": None, "auto_frames": True}, "--auto-frames needs --context-tokens"),
    ],
)
def test_flags_that_make_no_budget_are_refused(settings: dict[str, int | bool | None], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_budget(**settings)
