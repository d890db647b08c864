"""One reader per file format: a header and a lazy stream of records.

A record comes with its place in the file, as cells in the order asked for (None where the format knows "no value"), or
as a string that says why it is broken. Every reader goes on after a broken record:

- a physical line that is too long or no UTF-8 costs the record it is in, and is read to its end without being kept;
- a quote that is never closed costs the line it stands in: the lines after it are read again as records of their own.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import orjson
import zstandard

from engine.errors import ConfigError, InputError

Cells = Sequence[str | None]
Placed = tuple[str, Cells | str]
"""Where a record begins, in the words of the format; and its cells, or why it has none."""

MAX_CELL_CHARS = 1 << 20
"""A longer cell is an unterminated quote or an attack, not a transcript."""
MAX_LINE_BYTES = 4 << 20
"""A cell of the longest kind, in characters of four bytes."""
MAX_RECORD_CHARS = 2 * MAX_LINE_BYTES
"""A record of many lines: more is a quote that was never closed."""
MAX_COLUMNS = 1000
HEADER_LINES, HEADER_CHARS = 1000, 1 << 20
"""JSON has no header: the names are those of so many first lines, since writers leave out what a row does not have."""
PARQUET_BATCH_ROWS = 256
PARQUET_BUFFER_BYTES = 1 << 20
"""Without it a whole row group, often a whole file, is held."""
ZSTD_FEED_BYTES = 512
"""Four bytes may stand for 128 KiB, so this much for 16 MiB."""
BOM = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An open input."""

    header: tuple[str, ...]
    records: Callable[[Sequence[int]], Iterator[Placed]]
    """The records, with the cells of these columns. To be called once."""
    share_read: Callable[[], float]
    """How much of the file, from 0 to 1, has been read."""
    float_columns: frozenset[int] = frozenset()
    """Columns whose values have lost their letters: no place for ids."""


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open by suffix: .csv, .tsv, .jsonl, .ndjson (also .gz, .zst), .parquet.

    Raises:
        ConfigError: the suffix is unknown, or a library for it is missing.
        InputError: the file is empty or not what its suffix says; also from `records`, when it breaks off.
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
        lines = _Lines(file, path)
        share_read = _share_read(raw, path.stat().st_size)
        if kind in {".jsonl", ".ndjson"}:
            yield _jsonl(lines, share_read)
        else:
            yield _delimited(lines, share_read, delimiter="\t" if kind == ".tsv" else ",")


def _share_read(raw: BinaryIO, size: int) -> Callable[[], float]:
    return lambda: min(1.0, raw.tell() / size) if size else 1.0


@contextmanager
def _unpacked(raw: BinaryIO, packed: str) -> Iterator[BinaryIO]:
    if packed == ".gz":
        with gzip.GzipFile(fileobj=raw) as file:
            yield cast("BinaryIO", file)
    elif packed == ".zst":
        with io.BufferedReader(_ZstdFile(raw)) as file:
            yield file
    else:
        yield raw


