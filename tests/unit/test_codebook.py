"""The shipped codebooks, and what a user's own file may get wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench.scenario import made_answer
from encoders.chat import VISION_CONTEXT
from engine.errors import ConfigError
from labels.codebook import SHIPPED, load_codebook
from labels.reading import CodebookReader
from labels.toml_lines import line_of, lines_of

NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))

YES_NO = {"yes", "no", "cannot_determine"}
STANCES = {"pro", "anti", "neutral/unclear", ""}
COMPREHENSIVE = {
    "china_related": YES_NO,
    **dict.fromkeys(("china_ccp_government", "china_people_culture", "china_technology_development"), STANCES),
    "china_sensitive": YES_NO | {""},
    "collective_action": YES_NO,
    "hate_speech": YES_NO,
    "harmful_content": YES_NO,
    "news_segments": YES_NO,
    "inauthentic_content": YES_NO,
    "derivative_content": YES_NO,
}
"""What the questions of the pipeline users come from are, and which answers they take."""


def schema_of(name: str) -> dict[str, Any]:
    return load_codebook(name).json_schema()


def test_five_codebooks_are_shipped() -> None:
    assert NAMES == ["comprehensive", "cooking", "numeric", "numeric-comprehensive", "standard"]


def test_the_comprehensive_codebook_asks_what_the_pipeline_asked() -> None:
    properties = schema_of("comprehensive")["properties"]
    assert set(properties) == set(COMPREHENSIVE)
    for key, values in COMPREHENSIVE.items():
        assert set(properties[key]["enum"]) <= values, key
        assert set(properties[key]["enum"]) >= values - {"cannot_determine", ""}, key


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_names_every_key_and_every_value(name: str) -> None:
    book = load_codebook(name)
    prompt = book.system_prompt()
    for dimension in book.dimensions:
        assert f"- {dimension.key}: " in prompt
        for value in dimension.values:
            assert f'"{value}"' in prompt
    assert "{" not in prompt


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_valid_under_the_schema_is_valid_to_the_reader(name: str) -> None:
    book, rng = load_codebook(name), random.Random(7)
    reader = CodebookReader(codebook=book)
    for _ in range(200):
        made = made_answer(book.json_schema(), rng)
        answer = reader.read_fully(json.dumps(made))
        assert (answer.labels, answer.error, answer.repairs) == (made, None, ())


@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_value_makes_an_answer_wrong(name: str) -> None:
    book, rng = load_codebook(name), random.Random(3)
    reader = CodebookReader(codebook=book)
    made = made_answer(book.json_schema(), rng)
    for dimension in book.dimensions:
        wrongs: list[object] = ["certainly", None, 10**9, {}, ["nonesuch"], [made[dimension.key]] * 2]
        wrongs += [] if "true" in dimension.synonyms else [True]
        for wrong in wrongs:
            said = reader.read(json.dumps(made | {dimension.key: wrong}))
            assert said.labels is None
            assert said.error == f"bad_value:{dimension.key}"


@pytest.mark.parametrize("name", NAMES)
def test_the_strict_schema_leaves_out_what_strict_modes_refuse(name: str) -> None:
    form: Any = load_codebook(name).response_format()
    schema = form["json_schema"]["schema"]
    assert form["json_schema"]["strict"] is True
    assert set(schema["required"]) == set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert not {"allOf", "if", "uniqueItems"} & set(json.dumps(schema).split('"'))


@pytest.mark.parametrize("name", NAMES)
def test_every_group_is_a_part_of_the_whole(name: str) -> None:
    book = load_codebook(name)
    for mode, groups in book.groups.items():
        for group in groups:
            keys = [dimension.key for dimension in book.asked((mode, group))]
            assert keys
            assert set(keys) <= {dimension.key for dimension in book.dimensions}
            assert all(f"- {key}: " in book.system_prompt((mode, group)) for key in keys)


MINE = """\
name = "mine"
title = "Mine"
role = "You label videos."

