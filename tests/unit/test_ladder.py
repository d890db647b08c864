"""What a request gives up, step by step."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestTooLarge
from engine.ladder import LEAST_SIDE_PX, LEAST_TEXT_CHARS, load_of, smaller
from engine.types import Fix, MediaNote, Reduction, Request, Row


def make(frames: int, *, side_px: int = 560, chars: int = 4000, frame_tokens: int = 1000) -> Request:
    note = MediaNote(index=0, time_s=None, digest="0", width=side_px // 2, height=side_px, tokens=frame_tokens)
    return Request(
        row=1,
        id="1",
        head=b"",
        tail=b"}",
        est_tokens=frames * frame_tokens + chars // 4,
        n_frames=frames,
        media=(note,) * frames,
        made_of=Row(row=1, id="1", fields={"transcript": "t" * chars}),
    )


def refused(fix: Fix, *, limit: int | None = None, counted: int | None = None) -> RequestTooLarge:
    return RequestTooLarge("too large", status=400, fix=fix, limit=limit, counted=counted)


def step(request: Request, error: RequestTooLarge, *, answer_tokens: int = 100) -> Reduction | None:
    return smaller(request, error, answer_tokens=answer_tokens)


def test_too_many_images_become_as_many_as_the_server_takes() -> None:
    assert step(make(16), refused(Fix.IMAGES, limit=5)) == Reduction(max_frames=5)


def test_too_many_images_become_half_where_the_server_names_no_number() -> None:
    assert step(make(16), refused(Fix.IMAGES)) == Reduction(max_frames=8)


def test_a_model_that_takes_no_image_at_all_is_not_asked_without_them() -> None:
    assert step(make(4), refused(Fix.IMAGES, limit=0)) is None


def test_one_image_too_large_becomes_smaller() -> None:
    assert step(make(1), refused(Fix.IMAGES)) == Reduction(max_side_px=280)


def test_a_body_too_large_loses_frames_then_size_then_text() -> None:
    request, steps = make(4), []
    while reduction := step(request, refused(Fix.SIZE)):
        steps.append(reduction)
        request = applied(request, reduction)
    assert [(each.max_frames, each.max_side_px, each.max_text_chars) for each in steps] == [
        *((2, None, None), (1, None, None), (1, 280, None), (1, 140, None)),
        *((1, 140, 2000), (1, 140, 1000), (1, 140, 500), (1, 140, 250), (1, 140, 200)),
    ]


def test_where_the_server_says_by_how_much_only_as_many_frames_go_as_must() -> None:
    # 16,000 of frames, 1,000 of text; the context holds 15,000 and the answer needs 100: 2,100 too many.
    error = refused(Fix.CONTEXT, limit=15_000, counted=17_000)
    assert step(make(16), error) == Reduction(max_frames=13)


def test_a_transcript_that_alone_fills_the_context_is_cut_and_the_frames_stay() -> None:
    request = make(2, chars=400_000)
    reduction = step(request, refused(Fix.CONTEXT, limit=32_000, counted=102_000))
    assert reduction is not None
    assert reduction.max_frames is None
    assert reduction.max_text_chars is not None
    assert 80_000 < reduction.max_text_chars < 120_000


def test_a_row_that_has_given_up_everything_has_no_further_step() -> None:
    assert step(make(1, side_px=LEAST_SIDE_PX, chars=LEAST_TEXT_CHARS), refused(Fix.SIZE)) is None


def test_a_request_whose_row_is_not_known_has_no_step() -> None:
    assert step(dataclasses.replace(make(4), made_of=None), refused(Fix.SIZE)) is None


def applied(request: Request, reduction: Reduction) -> Request:
    """What an encoder would make of it."""
    row = request.made_of
    assert row is not None
    frames = min(request.n_frames, reduction.max_frames or request.n_frames)
    side_px = min(load_of(request).side_px, reduction.max_side_px or 10**6)
    chars = min(len(row.fields["transcript"]), reduction.max_text_chars or 10**9)
    made = make(frames, side_px=side_px, chars=len(row.fields["transcript"]))
    return dataclasses.replace(
        made, made_of=dataclasses.replace(row, reduction=reduction), est_tokens=frames * 1000 + chars // 4
    )


@given(
    st.integers(0, 64),
    st.integers(1, 4000),
    st.integers(0, 10**6),
    st.sampled_from(list(Fix)),
    st.none() | st.integers(0, 10**6),
    st.none() | st.integers(0, 10**7),
)
def test_every_step_gives_something_up_and_the_ladder_ends(
    frames: int, side_px: int, chars: int, fix: Fix, limit: int | None, counted: int | None
) -> None:
    request = make(frames, side_px=side_px, chars=chars)
    error = refused(fix, limit=limit, counted=counted)
    for _ in range(60):
        reduction = step(request, error)
        if reduction is None:
            return
        smaller_one = applied(request, reduction)
        before, after = load_of(request), load_of(smaller_one)
        assert (after.frames, after.side_px, after.text_chars) != (before.frames, before.side_px, before.text_chars)
        assert after.frames <= before.frames
        assert after.text_chars <= before.text_chars
        request = smaller_one
    raise AssertionError("the ladder does not end")
