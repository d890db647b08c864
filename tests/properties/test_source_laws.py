"""What reading a table may never depend on, and never do."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.inputs import Resumption, compare
from engine.marks import Marks
from engine.source import RowReader, SourceConfig, describe_input
from engine.types import Record, Row

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
identities = cells.filter(lambda text: text != "")
tables = st.lists(st.tuples(identities, cells, cells), max_size=12)


def read(data: bytes, name: str, *, batch_size: int = 5, skip: int = 0, limit: int = 0) -> list[Row | Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        config = SourceConfig(path=path, skip=skip, limit=limit)
        items: list[Row | Record] = []
        with RowReader(config, is_done=lambda _: False, batch_size=batch_size) as reader:
            while batch := reader.next_batch():
                items += batch
        return items


def csv_bytes(table: list[tuple[str, str, str]], *, quoting: int = csv.QUOTE_ALL, end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]  # a constant of csv
    writer.writerow(["id", "transcript", "description"])
    writer.writerows(table)
    return text.getvalue().encode()


def as_rows(table: list[tuple[str, str, str]]) -> list[Row]:
    return [
        Row(row=at, id=identity, fields={"transcript": one, "description": two})
        for at, (identity, one, two) in enumerate(table)
    ]


DIALECTS = [(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\n")]
"""Without the fourth: the module leaves a lone carriage return unquoted there, which no reader can tell from an end."""


@given(tables, st.sampled_from(DIALECTS), st.integers(1, 9))
@settings(deadline=None)
def test_what_the_csv_module_writes_is_read_back(
    table: list[tuple[str, str, str]], dialect: tuple[int, str], batch_size: int
) -> None:
    quoting, end = dialect
    data = csv_bytes(table, quoting=quoting, end=end)
    assert read(data, "t.csv", batch_size=batch_size) == as_rows(table)
    assert read(gzip.compress(data), "t.csv.gz", batch_size=batch_size) == as_rows(table)


@given(tables.filter(bool))
@settings(deadline=None)
def test_objects_are_read_back(table: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps(dict(zip(("id", "transcript", "description"), row, strict=True))) for row in table]
    assert read("\n".join(lines).encode(), "t.jsonl") == as_rows(table)


@given(tables, st.integers(0, 14), st.integers(0, 14))
@settings(deadline=None)
def test_skip_and_limit_are_a_slice(table: list[tuple[str, str, str]], skip: int, limit: int) -> None:
    expected = as_rows(table)[skip : skip + limit if limit else None]
    assert read(csv_bytes(table), "t.csv", skip=skip, limit=limit) == expected


@given(st.binary(max_size=300), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.jsonl.zst", "t.parquet"]))
@settings(deadline=None)
def test_any_bytes_are_rows_or_an_error_of_ours(data: bytes, name: str) -> None:
    try:
        items = read(data, name)
    except ConfigError:
        return
    assert [item.row for item in items] == list(range(len(items)))


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_after_a_good_header_are_rows_or_failures(data: bytes) -> None:
    items = read(b"id,description\n" + data, "t.csv")
    assert [item.row for item in items] == list(range(len(items)))
    for item in items:
        assert isinstance(item, Row | Record)
        if isinstance(item, Row):
            assert item.id.encode()


@given(tables)
@settings(deadline=None)
def test_the_identity_follows_from_the_bytes(table: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "a.csv", Path(folder) / "b.csv"]
        for path in paths:
            path.write_bytes(csv_bytes(table))
        own = {"path", "mtime_ns"}
        one, other = (describe_input(SourceConfig(path=path)) for path in paths)
        assert {key: one[key] for key in one if key not in own} == {key: other[key] for key in other if key not in own}


records = st.one_of(
    st.builds(lambda text: b'"' + text.replace('"', '""').encode() + b'",x,y', cells.filter(bool)),
    st.sampled_from(
        [b"1,2,3", b"1", b"1,2,3,4", b"", b"\xff,x,y", b'1,"open', b'2,x"y,z', b'","', b"3,\r,x", b'"a\r\nb",,']
    ),
)
ends = st.sampled_from([b"\n", b"\r\n"])
csv_files = st.builds(
    lambda mark, end, lines, last: mark + b"id,transcript,description" + end + end.join(lines) + last,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    ends,
    st.lists(records, max_size=24),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)
objects = st.one_of(
    st.builds(lambda text: json.dumps({"id": text}).encode(), cells),
    st.sampled_from([b"", b"  ", b"[1]", b'{"id":', b'{"id":"\xff"}', b'{"id":7.0,"x":null}']),
)
jsonl_files = st.builds(
    lambda mark, lines, last: mark + b'{"id":"first"}\n' + b"\n".join(lines) + last,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(objects, max_size=24),
    st.sampled_from([b"", b"\n"]),
)


@given(st.one_of(st.tuples(st.just("t.csv"), csv_files), st.tuples(st.just("t.jsonl"), jsonl_files)), st.integers(1, 5))
@settings(deadline=None)
def test_reading_from_any_mark_gives_what_reading_from_the_start_gives_from_there_on(
    file: tuple[str, bytes], every: int
) -> None:
    name, data = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        config, marks = SourceConfig(path=path), Marks(every_rows=every)
        whole = all_of(RowReader(config, is_done=lambda _: False, resume=Resumption(marks=marks)))
        assert len(marks) == -(-len(whole) // every)
        for first in range(len(whole) + 2):
            known = Resumption(first_open=first, marks=Marks(json.loads(json.dumps(marks.as_json())), every_rows=every))
            reader = RowReader(config, is_done=range(first).__contains__, resume=known)
            assert all_of(reader) == whole[first:]
            assert reader.rows_total() == (len(whole), True)


@given(csv_files, st.binary(max_size=40) | csv_files, st.integers(1, 5))
@settings(deadline=None)
def test_a_file_that_counts_as_grown_still_has_the_rows_it_had(data: bytes, more: bytes, every: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(data)
        config, marks = SourceConfig(path=path), Marks(every_rows=every)
        before, old = (
            describe_input(config),
            all_of(RowReader(config, is_done=lambda _: False, resume=Resumption(marks=marks))),
        )
        path.write_bytes(data + more)
        found = compare(path, before, describe_input(config), marks=marks)
        assert bool(found.differences) == bool(more)
        if found.grown:
            now = all_of(RowReader(config, is_done=lambda _: False))[: len(old)]
            # Why a row is broken may be said otherwise: an open quote at the end has become one before other text.
            assert [item if isinstance(item, Row) else item.row for item in now] == [
                item if isinstance(item, Row) else item.row for item in old
            ]


def all_of(reader: RowReader) -> list[Row | Record]:
    items: list[Row | Record] = []
    with reader:
        while batch := reader.next_batch():
            items += batch
    return items