[[dimensions]]
key = "mood"
title = "Mood"
kind = "categorical"
definition = "How it feels."
evidence = "Faces."
values = ["good", "bad"]
synonyms = { good = ["great"] }

[[dimensions]]
key = "why"
title = "Why"
kind = "categorical"
definition = "The reason."
evidence = "Words."
values = ["food", "friends"]
when = { key = "mood", equals = "good" }

[[dimensions]]
key = "pace"
title = "Pace"
kind = "number"
definition = "How fast."
evidence = "Cuts."
minimum = 0
maximum = 10
"""


IMPLIES = 'maximum = 10\n[[implications]]\nwhen = { key = "mood", equals = "good" }\n'


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_file_of_ones_own_is_all_it_takes(tmp_path: Path) -> None:
    book = load_codebook(own(tmp_path, MINE))
    reader = CodebookReader(codebook=book)
    assert reader.read('{"mood":"good","why":"food","pace":3}').labels == {"mood": "good", "why": "food", "pace": 3}
    assert reader.read('{"mood":"bad","why":"food","pace":3}').labels == {"mood": "bad", "why": "", "pace": 3}
    assert reader.read('{"mood":"great","why":"food","pace":"3.5"}').labels == {
        "mood": "good",
        "why": "food",
        "pace": 3.5,
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('name = "mine"', "", 1, "name is missing"),
        ('kind = "number"', 'kind = "numbers"', 26, "kind must be one of"),
        ('key = "pace"', 'key = "mood"', 24, "stands twice"),
        ('key = "pace"', 'key = "Mood "', 24, "cannot be told from 'mood'"),
        ('key = "pace"', 'key = "pace:"', 24, "a key has no quotes, colons"),
        ("maximum = 10", "maximum = 0", 29, "minimum below maximum"),
        ("maximum = 10", "maximum = inf", 29, "minimum below maximum"),
        ("maximum = 10", 'values = ["fast"]', 30, "values must be a list"),
        ('evidence = "Words."', 'evidence = "Words."\nminimum = 0', 20, "minimum is for numbers alone"),
        ('values = ["good", "bad"]', "", 5, "values must be a list"),
        ('values = ["food", "friends"]', 'values = ["food", "food"]', 20, "values must be a list"),
        ('values = ["food", "friends"]', 'values = ["food", 3]', 20, "values must be a list of texts"),
        ('title = "Mood"', 'titel = "Mood"', 7, "unknown key 'titel'"),
        ('title = "Why"', 'titel = "Why"', 16, "unknown key 'titel'"),
        ('equals = "good" }', 'equals = "fine" }', 21, "no dimension 'mood' has a value 'fine'"),
        ('equals = "good" }', "equals = true }", 21, "a condition is written"),
        ('key = "mood", equals = "good"', 'key = "why", equals = "food"', 21, "leads back to itself"),
        ('key = "mood", equals = "good"', 'key = "pace", equals = "good"', 21, "no dimension 'pace' has a value"),
        ("maximum = 10", 'maximum = 10\nwhen = { key = "mood", equals = "good" }', 31, "only categorical ones"),
        ("good = [", "fine = [", 12, "synonyms of 'fine'"),
        ('good = ["great"]', 'good = ["great", "BAD"]', 12, "the synonym 'BAD' of 'good' means another value"),
        ('{ good = ["great"] }', '["great"]', 12, "synonyms is a table"),
        ('definition = "How fast."', 'aliases = ["why"]\ndefinition = "How fast."', 27, "the alias 'why' means why"),
        ('evidence = "Faces."', "", 5, "dimension mood: evidence is missing"),
        ('evidence = "Words."', "", 14, "dimension why: evidence is missing"),
        ('evidence = "Words."', 'evidence = ""', 19, "dimension why: evidence is missing"),
        ("[[dimensions]]", "[[dimension]]", 5, "unknown key 'dimension'"),
        ('role = "You', "role = You", 3, "line 3"),
        (
            "maximum = 10",
            "maximum = 10\n[groups.parts]\nx = ['mood', 'whys']",
            32,
            "names 'whys', which is no dimension",
        ),
        ("maximum = 10", "maximum = 10\n[groups.parts]\nx = []", 32, "must name different keys"),
        ("maximum = 10", "maximum = 10\n[groups.single]\nx = ['mood']", 31, "are there always"),
        ("maximum = 10", 'maximum = 10\n[[implications]]\nwhen = { key = "mood" }', 32, "a condition is written"),
        ("maximum = 10", IMPLIES + "then = 3", 33, "a condition is written"),
        ("maximum = 10", IMPLIES + 'than = { key = "mood", equals = "bad" }', 33, "unknown key 'than'"),
        (
            "maximum = 10",
            IMPLIES + 'then = { key = "mood", equals = "sad" }',
            33,
            "no dimension 'mood' has a value 'sad'",
        ),
    ],
)
def test_an_error_in_it_names_file_line_and_key(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in MINE
    broken = MINE.replace(old, new) if old == "[[dimensions]]" else new.join(MINE.rsplit(old, 1))
    with pytest.raises(ConfigError) as raised:
        load_codebook(own(tmp_path, broken))
    assert "mine.toml" in str(raised.value)
    assert words in str(raised.value)
    assert f"line {line}:" in str(raised.value) or f"line {line}," in str(raised.value)


LONG = """\
name = "mine"  # a "name" = 'x' [
title = '''
[[dimensions]]
key = "not this"
'''
role = \"\"\"You say \\\"\"\" [[dimensions]] \"\"\"\"\"
dimensions.x = 3
"""


def test_lines_are_counted_through_long_texts_tables_and_lists() -> None:
    lines = lines_of(
        LONG.replace("dimensions.x = 3", "")
        + "[[dimensions]]\nvalues = [\n  'key = 1',\n  ']', # ]\n]\nkey = 'a'\n"
        + "[ dimensions . synonyms ]\n\"ye s\" = []\n[[dimensions]]\nkey = 'b'\n[groups.x]\na.b = 1\n"
    )
    assert lines[("title",)] == 2
    assert lines[("role",)] == 6
    assert lines[("dimensions", 0)] == 8
    assert lines[("dimensions", 0, "values")] == 9
    assert lines[("dimensions", 0, "key")] == 13
    assert lines[("dimensions", 0, "synonyms", "ye s")] == 15
    assert lines[("dimensions", 1, "key")] == 17
    assert lines[("groups", "x", "a", "b")] == 19
    assert line_of(lines, ("dimensions", 1, "synonyms", "no")) == 16
    assert line_of(lines, ("nonesuch",)) == 1


def test_values_that_differ_in_case_alone_are_told_apart_to_the_letter(tmp_path: Path) -> None:
    reader = CodebookReader(codebook=load_codebook(own(tmp_path, MINE.replace('"bad"]', '"bad", "Bad"]'))))
    said = '{{"mood":"{}","why":"","pace":3}}'
    assert [reader.read(said.format(value)).error for value in ("bad", "Bad", "BAD")] == [None, None, "bad_value:mood"]


def test_the_vision_context_is_the_files_own_or_the_usual_one(tmp_path: Path) -> None:
    assert load_codebook(own(tmp_path, MINE)).vision_context == VISION_CONTEXT
    book = load_codebook(own(tmp_path, 'vision = "You see pets."\n' + MINE))
    assert book.vision_context == "You see pets."
    assert book.digest != load_codebook(own(tmp_path, MINE)).digest


def test_a_codebook_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="comprehensive, cooking"):
        load_codebook("nonesuch")


def test_the_digest_follows_from_the_content_and_not_from_its_layout(tmp_path: Path) -> None:
    first = load_codebook(own(tmp_path, MINE)).digest
    assert load_codebook(own(tmp_path, "# a comment\n" + MINE.replace(" = ", "="))).digest == first
    assert load_codebook(own(tmp_path, MINE.replace("How it feels.", "How it felt."))).digest != first
