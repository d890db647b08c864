"""One reader per file format: a header and a lazy stream of records.

A record comes with its place in the file, as cells in the order asked for (None where the format knows "no value"), or
as a string that says why it is broken. Every reader goes on after a broken record; a quote that is never closed costs
the line it stands in: the lines after it are read again as records of their own.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from engine.cells import MAX_CELL_CHARS, Cells, Placed, Table, check_width, checked, is_broken
from engine.errors import ConfigError, InputError
from engine.marks import Marks
from engine.parquet import open_parquet
from engine.textlines import BUFFER_BYTES, MAX_LINE_BYTES, FirstBytes, Lines, unpacked

HEADER_LINES, HEADER_CHARS = 1000, 1 << 20
"""JSON has no header: the names are those of so many first lines, since writers leave out what a row does not have."""
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
JSON_SUFFIXES = (".jsonl", ".ndjson")
WHOLE_LINE = ("meta_id", "line")
"""The columns of a file whose lines are taken as they stand: the id inside, and the text."""


@contextmanager
def open_table(
    path: Path, *, size_bytes: int | None = None, whole_lines: bool = False, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Table]:
    """Open by suffix: .csv, .tsv, .jsonl, .ndjson (also .gz, .zst), .parquet.

    Args:
        path: the file.
        size_bytes: how much of a file of text belongs to the input; None takes what there is now.
        whole_lines: whether each line of a .jsonl file is one cell, whatever keys it has; the columns are `WHOLE_LINE`.
        max_line_bytes: a longer line of text is a broken record.

    Raises:
        ConfigError: the suffix is unknown, or a library for it is missing.
        InputError: the file is empty or not what its suffix says; also from `records`, when it breaks off.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".parquet"]:
        with open_parquet(path) as table:
            yield table
        return
    packed = suffixes.pop() if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    kind = suffixes[-1] if suffixes else ""
    if kind not in TEXT_SUFFIXES:
        raise ConfigError(f"--input {path}: unknown kind of file; take .csv, .tsv, .jsonl (also .gz, .zst) or .parquet")
    with path.open("rb", buffering=0) as raw:
        part = FirstBytes(raw, path.stat().st_size if size_bytes is None else size_bytes)
        with io.BufferedReader(part, BUFFER_BYTES) as buffered, unpacked(buffered, packed) as file:
            lines = Lines(file, path, max_line_bytes=max_line_bytes)
            if kind in JSON_SUFFIXES:
                table = _whole_lines(lines, part.share_read) if whole_lines else _jsonl(lines, part.share_read)
            else:
                table = _delimited(lines, part.share_read, delimiter="\t" if kind == ".tsv" else ",")
            yield table if packed else _enterable(table, lines)


def is_plain_text(path: Path) -> bool:
    """Whether more rows may be written at the end of such a file, and a record be read without those before it."""
    return path.suffix.lower() in TEXT_SUFFIXES


def _enterable(table: Table, lines: Lines) -> Table:
    """The table of an uncompressed file, which can be entered at any mark."""

    def skip_to(row: int, marks: Marks) -> int:
        known = marks.before(row)
        if known is None:
            return 0
        reached, place = known
        lines.enter(place)
        return reached

    return dataclasses.replace(table, skip_to=skip_to, here=lines.place)


def _delimited(lines: Lines, share_read: Callable[[], float], *, delimiter: str) -> Table:
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
    check_width(lines.path, len(header))
    return Table(
        header=tuple(header),
        records=lambda columns: _delimited_records(rows, lines, len(header), columns),
        share_read=share_read,
    )


def _delimited_records(rows: Iterator[list[str]], lines: Lines, width: int, columns: Sequence[int]) -> Iterator[Placed]:
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


def _jsonl(lines: Lines, share_read: Callable[[], float]) -> Table:
    names: dict[str, None] = {}
    lines.begin()
    for _, line in zip(range(HEADER_LINES), lines, strict=False):
        said = _object(line)
        if line.strip() and said is None and not names:
            raise InputError(f"{lines.path} line {lines.number} is no JSON object; is it a .jsonl file?")
        names |= dict.fromkeys(name for name in said or () if not is_broken(name))
        if lines.record_chars > HEADER_CHARS:
            break
    if not names:
        raise InputError(f"{lines.path} is empty; it needs one JSON object a line")
    check_width(lines.path, len(names))
    lines.rewind(keep=0)
    return Table(
        header=tuple(names),
        records=lambda columns: _jsonl_records(lines, [tuple(names)[at] for at in columns]),
        share_read=share_read,
    )


def _jsonl_records(lines: Lines, names: Sequence[str]) -> Iterator[Placed]:
    while True:
        place = lines.begin()
        line = next(lines, None)
        if line is None:
            return
        if fault := lines.fault():
            yield place, fault
        elif line.strip():
            said = _object(line)
            yield place, "no JSON object" if said is None else checked([said.get(name) for name in names])


def _whole_lines(lines: Lines, share_read: Callable[[], float]) -> Table:
    lines.begin()
    if next(lines, None) is None:
        raise InputError(f"{lines.path} is empty; it needs one JSON object a line")
    lines.rewind(keep=0)
    return Table(
        header=WHOLE_LINE, records=lambda columns: _whole_records(lines, parsed=bool(columns)), share_read=share_read
    )


def _whole_records(lines: Lines, *, parsed: bool) -> Iterator[Placed]:
    """The records with both columns, or, unparsed, with none."""
    while True:
        place = lines.begin()
        line = next(lines, None)
        if line is None:
            return
        if fault := lines.fault():
            yield place, fault
        elif not line.isspace():
            yield place, _whole_cells(line) if parsed else ()


def _whole_cells(line: str) -> Cells | str:
    said = _object(line)
    if said is None:
        return "no JSON object"
    identity = checked((said.get(WHOLE_LINE[0]),))
    return identity if isinstance(identity, str) else (*identity, line)


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
