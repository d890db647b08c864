"""The true labels of a table: which columns hold them, and what a cell says under the codebook.

A cell gives a label only if it says one beyond doubt. An empty one, or a mark for "no value" such as NaN, is no gold.
Any other is reported by a code and never becomes a label: `unknown_value:KEY`, `out_of_range:KEY`, and
`contradiction:KEY` where two cells cannot both be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.errors import ConfigError
from labels.codebook import NOT_ASKED, Codebook, Dimension

PREFIX = "gold:"
"""Before a dimension's key: what its cell is called in `Row.fields`."""
NO_GOLD = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>", "#n/a"})
"""What tables write where there is no value, casefolded. A value of the codebook that is spelt so is a value."""
UNKNOWN_VALUE, OUT_OF_RANGE, CONTRADICTION = "unknown_value", "out_of_range", "contradiction"
YES, NO = "yes", "no"
AS_SHARE: Mapping[str, float] = {
    **dict.fromkeys(("yes", "y", "true"), 1.0),
    **dict.fromkeys(("no", "n", "false"), 0.0),
    **dict.fromkeys(("cannot_determine", "cannot determine"), 0.5),
}
"""What words mean under a number from 0 to 1."""
AS_TRUTH: Mapping[str, str] = {"true": YES, "false": NO}
DEFAULT_YN_THRESH = 0.5
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """What one row's cells say."""

    labels: dict[str, Any]
    """By key, in the codebook's order; each a label of its dimension to the letter."""
    problems: tuple[str, ...] = ()
    """Codes; a key that has one has no label."""


class _NoLabelError(Exception):
    """The cell gives none; `str()` is the code, empty where there is nothing wrong with that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldColumns:
    """Which column of a table holds the gold of which dimension."""

    codebook: Codebook
    columns: Mapping[str, str]
    """Key to column, as the header spells it; in the codebook's order."""
    yn_thresh: float = DEFAULT_YN_THRESH
    """A number in 0..1 under a yes-or-no dimension: from here on yes."""

    @classmethod
    def find(
        cls,
        codebook: Codebook,
        header: Sequence[str],
        told: Mapping[str, str] | None = None,
        *,
        yn_thresh: float = DEFAULT_YN_THRESH,
    ) -> GoldColumns:
        """Look for each dimension's column: the one told, else the first of its gold names there is.

        Args:
            codebook: the questions.
            header: the table's columns; blanks around them and their case do not matter.
            told: key to column, where the user names it.
            yn_thresh: see the field.

        Raises:
            ConfigError: `told` names no dimension, or no column.
        """
        named = {name.strip().casefold(): name for name in reversed(header)}
        found = {}
        for dimension in codebook.dimensions:
            column = next((named[known] for name in dimension.gold if (known := _plain(name)) in named), None)
            found[dimension.key] = column
        for key, column in (told or {}).items():
            if key not in found:
                raise ConfigError(f"--gold {key}={column}: no such dimension; {codebook.name} has {', '.join(found)}")
            if _plain(column) not in named:
                raise ConfigError(f"--gold {key}={column}: no such column; there are {', '.join(header)}")
            found[key] = named[_plain(column)]
        columns = {key: column for key, column in found.items() if column is not None}
        return cls(codebook=codebook, columns=columns, yn_thresh=yn_thresh)

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys without a column."""
        return tuple(dimension.key for dimension in self.codebook.dimensions if dimension.key not in self.columns)

    @property
    def carried(self) -> tuple[tuple[str, str], ...]:
        """For `SourceConfig.carried`."""
        return tuple((PREFIX + key, column) for key, column in self.columns.items())

    def cells(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The gold cells among the fields of a row that was read with `carried`, by key."""
        return {key: fields[PREFIX + key] for key in self.columns if PREFIX + key in fields}

    def read(self, fields: Mapping[str, str]) -> Gold:
        """The labels of one row.

        Args:
            fields: key to the text of its cell; a key that is left out has an empty one.
        """
        labels: dict[str, Any] = {}
        problems: list[str] = []
        for dimension in self.codebook.dimensions:
            try:
                labels[dimension.key] = _label(dimension, fields.get(dimension.key, ""), self.yn_thresh)
            except _NoLabelError as error:
                if str(error):
                    problems.append(f"{error}:{dimension.key}")
        for key in self._blank(labels, problems):
            del labels[key]
        for key in self._contradicted(labels, problems):
            del labels[key]
        ordered = {key: labels[key] for key in (known.key for known in self.codebook.dimensions) if key in labels}
        return Gold(labels=ordered, problems=tuple(problems))

    def _blank(self, labels: dict[str, Any], problems: list[str]) -> set[str]:
        """Blank what is not asked of this row; the keys that have a label all the same."""
        wrong: set[str] = set()
        broken = {problem.partition(":")[2] for problem in problems}
        asked = [dimension for dimension in self.codebook.dimensions if dimension.when is not None]
        for _ in asked:  # A condition may stand on a dimension that has one itself.
            for dimension in asked:
                key, when = dimension.key, dimension.when
                if when is None or when.key not in labels or labels[when.key] == when.equals or key in broken:
                    continue
                if key in wrong or not _says_nothing(dimension, labels.get(key, NOT_ASKED)):
                    wrong.add(key)
                else:
                    labels[key] = NOT_ASKED
        problems += [f"{CONTRADICTION}:{dimension.key}" for dimension in asked if dimension.key in wrong]
        return wrong

    def _contradicted(self, labels: Mapping[str, Any], problems: list[str]) -> set[str]:
        """Both keys of each implication that does not hold: nobody can tell which of the two is wrong."""
        wrong: set[str] = set()
        for implication in self.codebook.implications:
            when, then = implication.when, implication.then
            if labels.get(when.key) == when.equals and labels.get(then.key, then.equals) != then.equals:
                wrong |= {when.key, then.key}
        problems += [f"{CONTRADICTION}:{key}" for key in labels if key in wrong]
        return wrong


