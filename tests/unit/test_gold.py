"""What a cell says is a label of its dimension to the letter, no gold, or a problem with a name; never a guess."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenario import made_answer
from engine.errors import ConfigError
from labels.codebook import SHIPPED, load_codebook
from labels.gold import NO_GOLD, Gold, GoldColumns
from labels.reading import CodebookReader

BOOKS = [load_codebook(path.stem) for path in sorted(SHIPPED.glob("*.toml"))]


def columns(name: str, *, yn_thresh: float = 0.5) -> GoldColumns:
    book = load_codebook(name)
    return GoldColumns.find(book, [dimension.key for dimension in book.dimensions], yn_thresh=yn_thresh)


def said(name: str, key: str, cell: str, *, yn_thresh: float = 0.5) -> Gold:
    return columns(name, yn_thresh=yn_thresh).read({key: cell})


def related(**cells: str) -> dict[str, str]:
    """Cells of a row that is about China, all of them filled in."""
    stances = dict.fromkeys(("china_ccp_government", "china_people_culture", "china_technology_development"), "pro")
    others = ("china_sensitive", "collective_action", "hate_speech", "harmful_content", "news_segments")
    rest = dict.fromkeys((*others, "inauthentic_content", "derivative_content"), "no")
    return {"china_related": "yes"} | stances | rest | cells


def test_columns_are_found_under_their_gold_names_whatever_their_case() -> None:
    found = GoldColumns.find(load_codebook("comprehensive"), ["id", " Stance_GOV ", "HATE_SPEECH", "harmful"])
    assert dict(found.columns) == {
        "china_ccp_government": " Stance_GOV ",
        "hate_speech": "HATE_SPEECH",
        "harmful_content": "harmful",
    }
    assert "china_related" in found.missing
    assert found.carried[0] == ("gold:china_ccp_government", " Stance_GOV ")


def test_of_two_columns_the_preferred_one_counts() -> None:
    found = GoldColumns.find(load_codebook("standard"), ["sensitive", "china_sensitive"])
    assert found.columns["china_sensitive"] == "china_sensitive"


def test_a_column_that_is_told_beats_the_names() -> None:
    book = load_codebook("standard")
    found = GoldColumns.find(book, ["sensitive", "Mine"], {"china_sensitive": "mine"})
    assert found.columns == {"china_sensitive": "Mine"}
    with pytest.raises(ConfigError, match="no such column; there are sensitive"):
        GoldColumns.find(book, ["sensitive"], {"china_sensitive": "mine"})
    with pytest.raises(ConfigError, match="no such dimension; standard has china_stance_score"):
        GoldColumns.find(book, ["sensitive"], {"mood": "sensitive"})


@pytest.mark.parametrize("cell", [*sorted(NO_GOLD), "NaN", "None", " NULL ", "N/A"])
@pytest.mark.parametrize("name", ["standard", "numeric"])
def test_a_mark_for_no_value_is_no_gold_and_no_problem(name: str, cell: str) -> None:
    assert said(name, "china_sensitive", cell) == Gold(labels={})


def test_a_value_of_the_codebook_is_a_value_even_if_it_looks_like_a_mark() -> None:
    assert said("cooking", "dish_type", "none").labels == {"dish_type": "none"}


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("yes", "yes"),
        (" YES ", "yes"),
        ("true", "yes"),
        ("False", "no"),
        ("Cannot  Determine", "cannot_determine"),
        ("unclear", "cannot_determine"),
        ("1", "yes"),
        ("0", "no"),
        ("1.0", "yes"),
        ("0.5", "yes"),
        ("0.49", "no"),
        (".7", "yes"),
        ("5e-1", "yes"),
    ],
)
def test_words_and_numbers_under_a_yes_or_no_dimension(cell: str, label: str) -> None:
    assert said("standard", "collective_action", cell) == Gold(labels={"collective_action": label})


def test_the_threshold_is_the_users() -> None:
    assert said("standard", "collective_action", "0.6", yn_thresh=0.7).labels == {"collective_action": "no"}
    assert said("standard", "collective_action", "0.7", yn_thresh=0.7).labels == {"collective_action": "yes"}


@pytest.mark.parametrize(
    ("name", "key", "cell", "code"),
    [
        ("standard", "collective_action", "maybe", "unknown_value"),
        ("standard", "collective_action", "1.5", "out_of_range"),
        ("standard", "collective_action", "1e999", "out_of_range"),
        ("standard", "collective_action", "-0.1", "out_of_range"),
        ("standard", "china_stance_score", "5", "out_of_range"),
        ("standard", "china_stance_score", "good", "unknown_value"),
        ("standard", "china_stance_score", "yes", "unknown_value"),
        ("standard", "china_stance_score", "0,5", "unknown_value"),
        ("standard", "china_stance_score", "1_0", "unknown_value"),
        ("standard", "china_stance_score", "inf", "unknown_value"),
        ("standard", "china_stance_score", "\u0661", "unknown_value"),
        ("numeric", "china_sensitive", "75", "out_of_range"),
        ("numeric", "china_sensitive", "maybe", "unknown_value"),
        ("comprehensive", "china_related", "cannot_determine", "unknown_value"),
        ("cooking", "dish_type", "1", "unknown_value"),
        ("cooking", "techniques", "baking|flying", "unknown_value"),
        ("cooking", "techniques", '["baking"', "unknown_value"),
        ("cooking", "techniques", "[1]", "unknown_value"),
    ],
)
def test_what_can_be_no_label_is_a_problem_and_no_label(name: str, key: str, cell: str, code: str) -> None:
    assert said(name, key, cell) == Gold(labels={}, problems=(f"{code}:{key}",))


@pytest.mark.parametrize(
    ("cell", "label"), [("0.25", 0.25), ("1", 1.0), ("yes", 1.0), ("No", 0.0), ("cannot_determine", 0.5), ("-0", 0.0)]
)
def test_words_and_numbers_under_a_number_from_0_to_1(cell: str, label: float) -> None:
    found = said("numeric", "china_sensitive", cell).labels["china_sensitive"]
    assert json.dumps(found) == json.dumps(label)


@pytest.mark.parametrize("cell", ["frying|baking", "Frying, baking", '["frying", "baking", "baking"]', "frying|BAKING"])
def test_a_list_is_an_array_or_joined_and_comes_in_the_codebooks_order(cell: str) -> None:
    assert said("cooking", "techniques", cell).labels == {"techniques": ["baking", "frying"]}


def test_an_empty_array_says_nothing_applies_and_an_empty_cell_says_nothing() -> None:
    assert said("cooking", "techniques", "[]").labels == {"techniques": []}
    assert said("cooking", "techniques", "").labels == {}


def test_whole_numbers_that_a_spreadsheet_wrote_as_floats_are_found_among_the_values(tmp_path: Path) -> None:
    path = tmp_path / "grades.toml"
    path.write_text(
        'name="g"\ntitle="G"\nrole="You."\n[[dimensions]]\nkey="grade"\ntitle="Grade"\nkind="categorical"\n'
        'definition="d"\nevidence="e"\nvalues=["1","2"]\n'
    )
    found = GoldColumns.find(load_codebook(str(path)), ["grade"])
    assert found.read({"grade": "2.0"}).labels == {"grade": "2"}
    assert found.read({"grade": "3.0"}).problems == ("unknown_value:grade",)


def test_what_is_not_asked_is_blank() -> None:
    cells = related(china_related="no", china_sensitive="no", china_people_culture="unclear")
    cells |= dict.fromkeys(("china_ccp_government", "china_technology_development"), "")
    found = columns("comprehensive").read(cells)
    assert found.problems == ()
    assert [found.labels[key] for key in list(found.labels)[:6]] == ["no", "", "", "", "", "no"]


def test_a_label_where_none_is_asked_is_a_contradiction_and_not_blanked() -> None:
    found = columns("comprehensive").read(related(china_related="no"))
    assert "contradiction:china_ccp_government" in found.problems
    assert "china_ccp_government" not in found.labels
    assert found.labels["china_sensitive"] == ""


def test_an_empty_cell_of_a_question_that_is_asked_is_no_gold() -> None:
    assert "china_sensitive" not in columns("comprehensive").read(related(china_sensitive="")).labels


def test_an_unknown_value_where_none_is_asked_stays_a_problem() -> None:
    found = columns("comprehensive").read(related(china_related="no", china_sensitive="maybe"))
    assert "unknown_value:china_sensitive" in found.problems
    assert "china_sensitive" not in found.labels


def test_an_implication_that_does_not_hold_costs_both_labels() -> None:
    found = columns("comprehensive").read(related(hate_speech="yes", harmful_content="no"))
    assert found.problems == ("contradiction:hate_speech", "contradiction:harmful_content")
    assert not {"hate_speech", "harmful_content"} & set(found.labels)


def test_an_implied_label_that_is_missing_is_not_made_up() -> None:
    found = columns("comprehensive").read(related(hate_speech="yes", harmful_content=""))
    assert (found.labels.get("hate_speech"), "harmful_content" in found.labels) == ("yes", False)


@given(st.sampled_from(BOOKS), st.data())
def test_whatever_cells_hold_labels_are_right_to_the_letter_or_absent(book: object, data: st.DataObject) -> None:
    found = GoldColumns.find(book, [dimension.key for dimension in book.dimensions])  # type: ignore[attr-defined, arg-type]  # hypothesis draws it
    some = st.sampled_from(["", "nan", "yes", "no", "0.5", "1", "pro", "[]", "baking|raw", "cannot_determine", "-1"])
    cells = {key: data.draw(some | st.text(max_size=6)) for key in found.columns}
    read = found.read(cells)
    by_key = {dimension.key: dimension for dimension in found.codebook.dimensions}
    for key, label in read.labels.items():
        assert by_key[key].accepts(label)
        assert label != "nan"
    assert not {problem.partition(":")[2] for problem in read.problems} & set(read.labels)
    if len(read.labels) == len(by_key):
        reading = CodebookReader(codebook=found.codebook).read_fully(json.dumps(read.labels))
        assert (reading.labels, reading.repairs) == (read.labels, ())


@given(st.sampled_from(BOOKS), st.integers(0, 10**6))
def test_a_right_answer_written_into_a_table_is_read_back(book: object, seed: int) -> None:
    found = GoldColumns.find(book, [dimension.key for dimension in book.dimensions])  # type: ignore[attr-defined, arg-type]  # as above
    made = made_answer(found.codebook.json_schema(), random.Random(seed))
    reader = CodebookReader(codebook=found.codebook)
    labels = reader.read(json.dumps(made)).labels
    assert labels is not None
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in labels.items()}
    read = found.read(cells)
    assert read.problems == ()
    in_order = {key: sorted(value) if isinstance(value, list) else value for key, value in labels.items()}
    assert {key: sorted(value) if isinstance(value, list) else value for key, value in read.labels.items()} == in_order
