"""Rows from files of every kind."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from engine.errors import ConfigError, InputError
from engine.source import RowReader, SourceConfig, choose_columns, describe_input
from engine.types import Failure, Record, Row
from tests.fakes.commands import ROOT


def read(path: Path, *, done: Sequence[int] = (), batch_size: int = 7, **settings: object) -> list[Row | Record]:
    config = SourceConfig(path=path, **settings)  # type: ignore[arg-type]  # names are checked by the dataclass
    items: list[Row | Record] = []
    with RowReader(config, is_done=lambda row: row in done, batch_size=batch_size) as reader:
        while batch := reader.next_batch():
            assert len(batch) <= batch_size
            items += batch
        assert reader.rows_total()[1]
    return items


def rows(path: Path, **settings: object) -> list[Row]:
    items = read(path, **settings)  # type: ignore[arg-type]  # as `read`
    assert all(isinstance(item, Row) for item in items), items
    return [item for item in items if isinstance(item, Row)]


def trouble(items: Sequence[Row | Record]) -> dict[int, str]:
    return {
        item.row: item.outcome.message
        for item in items
        if isinstance(item, Record) and isinstance(item.outcome, Failure)
    }


def write(path: Path, data: bytes) -> Path:
    match path.suffix:
        case ".gz":
            data = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
        case ".zst":
            pack = zstandard.ZstdCompressor().compress
            data = pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])
    path.write_bytes(data)
    return path


TABLE = "meta_id,subtitle,meta_desc\n0012,hello 世界,first\n7123456789012345678,,second 😀\n123.0,x,third\n"
OBJECTS = (
    '{"meta_id":"0012","subtitle":"hello 世界","meta_desc":"first"}\n'
    '{"meta_id":7123456789012345678,"subtitle":"","meta_desc":"second 😀"}\n\n'
    '{"meta_id":123.0,"subtitle":"x","meta_desc":"third"}\n'
)


def arrow(path: Path) -> Path:
    columns = {
        "meta_id": ["0012", "7123456789012345678", "123.0"],
        "subtitle": ["hello 世界", "", "x"],
        "meta_desc": ["first", "second 😀", "third"],
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("t.csv", lambda path: write(path, TABLE.encode())),
        ("t.csv.gz", lambda path: write(path, TABLE.encode())),
        ("t.csv.zst", lambda path: write(path, TABLE.encode())),
        ("t.CSV", lambda path: write(path, TABLE.encode())),
        ("bom.csv", lambda path: write(path, b"\xef\xbb\xbf" + TABLE.encode())),
        ("crlf.csv", lambda path: write(path, TABLE.replace("\n", "\r\n").encode())),
        ("noend.csv", lambda path: write(path, TABLE.rstrip("\n").encode())),
        ("t.tsv", lambda path: write(path, TABLE.replace(",", "\t").encode())),
        ("t.jsonl", lambda path: write(path, OBJECTS.encode())),
        ("t.ndjson", lambda path: write(path, OBJECTS.encode())),
        ("t.jsonl.gz", lambda path: write(path, OBJECTS.encode())),
        ("t.jsonl.zst", lambda path: write(path, OBJECTS.encode())),
        ("t.parquet", arrow),
    ],
)
def test_every_format_gives_the_same_rows_with_ids_to_the_letter(
    tmp_path: Path, name: str, make: Callable[[Path], Path]
) -> None:
    found = rows(make(tmp_path / name))
    assert [(row.row, row.id) for row in found] == [(0, "0012"), (1, "7123456789012345678"), (2, "123.0")]
    assert found[0].fields == {"transcript": "hello 世界", "description": "first"}
    assert found[1].fields["description"] == "second 😀"


def test_quoted_newlines_and_quotes_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b'id,description\n1,"two\nlines, and ""quotes"""\n2,"\r\n"\n')
    assert [row.fields["description"] for row in rows(path)] == ['two\nlines, and "quotes"', "\r\n"]


