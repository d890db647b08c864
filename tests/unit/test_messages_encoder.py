"""Chats to requests, the bodies read back by the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle  # noqa: TID251 - what the pool does with an encoder
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.chat import UNKNOWN_IMAGE_TOKENS, VISION_CONTEXT, ChatEncoder
from encoders.fit import Fit
from encoders.folders import FolderFrames
from encoders.image import size_of
from encoders.lines import LINE
from encoders.media import Media
from encoders.messages import ENFORCER, GROUP_MARK, MessagesEncoder, group_of, video_of
from encoders.refs import frame_ref
from engine.errors import RequestTooLarge, RowError
from engine.ladder import smaller
from engine.readers import WHOLE_LINE
from engine.types import FailureKind, Fix, Reduction, Request, Row
from sinks import one_file
from tests.fakes.photos import encoded, phone_photo

MODEL = "meta-llama/Llama-3.2-11B-Vision"
SYSTEM = {"role": "system", "content": "Label it."}


def make_encoder(
    frames: Path | None = None, *, rule: str = "none", max_frames: int = 16, **settings: Any
) -> MessagesEncoder:
    media = Media(
        fit=Fit(rule=rule, model=MODEL), frames=None if frames is None else FolderFrames(frames), max_frames=max_frames
    )
    chat = ChatEncoder(model=MODEL, system_prompt="", media=media, extra=(("temperature", 0.0),))
    return MessagesEncoder(chat=chat, **settings)


def make_row(*messages: object, identity: str = "7", reduction: Reduction | None = None, **more: object) -> Row:
    line = json.dumps({"meta_id": identity, "messages": messages} | more)
    return Row(row=3, id=identity, fields={LINE: line}, reduction=reduction or Reduction())


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def body_of(request: Request) -> dict[str, Any]:
    said = json.loads(request.body(128, b',"model":"m"'))
    assert isinstance(said, dict)
    return said


def inline(data: bytes, mime: str = "image/jpeg", **more: object) -> dict[str, Any]:
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url} | more}


def named(identity: str, name: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": frame_ref(identity, name)}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def photo(width: int = 200, height: int = 300, name: str = "china") -> bytes:
    return encoded(phone_photo(name, (width, height)))


def put_frames(root: Path, identity: str, names: dict[str, bytes]) -> None:
    (root / identity).mkdir(parents=True)
    for name, data in names.items():
        (root / identity / name).write_bytes(data)


def pictures_in(said: dict[str, Any]) -> list[bytes]:
    return [
        base64.b64decode(part["image_url"]["url"].partition(",")[2])
        for message in said["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def test_a_chat_is_sent_as_it_stands_but_for_its_last_answer_and_other_keys() -> None:
    example = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    row = make_row(SYSTEM, *example, {**user("c"), "name": "x"}, {"role": "assistant", "content": "gold"})
    said = body_of(make_encoder().encode(row))
    assert said["messages"] == [SYSTEM, *example, user("c")]
    assert list(said) == ["messages", "temperature", "stream", "max_tokens", "model"]
    assert (said["stream"], said["max_tokens"]) == (False, 128)


def test_text_of_any_kind_survives() -> None:
    words = 'a "quoted" \\ \u2028 世界 😀 \x00 line\nend'
    assert body_of(make_encoder().encode(make_row(user(words))))["messages"] == [user(words)]


def test_half_a_character_becomes_a_mark_and_not_a_failure() -> None:
    said = body_of(make_encoder().encode(make_row(user("a \ud800 b"))))
    assert said["messages"] == [user("a \ufffd b")]


def test_the_encoder_travels_to_a_worker() -> None:
    encoder = make_encoder(attach=True, formats={"": {"type": "json_object"}})
    assert pickle.loads(pickle.dumps(encoder)) == encoder


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], 'a list "messages"'),
        ([{"role": "assistant", "content": "gold"}], "asks nothing"),
        ([user("")], "asks nothing"),
        (["hello"], "message 1 is no object"),
        ([SYSTEM, {"role": "tool", "content": "x"}], "message 2 has the role 'tool'"),
        ([{"content": "x"}], "message 1 has the role 'None'"),
        ([user(None)], "message 1 has no content"),
        ([user([{"type": "input_audio"}])], "'input_audio'"),
        ([user([{"type": "image_url", "image_url": {}}])], "'image_url'"),
        ([user(["words"])], "neither a text nor an image_url"),
        ([user([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])], "'file:///etc/passwd'"),
        ([user([{"type": "image_url", "image_url": {"url": "frames/7/frame_0.jpg"}}])], "frames: reference"),
        ([user([{"type": "image_url", "image_url": {"url": "data:text/html,x"}}])], "'data:text/html,x'"),
        ([user([{"type": "image_url", "image_url": "frames:7"}])], "'frames:7'"),
    ],
)
def test_what_is_no_chat_is_a_bad_row_that_says_why(messages: list[object], words: str) -> None:
    with pytest.raises(RowError, match=words.replace("(", r"\(")) as raised:
        make_encoder().encode(make_row(*messages))
    assert raised.value.kind is FailureKind.BAD_ROW


def test_pictures_in_the_chat_and_elsewhere_pass_untouched() -> None:
    data = photo(1200, 800)
    parts = [
        inline(data, detail="high"),
        {"type": "image_url", "image_url": {"url": "https://example.org/a,b.jpg"}},
        {"type": "image_url", "image_url": "data:image/png;base64,!!!"},
        text("look"),
    ]
    request = make_encoder(rule="tokens").encode(make_row(SYSTEM, user(parts)))
    assert body_of(request)["messages"][1]["content"] == parts
    assert request.n_frames == 3
    (note,) = request.media
    assert (note.index, note.width, note.height) == (0, 1200, 800)
    assert note.digest == hashlib.sha256(data).hexdigest()[:16]
    assert note.tokens == 3202
    assert 3202 + 2 * UNKNOWN_IMAGE_TOKENS < request.est_tokens < 3202 + 2 * UNKNOWN_IMAGE_TOKENS + 100
    assert request.degraded == ()


def test_named_frames_are_sent_in_the_order_named_and_fitted(tmp_path: Path) -> None:
    put_frames(
        tmp_path,
        "4/2".replace("/", "ü"),
        {"frame_0.jpg": photo(1200, 800), "frame_5.png": encoded(phone_photo("coffee", (90, 60)), "PNG")},
    )
    row = make_row(user([named("4ü2", "frame_5.png"), named("4ü2", "frame_0.jpg"), text("x")]))
    request = make_encoder(tmp_path, rule="tokens").encode(row)
    said = body_of(request)
    assert [size_of(data) for data in pictures_in(said)] == [(90, 60), (559, 372)]
    assert [note.index for note in request.media] == [5, 0]
    urls = [part["image_url"]["url"][:22] for part in said["messages"][0]["content"][:2]]
    assert urls == ["data:image/png;base64,", "data:image/jpeg;base64"]
    assert said["messages"][0]["content"][2] == text("x")


def test_named_frames_that_cannot_be_had_are_left_out_and_said(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": photo(), "frame_1.jpg": b"no picture"})
    parts = [named("7", f"frame_{n}.jpg") for n in range(3)]
    request = make_encoder(tmp_path).encode(make_row(user([*parts, text("x")])))
    assert (request.n_frames, request.degraded) == (1, ("skipped_frames:2",))
    request = make_encoder(tmp_path).encode(make_row(user([named("8", "frame_0.jpg"), text("x")])))
    assert (request.n_frames, request.degraded) == (0, ("text_only:no_folder",))
    assert body_of(request)["messages"] == [user([text("x")])]
    with pytest.raises(RowError) as raised:
        make_encoder(tmp_path).encode(make_row(SYSTEM, user([named("7", "frame_1.jpg")])))
    assert raised.value.kind is FailureKind.BAD_MEDIA


def test_a_named_frame_leads_nowhere_but_into_the_place_of_frames(tmp_path: Path) -> None:
    root = tmp_path / "frames"
    put_frames(root, "7", {"frame_0.jpg": photo()})
    put_frames(tmp_path, "secret", {"frame_0.jpg": photo()})
    (root / "7" / "frame_1.jpg").symlink_to(tmp_path / "secret" / "frame_0.jpg")
    (root / "7" / "notes.jpg").write_bytes(photo())
    encoder = make_encoder(root)
    for name in ("frame_1.jpg", "notes.jpg", "../../secret/frame_0.jpg"):
        request = encoder.encode(make_row(user([named("7", name), text("x")])))
        assert request.n_frames == 0, name
    for identity in ("..", "../secret", "a/b"):
        with pytest.raises(RowError) as raised:
            encoder.encode(make_row(user([named(identity, "frame_0.jpg"), text("x")])))
        assert raised.value.kind is FailureKind.INVALID_ID
    with pytest.raises(RowError, match="--frames-dir"):
        make_encoder().encode(make_row(user([named("7", "frame_0.jpg"), text("x")])))


def test_frames_are_put_before_the_text_of_the_first_user_under_the_vision_context(tmp_path: Path) -> None:
    photos = {f"frame_{n}.jpg": photo(name=name) for n, name in ((10, "china"), (9, "coffee"))}
    put_frames(tmp_path, "7", photos)
    row = make_row(SYSTEM, user("a"), {"role": "assistant", "content": "b"}, user("c"), identity="7__group_A")
    request = make_encoder(tmp_path, attach=True).encode(row)
    said = body_of(request)
    assert said["messages"][0]["content"] == f"{VISION_CONTEXT}\n\nLabel it."
    assert pictures_in(said) == [photos["frame_9.jpg"], photos["frame_10.jpg"]]
    assert said["messages"][1]["content"][2] == text("a")
    assert said["messages"][2:] == [{"role": "assistant", "content": "b"}, user("c")]
    assert [note.index for note in request.media] == [9, 10]
    assert request.n_frames == 2
    twice = make_row({**SYSTEM, "content": f"{VISION_CONTEXT}\n\nLabel it."}, user("a"))
    assert body_of(make_encoder(tmp_path, attach=True).encode(twice))["messages"][0] == said["messages"][0]
    alone = body_of(make_encoder(tmp_path, attach=True).encode(make_row(user("a"))))
    assert alone["messages"][0] == {"role": "system", "content": VISION_CONTEXT}


def test_frames_are_put_into_no_chat_that_has_its_parts_already(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {"frame_0.jpg": photo()})
    row = make_row(SYSTEM, user([text("a")]), user("b"))
    said = body_of(make_encoder(tmp_path, attach=True).encode(row))
    assert said["messages"] == [SYSTEM, user([text("a")]), user("b")]


def test_a_video_without_frames_is_asked_about_as_text_and_says_so(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path, attach=True)
    request = encoder.encode(make_row(SYSTEM, user("a")))
    assert request.degraded == ("text_only:no_folder",)
    assert body_of(request)["messages"] == [SYSTEM, user("a")]
    with pytest.raises(RowError):
        encoder.encode(make_row(SYSTEM, user(" ")))
    with pytest.raises(RowError) as raised:
        encoder.encode(make_row(user("a"), identity="../x"))
    assert raised.value.kind is FailureKind.INVALID_ID


def test_a_demand_for_json_comes_last_and_a_form_comes_with_the_body() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    encoder = make_encoder(enforcer=True, formats={"A": form, "": {"type": "json_object"}})
    said = body_of(encoder.encode(make_row(SYSTEM, user("a"), identity="7__group_A")))
    assert said["messages"] == [SYSTEM, user("a"), {"role": "system", "content": ENFORCER}]
    assert said["response_format"] == form
    assert body_of(encoder.encode(make_row(user("a"))))["response_format"] == {"type": "json_object"}
    assert "response_format" not in body_of(encoder.encode(make_row(user("a"), group_id="B")))


@pytest.mark.parametrize(
    ("identity", "more", "video", "group"),
    [
        ("7", {}, "7", ""),
        ("7__group_A", {}, "7", "A"),
        ("7__group_", {}, "7__group_", ""),
        ("__group_A", {}, "__group_A", ""),
        ("a__group_b__group_C", {}, "a__group_b", "C"),
        ("x", {"group_id": "B", "original_meta_id": "9"}, "9", "B"),
        ("7__group_A", {"group_id": "", "original_meta_id": None}, "7", "A"),
    ],
)
def test_the_video_and_the_group_of_a_chat(identity: str, more: dict[str, object], video: str, group: str) -> None:
    assert (video_of(more, identity), group_of(more, identity)) == (video, group)


def test_rooms_that_may_not_know_each_other_agree() -> None:
    assert WHOLE_LINE[1] == LINE
    assert one_file.GROUP_MARK == GROUP_MARK


def test_fewer_pictures_are_taken_evenly_wherever_they_come_from(tmp_path: Path) -> None:
    put_frames(tmp_path, "7", {f"frame_{n}.jpg": photo(100 + n) for n in range(4)})
    held = Reduction(max_frames=2)
    parts = [named("7", f"frame_{n}.jpg") for n in range(4)]
    request = make_encoder(tmp_path).encode(make_row(user([*parts, text("x")]), reduction=held))
    assert [size_of(data) for data in pictures_in(body_of(request))] == [(100, 300), (103, 300)]
    assert request.degraded == ("fewer_frames:4>2",)
    request = make_encoder(tmp_path, attach=True).encode(make_row(user("x"), reduction=held))
    assert [size_of(data) for data in pictures_in(body_of(request))] == [(100, 300), (103, 300)]
    assert request.degraded == ("fewer_frames:4>2",)
    elsewhere = [{"type": "image_url", "image_url": {"url": f"https://example.org/{n}.jpg"}} for n in range(3)]
    request = make_encoder().encode(make_row(user([*elsewhere, text("x")]), reduction=held))
    assert body_of(request)["messages"][0]["content"] == [elsewhere[0], elsewhere[2], text("x")]


def test_pictures_become_smaller_where_their_bytes_are_known() -> None:
    elsewhere = {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}}
    parts = [inline(photo(400, 300), detail="low"), inline(photo(60, 50)), elsewhere, text("x")]
    request = make_encoder().encode(make_row(user(parts), reduction=Reduction(max_side_px=200)))
    content = body_of(request)["messages"][0]["content"]
    assert [(note.width, note.height) for note in request.media] == [(200, 150), (60, 50)]
    assert content[0]["image_url"]["detail"] == "low"
    assert content[1:] == parts[1:]
    assert request.degraded == ("smaller_frames:200",)


def test_text_is_shortened_by_the_share_asked_for_and_only_what_users_say() -> None:
    words, instructions = "w" * 4000, "i" * 4000
    whole = make_row({"role": "system", "content": instructions}, user(words), user("short"))
    most = len(whole.fields[LINE]) // 2
    row = Row(row=3, id="7", fields=whole.fields, reduction=Reduction(max_text_chars=most))
    request = make_encoder().encode(row)
    system, first, second = body_of(request)["messages"]
    assert system["content"] == instructions
    assert 1900 < len(first["content"]) < 2010
    assert first["content"].startswith("www")
    assert " [...] " in first["content"]
    assert second["content"] == "short"
    assert request.degraded[0].startswith("shorter_text:20")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 4), st.integers(0, 3000), st.sampled_from(Fix))
def test_a_chat_that_is_refused_for_its_size_gets_smaller_until_nothing_is_left_to_give(
    frames: int, words: int, fix: Fix
) -> None:
    encoder = make_encoder()
    row = make_row(SYSTEM, user([*[inline(PHOTO) for _ in range(frames)], text("w" * words + "!")]))
    steps, sizes = 0, [encoder.encode(row).n_bytes]
    while True:
        request = encoder.encode(row)
        request = Request(
            row=request.row,
            id=request.id,
            head=request.head,
            tail=request.tail,
            est_tokens=request.est_tokens,
            n_frames=request.n_frames,
            media=request.media,
            made_of=row,
        )
        step = smaller(request, RequestTooLarge("too large", status=400, fix=fix), answer_tokens=128)
        if step is None:
            break
        row = Row(row=row.row, id=row.id, fields=row.fields, reduction=step)
        sizes.append(encoder.encode(row).n_bytes)
        steps += 1
        assert steps < 40
    assert sizes[-1] <= sizes[0]
    assert "!" in body_of(encoder.encode(row))["messages"][1]["content"][-1]["text"]
    assert frames == 0 or request.n_frames == 1


PHOTO = photo(300, 200)
