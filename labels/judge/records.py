"""Records of the files that are joined: one object a line, or one list of objects. An id is text, to the letter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, InputError

EXACT = 1 << 53
"""From here on a double is no longer every integer: an id that was read as one may have lost digits."""
ID_KEYS = ("question_id", "response_id", "id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object of a file."""

    path: Path
    line: int
    """From 1; in a file that is one list, the place in it."""
    said: Mapping[str, Any]

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.path} line {self.line}"

    def text(self, *keys: str) -> str | None:
        """The first of these that is there and not null, as text.

        Raises:
            InputError: it is no text.
        """
        for key in keys:
            value = self.said.get(key)
            if value is None:
                continue
            if not isinstance(value, str):
                raise InputError(f"{self.place}: {key} must be text, not {type(value).__name__}")
            return value
        return None

    def identity(self, *keys: str) -> str | None:
        """The first of these that is there, as the text of an id; None without any.

        Raises:
            InputError: it is nothing that can name a record.
        """
        for key in keys:
            if self.said.get(key) is not None:
                found = id_text(self.said[key])
                if found is None:
                    raise InputError(f"{self.place}: {key} {self.said[key]!r} is no id; give text or a whole number")
                return found
        return None


def id_text(value: Any) -> str | None:
    """An id as text; None for what can name no record."""
    if isinstance(value, str) and value.strip():
        return value
    if type(value) is int:
        return str(value)
    # pandas writes whole numbers so where one of the column is missing.
    return str(int(value)) if type(value) is float and value.is_integer() and abs(value) < EXACT else None


def read_entries(path: Path, *, flag: str) -> Iterator[Entry]:
    """The objects of a file, one a line; a file that begins with a bracket is one list.

    Args:
        path: the file.
        flag: which flag named it, for messages.

    Raises:
        ConfigError: it cannot be read.
        InputError: it holds something else.
    """
    try:
        with path.open("rb") as file:
            if _is_list(file.peek(64)[:64]):
                yield from _listed(path, file.read())
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _entry(path, number, _json(path, number, line))
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error


def _is_list(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _listed(path: Path, data: bytes) -> Iterator[Entry]:
    for number, said in enumerate(_json(path, 1, data), 1):
        yield _entry(path, number, said)


def _json(path: Path, number: int, data: bytes) -> Any:
    try:
        return orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} line {number}: no JSON: {error}") from error


def _entry(path: Path, number: int, said: Any) -> Entry:
    if not isinstance(said, dict):
        raise InputError(f"{path} line {number}: {type(said).__name__} where an object should be")
    return Entry(path=path, line=number, said=said)
