"""Whether an input is still what it was."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError, ResumeMismatch
from engine.inputs import CHUNK_BYTES, Comparison, Resumption, Watch, compare
from engine.marks import Marks
from engine.source import RowReader, SourceConfig, describe_input
from engine.types import Record, Row

HEAD = b"id,description\n"


def lines(start: int, end: int) -> bytes:
    return b"".join(b"%06d,row %d\n" % (row, row) for row in range(start, end))


def described(path: Path) -> dict[str, Any]:
    """As it comes back from `run.json`."""
    return dict(json.loads(json.dumps(describe_input(SourceConfig(path=path)))))


def all_rows(path: Path, known: Resumption, done: int = 0) -> list[Row | Record]:
    items: list[Row | Record] = []
    with RowReader(SourceConfig(path=path), is_done=lambda row: row < done, resume=known) as reader:
        while batch := reader.next_batch():
            items += batch
    return items


def marks_of(path: Path) -> Marks:
    marks = Marks()
    all_rows(path, Resumption(marks=marks))
    return Marks(json.loads(json.dumps(marks.as_json())))


def changed(path: Path, change: Callable[[Path], object]) -> Comparison:
    before, marks = described(path), marks_of(path) if path.suffix in {".csv", ".jsonl"} else Marks()
    change(path)
    return compare(path, before, described(path), marks=marks)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(HEAD + lines(0, 10_000))
    return path


def append(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes() + data)


def replace(old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


def test_the_same_bytes_are_the_same_input_wherever_and_whenever_they_were_written(table: Path) -> None:
    before = described(table)
    moved = table.rename(table.with_name("moved.csv"))
    os.utime(moved, ns=(1, 1))
    assert compare(moved, before, described(moved), marks=Marks()) == Comparison()


def test_an_unmoved_file_is_not_read_as_a_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(HEAD + lines(0, 100))
        file.truncate(2 * CHUNK_BYTES + 1000)
    before = described(path)
    told = before | {"sha256_per_64_mib": [before["sha256_per_64_mib"][0], "?", before["sha256_per_64_mib"][2]]}
    config = SourceConfig(path=path)
    assert describe_input(config, known=told)["sha256_per_64_mib"] == told["sha256_per_64_mib"]
    os.utime(path, ns=(1, 1))
    assert describe_input(config, known=told) == before | {"mtime_ns": 1}
    ends_differ = told | {"mtime_ns": 1, "sha256_per_64_mib": ["?", *told["sha256_per_64_mib"][1:]]}
    assert describe_input(config, known=ends_differ) == before | {"mtime_ns": 1}


@pytest.mark.parametrize("more", [lines(10_000, 10_010), b"\n\n7,x\n", b"7,x", b"\n", b"7,\xff\n"])
def test_rows_added_at_the_end_are_told_from_an_edit(table: Path, more: bytes) -> None:
    found = changed(table, append(more))
    assert found.grown
    assert "--extend" in found.differences[0]


@pytest.mark.parametrize("more", [b"\n7,x\n", b"\r\n7,x\n", b"\n"])
def test_a_last_line_that_only_got_its_newline_is_not_edited(table: Path, more: bytes) -> None:
    table.write_bytes(table.read_bytes().rstrip(b"\n"))
    assert changed(table, append(more)).grown


@pytest.mark.parametrize("more", [b"7\n", b'"\n7,x\n', b" \n", b",1\n7,x\n"])
def test_a_last_line_without_newline_that_was_continued_is_an_edit(table: Path, more: bytes) -> None:
    table.write_bytes(table.read_bytes().rstrip(b"\n"))
    found = changed(table, append(more))
    assert not found.grown
    assert "last row was not finished" in found.differences[0]


def test_a_quote_left_open_and_closed_by_what_was_added_is_an_edit(table: Path) -> None:
    append(b'10000,"open\n10001,x\n10002,y\n')(table)
    assert changed(table, append(b"10003,z\n")).grown
    assert not changed(table, append(b'10004,"\n10005,a\n')).grown


def test_an_edit_names_its_rows_and_bytes(table: Path) -> None:
    found = changed(table, replace(b"row 5000\n", b"row 5001\n"))
    assert not found.grown
    assert "was edited: rows 4,096 to 8,191 differ, somewhere in bytes 64,441 to 129,977" in found.differences[0]


def test_an_edit_past_the_last_mark_names_its_bytes(table: Path) -> None:
    size = table.stat().st_size
    found = changed(table, replace(b"row 9999\n", b"row 9998\n"))
    assert found.differences == (f"input.sha256_per_64_mib: {table} was edited: bytes 0 to {size:,} differ",)


def test_rows_in_another_order_are_an_edit(table: Path) -> None:
    found = changed(table, lambda path: path.write_bytes(HEAD + lines(5000, 10_000) + lines(0, 5000)))
    assert "rows 0 to 4,095 differ" in found.differences[0]


def test_a_shorter_file_is_said_to_be_shorter(table: Path) -> None:
    found = changed(table, lambda path: path.write_bytes(HEAD + lines(0, 9000)))
    assert "is shorter: it was cut, or edited" in found.differences[0]
    assert not found.grown


def test_an_edit_that_also_grew_the_file_is_an_edit(table: Path) -> None:
    append(lines(10_000, 10_001))(table)
    found = changed(table, lambda path: path.write_bytes(HEAD + lines(1, 20_000)))
    assert not found.grown
    assert "rows 0 to 4,095 differ" in found.differences[0]


def test_a_changed_header_and_chosen_column_are_named(table: Path) -> None:
    found = changed(table, replace(b"id,description", b"id,processed_desc,x"))
    assert "input.columns.description: the run has 'description', now it is 'processed_desc'" in found.differences
    assert "input.header: the columns are other ones: without description and with the new processed_desc, x" in (
        found.differences
    )
    assert not found.grown


def test_the_pieces_before_the_first_that_differs_are_not_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(HEAD + lines(0, 100))
        file.truncate(2 * CHUNK_BYTES + 1000)
    before = described(path)
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"x")
    assert (
        "was edited: bytes 67,108,864 to 134,217,728 differ"
        in compare(path, before, described(path), marks=Marks()).differences[0]
    )


def test_new_keys_of_objects_that_were_added_are_no_other_header(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id":"1"}\n')
    assert changed(path, append(b'{"id":"2","colour":"red"}\n')).grown
    found = changed(path, append(b'{"id":"2","transcript":"new"}\n'))
    assert not found.grown
    assert "input.columns.transcript: the run has None, now it is 'transcript'" in found.differences


def test_files_that_cannot_grow_row_by_row_are_not_extended(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(HEAD + lines(0, 10)))
    found = changed(path, append(gzip.compress(lines(10, 20))))
    assert not found.grown
    assert "only .csv, .tsv and .jsonl files may grow" in found.differences[0]


def test_an_input_that_run_json_does_not_describe_is_refused(table: Path) -> None:
    for old in ({}, {"size_bytes": 3, "sha256_per_64_mib": []}):
        assert "cannot be compared" in compare(table, old, described(table), marks=Marks()).differences[0]


@pytest.mark.parametrize(
    "kept",
    [
        None,
        [],
        {"rows": 2, "places": []},
        {"rows": 4096, "places": [[5, 1, 0], [5, 2, 0]]},
        {"rows": 4096, "places": [[1, 2]]},
        {"rows": 4096, "places": ["x"]},
    ],
)
def test_marks_that_cannot_be_are_no_marks(kept: object) -> None:
    assert len(Marks(kept)) == 0


def test_reading_from_a_mark_leaves_what_is_before_it_unread(table: Path) -> None:
    marks = marks_of(table)
    with table.open("r+b") as file:
        file.seek(len(HEAD))
        file.write(b"\n" * 60_000)
    items = all_rows(table, Resumption(first_open=9000, marks=marks), done=9000)
    assert [item.row for item in items] == list(range(9000, 10_000))
    assert items[0].id == "009000"


def test_row_groups_that_are_done_are_left_unread(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [str(row) for row in range(1000)]}), path, row_group_size=300)
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    with path.open("r+b") as file:
        file.seek(group.dictionary_page_offset or group.data_page_offset)
        file.write(b"\0" * 50)
    for first in (600, 750, 999, 1000, 2000):
        assert [item.id for item in all_rows(path, Resumption(first_open=first), done=first)] == [
            str(row) for row in range(first, 1000)
        ]
    with pytest.raises(InputError, match="cannot be read past row"):
        all_rows(path, Resumption(first_open=350))


def watching(path: Path, change: Callable[[Path], object], *, batches: int = 1) -> tuple[RowReader, list[int]]:
    """Read a few batches, change the file, read the rest."""
    reader = RowReader(SourceConfig(path=path), is_done=lambda _: False, resume=Resumption(identity=described(path)))
    rows: list[int] = []
    with reader:
        for _ in range(batches):
            rows += [item.row for item in reader.next_batch()]
        change(path)
        while batch := reader.next_batch():
            rows += [item.row for item in batch]
    return reader, rows


def over(data: bytes, at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    return change


def by_rename(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """As editors save: a new file takes the place of the old one."""

    def swap(path: Path) -> None:
        other = path.with_name("other.csv")
        other.write_bytes(path.read_bytes())
        change(other)
        other.replace(path)

    return swap


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (over(b"X", 100_000), "was edited"),
        (lambda path: os.truncate(path, 100_000), "is shorter"),
        (lambda path: path.write_bytes(b""), "is shorter"),
        (by_rename(over(b"X", 20)), "was edited"),
        (by_rename(lambda path: path.write_bytes(HEAD + lines(1, 20_000))), "was edited"),
        (lambda path: path.unlink(), "is gone"),
    ],
)
def test_a_file_changed_while_it_is_read_ends_the_run(
    table: Path, change: Callable[[Path], object], words: str
) -> None:
    with pytest.raises(ResumeMismatch, match=words) as raised:
        watching(table, change)
    assert "during the run" in str(raised.value)
    assert "safe" in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [append(lines(10_000, 10_010)), by_rename(append(lines(10_000, 10_010))), over(lines(10_000, 10_001), 158_905)],
)
def test_what_is_appended_while_a_file_is_read_is_left_for_later(table: Path, change: Callable[[Path], object]) -> None:
    assert table.stat().st_size == 158_905
    reader, rows = watching(table, change, batches=3)
    assert rows == list(range(10_000))
    assert reader.grown
    assert reader.rows_total() == (10_000, True)


@pytest.mark.parametrize("change", [lambda path: os.utime(path, ns=(1, 1)), by_rename(lambda _: None)])
def test_a_file_that_was_only_touched_or_put_back_is_read_on(table: Path, change: Callable[[Path], object]) -> None:
    reader, rows = watching(table, change)
    assert rows == list(range(10_000))
    assert not reader.grown


def test_a_file_that_grows_all_the_time_is_compared_twice_and_an_edit_is_still_noticed(table: Path) -> None:
    watch = Watch(table, described(table))
    for _ in range(5):
        append(b"1,x\n")(table)
        watch.check()
    watch.check(last=True)
    assert watch.grown
    append(b"1,x\n")(table)
    over(b"X", 20)(table)
    with pytest.raises(ResumeMismatch, match="was edited"):
        watch.check(last=True)


def test_a_file_that_grew_between_its_description_and_its_reading_ends_where_it_ended(tmp_path: Path) -> None:
    for name, pack in (("t.csv", bytes), ("t.csv.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(pack(HEAD + lines(0, 10)))
        known = Resumption(identity=described(path))
        append(pack(lines(10, 20)))(path)
        assert len(all_rows(path, known)) == 10
