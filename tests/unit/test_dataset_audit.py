"""An audit names every fault by its line, goes on after it, and counts what the labels, texts and frames are."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from labels.build.audit import audit
from labels.build.faults import data_url_bytes
from labels.build.report import SHOWN_FAULTS, Report
from labels.codebook import load_codebook

STANDARD = {"china_stance_score": 0.5, "china_sensitive": "no", "collective_action": "yes"}
PIXELS = "data:image/jpeg;base64," + base64.b64encode(b"pixels").decode()


def chat(identity: str | None = "1", answer: object = STANDARD, user: object = "hello", **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "judge"}, {"role": "user", "content": user}]
    if answer is not None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        messages.append({"role": "assistant", "content": text})
    return ({} if identity is None else {"meta_id": identity}) | {"messages": messages} | more


def audited(folder: Path, *lines: dict[str, Any] | str, codebook: str | None = None) -> Report:
    path = folder / "chats.jsonl"
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    )
    return audit(path, None if codebook is None else load_codebook(codebook))


def faults(folder: Path, *lines: dict[str, Any] | str, codebook: str | None = None) -> list[tuple[int, str]]:
    report = audited(folder, *lines, codebook=codebook)
    assert report.faults == len(report.first_faults)
    return report.first_faults


def test_a_sound_file_is_sound_and_counted(tmp_path: Path) -> None:
    other = STANDARD | {"china_stance_score": -1, "collective_action": "no"}
    report = audited(tmp_path, chat("1"), "", chat("2", other, user="hi"), chat("3", None))
    assert report.sound
    assert (report.lines, report.blank, report.answered, report.unanswered) == (3, 1, 2, 1)
    assert report.codebook is not None
    assert report.codebook.name == "standard"
    assert report.values["collective_action"] == {"yes": 1, "no": 1}
    assert report.values["china_stance_score"] == {"0.4..0.6": 1, "-1..-0.8": 1}
    assert report.numbers["china_stance_score"].as_json() == {"count": 2, "min": -1, "mean": -0.25, "max": 0.5}
    assert report.text_chars.as_json() == {"count": 3, "min": 2, "mean": 4.0, "max": 5}
    assert report.cells.most_common(1)[0][0][0] == ("china_stance_score", "high")
    assert "some lines have an answer, some have none" in report.text()
    assert report.text().endswith("no errors")


def test_an_empty_file_is_not_sound(tmp_path: Path) -> None:
    assert not audited(tmp_path).sound


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": 1}', '{"messages": ["a"]}', '{"messages": [}'])
def test_what_is_no_chat_is_named_and_the_rest_is_read(tmp_path: Path, line: str) -> None:
    report = audited(tmp_path, line, chat())
    assert [number for number, _ in report.first_faults] == [1]
    assert report.answered == 1


@pytest.mark.parametrize(
    ("roles", "sound"),
    [
        (("system", "user"), True),
        (("user",), True),
        (("system", "user", "assistant", "user"), True),
        ((), False),
        (("system",), False),
        (("user", "system"), False),
        (("system", "assistant"), False),
        (("system", "user", "user"), False),
        (("system", "user", "tool"), False),
        (("system", "user", None), False),
    ],
)
def test_roles_stand_in_order(tmp_path: Path, roles: tuple[str | None, ...], *, sound: bool) -> None:
    line = {"meta_id": "1", "messages": [{"role": role, "content": "x"} for role in roles]}
    assert (faults(tmp_path, line) == []) is sound


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        (None, "neither a text nor a list"),
        ([], "neither a text nor a list"),
        ([{"type": "text", "text": " "}], "a text part is empty"),
        ([{"type": "video"}], "neither a text nor an image_url"),
        ([{"type": "image_url", "image_url": PIXELS}], "neither a text nor an image_url"),
        ([{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,?"}}], "no picture in base64"),
        ([{"type": "image_url", "image_url": {"url": "data:text/html;base64,QQ=="}}], "no picture in base64"),
        ([{"type": "image_url", "image_url": {"url": "frames:1"}}], "names no frame"),
        ([{"type": "image_url", "image_url": {"url": "/etc/passwd"}}], "no address of a picture"),
    ],
)
def test_a_wrong_content_is_named(tmp_path: Path, content: object, words: str) -> None:
    ((number, what),) = faults(tmp_path, chat(user=content))
    assert number == 1
    assert words in what


def test_pictures_are_counted_by_kind_and_size(tmp_path: Path) -> None:
    urls = [PIXELS, PIXELS, "https://example.org/a.jpg", "frames:1/frame_0.jpg"]
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    report = audited(tmp_path, chat("1", user=[*shown, {"type": "text", "text": "abc"}]), chat("2", user="abcde"))
    assert report.sound
    assert report.pictures == {"data:image/jpeg": 2, "https:": 1, "frames:": 1}
    assert report.picture_bytes.as_json() == {"count": 2, "min": 6, "mean": 6.0, "max": 6}
    assert report.frames.as_json() == {"count": 2, "min": 0, "mean": 2.0, "max": 4}
    assert report.text_chars.most == 5
    assert "some contents are lists, some are texts" in report.text()


def test_a_data_url_is_measured_only_if_it_holds_base64() -> None:
    assert data_url_bytes(PIXELS) == 6
    for url in ("data:image/png;base64,", "data:image/png,abc", "data:image/png;base64,a\u00e9", "data:"):
        assert data_url_bytes(url) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("yes", "no JSON object"),
        ("[1]", "no JSON object"),
        (STANDARD | {"china_stance_score": 5}, "bad_value:china_stance_score"),
        (STANDARD | {"china_sensitive": "nan"}, "bad_value:china_sensitive"),
        (STANDARD | {"china_sensitive": "Yes"}, "right only after a repair: value:china_sensitive"),
        ({"china_stance_score": 0.5, "china_sensitive": "no"}, "missing_key:collective_action"),
        (STANDARD | {"mood": "good"}, "unknown_key:mood"),
    ],
)
def test_a_wrong_answer_is_named(tmp_path: Path, answer: object, words: str) -> None:
    ((_, what),) = faults(tmp_path, chat(answer=answer), codebook="standard")
    assert words in what


def test_an_answer_that_fits_no_codebook_asks_for_one(tmp_path: Path) -> None:
    ((_, what),) = faults(tmp_path, chat(answer={"mood": "good"}))
    assert "--codebook" in what


def test_ids_stand_once(tmp_path: Path) -> None:
    report = audited(tmp_path, chat("1"), chat("2"), chat("1"), chat(None))
    assert report.first_faults == [(3, "the id '1' stands already in line 1")]
    assert (report.duplicates, report.without_id) == (1, 1)


def test_extra_keys_and_line_breaks_are_noted(tmp_path: Path) -> None:
    report = audited(tmp_path, chat("1", idx=3), json.dumps(chat("2", user="a\u2028b"), ensure_ascii=False) + "\r")
    assert report.sound
    assert report.extra_keys == {"idx": 1}
    assert {name for name, count in report.line_breaks.items() if count} == {"carriage return", "U+2028"}
    assert "1 lines hold U+2028" in report.text()


def test_a_key_besides_role_and_content_is_named(tmp_path: Path) -> None:
    line = chat(answer=None)
    line["messages"][1]["name"] = "bob"
    assert faults(tmp_path, line) == [(1, "message 2 has the extra key 'name'")]


GROUP = {"hate_speech": "yes", "harmful_content": "yes"}


def grouped(identity: str, group: str, answer: object, *, named: str | None = None) -> dict[str, Any]:
    return chat(named or f"{identity}__group_{group}", answer, group_id=group, original_meta_id=identity)


def test_groups_are_read_by_their_id(tmp_path: Path) -> None:
    report = audited(tmp_path, grouped("1", "C", GROUP), grouped("2", "C", GROUP))
    assert report.sound
    assert report.groups == {"C": 2}
    assert report.values == {"hate_speech": {"yes": 2}, "harmful_content": {"yes": 2}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (grouped("1", "C", {"news_segments": "no"}), "unknown_key:news_segments"),
        (grouped("1", "C", GROUP | {"harmful_content": "no"}), "after a repair: implied:harmful_content"),
        (grouped("1", "Z", GROUP), "no group 'Z'"),
        (grouped("1", "C", GROUP, named="1"), "by its group it should be '1__group_C'"),
    ],
)
def test_a_group_that_does_not_fit_is_named(tmp_path: Path, line: dict[str, Any], words: str) -> None:
    ((_, what),) = faults(tmp_path, line, codebook="comprehensive")
    assert words in what


def test_bare_lines_of_groups_are_known_by_their_keys(tmp_path: Path) -> None:
    report = audited(tmp_path, chat(None, GROUP), chat(None, {"collective_action": "no", "china_sensitive": ""}))
    assert report.sound, report.first_faults
    # A line with an id says its group, so here keys are missing.
    assert not audited(tmp_path, chat("1", GROUP), codebook="comprehensive").sound


def test_lists_are_counted_by_item_and_by_combination(tmp_path: Path) -> None:
    answer = {"dish_type": "main", "vegetarian": "no", "techniques": ["frying", "baking"], "clarity": 1}
    report = audited(tmp_path, chat(answer=answer), codebook="cooking")
    assert report.values["techniques"] == {"frying": 1, "baking": 1}
    assert report.combinations["techniques"] == {("baking", "frying"): 1}
    assert report.values["clarity"] == {"0.9..1": 1}
    assert "baking, frying" in report.text()


def test_only_the_first_faults_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    report = audited(tmp_path, *["{"] * 50)
    assert (report.faults, len(report.first_faults)) == (50, SHOWN_FAULTS)
    assert "50 errors" in report.text()


def test_a_report_is_json_too(tmp_path: Path) -> None:
    report = audited(tmp_path, chat(), "{")
    said = json.loads(json.dumps(report.as_json()))
    assert (said["sound"], said["errors"], said["first_errors"][0]["line"]) == (False, 1, 2)
    assert said["joint_cells"][0]["labels"]["china_sensitive"] == "no"
