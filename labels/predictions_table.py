"""A user's table with the labels of each row beside it.

The labels are held in memory by id, as JSON, a few hundred bytes each; the table streams by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.cells import Table
from engine.errors import ConfigError, InputError
from engine.readers import open_table
from engine.source import SourceConfig, choose_columns
from labels.codebook import Codebook
from labels.export import NUMBER, TEXT, TEXTS, TRUTH, ParquetTable
from labels.new_file import Put

SUFFIXES = (".csv", ".parquet")
PARSED, COMPLETE = "pred_parsed", "pred_complete"


@dataclass(slots=True, kw_only=True)
class Joined:
    """What came of it."""

    rows: int = 0
    with_labels: int = 0
    without_answer: int = 0
    """Rows that nobody was asked about."""
    broken: int = 0
    """Records of the table that could not be read, and were left out."""
    first_broken: str = ""
    repeated: int = 0
    """Answers for an id that had one already."""
    unused: int = 0
    """Answers whose id no row of the table has."""

    def text(self) -> str:
        """For a person."""
        notes = [f"{self.rows:,} rows, {self.with_labels:,} with labels, {self.without_answer:,} without an answer"]
        notes += [f"{self.unused:,} answers whose id no row has"] if self.unused else []
        notes += [f"{self.repeated:,} answers left out, as their id had one"] if self.repeated else []
        notes += [f"{self.broken:,} broken rows left out, first {self.first_broken}"] if self.broken else []
        return "; ".join(notes)


class Predictions:
    """The labels by id.

    Args:
        codebook: whose keys are to be columns.
        merged: whether records say if they are complete.
    """

    def __init__(self, codebook: Codebook, *, merged: bool) -> None:
        kinds = {"number": NUMBER, "list": TEXTS, "categorical": TEXT}
        self._keys = [dimension.key for dimension in codebook.dimensions]
        self._merged = merged
        self.columns = {f"pred_{dimension.key}": kinds[dimension.kind] for dimension in codebook.dimensions}
        self.columns |= {PARSED: TRUTH} | ({COMPLETE: TRUTH} if merged else {})
        self._by_id: dict[str, str] = {}
        self.joined = Joined()

    def add(self, record: dict[str, Any]) -> None:
        """Take a parsed or merged record; of several for one id the first with labels counts.

        Raises:
            InputError: it is about a part of a video.
        """
        identity, labels = record["meta_id"], record["json"]
        if record.get("group_id") is not None:
            raise InputError(f"{identity} is an answer about one group: --original-data needs --merge for such")
        known = self._by_id.get(identity)
        if known is not None:
            self.joined.repeated += 1
            if labels is None or not known.startswith(_WITHOUT_LABELS):
                return
        kept = [[labels.get(key) for key in self._keys] if labels else None, record.get("complete")]
        # As text, because the bytes that orjson gives hold on to the 4 KB they were made in.
        self._by_id[identity] = orjson.dumps(kept).decode()

    def of(self, identity: str | None) -> list[Any]:
        """The values of the columns for a row."""
        kept = self._by_id.get(identity or "")
        self.joined.rows += 1
        if kept is None:
            self.joined.without_answer += 1
            return [None] * len(self.columns)
        values, complete = orjson.loads(kept)
        self.joined.with_labels += values is not None
        found = [*(values or [None] * len(self._keys)), values is not None]
        return [*found, bool(complete)] if self._merged else found

    def ids(self) -> set[str]:
        """Whose answers there are."""
        return set(self._by_id)


_WITHOUT_LABELS = "[null"


def join(path: Path, predictions: Predictions, put: Put, *, suffix: str) -> Joined:
    """Write the table with the columns of labels behind its own, which stay to the letter.

    Args:
        path: the table.
        predictions: the labels.
        put: takes the bytes.
        suffix: `.csv` or `.parquet`.

    Raises:
        ConfigError: it cannot be opened, or a library is missing.
        InputError: it is no table with an id column.
    """
    try:
        with open_table(path) as table:
            at = _id_column(path, table, predictions)
            columns = dict.fromkeys(table.header, TEXT) | predictions.columns
            with _writing(put, columns, suffix) as write:
                return _join(table, at, predictions, write)
    except OSError as error:
        raise ConfigError(f"--original-data {path}: {error.strerror}") from error


def _id_column(path: Path, table: Table, predictions: Predictions) -> int:
    """Where the ids are, in a table that can have these columns added."""
    at = choose_columns(SourceConfig(path=path), table.header)["id"]
    if at in table.float_columns:
        raise InputError(f"{path}: the id column {table.header[at]!r} holds floats, which lose digits of ids")
    names = [*table.header, *predictions.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: there would be two columns {twice!r}; rename the one it has")
    return at


def _join(table: Table, at: int, predictions: Predictions, write: Callable[[list[Any]], None]) -> Joined:
    joined, unused = predictions.joined, predictions.ids()
    for place, cells in table.records(range(len(table.header))):
        if isinstance(cells, str):
            joined.broken += 1
            joined.first_broken = joined.first_broken or f"{place}: {cells}"
            continue
        unused.discard(cells[at] or "")
        write([*cells, *predictions.of(cells[at])])
    joined.unused = len(unused)
    return joined


@contextmanager
def _writing(put: Put, columns: dict[str, str], suffix: str) -> Iterator[Callable[[list[Any]], None]]:
    """What takes the rows of the new table."""
    if suffix == ".csv":
        put(_csv_line(list(columns)))
        yield lambda values: put(_csv_line(values))
        return
    try:
        table = ParquetTable(put, columns)
    except ImportError as error:
        raise ConfigError("--out .parquet needs pyarrow: pip install 'reelbatch[parquet]'") from error
    try:
        yield table.put
        table.close()
    except BaseException:
        table.abandon()
        raise


def _csv_line(values: list[Any]) -> bytes:
    """Every cell quoted, as the scripts did whose files these are."""
    return (",".join(_cells(values)) + "\n").encode(errors="replace")


def _cells(values: list[Any]) -> Iterator[str]:
    for value in values:
        text = "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
        yield '"' + text.replace('"', '""') + '"'
