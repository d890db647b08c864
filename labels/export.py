"""The results of a run as one table in the order of the input: Parquet, CSV or JSON lines.

A first reading finds the label columns and what they hold, a second writes row by row, so memory does not grow with
what the rows say. The table gets its name once it is whole and on the disk.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from engine.errors import ConfigError, FolderInUse, SinkBroken
from sinks.files import OS_FILES, Files, partial_of, writing_new
from sinks.folder import FAILURES, RESULTS, read_manifest
from sinks.ordered import CommittedLines, settled_lines

SUFFIXES = (".parquet", ".csv", ".jsonl")
NUMBER, COUNT, TRUTH, TEXT, TEXTS = "number", "count", "truth", "text", "texts"
BEFORE = {"row": COUNT, "meta_id": TEXT}
AFTER = {
    "label_error": TEXT,
    "raw": TEXT,
    "finish_reason": TEXT,
    "truncated": TRUTH,
    "model": TEXT,
    "cost_usd": NUMBER,
    "prompt_tokens": COUNT,
    "completion_tokens": COUNT,
    "degraded": TEXTS,
}
OF_FAILURES = {"failure_kind": TEXT, "failure_status": COUNT, "failure_message": TEXT}
"""What each column holds; label columns stand between `BEFORE` and `AFTER`."""
EXACT_INTEGER = 1 << 53
"""Beyond it a double is no longer every integer."""
GROUP_ROWS, GROUP_CHARS = 1 << 14, 16 << 20
"""A Parquet row group ends at either, so that one is never much memory."""
FORMULA = re.compile(
    "[\\s\\x00-\\x20\\x7f-\\xa0\\u200b-\\u200f\\u2028-\\u202f\\u2060-\\u2064\\ufeff]*"
    "[=+\\-@\\t\\r\\n\\x00\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]"
)
"""How a cell begins that a spreadsheet may run: blanks and what cannot be seen, then a sign, in any of its widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    rows: int
    failed: int
    """Of those, the rows that have no result."""
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a table is to be."""

    failures: bool = False
    """With the rows that failed."""
    csv_raw: bool = False
    """CSV cells to the letter, even those a spreadsheet would run."""
    force: bool = False
    """Over a file that is there already."""


class Table(Protocol):
    """Takes a table row by row."""

    def put(self, values: list[Any]) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None:
        """Write nothing more."""
        ...


@dataclass(slots=True)
class _Labels:
    """The labels met so far, and whether all values of each are numbers; in the order they were met."""

    numeric: dict[str, bool] = field(default_factory=dict)
    valued: set[str] = field(default_factory=set)

    def take(self, labels: Mapping[str, Any]) -> None:
        for name, value in labels.items():
            if value is None:
                self.numeric.setdefault(name, True)
                continue
            self.valued.add(name)
            exact = type(value) is float or (type(value) is int and -EXACT_INTEGER <= value <= EXACT_INTEGER)
            self.numeric[name] = self.numeric.get(name, True) and exact

    def columns(self, taken: Mapping[str, str]) -> dict[str, str]:
        """Column name to what it holds; a label that is called like a column of ours gets another name."""
        found: dict[str, str] = {}
        reserved = {*taken, *self.numeric}
        for name, numeric in self.numeric.items():
            column = name
            while column in found or (column in reserved and (column != name or column in taken)):
                column = f"label_{column}"
            found[column] = NUMBER if numeric and name in self.valued else TEXT
        return found


def export(out: Path, to: Path, *, options: ExportOptions, files: Files = OS_FILES) -> Exported:
    """Write the committed rows of a run folder into one file; a run may be going on in it.

    Raises:
        ConfigError: there is no run, or the file's name says no format we write, or pyarrow is missing.
        FolderInUse: the file is there already or cannot be made, or answers are being withdrawn from the folder.
        SinkBroken: a committed line is damaged, or the disk failed. No file of that name was made or changed.
    """
    read_manifest(out)
    _check_target(out, to, options)
    make = _maker(to.suffix, options)
    with settled_lines(out) as lines:
        labels = _Labels()
        for failed, _, said in lines.scan(RESULTS, *([FAILURES] if options.failures else [])):
            if not failed and isinstance(said["labels"], dict):
                labels.take(said["labels"])
        own = BEFORE | AFTER | (OF_FAILURES if options.failures else {})
        columns = BEFORE | labels.columns(own) | AFTER | (OF_FAILURES if options.failures else {})
        rows = _Rows(lines, list(labels.numeric), failures=options.failures)
        _write(to, lambda put: make(put, columns), rows, files)
    return Exported(rows=rows.written, failed=rows.failed, columns=tuple(columns))


def _check_target(out: Path, to: Path, options: ExportOptions) -> None:
    if to.suffix not in SUFFIXES:
        raise ConfigError(f"--to {to}: the name must end in {', '.join(SUFFIXES)}")
    if options.csv_raw and to.suffix != ".csv":
        raise ConfigError("--csv-raw is for .csv; other formats hold every text to the letter")
    if out.resolve() in to.resolve().parents:
        raise ConfigError(f"--to {to} lies inside the run folder; choose a place outside of it")
    if not to.parent.is_dir():
        raise FolderInUse(f"--to {to}: there is no folder {to.parent}; make it first")
    if to.is_dir():
        raise FolderInUse(f"--to {to} is a folder; choose another name")
    if to.exists() and not options.force:
        raise FolderInUse(f"{to} is there already; nothing was written. Replace it by --force, or choose another name")


class _Rows:
    """The rows of the table, in order, each as a list of values."""

    def __init__(self, lines: CommittedLines, labels: list[str], *, failures: bool) -> None:
        self._lines = lines
        self._labels = labels
        self._failures = failures
        self.written = self.failed = 0

    def __iter__(self) -> Iterator[list[Any]]:
        for row, places in self._lines.rows():
            # Results are scanned first, so a row's result comes first; of its failures the last one counts.
            failed, line = self._lines.line(row, places[0])
            if failed and len(places) > 1:
                failed, line = self._lines.line(row, places[-1])
            self.written += 1
            self.failed += failed
            said = orjson.loads(line)
            yield self._failure(said) if failed else self._result(said)

    def _result(self, said: dict[str, Any]) -> list[Any]:
        labels, usage = said["labels"] or {}, said["usage"] or {}
        return [
            said["row"],
            said["meta_id"],
            *(labels.get(name) for name in self._labels),
            said["label_error"],
            said["raw"],
            said["finish_reason"],
            said["truncated"],
            said["model"],
            said["cost_usd"],
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            said["degraded"],
            *([None] * len(OF_FAILURES) if self._failures else ()),
        ]

    def _failure(self, said: dict[str, Any]) -> list[Any]:
        usage = said["usage"] or {}
        counted = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        return [
            said["row"],
            said["meta_id"],
            *([None] * len(self._labels)),
            *(counted.get(name) for name in AFTER),
            said["kind"],
            said["status"],
            said["message"],
        ]


Put = Callable[[bytes], None]
Maker = Callable[[Put, Mapping[str, str]], Table]


def _maker(suffix: str, options: ExportOptions) -> Maker:
    if suffix == ".csv":
        return lambda put, columns: CsvTable(put, columns, raw=options.csv_raw)
    if suffix == ".jsonl":
        return JsonTable
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - 40 MB that only Parquet needs
    except ImportError as error:
        raise ConfigError("--to .parquet needs pyarrow: pip install 'reelbatch[parquet]'") from error
    return ParquetTable


def _write(to: Path, make: Callable[[Put], Table], rows: Iterable[list[Any]], files: Files) -> None:
    partial = partial_of(to)
    try:
        with writing_new(files, partial) as put:
            table = make(put)
            try:
                for values in rows:
                    table.put(values)
                table.close()
            except BaseException:
                table.abandon()
                raise
        files.rename(partial, to)
    except OSError as error:
        raise SinkBroken(
            f"writing {to} failed: {error.strerror or error}. The run folder was only read; what stood at {to} before, "
            "if anything, still does. Make room or choose another place, then export again"
        ) from error
    finally:
        with suppress(OSError):
            files.unlink(partial)
    try:
        files.sync_folder(to.parent)
    except OSError as error:
        raise SinkBroken(f"{to} is whole, but may not outlast a crash: {error.strerror}. Export again") from error


class JsonTable:
    """One object a line; values as found."""

    def __init__(self, put: Put, columns: Mapping[str, str]) -> None:
        self._put = put
        self._names = list(columns)

    def put(self, values: list[Any]) -> None:
        said = dict(zip(self._names, values, strict=True))
        self._put(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class CsvTable:
    """Text quoted, numbers and truths bare, nothing where there is no value; lists and objects as JSON text."""

    def __init__(self, put: Put, columns: Mapping[str, str], *, raw: bool) -> None:
        self._put = put
        self._raw = raw
        self.put(list(columns))

    def put(self, values: list[Any]) -> None:
        self._put((",".join(map(self._cell, values)) + "\n").encode())

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            text = value
        else:
            text = orjson.dumps(value).decode()
            if not isinstance(value, list | dict):
                return text
        if not self._raw and FORMULA.match(text):
            text = "'" + text
        return '"' + text.replace('"', '""') + '"'


class ParquetTable:
    """Typed columns, in row groups."""

    def __init__(self, put: Put, columns: Mapping[str, str]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - as above
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415

        types = {
            NUMBER: pa.float64(),
            COUNT: pa.int64(),
            TRUTH: pa.bool_(),
            TEXT: pa.string(),
            TEXTS: pa.list_(pa.string()),
        }
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._batch_of = pa.record_batch
        self._sink = _Sink(put)
        self._writer = ParquetWriter(self._sink, self._schema, compression="zstd")
        self._kinds = list(columns.values())
        self._columns: list[list[Any]] = [[] for _ in columns]
        self._chars = 0

    def put(self, values: list[Any]) -> None:
        for kind, column, value in zip(self._kinds, self._columns, values, strict=True):
            if kind == TEXT and value is not None:
                text = value if isinstance(value, str) else orjson.dumps(value).decode()
                self._chars += len(text)
                column.append(text)
            else:
                column.append(value)
        if len(self._columns[0]) >= GROUP_ROWS or self._chars >= GROUP_CHARS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(self._batch_of(self._columns, schema=self._schema), row_group_size=GROUP_ROWS)
        self._chars = 0
        for column in self._columns:
            column.clear()

    def close(self) -> None:
        if self._columns[0]:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        # The writer closes itself when it is forgotten, and would write a footer into a file that is closed by then.
        self._sink.abandoned = True
        self._writer.close()


class _Sink(io.RawIOBase):
    """A file for pyarrow that is only ever written to its end."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._at = 0
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        if not self.abandoned:
            self._put(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._at
