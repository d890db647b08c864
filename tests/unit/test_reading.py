"""Answers of models, as they come."""

from __future__ import annotations

import json
import time
from pathlib import Path

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
        (TEXT[:40], "truncated"),
        ("{'china_related': 'yes'}", "missing_key:china_ccp_government"),
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


def test_a_prefix_of_an_answer_is_taken_for_one_only_if_just_the_brace_is_missing() -> None:
    for end in range(len(TEXT)):
        reading = READER.read_fully(TEXT[:end])
        if end == len(TEXT) - 1:
            assert (reading.labels, reading.cut, reading.repairs) == (RIGHT, False, ("truncated_tail",))
        else:
            assert reading.labels is None
            assert reading.error == ("empty" if end == 0 else "truncated")


NUMBERS = '{"china_stance_score":-0.5,"china_sensitive":0.2,"collective_action":0.1'
NUMERIC = CodebookReader(codebook=load_codebook("numeric"))


@pytest.mark.parametrize("end", [" ", "\n", ",", ", ", "\n```", "}", ",}"])
def test_a_last_number_counts_if_something_follows_it(end: str) -> None:
    assert (NUMERIC.read(NUMBERS + end).labels or {}) == {
        "china_stance_score": -0.5,
        "china_sensitive": 0.2,
        "collective_action": 0.1,
    }


@pytest.mark.parametrize("text", [NUMBERS, NUMBERS[:-1], NUMBERS[:-2], NUMBERS + "e", "```json\n" + NUMBERS])
def test_a_number_at_the_very_end_is_never_taken_for_whole(text: str) -> None:
    reading = NUMERIC.read_fully(text)
    assert (reading.labels, reading.error, reading.cut) == (None, "truncated", True)


@pytest.mark.parametrize("word", ["no", "true", "True", "cannot_determine"])
def test_a_word_at_the_very_end_is_never_taken_for_whole(word: str) -> None:
    text = TEXT[: TEXT.rindex('"no"')] + word
    assert READER.read(text).error == "truncated"
    assert READER.read(text + "\n").error is None


@pytest.mark.parametrize(
    "more",
    [
        ',"',
        ',"reason',
        ',"reason":"because',
        ',"reason":"because"',
        ',"hate_speech":"yes"',
        ',"hate_speech":"y',
        ',"x":[',
        ',"x":{',
        ',"x":{}',
        ":",
        ", ,",
        " yes",
        "]",
    ],
)
def test_an_end_that_no_valid_answer_could_have_is_not_mended(more: str) -> None:
    """Whatever came after: the whole answer would have a key too many, or none of the form."""
    reading = READER.read_fully(TEXT[:-1] + more)
    assert (reading.labels, reading.error, reading.cut) == (None, "truncated", True)


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        (str(RIGHT), "quotes"),
        (TEXT.replace('"', "\u201c"), "quotes"),
        (TEXT.replace('"no"', "\u2018no\u2019", 1), "quotes"),
        (TEXT.replace(": ", "\uff1a").replace(", ", "\uff0c"), "punctuation"),
        (TEXT.replace('"no"', "no", 1), "bare_word"),
        (TEXT.replace('"neutral/unclear"', "neutral/unclear"), "bare_word"),
        (TEXT.replace('"hate_speech"', "hate_speech"), "bare_word"),
        (TEXT.replace('"hate_speech": "no"', '"hate_speech": False'), "bare_word"),
        (TEXT.replace('"hate_speech": "no"', '"hate_speech": false'), "value:hate_speech"),
        (TEXT.replace('"hate_speech": "no"', '"hate_speech": "\uff2e\uff4f"'), "value:hate_speech"),
        (TEXT.replace('"hate_speech"', '"hate"'), "key:hate_speech"),
        (TEXT.replace('"china_ccp_government"', '"stance_gov"'), "key:china_ccp_government"),
        (str(RIGHT)[:-1], "truncated_tail"),
        (f"```json\n{TEXT[:-1]}\n```", "code_fence"),
    ],
)
def test_what_is_no_json_but_can_mean_one_thing_only_is_mended(text: str, repair: str) -> None:
    reading = READER.read_fully(text)
    assert reading.labels == RIGHT
    assert repair in reading.repairs