def test_whole_numbers_in_parquet_keep_their_digits_and_floats_are_refused_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": pa.array([7123456789012345678, 12], pa.int64()), "description": ["a", None]}), path)
    assert [row.id for row in rows(path)] == ["7123456789012345678", "12"]
    assert rows(path)[1].fields == {}
    pq.write_table(pa.table({"id": [7.1e18, 12.0]}), path)
    with pytest.raises(InputError, match="floats"):
        rows(path)


def test_integers_beyond_64_bits_keep_their_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", b'{"id":99999999999999999999999999}\n{"id":1e400}\n')
    assert [row.id for row in rows(path)] == ["99999999999999999999999999", "1e400"]


def test_a_broken_row_names_its_line_and_the_others_go_on(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        b'id,description\n1,"a\nb"\n2,x,more\n3\n4,\xff\n,noid\n6,ok\n7,"' + b"z" * ((1 << 20) + 1) + b'"\n8,y\n',
    )
    items = read(path)
    assert trouble(items) == {
        1: "line 4: 3 fields, the header has 2",
        2: "line 5: 1 fields, the header has 2",
        3: "line 6: not UTF-8",
        4: "line 7: the id is empty",
        6: "line 9: field larger than field limit (1048576)",
    }
    assert [item.row for item in items if isinstance(item, Row)] == [0, 5, 7]


def test_a_broken_object_names_its_line_and_the_others_go_on(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", b'{"id":1}\n\n[1]\n{"id":\n{"id":"\xff"}\n{"other":1}\n{"id":6}\n')
    items = read(path)
    assert trouble(items) == {
        1: "line 3: no JSON object",
        2: "line 4: no JSON object",
        3: "line 5: not UTF-8",
        4: "line 6: the id is empty",
    }
    assert [item.id for item in items if isinstance(item, Row)] == ["1", "6"]


@pytest.mark.parametrize(
    ("name", "data", "kind", "words"),
    [
        ("t.csv", b"", InputError, "empty"),
        ("t.csv", b"\n\n", InputError, "empty"),
        ("t.jsonl", b"", InputError, "empty"),
        ("t.jsonl", b"id,text\n1,2\n", InputError, "line 1 is no JSON object"),
        ("t.csv", b"title,text\n1,2\n", InputError, "no id column"),
        ("t.csv", b"id,id\n1,2\n", InputError, "more than one column"),
        ("t.csv", "id,description\n1,a\n".encode("utf-16"), InputError, "UTF-16"),
        ("t.csv", b"\xff\x00\xfe" * 30, InputError, "no readable header"),
        ("t.csv.gz", b"no gzip", InputError, "cannot be read"),
        ("t.csv.zst", b"no zstd", InputError, "cannot be read"),
        ("t.csv.gz", b"", InputError, "empty"),
        ("t.parquet", b"no parquet", InputError, "no readable Parquet"),
        ("t.txt", b"id\n1\n", ConfigError, "unknown kind"),
        ("t", b"id\n1\n", ConfigError, "unknown kind"),
    ],
)
def test_a_file_that_is_no_table_is_refused_before_anything_else(
    tmp_path: Path, name: str, data: bytes, kind: type[ConfigError], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(kind, match=words) as raised:
        describe_input(SourceConfig(path=path))
    assert type(raised.value) is kind
    with pytest.raises(kind):
        rows(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.csv", "no such file"), (tmp_path, "not a regular file")):
        with pytest.raises(ConfigError, match=words):
            describe_input(SourceConfig(path=path))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="not a regular file"):
        describe_input(SourceConfig(path=tmp_path / "pipe.csv"))


def test_a_compressed_file_that_breaks_off_says_after_which_line(tmp_path: Path) -> None:
    text = b"id,description\n" + b"".join(b"%d,%d\n" % (row, row * 7919) for row in range(5000))
    whole = gzip.compress(text)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot be read past line \d{3,}"):
        read(path)


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "t.csv", b"id,description\n")) == []


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("meta_id,subtitle,meta_desc", {"id": 0, "transcript": 1, "description": 2}),
        ("video_id,ID,description,Transcript", {"id": 1, "description": 2, "transcript": 3}),
        ("tt_video_id,transcript,subtitle_en", {"id": 0, "transcript": 2}),
        ("yt_video_id,long_desc,short_desc", {"id": 0, "description": 1}),
        ("id,subtitle_desc,processed_desc", {"id": 0, "transcript": 1, "description": 2}),
        ("id,stickersonitem_stickertext,video", {"id": 0, "embedded_text": 1, "video": 2}),
        ("id, embedded_text ", {"id": 0, "embedded_text": 1}),
    ],
)
def test_columns_are_found_by_the_names_of_the_pipeline_users_come_from(header: str, chosen: dict[str, int]) -> None:
    assert choose_columns(SourceConfig(path=Path("t.csv")), tuple(header.split(","))) == chosen


