"""The body of a request, read back by the standard library alone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import pickle  # noqa: TID251 - what the pool does with an encoder
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.body import shortened
from encoders.chat import VISION_CONTEXT, ChatEncoder
from encoders.fit import Fit
from encoders.folders import FolderFrames
from encoders.media import Media
from engine.errors import RowError
from engine.types import FailureKind, Reduction, Request, Row
from tests.fakes.photos import encoded, phone_photo

PROMPT = 'Label "this".\nNow.'


def make_encoder(frames_dir: Path | None = None, **settings: Any) -> ChatEncoder:
    return ChatEncoder(
        model="m/\u00e9",
        system_prompt=PROMPT,
        media=Media(
            fit=settings.pop("fit", Fit(rule="560x560", model="m", box=(560, 560))),
            frames=None if frames_dir is None else FolderFrames(frames_dir),
            **settings,
        ),
        extra=(("temperature", 0.0), ("seed", 7)),
    )


def make_row(identity: str = "7", **fields: str) -> Row:
    return Row(row=0, id=identity, fields=fields or {"transcript": "hello", "description": "world"})


def body_of(request: Request, max_tokens: int = 512) -> dict[str, Any]:
    said = json.loads(request.body(max_tokens, b',"model":"m"'))
    assert isinstance(said, dict)
    return said


def put_frames(root: Path, identity: str, names: dict[str, bytes]) -> None:
    (root / identity).mkdir(parents=True)
    for name, data in names.items():
        (root / identity / name).write_bytes(data)


def test_without_frames_the_content_is_a_plain_string() -> None:
    said = body_of(make_encoder().encode(make_row(transcript="a", description="b", embedded_text="c")))
    assert said["messages"] == [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": "TRANSCRIPT:\na\n\nDESCRIPTION:\nb\n\nEMBEDDED_TEXT:\nc"},
    ]
    assert list(said) == ["messages", "temperature", "seed", "stream", "max_tokens", "model"]
    assert (said["model"], said["stream"], said["max_tokens"]) == ("m", False, 512)


def test_empty_sections_are_left_out() -> None:
    said = body_of(make_encoder().encode(make_row(transcript="  \n", description="b")))
    assert said["messages"][1]["content"] == "DESCRIPTION:\nb"


def test_frames_come_in_order_before_the_text_under_the_vision_context(tmp_path: Path) -> None:
    photos = {f"frame_{n}.jpg": encoded(phone_photo(name, (300, 500))) for n, name in ((10, "china"), (9, "coffee"))}
    put_frames(tmp_path, "7", photos)
    request = make_encoder(tmp_path).encode(make_row())
    said = body_of(request)
    assert said["messages"][0]["content"] == f"{VISION_CONTEXT}\n\n{PROMPT}"
    first, second, text = said["messages"][1]["content"]
    for part, name in ((first, "frame_9.jpg"), (second, "frame_10.jpg")):
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert base64.b64decode(data, validate=True) == photos[name]
    assert text == {"type": "text", "text": "TRANSCRIPT:\nhello\n\nDESCRIPTION:\nworld"}
    assert [note.index for note in request.media] == [9, 10]
    assert [note.digest for note in request.media] == [
        hashlib.sha256(photos[name]).hexdigest()[:16] for name in ("frame_9.jpg", "frame_10.jpg")
    ]
    assert request.degraded == ()


def test_a_frame_is_declared_as_what_it_is_not_as_what_it_is_called(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": encoded(phone_photo("coffee", (100, 100)), "PNG")})
    said = body_of(make_encoder(tmp_path).encode(make_row()))
    assert said["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_missing_folder_falls_back_to_text_and_says_so(tmp_path: Path) -> None:
    request = make_encoder(tmp_path).encode(make_row())
    assert body_of(request)["messages"][1]["content"] == "TRANSCRIPT:\nhello\n\nDESCRIPTION:\nworld"
    assert body_of(request)["messages"][0]["content"] == PROMPT
    assert request.degraded == ("text_only:no_folder",)


def test_a_broken_frame_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    good = encoded(phone_photo("coffee", (100, 100)))
    put_frames(tmp_path, "7", {"frame_0.jpg": b"", "frame_1.jpg": good, "frame_2.jpg": good[:400]})
    request = make_encoder(tmp_path).encode(make_row())
    assert [note.index for note in request.media] == [1]
    assert request.degraded == ("skipped_frames:2",)


def test_no_usable_frame_falls_back_to_text_and_says_both(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": b"no picture"})
    assert make_encoder(tmp_path).encode(make_row()).degraded == ("text_only:no_usable_frame", "skipped_frames:1")


def test_at_most_so_many_frames_evenly_thinned(tmp_path: Path) -> None:
    data = encoded(phone_photo("coffee", (64, 64)))
    put_frames(tmp_path, "7", {f"frame_{n}.jpg": data for n in range(9)})
    request = make_encoder(tmp_path, max_frames=3).encode(make_row())
    assert [note.index for note in request.media] == [0, 4, 8]


def test_a_row_with_nothing_to_send_is_no_request(tmp_path: Path) -> None:
    with pytest.raises(RowError) as refused:
        make_encoder(tmp_path).encode(make_row(transcript=" "))
    assert refused.value.kind is FailureKind.BAD_ROW


def test_a_row_of_frames_alone_is_one(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": encoded(phone_photo("coffee", (64, 64)))})
    said = body_of(make_encoder(tmp_path).encode(make_row(transcript="")))
    assert [part["type"] for part in said["messages"][1]["content"]] == ["image_url", "text"]


def test_the_encoder_travels_to_a_worker_unchanged(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path)
    assert pickle.loads(pickle.dumps(encoder)).encode(make_row()) == encoder.encode(make_row())


@given(st.text(), st.text(), st.integers(1, 10**6))
def test_any_text_arrives_to_the_letter_but_for_lone_surrogates(transcript: str, prompt: str, max_tokens: int) -> None:
    encoder = ChatEncoder(model="m", system_prompt=prompt, media=Media(fit=Fit(rule="none", model="m")))
    try:
        request = encoder.encode(make_row(transcript=transcript, description="x"))
    except RowError:
        pytest.fail("a row with a description is a request")
    said = body_of(request, max_tokens)

    def cleaned(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    body = f"TRANSCRIPT:\n{transcript.strip()}\n\n" if transcript.strip() else ""
    assert said["messages"][1]["content"] == cleaned(f"{body}DESCRIPTION:\nx")
    assert said["messages"][0]["content"] == cleaned(prompt)
    assert said["max_tokens"] == max_tokens


@given(st.text(), st.dictionaries(st.sampled_from(["transcript", "description", "embedded_text", "video"]), st.text()))
def test_any_row_is_a_request_or_a_refusal(identity: str, fields: dict[str, str]) -> None:
    encoder = make_encoder(Path("/usr"))
    try:
        request = encoder.encode(Row(row=3, id=identity, fields=fields))
    except RowError:
        return
    assert request.n_frames == 0
    json.loads(request.body(1))


def reduced(**bounds: int) -> Row:
    return dataclasses.replace(
        make_row(transcript="abcdefghij" * 100, description="world"), reduction=Reduction(**bounds)
    )


def test_a_reduced_row_has_fewer_frames_evenly_thinned_and_says_so(tmp_path: Path) -> None:
    data = encoded(phone_photo("coffee", (100, 100)))
    put_frames(tmp_path, "7", {f"frame_{n}.jpg": data for n in range(8)})
    request = make_encoder(tmp_path).encode(reduced(max_frames=3))
    assert [note.index for note in request.media] == [0, 3, 7]
    assert request.degraded == ("fewer_frames:8>3",)


def test_a_bound_above_what_there_is_changes_nothing(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": encoded(phone_photo("coffee", (100, 100)))})
    request = make_encoder(tmp_path).encode(reduced(max_frames=3, max_text_chars=10_000))
    assert request.degraded == ()


@pytest.mark.parametrize("rule", [Fit(rule="none", model="m"), Fit(rule="560x560", model="m", box=(560, 560))])
def test_a_reduced_row_has_smaller_frames_whatever_the_rule_of_fitting(tmp_path: Path, rule: Fit) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": encoded(phone_photo("coffee", (300, 500)))})
    request = make_encoder(tmp_path, fit=rule).encode(reduced(max_side_px=250))
    assert (request.media[0].width, request.media[0].height) == (150, 250)
    assert request.degraded == ("smaller_frames:250",)


def test_a_reduced_row_has_a_shorter_transcript_with_its_beginning_and_its_end() -> None:
    request = make_encoder().encode(reduced(max_text_chars=205))
    text = body_of(request)["messages"][1]["content"]
    transcript, description = text.split("\n\n")
    assert len(transcript.removeprefix("TRANSCRIPT:\n")) == 200
    assert transcript.endswith("ghij")
    assert " [...] " in transcript
    assert description == "DESCRIPTION:\nworld"
    assert request.degraded == ("shorter_text:800",)


@given(st.lists(st.text(max_size=300), min_size=3, max_size=3), st.integers(0, 700))
def test_a_shortened_text_keeps_to_its_bound(texts: list[str], most: int) -> None:
    fields = dict(zip(("transcript", "description", "embedded_text"), texts, strict=True))
    kept, cut = shortened(fields, most)
    assert sum(map(len, kept.values())) <= most
    assert (cut == 0) == (sum(len(text.strip()) for text in texts) <= most)