def _plain(name: str) -> str:
    return name.strip().casefold()


def _says_nothing(dimension: Dimension, label: object) -> bool:
    """Whether a label may stand where its question is not asked: coders fill in the value that claims least."""
    return label in (NOT_ASKED, NO, []) or label == dimension.unsure


def _label(dimension: Dimension, cell: str, yn_thresh: float) -> Any:
    """What a cell says.

    Raises:
        _NoLabelError: it says nothing, or nothing that can be a label.
    """
    if dimension.kind == "categorical" and cell in dimension.values:
        return cell
    text = " ".join(cell.split())
    folded = text.casefold()
    if folded in NO_GOLD and folded not in map(str.casefold, dimension.values):
        raise _NoLabelError
    if dimension.kind == "number":
        return _number(dimension, text)
    if dimension.kind == "list":
        return [text] if text in dimension.values else _several(dimension, text)
    return _value(dimension, text, yn_thresh)


def _number(dimension: Dimension, text: str) -> float:
    is_share = (dimension.minimum, dimension.maximum) == (0, 1)
    number = AS_SHARE.get(text.casefold()) if is_share else None
    if number is None and _NUMBER.fullmatch(text):
        number = float(text) + 0.0  # No label is written as -0.0.
    if number is None:
        raise _NoLabelError(UNKNOWN_VALUE)
    if not dimension.accepts(number):
        raise _NoLabelError(OUT_OF_RANGE)
    return number


def _value(dimension: Dimension, text: str, yn_thresh: float) -> str:
    known = _known(dimension, text)
    if known is not None:
        return known
    is_number = _NUMBER.fullmatch(text) is not None
    if is_number and text.endswith(".0") and (whole := _known(dimension, text[:-2])) is not None:
        return whole  # A column of whole numbers in which some cells are empty, as spreadsheets write it.
    if {YES, NO} <= set(dimension.values):
        if text.casefold() in AS_TRUTH:
            return AS_TRUTH[text.casefold()]
        if is_number:
            number = float(text)
            if not (math.isfinite(number) and 0 <= number <= 1):
                raise _NoLabelError(OUT_OF_RANGE)
            return YES if number >= yn_thresh else NO
    raise _NoLabelError(UNKNOWN_VALUE)


def _several(dimension: Dimension, text: str) -> list[str]:
    """A JSON array, or texts between bars or commas; in the codebook's order, so that a set is always one text."""
    items: object = text.split("|" if "|" in text else ",")
    if text.startswith("["):
        try:
            items = orjson.loads(text)
        except orjson.JSONDecodeError:
            items = None
    if not isinstance(items, list):
        raise _NoLabelError(UNKNOWN_VALUE)
    found = {_known(dimension, item) if isinstance(item, str) else None for item in items}
    if None in found:
        raise _NoLabelError(UNKNOWN_VALUE)
    return [value for value in dimension.values if value in found]


def _known(dimension: Dimension, text: str) -> str | None:
    return dimension.synonyms.get(" ".join(text.casefold().split()))
