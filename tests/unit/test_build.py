"""What a build writes: the exact lines, and no line for a row that has not earned one."""

from __future__ import annotations

import errno
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.scenario import made_answer
from engine.errors import ConfigError, InputError, SinkBroken
from labels.build.plan import planned
from labels.build.tally import GOLD_INCOMPLETE, LITTLE_TEXT, NO_GOLD_AT_ALL
from labels.build.write import build
from labels.codebook import load_codebook
from labels.reading import CodebookReader
from sinks.files import Files, partial_of
from tests.fakes.building import BOOKS, GOLD, ID, LABELS, TEXTS, answer, flags, lines, made, plan_notes, row, write


def test_a_line_holds_the_id_and_three_messages_and_nothing_else(tmp_path: Path) -> None:
    (line,), tally = made(tmp_path, row())
    assert list(line) == ["meta_id", "messages"]
    assert line["meta_id"] == ID
    assert [message["role"] for message in line["messages"]] == ["system", "user", "assistant"]
    assert line["messages"][0]["content"] == load_codebook("comprehensive").system_prompt()
    assert line["messages"][1]["content"] == (
        "TRANSCRIPT:\nthey walk through the market\n\nDESCRIPTION:\na description"
    )
    assert answer(line) == LABELS
    assert list(answer(line)) == list(LABELS)
    assert (tally.rows, tally.lines, tally.has_failed) == (1, 1, False)
    assert tally.line_bytes == (tmp_path / "out.jsonl").stat().st_size


def test_without_labels_there_is_no_answer_and_no_gold_is_looked_for(tmp_path: Path) -> None:
    (line,), _ = made(tmp_path, {"meta_id": "1"} | TEXTS, no_labels=True)
    assert [message["role"] for message in line["messages"]] == ["system", "user"]


def test_a_bare_line_holds_messages_alone(tmp_path: Path) -> None:
    (line,), _ = made(tmp_path, row(), strip_meta_id=True)
    assert list(line) == ["messages"]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"comprehensive": False}, "standard"),
        ({"comprehensive": False, "numeric_labels": True}, "numeric"),
        ({}, "comprehensive"),
        ({"numeric_labels": True}, "numeric-comprehensive"),
        ({"codebook": "cooking"}, "cooking"),
    ],
)
def test_flags_name_the_codebook(tmp_path: Path, told: dict[str, Any], name: str) -> None:
    (line,), _ = made(tmp_path, row(), no_labels=True, **told)
    assert line["messages"][0]["content"] == load_codebook(name).system_prompt()


def test_ids_keep_every_letter(tmp_path: Path) -> None:
    ids = [ID, "7531309745475554591.0", "007", "a b", "\u00e9"]
    found, _ = made(tmp_path, *(row(identity) for identity in ids))
    assert [line["meta_id"] for line in found] == ids


def test_text_that_readers_of_lines_break_at_is_kept_and_spelt_out(tmp_path: Path) -> None:
    odd = "one\u2028two\u2029three\u0085four\r\nfive \u4e2d\u56fd"
    (line,), _ = made(tmp_path, row(subtitle=odd, meta_desc=""))
    assert line["messages"][1]["content"] == f"TRANSCRIPT:\n{odd}"
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert "\u4e2d\u56fd" in written
    assert not {"\u2028", "\u2029", "\u0085", "\r"} & set(written)


@pytest.mark.parametrize(
    ("mode", "groups"), [("by-category", 4), ("binary", 2), ("per-item", 11)], ids=["category", "binary", "item"]
)
def test_grouped_builds_have_a_line_for_each_group_and_merged_ones_besides(
    tmp_path: Path, mode: str, groups: int
) -> None:
    found, tally = made(tmp_path, row(), row("2"), group_mode=mode)
    book = load_codebook("comprehensive")
    assert len(found) == 2 * groups
    assert [line["group_id"] for line in found[:groups]] == list(book.groups[mode])
    for line in found:
        assert list(line) == ["meta_id", "messages", "group_id", "original_meta_id"]
        assert line["meta_id"] == f"{line['original_meta_id']}__group_{line['group_id']}"
        assert line["messages"][0]["content"] == book.system_prompt((mode, line["group_id"]))
        assert answer(line) == {key: LABELS[key] for key in book.groups[mode][line["group_id"]]}
    merged = lines(tmp_path / "out_merged.jsonl")
    single, _ = made(tmp_path, row(), row("2"), output=tmp_path / "single.jsonl")
    assert merged == single
    assert tally.merged_lines == 2


