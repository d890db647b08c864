"""Gold against answers as counts: how many rows have each label, and which pairs there are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labels.codebook import Dimension
from labels.score.columns import MISSING, Coder, Codes, Column, Numbers
from labels.score.replicas import memberships
from labels.score.truth import Truth

PARTS = 5
"""A range of numbers is cut into so many, to be shown like values."""
NOT_ASKED_SHOWN = "not asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Gold against answers under one dimension: rows of gold, columns of answers and one for missing ones."""

    golds: tuple[str, ...]
    saids: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def support(coder: Coder, columns: Mapping[str, Column]) -> dict[str, int]:
    """How many rows have each label; for a number how many have one in its range."""
    dimension, cells = coder.dimension, columns[coder.dimension.key].view()
    if dimension.kind == "number":
        return {"numbers": int(((cells >= dimension.minimum) & (cells <= dimension.maximum)).sum())}
    if dimension.kind == "list":
        members = memberships(coder)
        tally = np.bincount(cells[cells != MISSING], minlength=len(coder.sets))
        return {value: int((tally * members[:-1, at]).sum()) for at, value in enumerate(dimension.values)}
    tally = np.bincount(cells[cells != MISSING], minlength=len(dimension.values) + 1)
    named = dict(zip(dimension.values, map(int, tally), strict=False))
    return named | ({NOT_ASKED_SHOWN: int(tally[len(dimension.values)])} if dimension.when is not None else {})


def matrices(truth: Truth, said_columns: Mapping[str, Column]) -> dict[str, Matrix]:
    found = {}
    for coder in truth.scored:
        dimension = coder.dimension
        gold, said = truth.columns[dimension.key].view(), said_columns[dimension.key].view()
        if dimension.kind == "number":
            gold, said = _parts(dimension, gold), _parts(dimension, said)
            names = _part_names(dimension)
        elif dimension.kind == "categorical":
            names = (*dimension.values, *([NOT_ASKED_SHOWN] if dimension.when is not None else []))
        else:
            continue
        found[dimension.key] = _matrix(names, gold, said)
    return found


def _matrix(names: tuple[str, ...], gold: Codes, said: Codes) -> Matrix:
    kept, size = gold != MISSING, len(names)
    places = gold[kept].astype(np.int64) * (size + 1) + np.where(said[kept] == MISSING, size, said[kept])
    table = np.bincount(places, minlength=size * (size + 1)).reshape(size, size + 1)
    counts = tuple(tuple(map(int, row)) for row in table)
    return Matrix(golds=names, saids=(*names, "missing"), counts=counts)


def _parts(dimension: Dimension, cells: Numbers) -> Codes:
    """Which fifth of the range each number is in; out of range is missing."""
    low, high = dimension.minimum, dimension.maximum
    valid = (cells >= low) & (cells <= high)
    share = (np.where(valid, cells, low) - low) / (high - low)
    return np.where(valid, np.minimum(share * PARTS, PARTS - 1), MISSING).astype(np.int32)


def _part_names(dimension: Dimension) -> tuple[str, ...]:
    edges = np.linspace(dimension.minimum, dimension.maximum, PARTS + 1)
    return tuple(f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges))
