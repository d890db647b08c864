"""What a model answered, joined to the gold row by row while it is read.

A file holds one record a line, as `parse` writes them, or merged ones; a run folder holds result lines. A record that
has no labels is an answer that is missing, and so is a gold row without a record.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, InputError
from labels.score.columns import Column, columns_of
from labels.score.options import Options
from labels.score.slots import takes_soft
from labels.score.truth import LEFT_OUT, Truth
from sinks.folder import FAILURES, MANIFEST, RESULTS
from sinks.ordered import settled_lines

ABSENT, FAILED, ANSWERED = 0, 1, 2
"""Of a gold row: no record, a record without labels, labels."""
SHOWN_IDS = 3
ENDINGS = (".jsonl", ".ndjson", ".json", ".parsed")
"""No part of a model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One record."""

    place: int
    """Its line; in a run folder its row."""
    id: str | None
    index: int | None
    labels: Mapping[str, Any] | None
    is_part: bool = False
    """Whether it answers one group of questions."""
    of_failure: bool = False
    """Whether it only says that no answer came; an answer of the same row counts more."""


@dataclass(slots=True, kw_only=True)
class Predictions:
    """One model's answers, by row of the gold."""

    name: str
    path: Path
    columns: Mapping[str, Column]
    states: bytearray
    """`ABSENT`, `FAILED` or `ANSWERED` for each row of the gold."""
    places: array[int]
    """Where the record of each row stands; 0 is nowhere."""
    records: int = 0
    parsed: int = 0
    """Of those, the ones with labels."""
    unmatched: int = 0
    """Of those, the ones whose id no row of the gold file has."""
    unmatched_ids: list[str] = field(default_factory=list)
    """The first few."""
    unmatched_parts: int = 0
    unknown_keys: Counter[str] = field(default_factory=Counter)

    def count(self, state: int) -> int:
        return self.states.count(state)

    @property
    def matched(self) -> int:
        return len(self.states) - self.count(ABSENT)

    def take(self, said: Said, truth: Truth) -> None:
        """Join one record.

        Raises:
            InputError: its row has a record already.
        """
        row = truth.find(said.id, said.index)
        before = self.places[row] if row is not None and row != LEFT_OUT else 0
        if before and said.of_failure:
            return
        if before:
            raise InputError(
                f"{self.path}: {'rows' if self.path.is_dir() else 'lines'} {before - 1} and {said.place} both answer "
                f"{said.id or said.index!r}; which of them counts cannot be told. Keep one"
            )
        self.records += 1
        self.parsed += said.labels is not None
        if row is None:
            self._miss(said)
        elif row != LEFT_OUT:
            self._join(row, said)

    def _join(self, row: int, said: Said) -> None:
        self.places[row] = said.place + 1
        self.states[row] = FAILED if said.labels is None else ANSWERED
        if said.labels is not None:
            for column in self.columns.values():
                column.put(row, said.labels)
            self.unknown_keys.update(key for key in said.labels if key not in self.columns)

    def _miss(self, said: Said) -> None:
        self.unmatched += 1
        self.unmatched_parts += said.is_part
        if len(self.unmatched_ids) < SHOWN_IDS:
            self.unmatched_ids.append(str(said.index) if said.id is None else said.id)


def read_predictions(path: Path, name: str, truth: Truth, options: Options) -> Predictions:
    """One model's answers from a file or a run folder.

    Raises:
        ConfigError: there is no such file.
        InputError: a line is no record, two answer one row, or none answers any.
        SinkBroken: a run folder is damaged.
    """
    columns = columns_of(truth.coders, options, soft=takes_soft(truth.codebook, options))
    rows = len(truth)
    for column in columns.values():
        column.extend(rows)
    found = Predictions(
        name=name, path=path, columns=columns, states=bytearray(rows), places=array("q", bytes(8 * rows))
    )
    for said in _of_folder(path) if path.is_dir() else _of_file(path):
        found.take(said, truth)
    if not found.matched:
        raise InputError(_nothing_common(found, truth))
    return found


def model_names(paths: Sequence[Path]) -> list[str]:
    """What each file is called in a table: its name without endings; equal ones are numbered."""
    names: list[str] = []
    for path in paths:
        stem = path.resolve().name
        while (ending := next((end for end in ENDINGS if stem.endswith(end) and stem != end), None)) is not None:
            stem = stem.removesuffix(ending)
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names


def _nothing_common(found: Predictions, truth: Truth) -> str:
    if not found.records:
        return f"{found.path} holds no answers"
    if found.unmatched_parts:
        return (
            f"{found.path} answers one group of questions a line ({', '.join(found.unmatched_ids)}), and {truth.path} "
            "has no such rows. Put the groups together first: `parse --merge`"
        )
    gold = ", ".join(truth.names()[:SHOWN_IDS])
    return (
        f"{found.path} and {truth.path} have no id in common; the first ids are {', '.join(found.unmatched_ids)} "
        f"and {gold}. Are they of the same rows?"
    )


def _of_file(path: Path) -> Iterator[Said]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _record(path, number, line)
    except OSError as error:
        raise ConfigError(f"the predictions {path}: {error.strerror}") from error


def _record(path: Path, number: int, line: bytes) -> Said:
    said = _parsed(path, number, line)
    if "json" not in said and "labels" not in said and "parsed" not in said:
        if "raw" in said:
            raise InputError(f"{path} line {number}: a raw answer; read them with `parse` first and score its output")
        raise InputError(f'{path} line {number}: no prediction; a line has "meta_id" and "json", as `parse` writes it')
    labels = said.get("json", said.get("labels"))
    name, index = said.get("meta_id"), said.get("idx", said.get("row"))
    if name is None and type(index) is not int:
        raise InputError(f'{path} line {number}: neither "meta_id" nor "idx" says which row it answers')
    return Said(
        place=number,
        id=None if name is None else str(name),
        index=index if type(index) is int else None,
        labels=labels if isinstance(labels, dict) and said.get("parsed") is not False else None,
        is_part=said.get("group_id") is not None,
    )


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            said = json.loads(line, parse_constant=lambda _: None)  # NaN, which other writers write
        except (ValueError, RecursionError):
            raise InputError(f"{path} line {number}: no JSON: {error}") from error
    if not isinstance(said, dict):
        raise InputError(f"{path} line {number}: no JSON object")
    return said


def _of_folder(out: Path) -> Iterator[Said]:
    """The committed rows of a run folder; a row that failed and was answered later is answered."""
    if not (out / MANIFEST).exists():
        raise ConfigError(f"{out} is a folder without a run; name a file that `parse` wrote, or a run folder")
    with settled_lines(out) as lines:
        for failed, _, said in lines.scan(RESULTS, FAILURES):
            labels = None if failed else said["labels"]
            yield Said(
                place=said["row"],
                id=said["meta_id"],
                index=said["row"],
                labels=labels if isinstance(labels, dict) else None,
                of_failure=failed,
            )
