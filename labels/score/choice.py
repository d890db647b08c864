"""Which codebook scores: the one named, or the shipped one that fits the gold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import InputError
from labels.codebook import SHIPPED, Codebook, Dimension, load_codebook
from labels.score.columns import Coder, is_number

LOOKED_AT_ROWS = 200
"""Gold rows that decide on the codebook; with one group a row, the first rows hold every group."""
PREFERRED = ("standard", "comprehensive", "numeric", "numeric-comprehensive")
LANGUAGES = Dimension(
    key="languages",
    title="Languages",
    kind="list",
    definition="The languages that are spoken or written.",
    evidence="What is heard or read.",
    values=("english", "mandarin", "spanish", "other", "no_language"),
    gold=("languages",),
    synonyms={value: value for value in ("english", "mandarin", "spanish", "other", "no_language")},
)
"""Asked by the first scripts besides the three of `standard`; no shipped codebook has it."""


def shipped_codebooks() -> list[Codebook]:
    names = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    return [load_codebook(name) for name in sorted(names, key=lambda name: (_place(name), name))]


def _place(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)


def fitting(answers: Iterable[Mapping[str, Any]], path: Path) -> Codebook:
    """The shipped codebook that knows every key of these gold answers, and most of their values.

    Raises:
        InputError: there is none.
    """
    samples = list(answers)
    keys = {key for said in samples for key in said}
    candidates = shipped_codebooks()
    standard = candidates[0]
    candidates.append(dataclasses.replace(standard, dimensions=(*standard.dimensions, LANGUAGES)))
    able = [book for book in candidates if keys <= {dimension.key for dimension in book.dimensions}]
    if not able:
        raise InputError(
            f"{path}: no shipped codebook has all the keys of its gold ({', '.join(sorted(keys)[:12])}); "
            "name yours with --codebook"
        )
    return min(able, key=lambda book: (-_known(book, samples), len(book.dimensions)))


def _known(codebook: Codebook, samples: list[Mapping[str, Any]]) -> int:
    coders = {dimension.key: Coder(dimension=dimension) for dimension in codebook.dimensions}
    return sum(_fits(coders[key], value) for said in samples for key, value in said.items())


def _fits(coder: Coder, value: Any) -> bool:
    dimension = coder.dimension
    if dimension.kind == "number":
        return is_number(value) and dimension.minimum <= value <= dimension.maximum
    return coder.code(value) is not None