def test_flags_override_the_names(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"id,key,description,words,text\n1,k,d,w,t\n")
    named = {
        "id_column": "KEY",
        "description_column": "words",
        "transcript_column": "text",
        "embedded_text_column": "id",
    }
    (row,) = rows(path, **named)
    assert row.id == "k"
    assert row.fields == {"description": "w", "transcript": "t", "embedded_text": "1"}
    with pytest.raises(ConfigError, match="--transcript-column speech: no such column"):
        rows(path, transcript_column="speech")


def test_further_columns_come_along_and_do_not_make_it_another_input(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"meta_id,Hate,desc\n1,yes,x\n2,,y\n")
    found = rows(path, carried=(("gold:hate_speech", "hate"),))
    assert [row.fields for row in found] == [
        {"description": "x", "gold:hate_speech": "yes"},
        {"description": "y", "gold:hate_speech": ""},
    ]
    plain = describe_input(SourceConfig(path=path))
    assert describe_input(SourceConfig(path=path, carried=(("gold:hate_speech", "hate"),))) == plain
    with pytest.raises(ConfigError, match="love: no such column; there are meta_id, Hate, desc"):
        rows(path, carried=(("gold:love", "love"),))


def test_skip_and_limit_keep_ordinals_and_done_rows_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"id\n" + b"".join(b"%d\n" % row for row in range(50)))
    assert [row.row for row in rows(path, skip=10, limit=5)] == [10, 11, 12, 13, 14]
    assert [row.row for row in rows(path, skip=45, limit=0)] == [45, 46, 47, 48, 49]
    assert [row.row for row in rows(path, skip=10, limit=5, done=(11, 13))] == [10, 12, 14]
    assert rows(path, skip=60) == []
    with pytest.raises(ConfigError):
        SourceConfig(path=path, skip=-1)


def test_the_number_of_rows_is_judged_while_reading_and_known_at_the_end(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", b"id,description\n" + b"%06d,some text of this row\n" * 200_000 % tuple(range(200_000))
    )
    with RowReader(SourceConfig(path=path), is_done=lambda _: False) as reader:
        reader.next_batch()
        for _ in range(20):
            reader.next_batch()
        guess, known = reader.rows_total()
        assert not known
        while reader.next_batch():
            pass
        assert reader.rows_total() == (200_000, True)
    assert 0.1 < guess / 200_000 <= 10


def test_an_edit_changes_the_identity_and_an_appended_file_keeps_its_first_digests(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    piece = b"x" * 62 + b",\n"
    with path.open("wb") as file:
        file.write(b"id,description\n")
        for _ in range(70):
            file.write(piece * (1 << 14))
    before = describe_input(SourceConfig(path=path))
    with path.open("ab") as file:
        file.write(b"1,more\n")
    after = describe_input(SourceConfig(path=path))
    first, second = before["sha256_per_64_mib"], after["sha256_per_64_mib"]
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert (len(first), first[0] == second[0], first[1] == second[1]) == (2, True, False)
    assert before["columns"] == {"id": "id", "description": "description"}
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"y")
    edited = describe_input(SourceConfig(path=path))["sha256_per_64_mib"]
    assert isinstance(edited, list)
    assert edited[0] != first[0]