class _ZstdFile(io.RawIOBase):
    """Frames one after the other. The library's own stream reader takes a file that was cut off for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._packed = self._packed or self._raw.read(ZSTD_FEED_BYTES)
            if not self._packed:
                if self._inside:
                    raise EOFError("the compressed data breaks off")
                return 0
            self._plain = memoryview(self._frame.decompress(self._packed))
            self._inside, self._packed = not self._frame.eof, self._frame.unused_data
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count


class _Line(NamedTuple):
    text: str
    fault: str
    """Why the text cannot be trusted; empty for a sound line."""


class _Lines:
    """Physical lines as text. An iterator that can go back to the second line of the record it is in.

    Raises:
        InputError: the file cannot be read further, or is UTF-16.
        csv.Error: the record is too long.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.number = 0
        """Of the line given last, from 1."""
        self._again: deque[_Line] = deque()
        self._record: list[_Line] = []
        self.record_chars = 0

    def begin(self) -> str:
        """The next line begins a record. Gives its place."""
        self._record = []
        self.record_chars = 0
        return f"line {self.number + 1}"

    def rewind(self, *, keep: int) -> None:
        """Give the record's lines once more, but for the first `keep`."""
        self._again.extendleft(reversed(self._record[keep:]))
        self.number -= len(self._record[keep:])
        del self._record[keep:]

    def fault(self) -> str:
        """What is wrong with the record's lines; empty if nothing."""
        return next((line.fault for line in self._record if line.fault), "")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._next_line()
        self.number += 1
        self._record.append(line)
        self.record_chars += len(line.text)
        if self.record_chars > MAX_RECORD_CHARS:
            raise csv.Error("too long; is a quote left open?")
        return line.text

    def _next_line(self) -> _Line:
        try:
            data = rest = self._file.readline(MAX_LINE_BYTES + 1)
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = self._file.readline(MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise InputError(f"{self.path} cannot be read past line {self.number}: {error}") from error
        if not data:
            raise StopIteration
        if self.number == 0:
            if _is_utf16(data):
                raise InputError(f"{self.path} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT")
            data = data.removeprefix(BOM)
        if len(data) > MAX_LINE_BYTES:
            return _Line("", f"longer than {MAX_LINE_BYTES} bytes")
        try:
            return _Line(data.decode(), "")
        except UnicodeDecodeError:
            return _Line(data.decode(errors="replace"), "not UTF-8")


def _is_utf16(data: bytes) -> bool:
    """Whether a text begins with UTF-16's mark, or with one letter of ASCII in two bytes."""
    two = data[:2]
    return two in UTF16_MARKS or (len(two.strip(b"\0")) == 1 == two.count(0) and two.isascii())


def _delimited(lines: _Lines, share_read: Callable[[], float], *, delimiter: str) -> Table:
    # Process-wide in the csv module; this is the only place that reads delimited files.
    csv.field_size_limit(MAX_CELL_CHARS)
    # Strict: otherwise a stray quote glues rows together without a word.
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        while not header:
            lines.begin()
            header = next(rows)
            if fault := lines.fault():
                raise InputError(f"{lines.path} has no readable header: {fault}; is it a text file in UTF-8?")
    except StopIteration:
        raise InputError(f"{lines.path} is empty; it needs a header line and one line a row") from None
    except csv.Error as error:
        raise InputError(f"{lines.path} has no readable header: {error}") from error
    _check_width(lines.path, len(header))
    return Table(
        header=tuple(header),
        records=lambda columns: _delimited_records(rows, lines, len(header), columns),
        share_read=share_read,
    )


def _check_width(path: Path, width: int) -> None:
    if width > MAX_COLUMNS:
        raise InputError(f"{path} has no readable header: more than {MAX_COLUMNS} columns")


def _delimited_records(
    rows: Iterator[list[str]], lines: _Lines, width: int, columns: Sequence[int]
) -> Iterator[Placed]:
    while True:
        place = lines.begin()
        try:
            row = next(rows, None)
        except csv.Error as error:
            lines.rewind(keep=1)
            yield place, str(error)
            continue
        if row is None:
            return
        if fault := lines.fault():
            yield place, fault
        elif len(row) == width:
            yield place, [row[at] for at in columns]
        elif row:
            yield place, f"{len(row)} fields, the header has {width}"


def _jsonl(lines: _Lines, share_read: Callable[[], float]) -> Table:
    names: dict[str, None] = {}
    lines.begin()
    for _, line in zip(range(HEADER_LINES), lines, strict=False):
        said = _object(line)
        if line.strip() and said is None and not names:
            raise InputError(f"{lines.path} line {lines.number} is no JSON object; is it a .jsonl file?")
        names |= dict.fromkeys(name for name in said or () if not _is_broken(name))
        if lines.record_chars > HEADER_CHARS:
            break
    if not names:
        raise InputError(f"{lines.path} is empty; it needs one JSON object a line")
    _check_width(lines.path, len(names))
    lines.rewind(keep=0)
    return Table(
        header=tuple(names),
        records=lambda columns: _jsonl_records(lines, [tuple(names)[at] for at in columns]),
        share_read=share_read,
    )


def _jsonl_records(lines: _Lines, names: Sequence[str]) -> Iterator[Placed]:
    while True:
        place = lines.begin()
        line = next(lines, None)
        if line is None:
            return
        if fault := lines.fault():
            yield place, fault
        elif line.strip():
            said = _object(line)
            yield place, "no JSON object" if said is None else _checked([said.get(name) for name in names])


def _object(line: str) -> dict[str, Any] | None:
    """One JSON object with the letters of its numbers kept: `123.0` and a 19-digit float stay what was written."""
    try:
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            said = _spelled(line)  # NaN and lone surrogates, which other writers write
        if not isinstance(said, dict):
            return None
        if any(type(value) in {int, float} for value in said.values()):
            spelled = _spelled(line)
            said = {name: spelled[name] if type(value) in {int, float} else value for name, value in said.items()}
    except (ValueError, RecursionError):
        return None
    return said


def _spelled(line: str) -> Any:
    """JSON with numbers as they are written, and None for those that are none."""
    return json.loads(line, parse_float=str, parse_int=str, parse_constant=lambda _: None)


def _checked(values: Sequence[object]) -> Cells | str:
    """Values of a typed format as cells, or what is wrong with them."""
    try:
        cells = [_cell(value) for value in values]
    except UnicodeDecodeError:
        return "not UTF-8"
    except RecursionError:
        return "nested too deeply"
    for cell in cells:
        if cell is not None and len(cell) > MAX_CELL_CHARS:
            return f"field larger than field limit ({MAX_CELL_CHARS})"
        if cell is not None and _is_broken(cell):
            return "not UTF-8"
    return cells


def _cell(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bytes():
            return value.decode()
        case bool() | dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _is_broken(text: str) -> bool:
    """Whether the text holds half a character, which no file can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


@contextmanager
def _parquet(path: Path) -> Iterator[Table]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - 40 MB that only Parquet needs
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"--input {path}: Parquet needs pyarrow: pip install 'reelbatch[parquet]'") from error
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from error
    with file:
        fields = list(file.schema_arrow)
        _check_width(path, len(fields))
        passed_rows = 0

        def records(columns: Sequence[int]) -> Iterator[Placed]:
            nonlocal passed_rows
            names = [fields[at].name for at in columns]
            try:
                for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
                    values = [_plain(pa, batch.column(batch.schema.get_field_index(name))) for name in names]
                    for cells in zip(*values, strict=True):
                        passed_rows += 1
                        yield f"row {passed_rows}", _checked(cells)
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                raise InputError(f"{path} cannot be read past row {passed_rows}: {error}") from error

        yield Table(
            header=tuple(field.name for field in fields),
            records=records,
            share_read=lambda: passed_rows / max(1, file.metadata.num_rows),
            float_columns=frozenset(at for at, field in enumerate(fields) if pa.types.is_floating(field.type)),
        )


def _plain(pa: Any, column: Any) -> list[Any]:
    """A column's values; text as bytes, so that one value that is no UTF-8 does not cost the others."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.string())
    return cast("list[Any]", column.to_pylist())
