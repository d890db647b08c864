"""A run as one table: every row once, in order, every value as found, and never half a file."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, FolderInUse, SinkBroken
from engine.types import Answer, Record
from labels.export import GROUP_ROWS, CsvTable, Exported, ExportOptions, ParquetTable, export
from sinks.files import Files
from sinks.shards import ShardSink
from tests.fakes.disk import Disk, PowerCutError
from tests.fakes.records import cut, failure, result

SUFFIXES = (".parquet", ".csv", ".jsonl")


def open_run(out: Path, **more: object) -> ShardSink:
    settings: dict[str, object] = {"manifest": {}, "shards": 3, "resume": (out / "run.json").exists()}
    return ShardSink.open(out, **(settings | more))  # type: ignore[arg-type]  # names are checked by `open`


def write(out: Path, *records: Record, **more: object) -> Path:
    with open_run(out, **more) as sink:
        for record in records:
            sink.put(record)
    return out


def exported(out: Path, to: Path, files: Files | None = None, **options: bool) -> Exported:
    chosen = ExportOptions(**options)
    return export(out, to, options=chosen) if files is None else export(out, to, options=chosen, files=files)


def read(path: Path) -> list[dict[str, Any]]:
    """The table back as objects; CSV cells as typed by `csv`: text, number, or nothing."""
    match path.suffix:
        case ".parquet":
            return list(pq.read_table(path).to_pylist())
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case _:
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))


def labelled(number: int, /, **labels: object) -> Record:
    return result(number, text=json.dumps(labels), answer=Answer(labels=labels))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_in_the_order_of_the_input_whatever_order_they_ended_in(tmp_path: Path, suffix: str) -> None:
    order = [70_000, 5, 2, 200_001, 9, 0, 7, 1]
    out = write(tmp_path / "run", *(result(row) for row in order))
    assert exported(out, tmp_path / f"t{suffix}").rows == len(order)
    assert [int(line["row"]) for line in read(tmp_path / f"t{suffix}")] == sorted(order)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_that_failed_and_then_succeeded_counts_by_its_result(tmp_path: Path, suffix: str) -> None:
    out = write(tmp_path / "run", failure(1), result(0), failure(2), failure(4))
    write(out, result(1), failure(2, "HTTP 400: still no"), retry_failed=True)
    write(out, failure(2, "HTTP 400: no again"), retry_failed=True)
    without = exported(out, tmp_path / f"a{suffix}")
    together = exported(out, tmp_path / f"b{suffix}", failures=True)
    assert (without.rows, without.failed, together.rows, together.failed) == (2, 0, 4, 2)
    assert [int(line["row"]) for line in read(tmp_path / f"a{suffix}")] == [0, 1]
    lines = read(tmp_path / f"b{suffix}")
    assert [line["failure_kind"] or None for line in lines] == [None, None, "refused", "refused"]
    assert lines[2]["failure_message"] == "HTTP 400: no again"
    assert lines[1]["raw"]
    assert not lines[2]["raw"]
    assert "failure_kind" not in read(tmp_path / f"a{suffix}")[0]


def test_values_stand_as_found_in_json_lines(tmp_path: Path) -> None:
    first = labelled(0, stance=-0.5, topics=["a", "b"], note="=1+1")
    out = write(tmp_path / "run", first, cut(1, cost_usd=0.25, degraded=("skipped_frames:2",)))
    exported(out, tmp_path / "t.jsonl")
    one, two = read(tmp_path / "t.jsonl")
    assert list(one) == [
        *("row", "meta_id", "stance", "topics", "note", "label_error", "raw", "finish_reason", "truncated", "model"),
        *("cost_usd", "prompt_tokens", "completion_tokens", "degraded"),
    ]
    assert (one["stance"], one["topics"], one["note"]) == (-0.5, ["a", "b"], "=1+1")
    assert (one["prompt_tokens"], one["completion_tokens"], one["model"]) == (100, 3, "m")
    assert (two["stance"], two["label_error"], two["truncated"], two["cost_usd"]) == (None, "cut", True, 0.25)
    assert two["degraded"] == ["skipped_frames:2"]


def test_parquet_columns_are_typed_by_what_the_labels_hold(tmp_path: Path) -> None:
    out = write(
        tmp_path / "run",
        labelled(0, score=1, kind="a", mixed=0.5, nested=["x"], empty=None, flag=True, huge=1 << 60),
        labelled(1, score=-0.25, kind="b", mixed="none", nested={"a": 1}, empty=None, flag=False, huge=2),
        result(2, answer=Answer(labels=None, error="no_json")),
    )
    exported(out, tmp_path / "t.parquet", failures=True)
    table = pq.read_table(tmp_path / "t.parquet")
    types = {field.name: field.type for field in table.schema}
    assert types["score"] == pa.float64()
    assert {types[name] for name in ("kind", "mixed", "nested", "empty", "flag", "huge", "raw")} == {pa.string()}
    assert (types["row"], types["truncated"], types["cost_usd"]) == (pa.int64(), pa.bool_(), pa.float64())
    assert types["degraded"] == pa.list_(pa.string())
    columns = table.to_pydict()
    assert columns["score"] == [1.0, -0.25, None]
    assert columns["mixed"] == ["0.5", "none", None]
    assert columns["nested"] == ['["x"]', '{"a":1}', None]
    assert columns["huge"] == [str(1 << 60), "2", None]


def test_a_label_called_like_a_column_of_ours_gets_another_name(tmp_path: Path) -> None:
    out = write(tmp_path / "run", labelled(0, row="first", label_row="second", raw="third"))
    exported(out, tmp_path / "t.jsonl")
    (line,) = read(tmp_path / "t.jsonl")
    assert (line["row"], line["label_row"], line["label_label_row"], line["label_raw"]) == (
        0,
        "second",
        "first",
        "third",
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_without_results_gives_a_table_without_rows(tmp_path: Path, suffix: str) -> None:
    out = write(tmp_path / "run", failure(0))
    assert exported(out, tmp_path / f"t{suffix}").rows == 0
    assert read(tmp_path / f"t{suffix}") == []


def test_parquet_comes_in_row_groups(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    table = ParquetTable(pieces.append, {"row": "count", "raw": "text"})
    for row in range(GROUP_ROWS + 3):
        table.put([row, "x"])
    table.put([0, "x" * (17 << 20)])
    table.put([1, "x"])
    table.close()
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    assert groups == [GROUP_ROWS, 4, 1]


def csv_cell(value: object, *, raw: bool = False) -> str:
    pieces: list[bytes] = []
    CsvTable(pieces.append, {"a": "text"}, raw=raw).put([value])
    return pieces[1].decode().removesuffix("\n")


def csv_value(text: str) -> str:
    return next(csv.reader(io.StringIO(text, newline="")))[0]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
BLANKS = st.text("\t\r\n\0 \u00a0\u3000\u200b\ufeff\u2028", max_size=3)
FORMULAS = st.builds("".join, st.tuples(BLANKS, st.sampled_from("=+-@\t\r\uff1d\uff0b\uff0d\uff20\ufe62\u2212"), TEXT))


@given(text=TEXT | FORMULAS)
@settings(deadline=None)
def test_no_text_cell_begins_as_a_formula(text: str) -> None:
    value = csv_value(csv_cell(text))
    stripped = unicodedata.normalize("NFKC", value).lstrip()
    assert not stripped.startswith(("=", "+", "-", "@"))
    assert not value.startswith(("\t", "\r", "\n", "\0"))
    assert value in {text, "'" + text}


@given(text=TEXT | FORMULAS)
@settings(deadline=None)
def test_raw_cells_are_to_the_letter(text: str) -> None:
    assert csv_value(csv_cell(text, raw=True)) == text


@given(text=FORMULAS)
@settings(deadline=None)
def test_every_formula_is_disarmed(text: str) -> None:
    assert csv_value(csv_cell(text)) == "'" + text


@pytest.mark.parametrize(
    ("value", "cell"),
    [(-1.5, "-1.5"), (3, "3"), (True, "true"), (None, ""), ("", '""'), ("3", '"3"'), (["=a"], '"[""=a""]"')],
)
def test_numbers_are_typed_and_all_text_is_quoted(value: object, cell: str) -> None:
    assert csv_cell(value) == cell


def test_a_whole_csv_reads_back_to_the_letter(tmp_path: Path) -> None:
    texts = ['=HYPERLINK("x")', "a,b\r\nc", '"', "\t", "日本\u2028語", "-abc", "\0"]
    out = write(tmp_path / "run", *(result(row, text) for row, text in enumerate(texts)))
    exported(out, tmp_path / "t.csv", csv_raw=True)
    assert [line["raw"] for line in read(tmp_path / "t.csv")] == texts
    exported(out, tmp_path / "u.csv")
    assert [line["raw"] for line in read(tmp_path / "u.csv")] == [
        *('\'=HYPERLINK("x")', "a,b\r\nc", '"', "'\t", "日本\u2028語", "'-abc", "'\0"),
    ]


def test_a_header_cannot_be_a_formula_either(tmp_path: Path) -> None:
    out = write(tmp_path / "run", labelled(0, **{"=cmd": "x"}))
    exported(out, tmp_path / "t.csv")
    assert "'=cmd" in read(tmp_path / "t.csv")[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_disk_leaves_no_file_and_keeps_the_old_one(tmp_path: Path, suffix: str) -> None:
    out = write(tmp_path / "run", *(result(row) for row in range(9)))
    to = tmp_path / f"t{suffix}"
    to.write_bytes(b"old")
    for at in range(1, 5):
        with pytest.raises(SinkBroken, match=r"No space left.* still does"):
            exported(out, to, Disk(fail_at=at, error=errno.ENOSPC), force=True)
        assert to.read_bytes() == b"old"
        assert not to.with_name(to.name + ".partial").exists()


def test_a_name_that_may_not_last_is_told(tmp_path: Path) -> None:
    out, disk = write(tmp_path / "run", result(0)), Disk()
    exported(out, tmp_path / "t.csv", disk)
    for at in range(1, disk.operations + 1):
        (tmp_path / "t.csv").unlink(missing_ok=True)
        try:
            exported(out, tmp_path / "t.csv", Disk(fail_at=at))
        except SinkBroken as error:
            last = str(error)
    assert "may not outlast a crash" in last


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kill_at_any_operation_leaves_the_old_file_or_the_new_one(tmp_path: Path, suffix: str) -> None:
    out = write(tmp_path / "run", *(result(row) for row in range(9)))
    to = tmp_path / f"t{suffix}"
    for at in range(50):
        disk = Disk(crash_at=at)
        try:
            exported(out, to, disk)
        except PowerCutError:
            disk.abandon()
            assert not to.exists() or len(read(to)) == 9
            to.unlink(missing_ok=True)
        else:
            assert at > 4
            return


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    out = write(tmp_path / "run", result(0))
    to = tmp_path / "t.csv"
    to.write_text("mine")
    with pytest.raises(FolderInUse, match="--force"):
        exported(out, to)
    assert to.read_text() == "mine"
    exported(out, to, force=True)
    assert len(read(to)) == 1


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("t.xlsx", {}, ConfigError, "must end in"),
        ("t.jsonl", {"csv_raw": True}, ConfigError, "--csv-raw"),
        ("run/t.csv", {}, ConfigError, "inside the run folder"),
        ("nowhere/t.csv", {}, FolderInUse, "no folder"),
        ("folder.csv", {"force": True}, FolderInUse, "is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    tmp_path: Path, name: str, options: dict[str, bool], kind: type[Exception], words: str
) -> None:
    out = write(tmp_path / "run", result(0))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(kind, match=words):
        export(out, tmp_path / name, options=ExportOptions(**options))


def test_without_pyarrow_the_way_to_get_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "run", result(0))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'reelbatch\[parquet\]'"):
        exported(out, tmp_path / "t.parquet")
    exported(out, tmp_path / "t.csv")


def test_a_run_in_progress_is_exported_as_far_as_it_is_committed(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as sink:
        sink.put(result(1))
        sink.commit()
        sink.put(result(0))
        assert exported(tmp_path / "run", tmp_path / "t.csv").rows == 1


def test_a_damaged_line_is_named_and_no_file_is_made(tmp_path: Path) -> None:
    out = write(tmp_path / "run", result(0), result(3))
    shard = out / "results" / "shard-00000.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b'"row":3', b'"row":4'))
    with pytest.raises(SinkBroken, match=r"shard-00000\.jsonl: the committed line at byte"):
        exported(out, tmp_path / "t.csv")
    with shard.open("r+b") as file:
        file.truncate(10)
    with pytest.raises(SinkBroken, match="committed bytes are missing"):
        exported(out, tmp_path / "t.csv")
    shard.unlink()
    with pytest.raises(SinkBroken, match="cannot be opened"):
        exported(out, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_while_answers_are_withdrawn_nothing_is_exported(tmp_path: Path) -> None:
    out = write(tmp_path / "run", result(0))
    (out / "checkpoint" / "withdrawal").touch()
    with pytest.raises(FolderInUse, match="being withdrawn"):
        exported(out, tmp_path / "t.csv")