def test_the_merged_file_goes_where_it_is_told(tmp_path: Path) -> None:
    made(tmp_path, row(), group_mode="binary", merged_output=tmp_path / "m.jsonl")
    assert len(lines(tmp_path / "m.jsonl")) == 1
    assert not (tmp_path / "out_merged.jsonl").exists()


def test_groups_without_comprehensive_are_said_and_ignored(tmp_path: Path) -> None:
    told = plan_notes(tmp_path, comprehensive=False, group_mode="binary", no_labels=True)
    assert "ignored" in told.notes[0]
    assert told.plan.merged is None
    assert len(told.plan.asked) == 1


def test_groups_that_the_codebook_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cooking has no such groups; it has single, per-item"):
        plan_notes(tmp_path, codebook="cooking", group_mode="binary", no_labels=True)


def test_a_row_without_gold_is_dropped_and_counted(tmp_path: Path) -> None:
    found, tally = made(tmp_path, row(), row("2", **dict.fromkeys(GOLD, "nan")))
    assert [line["meta_id"] for line in found] == [ID]
    assert tally.dropped == {NO_GOLD_AT_ALL: 1}
    assert tally.without_gold["hate_speech"] == 1
    assert "nan" not in (tmp_path / "out.jsonl").read_text()


@pytest.mark.parametrize(
    ("cells", "problem", "value"),
    [
        ({"news": "maybe"}, ("unknown_value", "news_segments"), "maybe"),
        ({"news": "1.5"}, ("out_of_range", "news_segments"), "1.5"),
        ({"hate_speech": "yes"}, ("contradiction", "harmful_content"), "no"),
        ({"china_related": "no"}, ("contradiction", "china_ccp_government"), "pro"),
    ],
)
def test_a_row_with_wrong_gold_is_left_out_and_its_cell_reported(
    tmp_path: Path, cells: dict[str, str], problem: tuple[str, str], value: str
) -> None:
    found, tally = made(tmp_path, row(), row("2", **cells))
    assert len(found) == 1
    assert tally.dropped == {GOLD_INCOMPLETE: 1}
    assert tally.problems[problem] == {value: 1}
    shown = tally.text(wanted_frames=False, output="o", merged=None)
    assert f"{problem[0]} for {problem[1]}" in shown
    assert f"with {GOLD_INCOMPLETE}: 2" in shown


def test_a_missing_key_leaves_out_the_row_and_in_groups_the_group_alone(tmp_path: Path) -> None:
    found, _ = made(tmp_path, row(news=""))
    assert found == []
    found, tally = made(tmp_path, row(news=""), group_mode="by-category")
    assert [line["group_id"] for line in found] == ["A", "B", "C"]
    assert tally.groups_left_out == {"D": 1}
    assert lines(tmp_path / "out_merged.jsonl") == []


def test_what_is_not_asked_is_blank_in_the_answer(tmp_path: Path) -> None:
    blank = dict.fromkeys(("stance_gov", "stance_culture", "stance_tech", "sensitive"), "")
    (line,), _ = made(tmp_path, row(china_related="no", **blank))
    assert [value for key, value in answer(line).items() if key in list(LABELS)[1:5]] == ["", "", "", ""]


def test_many_different_wrong_values_are_counted_and_not_all_kept(tmp_path: Path) -> None:
    _, tally = made(tmp_path, *(row(str(at), news=f"wrong {at}") for at in range(300)))
    values = tally.problems["unknown_value", "news_segments"]
    assert values.total() == 300
    assert len(values) == 201


