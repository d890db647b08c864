"""What becomes of the answers about one video's groups."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from labels.codebook import Codebook, load_codebook
from labels.merge import Merger
from labels.reading import CodebookReader, Reading
from tests.fakes.codebooks import ODD, all_codebooks, perfect_answer

BOOK = load_codebook("comprehensive")
Answer = tuple[str, str, dict[str, Any] | str]
"""Video, group, and labels or the reason why there are none."""
MODES = [(book, mode) for book in all_codebooks() for mode in book.groups if mode != "single"]


def read(said: dict[str, Any], group: tuple[str, str], book: Codebook = BOOK) -> Reading:
    reading = CodebookReader(codebook=book, group=group).read_fully(json.dumps(said))
    assert reading.error is None
    return reading


def merged(merger: Merger, *answers: Answer, mode: str) -> list[dict[str, Any]]:
    """The records for these answers."""
    records: list[dict[str, Any]] = []
    for video, name, said in answers:
        group = (mode, name)
        reading = Reading(labels=None, error=said) if isinstance(said, str) else read(said, group)
        records += merger.add(video, group, reading)
    return [*records, *merger.rest()]


@pytest.mark.parametrize(("book", "mode"), MODES, ids=lambda value: getattr(value, "name", value))
def test_the_parts_of_a_right_answer_make_up_the_whole_again(book: Codebook, mode: str) -> None:
    rng = random.Random(2)
    for _ in range(30):
        whole = perfect_answer(book.system_prompt(), rng)
        merger, records = Merger(book, mode), list[dict[str, Any]]()
        for name, keys in sorted(book.groups[mode].items(), key=lambda _: rng.random()):
            group = (mode, name)
            records += merger.add("v", group, read({key: whole[key] for key in keys}, group, book))
        (record,) = records
        assert (record["json"], record["complete"], record["repairs"]) == (whole, True, [])
        assert list(record["json"]) == [dimension.key for dimension in book.dimensions]
        assert (record["parsed"], record["reason"], record["reasons"]) == (True, None, {})


RELATED = {
    "china_related": "yes",
    "china_ccp_government": "pro",
    "china_people_culture": "anti",
    "china_technology_development": "anti",
}
UNRELATED = {"china_related": "no", **{key: "" for key in RELATED if key != "china_related"}}
SENSITIVE = {"china_sensitive": "yes", "collective_action": "no"}


def test_conditions_hold_across_groups() -> None:
    merger = Merger(BOOK, "by-category")
    (record,) = merged(merger, ("v", "B", SENSITIVE), ("v", "A", UNRELATED), mode="by-category")
    assert record["json"] == UNRELATED | SENSITIVE | {"china_sensitive": ""}
    assert record["repairs"] == ["blanked:china_sensitive"]


def test_a_condition_that_nobody_answered_blanks_nothing() -> None:
    answers: list[Answer] = [("v", "A", "not_json"), ("v", "B", SENSITIVE)]
    (record,) = merged(Merger(BOOK, "by-category"), *answers, mode="by-category")
    assert (record["json"], record["repairs"]) == (SENSITIVE, [])


def test_a_group_that_another_proves_wrong_has_no_labels_and_the_others_keep_theirs() -> None:
    merger = Merger(BOOK, "by-category")
    blank = SENSITIVE | {"china_sensitive": ""}
    (record,) = merged(merger, ("v", "A", RELATED), ("v", "B", blank), mode="by-category")
    assert record["json"] == RELATED
    assert (record["groups_present"], record["complete"]) == (["A"], False)
    assert record["reasons"] == {"B": "bad_value:china_sensitive"}


def test_implications_hold_across_groups() -> None:
    answers = [("v", "hate_speech", {"hate_speech": "yes"}), ("v", "harmful_content", {"harmful_content": "no"})]
    (record,) = merged(Merger(BOOK, "per-item"), *answers, mode="per-item")
    assert record["json"] == {"hate_speech": "yes", "harmful_content": "yes"}
    assert record["repairs"] == ["implied:harmful_content"]


def overlapping(tmp_path: Path) -> Codebook:
    path = tmp_path / "odd.toml"
    path.write_text(ODD + '[groups.over]\none = ["tags", "depth"]\ntwo = ["depth", "Farbe"]\n', encoding="utf-8")
    return load_codebook(str(path))


@pytest.mark.parametrize(("depth", "reason"), [(1, None), (2, "conflict:depth")])
def test_groups_that_give_one_key_two_values_are_refused(tmp_path: Path, depth: float, reason: str | None) -> None:
    book = overlapping(tmp_path)
    merger, records = Merger(book, "over"), list[dict[str, Any]]()
    for name, said in (("one", {"tags": [], "depth": 1}), ("two", {"depth": depth, "Farbe": "weiß, hell"})):
        records += merger.add("v", ("over", name), read(said, ("over", name), book))
    (record,) = records
    assert (record["reason"], record["parsed"]) == (reason, reason is None)
    assert (record["json"] is None) == (reason is not None)
    assert merger.merged.refused == (reason is not None)


def test_a_later_answer_takes_the_place_of_a_failed_one_and_never_of_labels() -> None:
    c, other = {"hate_speech": "no", "harmful_content": "no"}, {"hate_speech": "no", "harmful_content": "yes"}
    merger = Merger(BOOK, "by-category")
    answers: list[Answer] = [("v", "C", "request_failed"), ("v", "C", c), ("v", "C", other), ("v", "C", "not_json")]
    (record,) = merged(merger, *answers, mode="by-category")
    assert (record["json"], record["reasons"]) == (c, {})
    assert (merger.merged.repeated, merger.merged.first_repeated) == (2, "v")


def test_an_answer_that_comes_after_its_video_was_complete_is_counted_and_makes_no_second_record() -> None:
    merger = Merger(BOOK, "per-item")
    whole = perfect_answer(BOOK.system_prompt(), random.Random(1))
    answers = [("v", key, {key: whole[key]}) for key in whole]
    records = merged(merger, *answers, ("v", "hate_speech", {"hate_speech": "no"}), mode="per-item")
    assert len(records) == 1
    assert "1 answers came to a group that had labels already, first for v" in merger.merged.text()


def test_complete_videos_are_written_at_once_and_the_others_in_the_order_they_came() -> None:
    whole = perfect_answer(BOOK.system_prompt(), random.Random(1))
    parts = {name: {key: whole[key] for key in keys} for name, keys in BOOK.groups["binary"].items()}
    answers: list[Answer] = [
        ("b", "china", parts["china"]),
        ("a", "content", "not_json"),
        ("c", "china", parts["china"]),
    ]
    answers += [("c", "content", parts["content"])]
    records = merged(Merger(BOOK, "binary"), *answers, mode="binary")
    assert [(record["meta_id"], record["complete"]) for record in records] == [("c", True), ("b", False), ("a", False)]


def test_only_open_videos_are_held() -> None:
    merger = Merger(BOOK, "binary")
    whole = perfect_answer(BOOK.system_prompt(), random.Random(1))
    for number in range(50):
        for name, keys in BOOK.groups["binary"].items():
            list(merger.add(str(number), ("binary", name), read({key: whole[key] for key in keys}, ("binary", name))))
        assert not merger._open


def test_groups_of_two_modes_are_not_mixed() -> None:
    merger = Merger(BOOK, None)
    list(merger.add("v", ("per-item", "hate_speech"), read({"hate_speech": "no"}, ("per-item", "hate_speech"))))
    with pytest.raises(InputError, match="the group C is one of by-category, and those before are of per-item"):
        list(merger.add("v", ("by-category", "C"), Reading(labels=None, error="not_json")))
