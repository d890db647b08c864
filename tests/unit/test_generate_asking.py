"""Prompts to requests, the bodies read back by the standard library alone."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - what the pool does with an encoder
from pathlib import Path
from typing import Any

import pytest

from encoders.asking import KEPT_MEDIA, Asking, AskingEncoder
from encoders.budget import Budget
from encoders.chat import ChatEncoder
from encoders.fit import Fit
from encoders.folders import FolderVideos
from encoders.lines import LINE, object_of
from encoders.media import Media
from encoders.sample import Choice
from engine.errors import RowError
from engine.types import FailureKind, Reduction, Request, Row
from tests.fakes.clips import plain
from tests.fakes.photos import encoded, phone_photo

SAID = {"video": "a.mp4", "text": "What is shown?"}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "deep").mkdir(parents=True)
    (root / "a.mp4").write_bytes(plain())
    (root / "deep" / "p.png").write_bytes(encoded(phone_photo("china", (200, 300))))
    (root / "broken.jpg").write_bytes(b"no picture")
    return root


def encoder_of(root: Path, *, budget: Budget | None = None, **asking: Any) -> AskingEncoder:
    media = Media(
        fit=Fit(rule="none", model="m"),
        videos=FolderVideos(root),
        choice=Choice(num_frames=4, sampling="neva"),
        max_frames=4,
    )
    chat = ChatEncoder(model="m", system_prompt="", media=media, extra=(("top_p", 0.9),), budget=budget)
    return AskingEncoder(chat=chat, asking=Asking(**asking))


def row_of(said: object, **more: Any) -> Row:
    return Row(row=0, id="0", fields={LINE: json.dumps(said)}, **more)


def body_of(request: Request) -> dict[str, Any]:
    said = json.loads(request.body(256, b',"model":"m"'))
    assert isinstance(said, dict)
    return said


def shape_of(request: Request) -> list[str]:
    """The parts of the message: texts as they are, pictures as an asterisk."""
    (message,) = body_of(request)["messages"]
    assert message["role"] == "user"
    return [part["text"] if part["type"] == "text" else "*" for part in message["content"]]


@pytest.mark.parametrize(
    ("insert", "text", "shape"),
    [
        ("left", "What?", [*"****", "What?"]),
        ("right", "What?", ["What?", *"****"]),
        (None, "What?", [*"****", "What?"]),
        (None, "In <video> what?", ["In ", *"****", " what?"]),
        (None, "What is in\n<video>", ["What is in\n", *"****"]),
        ("left", "What is in <video>", [*"****", "What is in"]),
        (None, "An <image> what?", [*"****", "An <image> what?"]),
    ],
)
def test_the_medium_stands_where_the_flag_or_the_words_put_it(
    media: Path, insert: Any, text: str, shape: list[str]
) -> None:
    request = encoder_of(media, insert=insert).encode(row_of(SAID | {"text": text}))
    assert shape_of(request) == shape
    body = body_of(request)
    assert (body["top_p"], body["max_tokens"], body["model"]) == (0.9, 256, "m")
    assert request.n_frames == len(request.media) == 4


def test_words_are_looked_for_in_order_and_empty_ones_passed_over() -> None:
    assert Asking().read(SAID | {"prompt": "P", "question": "Q"}).text == "P"
    assert Asking().read(SAID | {"prompt": " ", "question": "Q"}).text == "What is shown?"
    assert Asking().read({"image": "a.jpg", "question": "Q"}).text == "Q"


def test_the_record_says_what_it_is_about_and_never_its_words() -> None:
    image = {"image": "a.jpg", "text": "What happens in this video?"}
    assert Asking(media_type="video").read(image).kind == "image"
    assert Asking(media_type="image").read(SAID).kind == "video"
    assert Asking(media_type="image").read(SAID | image).kind == "image"
    assert Asking(media_type="video").read(SAID | {"image": None}).kind == "video"


def test_an_image_in_a_folder_of_the_place_is_one_picture(media: Path) -> None:
    request = encoder_of(media).encode(row_of({"image": "deep/p.png", "text": "What?"}))
    assert shape_of(request) == ["*", "What?"]
    assert (request.media[0].width, request.media[0].height) == (200, 300)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (SAID | {"video": "b.mp4"}, FailureKind.BAD_MEDIA, "there is no video 'b.mp4'"),
        ({"image": "broken.jpg", "text": "?"}, FailureKind.BAD_MEDIA, "broken_image"),
        (SAID | {"video": "broken.jpg"}, FailureKind.BAD_MEDIA, "cannot be shown"),
        (SAID | {"video": "../a.mp4"}, FailureKind.INVALID_ID, "below the place"),
        (SAID | {"video": "/etc/passwd"}, FailureKind.INVALID_ID, "below the place"),
        ({"image": "deep/../a.mp4", "text": "?"}, FailureKind.INVALID_ID, "below the place"),
        ({"text": "?"}, FailureKind.BAD_ROW, "names no medium"),
        (SAID | {"video": 7}, FailureKind.BAD_ROW, '"video" is no text'),
        (SAID | {"video": ["a.mp4"]}, FailureKind.BAD_ROW, '"video" is no text'),
        ({"video": "a.mp4", "text": 5}, FailureKind.BAD_ROW, "asks nothing"),
        (SAID | {"text": "<video>"}, FailureKind.BAD_ROW, "no words but <video>"),
        ([1], FailureKind.BAD_ROW, "names no medium"),
    ],
)
def test_what_cannot_be_asked_says_why(media: Path, said: object, kind: FailureKind, words: str) -> None:
    with pytest.raises(RowError, match=words) as caught:
        encoder_of(media).encode(row_of(said))
    assert caught.value.kind == kind


def test_a_medium_is_decoded_once_for_the_prompts_that_stand_together(media: Path) -> None:
    encoder = encoder_of(media)
    first = encoder.encode(row_of(SAID))
    (media / "a.mp4").unlink()
    assert encoder.encode(row_of(SAID | {"text": "And then?"})).media == first.media
    for n in range(KEPT_MEDIA):
        (media / f"{n}.mp4").write_bytes(plain())
        encoder.encode(row_of(SAID | {"video": f"{n}.mp4"}))
    assert len(encoder.kept) == KEPT_MEDIA
    with pytest.raises(RowError, match="there is no video"):
        encoder.encode(row_of(SAID))


def test_a_smaller_try_is_made_anew_and_says_what_it_lacks(media: Path) -> None:
    encoder = encoder_of(media)
    encoder.encode(row_of(SAID))
    held = Reduction(max_frames=2, max_side_px=32, max_text_chars=10)
    request = encoder.encode(row_of(SAID | {"text": "x" * 40}, reduction=held))
    assert request.n_frames == 2
    assert max(request.media[0].width, request.media[0].height) == 32
    assert request.degraded == ("fewer_frames:4>2", "smaller_frames:32", "shorter_text:30")


@pytest.mark.parametrize(("auto", "frames"), [(True, 2), (False, None)])
def test_what_the_context_cannot_hold_is_refused_or_sent_with_fewer_frames(
    media: Path, *, auto: bool, frames: int | None
) -> None:
    budget = Budget(answer_tokens=100, context_tokens=700, image_token_len=256, auto_frames=auto)
    encoder = encoder_of(media, budget=budget)
    if frames is not None:
        assert encoder.encode(row_of(SAID)).n_frames == frames
        return
    with pytest.raises(RowError, match="1,024 tokens") as caught:
        encoder.encode(row_of(SAID))
    assert caught.value.kind == FailureKind.TOO_LARGE


def test_an_encoder_reaches_its_worker_whole(media: Path) -> None:
    encoder = encoder_of(media)
    copied = pickle.loads(pickle.dumps(encoder))
    assert copied.encode(row_of(SAID)).head == encoder.encode(row_of(SAID)).head


def test_a_line_that_is_no_object_says_nothing() -> None:
    assert [object_of(line) for line in ("[1]", "x", "7", '{"a": NaN}')][:3] == [{}, {}, {}]
