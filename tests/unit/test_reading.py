"""Answers of models, as they come."""

from __future__ import annotations

import json
import time

import pytest

from labels.codebook import load_codebook
from labels.reading import CodebookReader, TextReader

BOOK = load_codebook("comprehensive")
READER = CodebookReader(codebook=BOOK)
RIGHT = {
    "china_related": "yes",
    "china_ccp_government": "pro",
    "china_people_culture": "neutral/unclear",
    "china_technology_development": "anti",
    "china_sensitive": "no",
    "collective_action": "no",
    "hate_speech": "no",
    "harmful_content": "no",
    "news_segments": "yes",
    "inauthentic_content": "no",
    "derivative_content": "no",
}
TEXT = json.dumps(RIGHT)


def with_value(**values: object) -> str:
    return json.dumps(RIGHT | values)


def test_a_right_answer_is_taken_as_it_stands() -> None:
    reading = READER.read_fully(TEXT)
    assert (reading.labels, reading.error, reading.repairs, reading.cut) == (RIGHT, None, (), False)
    assert list(reading.labels or ()) == list(RIGHT)


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        (f"```json\n{TEXT}\n```", "code_fence"),
        (f"Sure! Here it is:\n{TEXT}\nHope it helps {{}}".replace(" {}", ""), "prose_around"),
        (f'I first thought {{"a": 1}} but no: {TEXT}', "prose_around"),
        (TEXT[:-1] + ",}", "trailing_comma"),
        (with_value(hate_speech="No"), "value:hate_speech"),
        (TEXT.replace("hate_speech", "Hate Speech"), "key:hate_speech"),
    ],
)
def test_what_cannot_change_the_meaning_is_mended_and_noted(text: str, repair: str) -> None:
    reading = READER.read_fully(text)
    assert reading.labels == RIGHT
    assert repair in reading.repairs


def test_what_was_not_asked_is_blanked_and_what_is_implied_follows() -> None:
    reading = READER.read_fully(with_value(china_related="no", hate_speech="yes"))
    assert reading.labels == RIGHT | {
        "china_related": "no",
        "hate_speech": "yes",
        "harmful_content": "yes",
        **{key: "" for key in RIGHT if key.startswith("china_") and reading.labels and reading.labels[key] == ""},
    }
    assert "blanked:china_ccp_government" in reading.repairs
    assert "implied:harmful_content" in reading.repairs


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("I cannot help with that.", "not_json"),
        ("[1, 2]", "not_an_object"),
        ('"yes"', "not_an_object"),
        (TEXT[:-1], "truncated"),
        (TEXT[:40], "truncated"),
        ("{'china_related': 'yes'}", "not_json"),
        (json.dumps({key: RIGHT[key] for key in RIGHT if key != "hate_speech"}), "missing_key:hate_speech"),
        (with_value(extra="x"), "unknown_key:extra"),
        (TEXT[:-1] + ',"hate_speech":"no"}', "duplicate_key:hate_speech"),
        (with_value(hate_speech="perhaps"), "bad_value:hate_speech"),
        (with_value(hate_speech=""), "bad_value:hate_speech"),
        (with_value(china_ccp_government=""), "bad_value:china_ccp_government"),
        (TEXT.replace('"no"', "NaN", 1), "not_json"),
        ("x" * (300 << 10), "too_long"),
        ('{"a":' * 100 + "1" + "}" * 100, "too_deep"),
    ],
)
def test_what_is_no_answer_gets_its_reason_and_no_labels(text: str, error: str) -> None:
    reading = READER.read_fully(text)
    assert (reading.labels, reading.error) == (None, error)
    assert reading.cut == (error == "truncated")


def test_no_prefix_of_an_answer_is_taken_for_one() -> None:
    for end in range(len(TEXT)):
        reading = READER.read_fully(TEXT[:end])
        assert reading.labels is None
        assert reading.error == ("empty" if end == 0 else "truncated")


@pytest.mark.parametrize("value", ["1e400", "true", "NaN", "Infinity", '"x"', "[0.5]", "-0.1", "1.1", "null"])
def test_a_number_out_of_range_or_of_another_kind_is_refused(value: str) -> None:
    book = load_codebook("numeric")
    numbers = [dimension for dimension in book.dimensions if dimension.kind == "number"]
    assert numbers
    right = {
        dimension.key: dimension.minimum if dimension.kind == "number" else dimension.values[0]
        for dimension in book.dimensions
    }
    key = numbers[0].key
    text = json.dumps(right | {key: "HERE"}).replace('"HERE"', value)
    bounds = numbers[0].minimum, numbers[0].maximum
    reading = CodebookReader(codebook=book).read_fully(text)
    if value in {"-0.1", "1.1"} and bounds[0] <= float(value) <= bounds[1]:
        assert reading.labels
    else:
        assert reading.labels is None


@pytest.mark.parametrize("piece", ['"', "{", "}", "\\", '{"', '"}', "[", ",}", "{}", '\\"'])
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    text = ("{" + piece * (256 << 10))[: 256 << 10]
    started = time.process_time()
    assert READER.read_fully(text).labels is None
    assert time.process_time() - started < 2.0


def test_without_a_codebook_any_text_is_an_answer_without_labels() -> None:
    answer = TextReader().read("whatever {")
    assert (answer.labels, answer.error, answer.cut) == (None, None, False)


def test_a_wrong_answer_is_asked_for_again_as_text_with_the_schema_and_nothing_else() -> None:
    reader = CodebookReader(codebook=load_codebook("standard"))
    head = reader.repair('{"china_sensitive": "maybe"}')
    assert head is not None
    said = json.loads(head + b'512,"model":"m"}')
    system, user = said["messages"]
    assert "REWRITE" in system["content"]
    assert '"china_sensitive": "maybe"' in user["content"]
    assert '"additionalProperties":false' in user["content"]
    assert said["temperature"] == 0
    assert (said["max_tokens"], said["model"]) == (512, "m")


def test_nothing_is_asked_again_where_there_is_nothing_to_rewrite() -> None:
    reader = CodebookReader(codebook=load_codebook("standard"))
    assert reader.repair("  ") is None
    assert reader.repair("x" * 300_000) is None
    assert TextReader().repair("anything") is None
