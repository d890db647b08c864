"""What an audit found: counts, and how they are said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labels.codebook import NOT_ASKED, Codebook, Dimension

SHOWN_FAULTS = 20
TOP_CELLS, TOP_COMBINATIONS = 25, 15
BINS = 10
THIRDS = ("low", "middle", "high")
"""A number in the joint cells: by thirds of its range."""


@dataclass(slots=True)
class Span:
    """The least, the mean and the greatest of some numbers."""

    count: int = 0
    total: float = 0
    least: float = math.inf
    most: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    def as_json(self) -> dict[str, object]:
        if not self.count:
            return {"count": 0}
        return {"count": self.count, "min": self.least, "mean": self.total / self.count, "max": self.most}

    def text(self) -> str:
        if not self.count:
            return "none"
        return f"{self.least:,g} to {self.most:,g}, mean {self.total / self.count:,.2f}"


@dataclass(slots=True)
class Report:
    """Everything that was counted."""

    path: str
    codebook: Codebook | None = None
    """Under which the answers were read; None if there are none, or none fits."""
    lines: int = 0
    blank: int = 0
    file_bytes: int = 0
    answered: int = 0
    unanswered: int = 0
    without_id: int = 0
    duplicates: int = 0
    faults: int = 0
    first_faults: list[tuple[int, str]] = field(default_factory=list)
    """Line and what is wrong with it."""
    line_breaks: Counter[str] = field(default_factory=Counter)
    """Lines that hold what some readers break at."""
    extra_keys: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    contents: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    """By the kind of their address."""
    line_bytes: Span = field(default_factory=Span)
    text_chars: Span = field(default_factory=Span)
    frames: Span = field(default_factory=Span)
    picture_bytes: Span = field(default_factory=Span)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """Of categories by value, of numbers by the tenth of their range, of lists by item."""
    numbers: dict[str, Span] = field(default_factory=dict)
    combinations: dict[str, Counter[tuple[str, ...]]] = field(default_factory=dict)
    """Of lists: which values stand together."""
    cells: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)

    def fault(self, line: int, what: str) -> None:
        self.faults += 1
        if len(self.first_faults) < SHOWN_FAULTS:
            self.first_faults.append((line, what))

    def label(self, codebook: Codebook, labels: Mapping[str, Any]) -> None:
        """Count the labels of one line."""
        cell = []
        for dimension in codebook.dimensions:
            if dimension.key not in labels:
                continue
            value = labels[dimension.key]
            counts = self.values.setdefault(dimension.key, Counter())
            if dimension.kind == "list" and isinstance(value, list):
                counts.update(value)
                self.combinations.setdefault(dimension.key, Counter())[tuple(sorted(value))] += 1
                continue
            if dimension.kind == "number" and value != NOT_ASKED:
                self.numbers.setdefault(dimension.key, Span()).add(value)
                counts[_bin(dimension, value)] += 1
                cell.append((dimension.key, THIRDS[min(2, int(3 * _share(dimension, value)))]))
                continue
            counts[value] += 1
            cell.append((dimension.key, value))
        self.cells[tuple(cell)] += 1

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong. An empty file is not sound."""
        return not self.faults and self.lines > 0

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "path": self.path,
            "sound": self.sound,
            "codebook": None if self.codebook is None else self.codebook.name,
            "lines": self.lines,
            "blank": self.blank,
            "bytes": self.file_bytes,
            "answered": self.answered,
            "unanswered": self.unanswered,
            "without_id": self.without_id,
            "duplicate_ids": self.duplicates,
            "errors": self.faults,
            "first_errors": [{"line": line, "error": what} for line, what in self.first_faults],
            "line_breaks": {name: count for name, count in self.line_breaks.items() if count},
            "extra_keys": self.extra_keys,
            "groups": self.groups,
            "contents": self.contents,
            "line_bytes": self.line_bytes.as_json(),
            "text_chars": self.text_chars.as_json(),
            "frames": self.frames.as_json(),
            "pictures": self.pictures,
            "picture_bytes": self.picture_bytes.as_json(),
            "labels": self.values,
            "numbers": {key: span.as_json() for key, span in self.numbers.items()},
            "joint_cells": [
                {"labels": dict(cell), "lines": count} for cell, count in self.cells.most_common(TOP_CELLS)
            ],
            "combinations": {
                key: [{"values": values, "lines": count} for values, count in found.most_common(TOP_COMBINATIONS)]
                for key, found in self.combinations.items()
            },
        }

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{self.path}: {self.lines:,} lines, {self.file_bytes:,} bytes",
            f"answers: {self.answered:,} lines with, {self.unanswered:,} without",
            f"contents: {_counts(self.contents)}",
            f"characters of text a line: {self.text_chars.text()}",
            f"frames a line: {self.frames.text()}",
            f"bytes a line: {self.line_bytes.text()}",
        ]
        if self.pictures:
            lines.append(f"pictures: {_counts(self.pictures)}; bytes of one: {self.picture_bytes.text()}")
        if set(self.groups) - {""}:
            lines.append(f"groups: {_counts(self.groups)}")
        lines += [f"note: {note}" for note in self._notes()]
        lines += self._labels()
        lines.append(f"{self.faults:,} errors" if self.faults else "no errors" if self.lines else "no lines")
        lines += [f"  line {number}: {what}" for number, what in self.first_faults]
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        notes = [f"{count:,} lines hold {name}" for name, count in self.line_breaks.items() if count]
        notes += [f"{count:,} lines have the extra key {key!r}" for key, count in self.extra_keys.most_common()]
        if self.answered and self.unanswered:
            notes.append("some lines have an answer, some have none")
        if len(self.contents) > 1:
            notes.append("some contents are lists, some are texts")
        if self.without_id and self.without_id < self.lines:
            notes.append(f"{self.without_id:,} lines have no id")
        return notes

    def _labels(self) -> list[str]:
        if self.codebook is None:
            return []
        lines = ["", f"labels ({self.codebook.name})"]
        for key, counts in self.values.items():
            spread = f"{self.numbers[key].text()}; " if key in self.numbers else ""
            lines.append(f"  {key}: {spread}{_counts(counts)}")
        for key, found in self.combinations.items():
            lines += ["", f"combinations of {key}"]
            lines += [
                f"  {count:>8,}  {', '.join(cell) or '(none)'}" for cell, count in found.most_common(TOP_COMBINATIONS)
            ]
        lines += ["", "joint cells"]
        for cell, count in self.cells.most_common(TOP_CELLS):
            lines.append(f"  {count:>8,}  {', '.join(f'{key}={value or repr(value)}' for key, value in cell)}")
        return [*lines, ""]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name or repr(name)} {count:,}" for name, count in counts.most_common()) or "none"


def _share(dimension: Dimension, value: float) -> float:
    return (value - dimension.minimum) / (dimension.maximum - dimension.minimum)


def _bin(dimension: Dimension, value: float) -> str:
    at = min(BINS - 1, int(BINS * _share(dimension, value)))
    width = (dimension.maximum - dimension.minimum) / BINS
    return f"{dimension.minimum + at * width:.3g}..{dimension.minimum + (at + 1) * width:.3g}"
