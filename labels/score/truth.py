"""The gold, by row: what every model is held against."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from labels.codebook import Codebook
from labels.score.columns import Coder, Column, coders_of, columns_of
from labels.score.options import Options
from labels.score.slots import takes_soft

LEFT_OUT = -1
"""In the place of a row: a known id whose row is not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of gold."""

    line: int
    """Where it stands, from 1."""
    id: str | None
    index: int
    """Among all rows, from 0: what it is known by without an id."""
    labels: Mapping[str, Any] | None
    """None if it has no gold."""
    is_short: bool = False
    """Whether its users say too little to be scored."""
    problems: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Truth:
    """All gold of a file, by row."""

    codebook: Codebook
    path: Path
    coders: Mapping[str, Coder]
    columns: Mapping[str, Column]
    by_id: dict[str, int] = field(default_factory=dict)
    by_index: dict[int, int] = field(default_factory=dict)
    """Only rows that have no id."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    indexes: array[int] = field(default_factory=lambda: array("q"))
    without: int = 0
    """Rows of the file that carry no gold."""
    short: int = 0
    """Rows left out by --min-text-len."""
    problems: Counter[str] = field(default_factory=Counter)
    """Gold that was not taken, by what is wrong with it."""
    broken: list[str] = field(default_factory=list)
    """Lines of a table that are no rows."""

    @classmethod
    def empty(cls, path: Path, codebook: Codebook, options: Options) -> Truth:
        coders = coders_of(codebook)
        columns = columns_of(coders, options, soft=takes_soft(codebook, options))
        return cls(codebook=codebook, path=path, coders=coders, columns=columns)

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, name: str | None, index: int | None) -> int | None:
        """The row with an id; where rows have none, the one with that position. `LEFT_OUT` for one not scored."""
        row = self.by_id.get(name) if name is not None else None
        return self.by_index.get(index) if row is None and index is not None else row

    def names(self) -> list[str]:
        """The id of every row, or else its position."""
        found = [str(index) for index in self.indexes]
        for name, row in self.by_id.items():
            if row != LEFT_OUT:
                found[row] = name
        return found

    @property
    def scored(self) -> tuple[Coder, ...]:
        """The dimensions that have any gold."""
        return tuple(coder for key, coder in self.coders.items() if self._has_gold(key))

    def _has_gold(self, key: str) -> bool:
        cells = self.columns[key].view()
        return bool(np.any(~np.isnan(cells)) if cells.dtype.kind == "f" else np.any(cells >= 0))

    def add(self, entry: Entry) -> None:
        """Take one row.

        Raises:
            InputError: a row with gold had its id before.
        """
        self.problems.update(entry.problems)
        self.without += entry.labels is None
        self.short += entry.labels is not None and entry.is_short
        if entry.labels is None or entry.is_short:
            self._known_as(entry, LEFT_OUT)
            return
        row = len(self.lines)
        self._known_as(entry, row)
        self.lines.append(entry.line)
        self.indexes.append(entry.index)
        for column in self.columns.values():
            column.append(entry.labels)

    def _known_as(self, entry: Entry, row: int) -> None:
        if entry.id is None:
            self.by_index[entry.index] = row
            return
        before = self.by_id.get(entry.id, LEFT_OUT)
        if before == LEFT_OUT:
            self.by_id[entry.id] = row
        elif row != LEFT_OUT:
            raise InputError(
                f"{self.path}: the id {entry.id!r} stands in line {self.lines[before]} and in line {entry.line}; "
                "which of them is true cannot be told. Keep one"
            )

    def close(self) -> None:
        """All rows are there: count what was refused.

        Raises:
            InputError: nothing is left to score against.
        """
        for key, column in self.columns.items():
            self.problems.update({f"{key} {value}": count for value, count in column.refused.items()})
        if not self.scored:
            what = "row with enough text" if self.short else "row"
            raise InputError(
                f"{self.path}: no {what} has gold that {self.codebook.name} knows, so there is nothing to score "
                "against. Gold is the last message of a chat, by the assistant, as `build` writes it without "
                "--no-labels; or a column of a table"
                + "".join(f"\n  not taken: {name}, {count} times" for name, count in self.problems.most_common(3))
            )
