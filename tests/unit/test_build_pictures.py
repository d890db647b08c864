"""What a build makes of frames: inline, by reference, or in the form of LLaVA."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from encoders.chat import VISION_CONTEXT
from encoders.refs import parsed_ref
from labels.build.tally import LITTLE_TEXT, Tally
from labels.codebook import load_codebook
from tests.fakes.building import ID, LABELS, made, row
from tests.fakes.photos import encoded, phone_photo

PHOTO = encoded(phone_photo("china", (720, 1280)))


def frames_of(folder: Path, identity: str, *names: str, data: bytes = PHOTO) -> None:
    (folder / "frames" / identity).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "frames" / identity / name).write_bytes(data)


def shown(folder: Path, *rows: dict[str, str], **more: Any) -> tuple[list[dict[str, Any]], Tally]:
    (folder / "frames").mkdir(exist_ok=True)
    told = {"include_images": True, "frames_dir": str(folder / "frames"), "workers": 1}
    return made(folder, *rows, **(told | more))


@pytest.mark.slow
def test_frames_come_before_the_text_in_their_order_and_change_the_prompt(tmp_path: Path) -> None:
    frames_of(tmp_path, ID, "frame_10.jpg", "frame_2.png", "frame_0.jpg")
    (tmp_path / "frames" / ID / "frame_2.png").write_bytes(encoded(phone_photo("flower", (90, 160)), "PNG"))
    (line,), tally = shown(tmp_path, row(), fit="none")
    *pictures, text = line["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in pictures]
    assert [url.partition(",")[0] for url in urls] == [
        "data:image/jpeg;base64",
        "data:image/png;base64",
        "data:image/jpeg;base64",
    ]
    assert base64.b64decode(urls[0].partition(",")[2]) == PHOTO
    assert text == {"type": "text", "text": "TRANSCRIPT:\nthey walk through the market\n\nDESCRIPTION:\na description"}
    book = load_codebook("comprehensive")
    assert line["messages"][0]["content"] == f"{VISION_CONTEXT}\n\n{book.system_prompt()}"
    assert isinstance(line["messages"][2]["content"], str)
    assert (tally.framed, tally.frames) == (1, 3)


@pytest.mark.slow
def test_frames_are_fitted_and_thinned_as_a_run_does(tmp_path: Path) -> None:
    frames_of(tmp_path, ID, *(f"frame_{at}.jpg" for at in range(5)))
    (line,), tally = shown(tmp_path, row(), max_frames=2)
    *pictures, _ = line["messages"][1]["content"]
    assert tally.frames == len(pictures) == 2
    assert all(len(base64.b64decode(part["image_url"]["url"].partition(",")[2])) < len(PHOTO) for part in pictures)


@pytest.mark.slow
def test_rows_without_usable_frames_are_text_alone_and_named(tmp_path: Path) -> None:
    frames_of(tmp_path, "2", "frame_0.jpg", data=b"no picture")
    frames_of(tmp_path, "3", "frame_0.jpg")
    frames_of(tmp_path, "3", "frame_1.jpg", data=PHOTO[:5000])
    found, tally = shown(tmp_path, row(), row("2"), row("3"))
    assert [isinstance(line["messages"][1]["content"], str) for line in found] == [True, True, False]
    assert found[0]["messages"][0]["content"] == load_codebook("comprehensive").system_prompt()
    assert (tally.frameless, tally.framed, tally.frames, tally.skipped_frames) == (2, 1, 1, 2)
    assert f"No frames found for 2 rows, for videos {ID}, 2" in tally.text(wanted_frames=True, output="o", merged=None)


@pytest.mark.slow
def test_rows_with_frames_alone_are_kept_and_those_with_neither_are_not(tmp_path: Path) -> None:
    frames_of(tmp_path, ID, "frame_0.jpg")
    found, tally = shown(tmp_path, row(subtitle="", meta_desc=""), row("2", subtitle="", meta_desc=""))
    assert [line["meta_id"] for line in found] == [ID]
    assert [part["type"] for part in found[0]["messages"][1]["content"]] == ["image_url"]
    assert tally.dropped == {LITTLE_TEXT: 1}


@pytest.mark.slow
def test_an_id_that_leads_elsewhere_costs_its_row(tmp_path: Path) -> None:
    found, tally = shown(tmp_path, row("../frames"), row("2"))
    assert [line["meta_id"] for line in found] == ["2"]
    assert tally.has_failed
    assert "an id that cannot name a frame folder: ../frames" in tally.text(wanted_frames=True, output="o", merged=None)


@pytest.mark.slow
def test_references_name_frames_that_are_pictures_and_hold_none(tmp_path: Path) -> None:
    odd = "a b%41\u00e9"
    frames_of(tmp_path, odd, "frame_0.jpg", "frame_1.JPG")
    frames_of(tmp_path, odd, "frame_2.jpg", data=b"no picture")
    found, tally = shown(tmp_path, row(odd), group_mode="binary", image_refs=True)
    for line in found:
        *pictures, _ = line["messages"][1]["content"]
        urls = [part["image_url"]["url"] for part in pictures]
        assert [parsed_ref(url) for url in urls] == [(odd, "frame_0.jpg"), (odd, "frame_1.JPG")]
    assert (tmp_path / "out.jsonl").stat().st_size < len(PHOTO)
    assert tally.skipped_frames == 1


@pytest.mark.slow
def test_many_rows_keep_their_order_through_many_workers(tmp_path: Path) -> None:
    for at in range(0, 200, 3):
        frames_of(tmp_path, str(at), "frame_0.jpg", data=encoded(phone_photo("china", (9, 16 + at))))
    found, _ = shown(tmp_path, *(row(str(at)) for at in range(200)), workers=3)
    assert [line["meta_id"] for line in found] == list(map(str, range(200)))


@pytest.mark.slow
def test_llava_lines_have_a_token_for_each_picture(tmp_path: Path) -> None:
    frames_of(tmp_path, ID, "frame_0.jpg", "frame_1.jpg")
    frames_of(tmp_path, "2", "frame_0.jpg")
    (many, one, none), _ = shown(tmp_path, row(), row("2"), row("3"), format="llava")
    assert list(many) == ["id", "image", "system", "conversations"]
    assert many["image"] == [f"{ID}/frame_0.jpg", f"{ID}/frame_1.jpg"]
    assert many["system"].startswith(VISION_CONTEXT)
    human, gpt = many["conversations"]
    assert human["from"] == "human"
    assert human["value"].startswith("<image>\n<image>\nTRANSCRIPT:\n")
    assert gpt["from"] == "gpt"
    assert json.loads(gpt["value"]) == LABELS
    assert one["image"] == "2/frame_0.jpg"
    assert "image" not in none
    assert "<image>" not in none["conversations"][0]["value"]


def test_llava_lines_name_the_video_of_the_table_where_no_frames_are_asked_for(tmp_path: Path) -> None:
    (line,), _ = made(tmp_path, row(video="clips/one.mp4"), format="llava", no_labels=True)
    assert line["video"] == "clips/one.mp4"
    assert len(line["conversations"]) == 1
    assert line["conversations"][0]["value"].startswith("<video>\nTRANSCRIPT:\n")
    assert line["system"].startswith(VISION_CONTEXT)