def test_a_table_without_gold_is_refused_and_says_how_to_go_on(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"meta_id": "1"} | TEXTS)
    with pytest.raises(InputError, match=r"stance_gov.*--gold KEY=COLUMN.*--no-labels"):
        planned(flags(tmp_path))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_column_that_every_answer_needs_must_be_there(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {name: cell for name, cell in row().items() if name != "news"})
    with pytest.raises(InputError, match="news_segments or news"):
        planned(flags(tmp_path))
    told = planned(flags(tmp_path, group_mode="by-category"))
    assert [asked.group for asked in told.plan.asked] == ["A", "B", "C"]
    assert told.plan.merged is None
    assert "No lines of the groups D" in told.notes[0]


def test_a_column_that_only_some_answers_need_may_be_missing(tmp_path: Path) -> None:
    cells = row(china_related="no", stance_gov="", stance_culture="", sensitive="")
    del cells["stance_tech"]
    found, _ = made(tmp_path, cells)
    assert answer(found[0])["china_technology_development"] == ""
    assert "china_technology_development" in planned(flags(tmp_path)).notes[0]


def test_gold_columns_may_be_told(tmp_path: Path) -> None:
    cells = row() | {"mine": "yes"}
    (line,), _ = made(tmp_path, cells, gold=("collective_action=mine",))
    assert answer(line)["collective_action"] == "yes"
    with pytest.raises(ConfigError, match="write KEY=COLUMN"):
        planned(flags(tmp_path, gold=("mine",)))


def test_the_threshold_of_yes_is_the_users(tmp_path: Path) -> None:
    (line,), _ = made(tmp_path, row(), yn_thresh=0.8)
    assert answer(line)["news_segments"] == "no"
    with pytest.raises(ConfigError, match="from 0 to 1"):
        planned(flags(tmp_path, yn_thresh=2.0))


@pytest.mark.parametrize("text", ["", "a", "na", "NaN", "123456789"])
def test_too_little_text_is_left_out_whatever_its_heading(tmp_path: Path, text: str) -> None:
    found, tally = made(tmp_path, row(subtitle=text, meta_desc=""), row("2"))
    assert [line["meta_id"] for line in found] == ["2"]
    assert tally.dropped == {LITTLE_TEXT: 1}


def test_ten_characters_are_enough_and_marks_for_no_value_are_no_text(tmp_path: Path) -> None:
    (line,), _ = made(tmp_path, row(subtitle="0123456789", meta_desc="nan"))
    assert line["messages"][1]["content"] == "TRANSCRIPT:\n0123456789"


def test_lines_that_cannot_be_read_are_named_and_left_out(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", row())
    with (tmp_path / "in.csv").open("a") as file:
        file.write("2,ragged\n")
    tally = build(planned(flags(tmp_path)).plan)
    assert tally.has_failed
    assert "Failed: 1 rows with a line that cannot be read: line 3" in tally.text(
        wanted_frames=False, output="o", merged=None
    )
    assert len(lines(tmp_path / "out.jsonl")) == 1


def test_skip_and_limit_count_rows_of_the_table(tmp_path: Path) -> None:
    found, _ = made(tmp_path, *(row(str(at)) for at in range(5)), skip=1, limit=2)
    assert [line["meta_id"] for line in found] == ["1", "2"]


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_lines(tmp_path: Path, suffix: str) -> None:
    expected, _ = made(tmp_path, row(), row("2", news="nan"))
    path = tmp_path / f"table.{suffix}"
    rows = [row(), row("2", news="nan")]
    if suffix == "parquet":
        typed = [cells | {"news": float(cells["news"]), "hate_speech": False, "harmful": False} for cells in rows]
        pq.write_table(pa.Table.from_pylist(typed), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(cells) + "\n" for cells in rows))
    elif suffix == "tsv":
        path.write_text("\n".join("\t".join(values) for values in (list(rows[0]), *(list(r.values()) for r in rows))))
    else:
        path.write_bytes(gzip.compress((tmp_path / "in.csv").read_bytes()))
    build(planned(flags(tmp_path, input=path)).plan)
    assert lines(tmp_path / "out.jsonl") == expected


