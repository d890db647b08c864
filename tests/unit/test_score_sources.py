"""What may hold gold and answers, and what is said of a file that does not."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, FolderInUse, InputError
from engine.types import Answer
from labels.score.gold import read_truth
from labels.score.options import Options
from labels.score.predictions import model_names, read_predictions
from labels.score.slots import ALL
from labels.score.tables import notes
from sinks.folder import CHECKPOINT
from sinks.shards import ShardSink
from sinks.withdraw import INTENT
from tests.fakes.records import failure, result
from tests.fakes.scores import (
    GOLD,
    answer,
    chat,
    figure,
    gold_file,
    said_file,
    scored,
    write_lines,
)

PETS = """
name = "pets"
title = "Pets"
role = "You label."
[[dimensions]]
key = "animal"
title = "Animal"
kind = "categorical"
definition = "d"
evidence = "e"
values = ["cat", "dog"]
synonyms = { cat = ["kitten"] }
gold = ["species"]
"""


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return gold_file(tmp_path / "val.jsonl", GOLD)


def refused(words: str, gold: Path, *said: Path, kind: type[Exception] = InputError) -> None:
    with pytest.raises(kind) as caught:
        scored(gold, *said)
    assert words in str(caught.value)


def test_gold_may_stand_under_pictures(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA=="}}
    user = [picture, {"type": "text", "text": "TRANSCRIPT:\nthey walk"}]
    gold = write_lines(tmp_path / "val.jsonl", [chat("v0", GOLD[0], user=user)])
    assert scored(gold, said_file(tmp_path / "p.jsonl", GOLD[:1])).models[0].exact_match == 1


def test_gold_without_answers_is_told_so(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat("v0", None)])
    refused("no chat ends with a message of the assistant", gold, said_file(tmp_path / "p.jsonl", GOLD))


def test_an_empty_gold_file_is_told_so(tmp_path: Path) -> None:
    refused("no gold", write_lines(tmp_path / "val.jsonl", []), said_file(tmp_path / "p.jsonl", GOLD))


def test_rows_without_gold_are_left_out_and_told(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat("v0", GOLD[0]), chat("v1", None)])
    found = scored(gold, said_file(tmp_path / "p.jsonl", GOLD[:2]))
    assert len(found.truth) == 1
    assert any("1 rows carry no gold" in note for note in notes(found))
    assert found.models[0].predictions.unmatched == 0


def test_a_line_that_is_no_json_is_named(tmp_path: Path, gold: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n" + gold.read_text() + "{oops\n")
    refused(f"{bad} line 7", bad, said_file(tmp_path / "p.jsonl", GOLD))
    said = tmp_path / "p.jsonl"
    said.write_text("[1]\n")
    refused(f"{said} line 1", gold, said)
    said.write_text("{oops\n")
    refused(f"{said} line 1", gold, said)


def test_gold_that_is_no_object_is_named(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat("v0", GOLD[0]), chat("v1", "it is sensitive")])
    refused("line 2: the gold", gold, said_file(tmp_path / "p.jsonl", GOLD))


def test_an_id_that_stands_twice_in_the_gold_is_refused_with_both_lines(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat("v0", GOLD[0]), chat("v1", GOLD[1]), chat("v0", GOLD[2])])
    refused("'v0' stands in line 1 and in line 3", gold, said_file(tmp_path / "p.jsonl", GOLD))


def test_two_answers_to_one_row_are_refused_with_both_lines(tmp_path: Path, gold: Path) -> None:
    said = write_lines(tmp_path / "p.jsonl", [answer(0, GOLD[0]), answer(1, GOLD[1]), answer(0, None)])
    refused("lines 1 and 3 both answer 'v0'", gold, said)


def test_gold_that_is_no_label_is_counted_and_never_scored(tmp_path: Path) -> None:
    gold = gold_file(tmp_path / "val.jsonl", [*GOLD, GOLD[0] | {"china_sensitive": "nan"}])
    found = scored(gold, said_file(tmp_path / "p.jsonl", [*GOLD, GOLD[0]]))
    assert found.supports["china_sensitive"] == {"yes": 2, "no": 2, "cannot_determine": 1}
    assert any("china_sensitive 'nan', 1 times" in note for note in notes(found))


def test_known_spellings_of_a_value_are_that_value(tmp_path: Path, gold: Path) -> None:
    said = said_file(
        tmp_path / "p.jsonl", [row | {"china_sensitive": str(row["china_sensitive"]).upper()} for row in GOLD]
    )
    assert scored(gold, said).models[0].exact_match == 5


@pytest.mark.parametrize("value", [True, ["yes"], {"yes": 1}, "perhaps", 3])
def test_what_is_no_label_is_a_missing_answer_and_counted(tmp_path: Path, gold: Path, value: object) -> None:
    said = said_file(
        tmp_path / "p.jsonl", [row | {"china_sensitive": value, "china_stance_score": value} for row in GOLD]
    )
    found = scored(gold, said)
    assert figure(found, "china_sensitive", ALL, "coverage") == 0.0
    assert figure(found, "china_stance_score", ALL, "coverage") == 0.0
    assert found.models[0].predictions.columns["china_sensitive"].refused.total() == 5


def test_numbers_that_are_none_are_missing(tmp_path: Path, gold: Path) -> None:
    """Python writes them, though JSON has none."""
    nothing = [row | {"china_stance_score": value} for row, value in zip(GOLD, [math.nan, math.inf] * 3, strict=False)]
    found = scored(gold, said_file(tmp_path / "p.jsonl", nothing))
    assert figure(found, "china_stance_score", ALL, "coverage") == 0.0
    assert figure(found, "china_sensitive", ALL, "accuracy") == 1.0


def test_a_file_of_raw_answers_is_sent_to_parse(tmp_path: Path, gold: Path) -> None:
    refused("read them with `parse`", gold, write_lines(tmp_path / "p.jsonl", [{"idx": 0, "raw": "{}"}]))


def test_a_file_of_anything_else_is_no_prediction(tmp_path: Path, gold: Path) -> None:
    refused("no prediction", gold, write_lines(tmp_path / "p.jsonl", [{"a": 1}]))
    refused("which row", gold, write_lines(tmp_path / "p.jsonl", [{"parsed": True, "json": GOLD[0]}]))
    refused("holds no answers", gold, write_lines(tmp_path / "p.jsonl", []))


def test_merged_records_are_predictions(tmp_path: Path, gold: Path) -> None:
    lines = [
        {"meta_id": f"v{at}", "parsed": True, "complete": True, "groups_present": ["A"], "json": row}
        for at, row in enumerate(GOLD)
    ]
    assert scored(gold, write_lines(tmp_path / "p.jsonl", lines)).models[0].exact_match == 5


def test_a_key_of_another_codebook_is_told(tmp_path: Path, gold: Path) -> None:
    found = scored(gold, said_file(tmp_path / "p.jsonl", [row | {"mood": "good"} for row in GOLD]))
    assert any("mood, 5 times: no key of standard" in note for note in notes(found))


def run_folder(out: Path, rows: int, *, failed: tuple[int, ...] = (), unread: tuple[int, ...] = ()) -> Path:
    with ShardSink.open(out, manifest={}, shards=2, resume=False) as sink:
        for row in range(rows):
            if row in failed:
                sink.put(dataclasses.replace(failure(row), id=f"v{row}"))
            else:
                given = Answer(labels=None, error="empty") if row in unread else Answer(labels=GOLD[row])
                sink.put(dataclasses.replace(result(row), id=f"v{row}", answer=given))
    return out


def test_a_run_folder_is_read_as_it_lies(tmp_path: Path, gold: Path) -> None:
    found = scored(gold, run_folder(tmp_path / "run1", 5, failed=(3,), unread=(4,)))
    model = found.models[0]
    assert model.predictions.name == "run1"
    assert model.exact_match == 3
    assert figure(found, "", ALL, "coverage") == pytest.approx(0.6)
    assert (model.predictions.records, model.predictions.parsed) == (5, 3)


def test_a_row_that_failed_and_was_answered_later_is_answered(tmp_path: Path, gold: Path) -> None:
    out = run_folder(tmp_path / "run1", 5, failed=(3,))
    with ShardSink.open(out, manifest={}, shards=2, resume=True, retry_failed=True) as sink:
        sink.put(dataclasses.replace(result(3), id="v3", answer=Answer(labels=GOLD[3])))
    model = scored(gold, out).models[0]
    assert model.exact_match == 5
    assert (model.predictions.records, model.predictions.parsed) == (5, 5)


def test_answers_under_withdrawal_are_not_scored(tmp_path: Path, gold: Path) -> None:
    out = run_folder(tmp_path / "run1", 5)
    (out / CHECKPOINT / INTENT).write_bytes(b"")
    refused("being withdrawn", gold, out, kind=FolderInUse)


def test_a_folder_without_a_run_is_refused(tmp_path: Path, gold: Path) -> None:
    refused("without a run", gold, tmp_path, kind=ConfigError)


def test_files_of_one_name_get_numbers(tmp_path: Path) -> None:
    paths = [Path("a/preds.parsed.jsonl"), Path("b/preds.jsonl"), Path("preds.json"), Path("other"), Path(".jsonl")]
    assert model_names(paths) == ["preds", "preds_2", "preds_3", "other", ".jsonl"]


TABLE = "meta_id,china_stance_score,sensitive,collective,subtitle\n" + "".join(
    f"v{at},{row['china_stance_score']},{row['china_sensitive']},{row['collective_action']},text {'long ' * at}\n"
    for at, row in enumerate(GOLD)
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_gold_may_be_columns_of_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gold{suffix}"
    if suffix == ".parquet":
        rows = [line.split(",") for line in TABLE.splitlines()]
        pq.write_table(pa.table(dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))), path)
    else:
        path.write_text(TABLE if suffix == ".csv" else TABLE.replace(",", "\t"))
    found = scored(path, said_file(tmp_path / "p.jsonl", GOLD))
    assert found.truth.codebook.name == "standard"
    assert found.models[0].exact_match == 5


def test_cells_without_gold_and_broken_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(TABLE.replace("-0.5,no,no", "-0.5,dunno,") + "v9,too,few\n")
    found = scored(path, said_file(tmp_path / "p.jsonl", GOLD))
    told = "\n".join(notes(found))
    assert "1 lines are no rows" in told
    assert "unknown_value:china_sensitive, 1 times" in told
    assert found.supports["collective_action"] == {"yes": 2, "no": 2, "cannot_determine": 0}


def test_a_table_without_gold_names_what_was_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text("meta_id,subtitle\nv0,hello\n")
    refused("no gold column", path, said_file(tmp_path / "p.jsonl", GOLD))


def test_a_missing_gold_file_is_named_by_its_flag(tmp_path: Path) -> None:
    for name in ("no.csv", "no.jsonl"):
        refused(f"--val-file {tmp_path / name}", tmp_path / name, kind=ConfigError)


def test_the_id_column_of_a_table_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(TABLE.replace("meta_id", "clip"))
    refused("has no id column", path, said_file(tmp_path / "p.jsonl", GOLD))
    truth = read_truth(path, codebook=None, id_column="clip", options=Options())
    assert truth.find("v4", None) == 4


@pytest.mark.parametrize("kind", ["chats", "table"])
def test_short_texts_are_left_out_by_what_they_say_not_by_their_headings(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("gold.csv" if kind == "table" else "val.jsonl")
    if kind == "table":
        path.write_text("meta_id,china_stance_score,subtitle\nv0,0.5,123456789\nv1,0.5,1234567890\n")
    else:
        texts = ("TRANSCRIPT:\n123456789", "TRANSCRIPT:\n12345\n\nDESCRIPTION:\n67890")
        write_lines(path, [chat(f"v{at}", GOLD[0], user=text) for at, text in enumerate(texts)])
    options = Options(min_text_len=10)
    found = scored(path, said_file(tmp_path / "p.jsonl", GOLD[:2]), options=options)
    assert found.truth.names() == ["v1"]
    assert found.models[0].predictions.unmatched == 0
    assert any("1 rows are left out by --min-text-len 10" in note for note in notes(found))


@pytest.mark.parametrize(
    ("gold", "name"),
    [
        (GOLD[0], "standard"),
        ({"china_stance_score": 0.5, "china_sensitive": 0.2, "collective_action": 1.0}, "numeric"),
        ({"china_related": 0.5, "china_stance_score": 0.5, "hate_speech": 0.2}, "numeric-comprehensive"),
        ({"china_related": "no", "hate_speech": "no"}, "comprehensive"),
        ({"hate_speech": "no"}, "comprehensive"),
        ({"dish_type": "main"}, "cooking"),
    ],
)
def test_the_shipped_codebook_that_fits_the_gold_is_found(tmp_path: Path, gold: object, name: str) -> None:
    path = gold_file(tmp_path / "val.jsonl", [gold])
    assert read_truth(path, codebook=None, id_column=None, options=Options()).codebook.name == name


def test_gold_that_no_shipped_codebook_knows_asks_for_one(tmp_path: Path) -> None:
    path = gold_file(tmp_path / "val.jsonl", [{"animal": "cat"}])
    refused("name yours with --codebook", path, said_file(tmp_path / "p.jsonl", [{"animal": "cat"}]))


@pytest.mark.parametrize("kind", ["chats", "table"])
def test_a_codebook_of_ones_own_is_all_it_takes(tmp_path: Path, kind: str) -> None:
    book = tmp_path / "pets.toml"
    book.write_text(PETS)
    gold = tmp_path / ("gold.csv" if kind == "table" else "val.jsonl")
    if kind == "table":
        gold.write_text("id,species\nv0,Cat\nv1,dog\nv2,dog\n")
    else:
        gold_file(gold, [{"animal": "cat"}, {"animal": "dog"}, {"animal": "dog"}])
    said = said_file(tmp_path / "p.jsonl", [{"animal": "kitten"}, {"animal": "cat"}, {"animal": "dog"}])
    found = scored(gold, said, codebook=str(book))
    names = {metric.name: found.models[0].of(metric).value for metric in found.headlines}
    assert names == pytest.approx({"animal_F1_cat": 2 / 3, "animal_F1_dog": 2 / 3, "animal_macro_F1": 2 / 3})


def test_gold_for_rows_that_are_all_left_out_is_told_so(tmp_path: Path, gold: Path) -> None:
    with pytest.raises(InputError, match="no row with enough text"):
        read_truth(gold, codebook=None, id_column=None, options=Options(min_text_len=1000))


def test_predictions_need_not_be_in_memory_twice(tmp_path: Path, gold: Path) -> None:
    """A row is four or eight bytes a dimension, whatever its record says."""
    options = Options()
    truth = read_truth(gold, codebook=None, id_column=None, options=options)
    said = read_predictions(said_file(tmp_path / "p.jsonl", GOLD), "p", truth, options)
    assert [column.cells.itemsize for column in said.columns.values()] == [8, 4, 4]
