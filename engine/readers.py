"""One reader per file format: a header and a lazy stream of records.

A record is a sequence of cells in header order (None where the format knows "no value"), or a string that says where
and why it is broken. Every reader goes on after a broken record.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import zstandard

from engine.errors import ConfigError, InputError

Cells = Sequence[str | None]

MAX_CELL_CHARS = 1 << 20
"""A longer cell is an unterminated quote or an attack, not a transcript."""
MAX_COLUMNS = 1000
PARQUET_BATCH_ROWS = 1024
BOM = "\ufeff"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(slots=True)
class Table:
    """An open input. `records` is consumed once."""

    header: tuple[str, ...]
    records: Iterator[Cells | str]
    place: Place
    share_read: Callable[[], float]
    """How much of the file's bytes, from 0 to 1, has been read."""
    passed: int = 0
    """Records taken from `records` so far."""
    float_columns: frozenset[str] = frozenset()
    """Columns whose values have lost their letters: no place for ids."""


@dataclass(slots=True)
class Place:
    """Where reading has got to, in the words of the format."""

    word: str = "line"
    number: int = 0

    def __call__(self) -> str:
        return f"{self.word} {self.number}"


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open by suffix: .csv, .tsv, .jsonl, .ndjson (also .gz, .zst), .parquet.

    Raises:
        ConfigError: the suffix is unknown, or a library for it is missing.
        InputError: the file is empty or not what its suffix says.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".parquet"]:
        with _parquet(path) as table:
            yield table
        return
    packed = suffixes.pop() if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    kind = suffixes[-1] if suffixes else ""
    if kind not in TEXT_SUFFIXES:
        raise ConfigError(f"--input {path}: unknown kind of file; take .csv, .tsv, .jsonl (also .gz, .zst) or .parquet")
    with path.open("rb") as raw, _unpacked(raw, packed) as file:
        lines = _Lines(file, path, share_read=_share_read(raw, path.stat().st_size))
        if kind in {".jsonl", ".ndjson"}:
            yield _jsonl(lines)
        else:
            yield _delimited(lines, "\t" if kind == ".tsv" else ",")


def _share_read(raw: BinaryIO, size: int) -> Callable[[], float]:
    return lambda: min(1.0, raw.tell() / size) if size else 1.0


@contextmanager
def _unpacked(raw: BinaryIO, packed: str) -> Iterator[BinaryIO]:
    if packed == ".gz":
        with gzip.GzipFile(fileobj=raw) as file:
            yield cast("BinaryIO", file)
    elif packed == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
            yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", reader)))
    else:
        yield raw


class _Lines:
    """Physical lines as text. Bytes that are no UTF-8 become lone surrogates, which `is_broken` finds again."""

    def __init__(self, file: BinaryIO, path: Path, *, share_read: Callable[[], float]) -> None:
        self._file = file
        self.path = path
        self.share_read = share_read
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._bounded():
                self.number += 1
                text = line.decode("utf-8", "surrogateescape")
                if self.number == 1:
                    if line.startswith(UTF16_MARKS):
                        raise InputError(f"{self.path} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT")
                    text = text.removeprefix(BOM)
                yield text
        except (OSError, EOFError, zstandard.ZstdError) as error:
            raise InputError(f"{self.path} cannot be read past line {self.number}: {error}") from error

    def _bounded(self) -> Iterator[bytes]:
        """Lines of at most a cell's length at a time, so that a file without line ends cannot fill the memory."""
        while line := self._file.readline(MAX_CELL_CHARS * 4):
            yield line


def is_broken(text: str) -> bool:
    """Whether the text holds bytes that were no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _delimited(lines: _Lines, delimiter: str) -> Table:
    # Process-wide in the csv module; this is the only place that reads delimited files.
    csv.field_size_limit(MAX_CELL_CHARS)
    rows = csv.reader(iter(lines), delimiter=delimiter)
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise InputError(f"{lines.path} has no readable header: {error}") from error
    if header is None:
        raise InputError(f"{lines.path} is empty; it needs a header line and one line a row")
    if len(header) > MAX_COLUMNS or any(is_broken(name) for name in header):
        raise InputError(f"{lines.path} has no readable header: is it a text file in UTF-8?")
    place = Place()
    return Table(
        header=tuple(header),
        records=_delimited_records(rows, len(header), place),
        place=place,
        share_read=lines.share_read,
    )


def _delimited_records(rows: Any, width: int, place: Place) -> Iterator[Cells | str]:
    while True:
        first_line = rows.line_num + 1
        try:
            for row in rows:
                place.number = first_line
                if len(row) == width:
                    yield row if not any(map(is_broken, row)) else f"line {first_line}: not UTF-8"
                elif row:
                    yield f"line {first_line}: {len(row)} fields, the header has {width}"
                first_line = rows.line_num + 1
        except csv.Error as error:
            yield f"line {first_line}: {error}"
        else:
            return


def _jsonl(lines: _Lines) -> Table:
    stream = iter(lines)
    first = next((line for line in stream if line.strip()), None)
    if first is None:
        raise InputError(f"{lines.path} is empty; it needs one JSON object a line")
    opening = _object(first)
    if opening is None:
        raise InputError(f"{lines.path} line {lines.number} is no JSON object; is it a .jsonl file?")
    header, place = tuple(opening), Place()
    return Table(
        header=header,
        records=_jsonl_records(first, stream, lines, header, place),
        place=place,
        share_read=lines.share_read,
    )


def _jsonl_records(
    first: str, stream: Iterator[str], lines: _Lines, header: tuple[str, ...], place: Place
) -> Iterator[Cells | str]:
    line: str | None = first
    while line is not None:
        place.number = lines.number
        if line.strip():
            said = _object(line)
            if is_broken(line):
                yield f"line {lines.number}: not UTF-8"
            elif said is None:
                yield f"line {lines.number}: no JSON object"
            else:
                yield [_cell(said.get(name)) for name in header]
        line = next(stream, None)


def _object(line: str) -> dict[str, Any] | None:
    """One JSON object with the letters of its numbers kept: `123.0` and a 19-digit float stay what was written."""
    try:
        said = orjson.loads(line)
        if isinstance(said, dict) and any(type(value) is float for value in said.values()):
            said = json.loads(line, parse_float=str)
    except (ValueError, RecursionError):
        try:
            said = json.loads(line, parse_float=str)  # integers beyond 64 bits
        except (ValueError, RecursionError):
            return None
    return said if isinstance(said, dict) else None


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@contextmanager
def _parquet(path: Path) -> Iterator[Table]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - 40 MB that only Parquet needs
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"--input {path}: Parquet needs pyarrow: pip install 'reelbatch[parquet]'") from error
    try:
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            floats = frozenset(name for name in names if pa.types.is_floating(file.schema_arrow.field(name).type))
            place = Place(word="row")
            yield Table(
                header=names,
                records=_parquet_records(file, names, place),
                place=place,
                share_read=lambda: place.number / max(1, file.metadata.num_rows),
                float_columns=floats,
            )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from error


def _parquet_records(file: Any, names: tuple[str, ...], place: Place) -> Iterator[Cells | str]:
    for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
        columns = [batch.column(at).to_pylist() for at in range(len(names))]
        for cells in zip(*columns, strict=True):
            place.number += 1
            yield [_cell(value) for value in cells]
