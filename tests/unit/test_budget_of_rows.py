"""Rows that would overflow a model's context: refused with the numbers, or sent with fewer frames, never sent whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.budget import Budget
from encoders.chat import ChatEncoder, recipe_of
from encoders.fit import Fit
from encoders.folders import FolderFrames, FolderVideos
from encoders.media import Media
from encoders.sample import Choice
from engine.errors import RowError
from engine.types import FailureKind, Reduction, Request, Row
from tests.fakes.clips import FRAMES, plain
from tests.fakes.photos import encoded, phone_photo

TEXT = "hello world"


def make_encoder(
    root: Path, budget: Budget | None, *, choice: Choice | None = None, model: str = "nobody/knows-me", **media: Any
) -> ChatEncoder:
    return ChatEncoder(
        model=model,
        system_prompt="Label this.",
        media=Media(
            fit=Fit(rule="none", model=model),
            frames=FolderFrames(root / "frames"),
            videos=FolderVideos(root / "videos"),
            choice=choice or Choice(),
            **media,
        ),
        budget=budget,
    )


def make_row(reduction: Reduction | None = None) -> Row:
    return Row(row=0, id="7", fields={"transcript": TEXT}, reduction=reduction or Reduction())


def make_budget(**settings: Any) -> Budget:
    return Budget(**{"answer_tokens": 100, "image_token_len": 256} | settings)


@pytest.fixture(scope="module", name="root")
def nine_frames_of_a_row(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames of row 7."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "frames" / "7"
    folder.mkdir(parents=True)
    (root / "videos").mkdir()
    data = encoded(phone_photo("coffee", (64, 64)))
    for number in range(9):
        (folder / f"frame_{number}.jpg").write_bytes(data)
    return root


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of row 7."""
    for name in ("frames", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / "videos" / "7.mp4").write_bytes(plain())
    return tmp_path


def refused(encoder: ChatEncoder, row: Row) -> str:
    with pytest.raises(RowError) as caught:
        encoder.encode(row)
    assert caught.value.kind is FailureKind.TOO_LARGE
    return str(caught.value)


def indices(request: Request) -> list[int]:
    return [note.index for note in request.media]


def test_a_row_that_overflows_is_refused_with_the_numbers(root: Path) -> None:
    said = refused(make_encoder(root, make_budget(context_tokens=2048)), make_row())
    for words in ("9 frames of 256", "2,304", "100 for the answer", "2,048", "--auto-frames"):
        assert words in said


def test_a_row_that_fits_is_the_same_to_the_byte(root: Path) -> None:
    plain_request = make_encoder(root, None).encode(make_row())
    request = make_encoder(root, make_budget(context_tokens=4096)).encode(make_row())
    assert request.head == plain_request.head
    assert request.degraded == ()


def test_with_auto_frames_as_many_as_fit_are_sent_and_it_says_so(root: Path) -> None:
    budget = make_budget(context_tokens=1100, auto_frames=True)
    request = make_encoder(root, budget).encode(make_row())
    assert request.degraded == ("fewer_frames:9>3",)
    assert indices(request) == [0, 4, 8]
    assert request.est_tokens + 100 <= 1100


def test_where_not_one_frame_fits_the_row_is_refused_even_with_auto_frames(root: Path) -> None:
    said = refused(make_encoder(root, make_budget(context_tokens=300, auto_frames=True)), make_row())
    assert said.startswith("1 frame of 256 (256 tokens), ")
    assert "--auto-frames" not in said


def test_the_formula_of_the_model_stands_in_for_a_length_that_is_not_given(root: Path) -> None:
    budget = make_budget(context_tokens=1400, auto_frames=True, image_token_len=None)
    request = make_encoder(root, budget, model="llava-hf/llava-1.5-7b-hf").encode(make_row())
    assert request.degraded == ("fewer_frames:9>2",)
    assert [note.tokens for note in request.media] == [576, 576]


def test_frames_whose_cost_nobody_knows_are_left_to_the_server(root: Path) -> None:
    budget = make_budget(context_tokens=300, image_token_len=None)
    assert make_encoder(root, budget).encode(make_row()).n_frames == 9


def test_the_length_that_is_given_beats_the_formula(root: Path) -> None:
    encoder = make_encoder(root, make_budget(image_token_len=99), model="llava-hf/llava-1.5-7b-hf")
    assert {note.tokens for note in encoder.encode(make_row()).media} == {99}


def test_a_smaller_try_is_bounded_by_both(root: Path) -> None:
    """The server may have asked for less than the budget would."""
    budget = make_budget(context_tokens=1100, auto_frames=True)
    request = make_encoder(root, budget).encode(make_row(Reduction(max_frames=2)))
    assert request.degraded == ("fewer_frames:9>2",)


def test_a_text_that_is_too_long_alone_is_refused(root: Path) -> None:
    row = Row(row=0, id="none", fields={"transcript": "word " * 2000})
    said = refused(make_encoder(root, make_budget(context_tokens=1100, auto_frames=True)), row)
    assert "frame" not in said


@pytest.mark.parametrize(
    ("choice", "degraded", "count"),
    [
        (Choice(num_frames=8), ("fewer_frames:8>3",), 3),
        (Choice(num_frames=8, sampling="neva"), ("fewer_frames:8>3",), 3),
        (Choice(num_frames=2), (), 2),
        (Choice(num_frames=-1), (f"fewer_frames:{FRAMES}>3",), 3),
        # One frame is spliced out and one is counted, whatever number stands beside it.
        (Choice(num_frames=8, splice="middle"), (), 1),
    ],
)
def test_of_a_video_the_frames_that_are_sent_are_counted(
    clip: Path, choice: Choice, degraded: tuple[str, ...], count: int
) -> None:
    budget = make_budget(context_tokens=1100, auto_frames=True)
    request = make_encoder(clip, budget, choice=choice, max_frames=FRAMES).encode(make_row())
    assert (request.degraded, request.n_frames) == (degraded, count)


def test_one_spliced_frame_that_just_fits_counts_as_no_loss(clip: Path) -> None:
    budget = make_budget(context_tokens=600, auto_frames=True)
    request = make_encoder(clip, budget, choice=Choice(num_frames=8, splice="last")).encode(make_row())
    assert (request.degraded, request.n_frames) == ((), 1)


@settings(deadline=None)
@given(context=st.integers(101, 4000), length=st.integers(1, 900), given_frames=st.integers(1, 9))
def test_nothing_that_is_sent_overflows(root: Path, context: int, length: int, given_frames: int) -> None:
    budget = make_budget(context_tokens=context, image_token_len=length, auto_frames=True)
    try:
        request = make_encoder(root, budget, max_frames=given_frames).encode(make_row())
    except RowError as error:
        if error.kind is not FailureKind.TOO_LARGE:
            raise
        return
    # The closing quote and brackets of the text's own JSON are below the error of the estimate.
    assert request.est_tokens + budget.answer_tokens <= context + 2
    assert request.n_frames >= 1


def test_a_run_without_a_budget_has_the_recipe_it_always_had(root: Path) -> None:
    def recipe(budget: Budget | None) -> Mapping[str, object]:
        return recipe_of(make_encoder(root, budget))

    assert "budget" not in recipe(None)
    assert recipe(make_budget(context_tokens=None)) == recipe(None)
    assert recipe(make_budget(context_tokens=2048)) != recipe(make_budget(context_tokens=4096))
    # Answers that were cut off are asked for again with another --max-tokens.
    assert recipe(make_budget(context_tokens=2048)) == recipe(make_budget(context_tokens=2048, answer_tokens=7))
