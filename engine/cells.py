"""What every reader of tables gives: a header, and records with their cells as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.marks import Marks, Place

Cells = Sequence[str | None]
Placed = tuple[str, Cells | str]
"""Where a record begins, in the words of the format; and its cells, or why it has none."""

MAX_CELL_CHARS = 1 << 20
"""A longer cell is an unterminated quote or an attack, not a transcript."""
MAX_COLUMNS = 1000


def _from_the_start(row: int, marks: Marks) -> int:
    del row, marks
    return 0


def _nowhere() -> None:
    return None


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
    skip_to: Callable[[int, Marks], int] = _from_the_start
    """Go to the last record, at or before one with this ordinal, that is reached without reading those before it.
    Gives its ordinal. To be called before `records`."""
    here: Callable[[], Place | None] = _nowhere
    """Where the record given last begins; None if the file cannot be entered there."""


def check_width(path: Path, width: int) -> None:
    if width > MAX_COLUMNS:
        raise InputError(f"{path} has no readable header: more than {MAX_COLUMNS} columns")


def checked(values: Sequence[object]) -> Cells | str:
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
        if cell is not None and is_broken(cell):
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


def is_broken(text: str) -> bool:
    """Whether the text holds half a character, which no file can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