@pytest.mark.parametrize(("said", "meant"), [("+0.25", 0.25), (".25", 0.25), ("-.25", -0.25), ('"+0.25"', 0.25)])
def test_numbers_in_forms_that_json_lacks_are_mended(said: str, meant: float) -> None:
    reading = NUMERIC.read_fully(NUMBERS.replace("-0.5", said) + "}")
    assert reading.labels is not None
    assert reading.labels["china_stance_score"] == meant


@pytest.mark.parametrize(
    "said", ["0.5.5", "0,5", "50%", "1/2", "--0.5", "+", ".", "5.", "NaN", "-Infinity", "0x1", "½"]
)
def test_a_number_that_could_mean_two_things_is_refused(said: str) -> None:
    assert NUMERIC.read(NUMBERS.replace("-0.5", said) + "}").labels is None


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace('"no"', "'it's no'", 1),
        TEXT.replace('"no"', '"no" "yes"', 1),
        TEXT.replace('"no"', "no yes", 1),
        TEXT.replace('", "', '" "', 1),
        TEXT.replace('"no"', '"no" // quite sure', 1),
        TEXT.replace('"no"', "\u201cno'", 1),
        TEXT.replace('"no"', "null", 1),
        TEXT.replace("{", "\uff5b"),
    ],
)
def test_what_could_mean_two_things_is_refused(text: str) -> None:
    reading = READER.read_fully(text)
    assert reading.labels is None
    assert not reading.cut


def test_a_repeated_key_cannot_hide_behind_a_blank() -> None:
    book = load_codebook("standard")
    text = '{"china_stance_score":0,"china_sensitive":"no","china_sensitive" :"yes","collective_action":"no"}'
    assert CodebookReader(codebook=book).read(text).error == "duplicate_key:china_sensitive"
    short = CodebookReader(codebook=BOOK, group=("per-item", "hate_speech"))
    assert short.read('{"hate_speech":"no","hate_speech" :"yes"}').error == "duplicate_key:hate_speech"


CHAIN = """\
name = "chain"
title = "Chain"
role = "You label."
""" + "".join(
    f"""
[[dimensions]]
key = "{key}"
title = "{key}"
kind = "categorical"
definition = "Whether."
evidence = "What is seen."
values = ["yes", "no"]
{when}
"""
    for key, when in (("a", ""), ("b", ""), ("c", ""), ("d", 'when = { key = "a", equals = "no" }'))
)


def implying(*pairs: tuple[str, str]) -> str:
    form = '[[implications]]\nwhen = {{ key = "{}", equals = "yes" }}\nthen = {{ key = "{}", equals = "{}" }}\n'
    return CHAIN + "".join(form.format(when, *then.split("=")) for when, then in pairs)


def read_with(tmp_path: Path, book: str, **said: str) -> tuple[object, str | None]:
    path = tmp_path / "chain.toml"
    path.write_text(book)
    answer = CodebookReader(codebook=load_codebook(str(path))).read(json.dumps(said))
    return answer.labels, answer.error


def test_implications_are_followed_through_a_chain_in_any_order(tmp_path: Path) -> None:
    book = implying(("b", "c=yes"), ("a", "b=yes"))
    assert read_with(tmp_path, book, a="yes", b="no", c="no", d="no") == (
        {"a": "yes", "b": "yes", "c": "yes", "d": ""},
        None,
    )


def test_rules_that_contradict_each_other_give_no_labels(tmp_path: Path) -> None:
    book = implying(("a", "b=yes"), ("c", "b=no"))
    assert read_with(tmp_path, book, a="yes", b="no", c="yes", d="") == (None, "contradiction:b")
    book = implying(("a", "d=yes"))
    assert read_with(tmp_path, book, a="yes", b="no", c="no", d="no") == (None, "contradiction:d")


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
