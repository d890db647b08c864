"""On which line of a TOML file something is said. The standard library's parser does not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

Place = tuple[str | int, ...]
"""The way to a value: names of tables and keys, and the numbers of elements of arrays of tables, from 0."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_PAIR = re.compile(rf"\s*({_DOTTED})\s*=")
_ONE_KEY = re.compile(_KEY)
_LONG_QUOTES = ('"""', "'''")
_PIECE = re.compile(r'"""|\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*|[\[\]{}]')


def lines_of(text: str) -> dict[Place, int]:
    """The line, from 1, of every table header and of every key that stands at the beginning of a line."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    inside = _Inside()
    for number, line in enumerate(text.split("\n"), 1):
        if inside.nothing:
            if header := _HEADER.match(line):
                table = _table(_names(header[2]), counts, new=header[1] == "[[")
                found.setdefault(table, number)
                found.setdefault(tuple(part for part in table if isinstance(part, str)), number)
                continue
            if pair := _PAIR.match(line):
                names = _names(pair[1])
                for end in range(1, len(names) + 1):
                    found.setdefault((*table, *names[:end]), number)
                line = line[pair.end() :]  # noqa: PLW2901 - the rest is the value
        inside.take(line)
    return found


def line_of(lines: Mapping[Place, int], at: Place) -> int:
    """The line of a place; of what holds it, where it has none of its own."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in _ONE_KEY.findall(dotted))


def _table(names: tuple[str, ...], counts: dict[Place, int], *, new: bool) -> Place:
    """The place of a table by the names in its header; an array of tables is meant by its last element."""
    place: Place = ()
    for at, name in enumerate(names):
        place = (*place, name)
        if new and at == len(names) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


class _Inside:
    """Whether a line begins inside a value that began on an earlier one."""

    def __init__(self) -> None:
        self._quote = ""
        self._depth = 0

    @property
    def nothing(self) -> bool:
        return not self._quote and not self._depth

    def take(self, line: str) -> None:
        """Go through a line, or the rest of one."""
        at = 0
        while at < len(line):
            if self._quote:
                end = _end_of(line, self._quote, at)
                if end < 0:
                    return
                at, self._quote = end, ""
                continue
            piece = _PIECE.search(line, at)
            if piece is None:
                return
            at = piece.end()
            if piece[0] in _LONG_QUOTES:
                self._quote = piece[0]
            elif piece[0] in "[{":
                self._depth += 1
            elif piece[0] in "]}":
                self._depth -= 1


def _end_of(line: str, quote: str, start: int) -> int:
    """Behind the closing quotes of a text of several lines, or -1."""
    at = start
    while (at := line.find(quote, at)) >= 0:
        before = len(line[start:at]) - len(line[start:at].rstrip("\\"))
        if quote == "'''" or before % 2 == 0:
            # Up to two more quotes belong to the text.
            while line.startswith(quote[0], at + 3):
                at += 1
            return at + 3
        at += 1
    return -1