CHATS = (
    '{"meta_id": "0012", "messages": [{"role": "user", "content": "世界"}]}\n'
    "\n"
    '{"messages": [], "meta_id": null}\r\n'
    '{"meta_id": 7531309745475554591.0, "score": NaN}\n'
    "no JSON\n"
    '["no object"]\n'
    '{"meta_id": 99999999999999999999, "a": "\\ud800"}\n'
    '{"meta_id": ""}'
)


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz", "t.jsonl.zst"])
def test_whole_lines_are_rows_with_the_id_inside_them_or_else_their_position(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, CHATS.encode())
    items = read(path, whole_lines=True)
    found = [(item.row, item.id) for item in items if isinstance(item, Row)]
    assert found == [(0, "0012"), (1, "1"), (2, "7531309745475554591.0"), (5, "99999999999999999999"), (6, "6")]
    lines = [line for line in CHATS.replace("\r", "").split("\n") if line]
    for item in items:
        if isinstance(item, Row):
            assert {key: text.rstrip("\r\n") for key, text in item.fields.items()} == {"line": lines[item.row]}
    assert trouble(items) == {3: "line 5: no JSON object", 4: "line 6: no JSON object"}
    assert describe_input(SourceConfig(path=path, whole_lines=True))["columns"] == {"id": "meta_id", "line": "line"}


def test_a_long_line_is_a_row_within_the_bound_and_a_failure_beyond_it(tmp_path: Path) -> None:
    long = b'{"meta_id":"a","x":"%b"}\n'
    path = write(tmp_path / "t.jsonl", long % (b"x" * (9 << 20)) + long % (b"x" * (5 << 20)) + b'{"meta_id":"c"}\n')
    items = read(path, whole_lines=True, max_line_bytes=8 << 20)
    assert trouble(items) == {0: f"line 1: longer than {8 << 20} bytes"}
    assert [(item.id, len(item.fields["line"])) for item in items[1:] if isinstance(item, Row)] == [
        ("a", (5 << 20) + len(long) - 2),
        ("c", 16),
    ]
    assert set(trouble(read(path, whole_lines=True))) == {0, 1}, "without a bound of its own the usual one holds"


def test_a_batch_of_long_lines_ends_early(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", (b'{"x":"%b"}\n' % (b"x" * (3 << 20))) * 5)
    with RowReader(SourceConfig(path=path, whole_lines=True), is_done=lambda _: False) as reader:
        sizes = []
        while batch := reader.next_batch():
            sizes.append(len(batch))
    assert sizes == [2, 2, 1]


def test_whole_lines_of_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        describe_input(SourceConfig(path=write(tmp_path / "t.jsonl", b""), whole_lines=True))


MEASURE = """\
import re, sys
from pathlib import Path
from engine.source import RowReader, SourceConfig
with RowReader(SourceConfig(path=Path(sys.argv[1])), is_done=lambda _: False) as reader:
    while reader.next_batch():
        pass
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    peaks_kb = []
    for count in (6_000, 60_000):
        path = tmp_path / f"{count}-{name}"
        text = "words " * 400
        if name == "t.parquet":
            pq.write_table(
                pa.table({"id": [str(row) for row in range(count)], "description": [text] * count}),
                path,
                row_group_size=5_000,
            )
        elif name == "t.jsonl":
            write(path, b"".join(b'{"id":"%d","description":"%b"}\n' % (row, text.encode()) for row in range(count)))
        else:
            write(path, b"id,description\n" + b"".join(b"%d,%b\n" % (row, text.encode()) for row in range(count)))
        said = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        peaks_kb.append(int(said.stdout))
    assert peaks_kb[1] < peaks_kb[0] + 40_000


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(b"id,description\n1,")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert trouble(items)
