"""Labels as small numbers, one column a dimension: a million rows take a few megabytes.

A label of a categorical dimension is the place of its value, and a set of values has a number of its own, the same on
the gold side and on every model's. A number is kept as it was said, so that what is out of range can be told.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from labels.codebook import NOT_ASKED, Codebook, Dimension
from labels.score.options import Options

MISSING = -1
"""The code of a row without a label."""
SCORE_SUFFIXES = ("_score", "_prob", "_yes_prob", "_p")
"""Behind the key of a yes-or-no dimension: where a model says how sure it is of yes."""
MAX_SHOWN_CHARS = 40
MAX_REFUSED_KINDS = 100
"""Different refused values that are told apart; the rest are counted together."""
Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


def is_yes_no(dimension: Dimension) -> bool:
    """Whether "yes" is one of its values."""
    return dimension.kind == "categorical" and "yes" in dimension.values


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(slots=True, kw_only=True)
class Coder:
    """Gives each label of a dimension its code. Shared by all columns of that dimension."""

    dimension: Dimension
    sets: dict[frozenset[str], int] = field(default_factory=dict)
    """The sets met so far, of a list."""
    _spellings: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = self.dimension.values
        self._spellings = {spelled: values.index(value) for spelled, value in self.dimension.synonyms.items()}
        self._spellings |= {value: at for at, value in enumerate(values)}
        if self.dimension.when is not None:
            self._spellings[NOT_ASKED] = len(values)

    def code(self, value: Any) -> int | None:
        """The code of a label that is no number; None if the dimension has no such label."""
        if self.dimension.kind == "list":
            return self._set(value) if isinstance(value, list) else None
        return self._one(value)

    def _one(self, value: Any) -> int | None:
        if not isinstance(value, str):
            return None
        found = self._spellings.get(value)
        return self._spellings.get(" ".join(value.casefold().split())) if found is None else found

    def _set(self, items: list[Any]) -> int | None:
        codes = [self._one(item) for item in items]
        if any(code is None or code >= len(self.dimension.values) for code in codes):
            return None
        named = frozenset(self.dimension.values[code] for code in codes if code is not None)
        return self.sets.setdefault(named, len(self.sets))

    def label(self, code: float) -> Any:
        """The label that has this code; None for a missing one."""
        if self.dimension.kind == "number":
            return None if math.isnan(code) else float(code)
        if code == MISSING:
            return None
        if self.dimension.kind == "list":
            named = list(self.sets)[int(code)]
            return [value for value in self.dimension.values if value in named]
        return (*self.dimension.values, NOT_ASKED)[int(code)]


@dataclass(slots=True, kw_only=True)
class Column:
    """The labels of one side under one dimension."""

    coder: Coder
    options: Options
    soft: array[float] | None = None
    """Yes and no as numbers, where they are scored so."""
    cells: array[Any] = field(init=False)
    """Codes, or numbers as they were said; out of range or not."""
    refused: Counter[str] = field(default_factory=Counter)
    """Values that are no label of the dimension, as they were said."""
    _plain: Mapping[str, int] = field(init=False)
    """What is nearly every answer, and needs no second look: the values as they are spelled."""

    def __post_init__(self) -> None:
        dimension = self.coder.dimension
        self.cells = array("d" if dimension.kind == "number" else "i")
        scored = self.soft is not None or (self.options.yn_thresh is not None and is_yes_no(dimension))
        is_plain = dimension.kind == "categorical" and not scored
        self._plain = {value: at for at, value in enumerate(dimension.values)} if is_plain else {}

    def append(self, said: Mapping[str, Any]) -> None:
        """One row more, and what it says."""
        self.cells.append(math.nan if self.cells.typecode == "d" else MISSING)
        if self.soft is not None:
            self.soft.append(math.nan)
        self.put(len(self.cells) - 1, said)

    def extend(self, rows: int) -> None:
        """So many rows more, without labels."""
        blank = math.nan if self.cells.typecode == "d" else MISSING
        self.cells.extend(array(self.cells.typecode, [blank]) * rows)
        if self.soft is not None:
            self.soft.extend(array("d", [math.nan]) * rows)

    def put(self, row: int, said: Mapping[str, Any]) -> None:
        """What an answer says under this dimension."""
        dimension = self.coder.dimension
        value = said.get(dimension.key)
        if type(value) is str and value in self._plain:
            self.cells[row] = self._plain[value]
            return
        if self.soft is not None:
            self._put_soft(row, value, said)
        if dimension.kind == "number":
            self._put_number(row, value)
            return
        if self.options.yn_thresh is not None and is_yes_no(dimension):
            value = self._thresholded(value, said, self.options.yn_thresh)
        if value is None:
            return
        code = self.coder.code(value)
        if code is None:
            # Under `r2` a number is an answer, and was looked at above.
            if self.soft is None or not is_number(value):
                self._refuse(value)
        else:
            self.cells[row] = code

    def _put_number(self, row: int, value: Any) -> None:
        dimension = self.coder.dimension
        if is_number(value):
            self.cells[row] = value
        if value is not None and not (is_number(value) and dimension.minimum <= value <= dimension.maximum):
            self._refuse(value)

    def _thresholded(self, value: Any, said: Mapping[str, Any], yn_thresh: float) -> Any:
        score = said.get(self.coder.dimension.key + SCORE_SUFFIXES[0])
        number = value if is_number(value) else score
        if not is_number(number):
            return value
        if not 0 <= number <= 1:
            self._refuse(number)
            return None
        return "yes" if number >= yn_thresh else "no"

    def _put_soft(self, row: int, value: Any, said: Mapping[str, Any]) -> None:
        assert self.soft is not None
        key = self.coder.dimension.key
        number = value if is_number(value) else None
        if number is None:
            scores = (said.get(key + suffix) for suffix in SCORE_SUFFIXES)
            number = next((score for score in scores if is_number(score)), None)
        if number is None:
            code = self.coder.code(value)
            label = None if code is None else self.coder.label(code)
            number = self.options.cd_map.get(label) if isinstance(label, str) else None
        if number is not None and 0 <= number <= 1:
            self.soft[row] = number
        elif number is not None:
            self._refuse(number)

    def _refuse(self, value: Any) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= MAX_SHOWN_CHARS else shown[:MAX_SHOWN_CHARS] + "..."
        self.refused[shown if shown in self.refused or len(self.refused) < MAX_REFUSED_KINDS else "others"] += 1

    def view(self) -> npt.NDArray[Any]:
        """The cells as an array, not copied."""
        return np.frombuffer(self.cells, dtype=np.float64 if self.cells.typecode == "d" else np.int32)

    def soft_view(self) -> Numbers:
        return np.frombuffer(self.soft or b"", dtype=np.float64)


def columns_of(coders: Mapping[str, Coder], options: Options, *, soft: bool) -> dict[str, Column]:
    """Empty columns for one side.

    Args:
        coders: by key.
        options: how to score.
        soft: whether yes and no are also kept as numbers.
    """
    return {
        key: Column(coder=coder, options=options, soft=array("d") if soft and is_yes_no(coder.dimension) else None)
        for key, coder in coders.items()
    }


def coders_of(codebook: Codebook) -> dict[str, Coder]:
    return {dimension.key: Coder(dimension=dimension) for dimension in codebook.dimensions}