@pytest.mark.slow
@given(name=st.sampled_from(BOOKS), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gold_goes_into_the_answer_and_is_read_back_as_it_is(tmp_path: Path, name: str, seed: int) -> None:
    book = load_codebook(name)
    drawn = made_answer(book.json_schema(), random.Random(seed))
    labels = CodebookReader(codebook=book).read(json.dumps(drawn)).labels
    assert labels is not None
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in labels.items()}
    for mode in book.groups:
        found, tally = made(
            tmp_path, {"meta_id": "1", "subtitle": "long enough"} | cells, codebook=name, group_mode=mode
        )
        assert tally.problems == {}
        assert len(found) == len(book.groups[mode])
        for line in found:
            group = (mode, line["group_id"]) if "group_id" in line else None
            reading = CodebookReader(codebook=book, group=group).read_fully(line["messages"][-1]["content"])
            assert reading.repairs == ()
            assert reading.labels is not None
            assert dict(reading.labels) == {
                dimension.key: _in_order(dimension.values, labels[dimension.key]) for dimension in book.asked(group)
            }


def _in_order(values: tuple[str, ...], label: object) -> object:
    return [value for value in values if value in label] if isinstance(label, list) else label


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"input": None}, "--input is missing"),
        ({"output": None}, "--output is missing"),
        ({"include_images": True}, "--include-images needs --frames-dir"),
        ({"include_images": True, "frames_dir": "/no/such"}, "--frames-dir /no/such: No such file"),
        ({"image_refs": True}, "give both"),
        ({"include_images": True, "frames_dir": ".", "max_frames": 0}, "--max-frames must be at least 1"),
        ({"include_images": True, "frames_dir": ".", "fit": "huge"}, "--fit 'huge'"),
        ({"codebook": "none.toml"}, "no such codebook"),
        ({"input": Path("/no/such.csv")}, "No such file"),
        ({"input": Path("/dev/null")}, "not a regular file"),
        ({"output": Path("/no/such/out.jsonl")}, "there is no folder /no/such"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"skip": -1}, "must not be negative"),
        ({"id_column": "nobody"}, "--id-column nobody: no such column"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_is_written(tmp_path: Path, told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_notes(tmp_path, **told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_the_table_is_never_written_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be different files"):
        plan_notes(tmp_path, output=tmp_path / "in.csv")
    with pytest.raises(ConfigError, match="must be different files"):
        plan_notes(tmp_path, group_mode="binary", merged_output=tmp_path / "out.jsonl")


def test_a_table_without_texts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"meta_id": "1"} | GOLD)
    with pytest.raises(InputError, match="no column of texts"):
        planned(flags(tmp_path))


class FullDisk(Files):
    """Takes no byte."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", row())
    (tmp_path / "out.jsonl").write_text("as it was\n")
    with pytest.raises(SinkBroken, match="No space left"):
        build(planned(flags(tmp_path, group_mode="binary")).plan, files=FullDisk())
    assert (tmp_path / "out.jsonl").read_text() == "as it was\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.jsonl"]


def test_a_table_that_breaks_off_leaves_no_half_file(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", *(row(str(at)) for at in range(2000)))
    packed = gzip.compress((tmp_path / "in.csv").read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError):
        build(planned(flags(tmp_path, input=tmp_path / "cut.csv.gz")).plan)
    assert not (tmp_path / "out.jsonl").exists()
    assert not partial_of(tmp_path / "out.jsonl").exists()


def test_the_documented_columns_are_those_of_the_codebooks() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "build.md").read_text(encoding="utf-8")
    said = {
        (key, columns, name)
        for key, columns, names in re.findall(
            r"^\| `(\w+)` \| ((?:`\w+`(?: or )?)+) \| ([a-z, -]+) \|$", text, re.MULTILINE
        )
        for name in names.split(", ")
    }
    assert said == {
        (dimension.key, " or ".join(f"`{column}`" for column in dimension.gold), name)
        for name in BOOKS
        if name != "cooking"
        for dimension in load_codebook(name).dimensions
    }
