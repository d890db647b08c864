"""Forms with a file, read from a connection a piece in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from bench.finetuning_jobs import RefusedError

PIECE_BYTES = 256 << 10
_FIELD = re.compile(rb'name="([^"]*)"(?:; filename="([^"]*)")?')


class Body:
    """What is left of the body of a request."""

    def __init__(self, source: BinaryIO, length: int) -> None:
        self._source = source
        self.left = length

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        piece = self._source.read(min(PIECE_BYTES, self.left))
        self.left -= len(piece)
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        data = self._source.read(self.left)
        self.left = 0
        return data


def read_form(body: Body, kind: str, file: BinaryIO) -> dict[str, str]:
    """The fields of a form, a piece in memory at a time; the file among them is written, and its name is its value.

    Raises:
        RefusedError: it is no such form.
    """
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    if not kind.startswith("multipart/form-data") or not boundary:
        raise RefusedError("expected a form with a file")
    fields: dict[str, str] = {}
    reader = _Form(body)
    reader.until(b"--" + boundary, lambda _: None)
    while reader.line() != b"--":
        head = bytearray()
        reader.until(b"\r\n\r\n", head.extend)
        found = _FIELD.search(head)
        if found is None:
            raise RefusedError("a part of the form has no name")
        value = bytearray()
        take: Callable[[bytes], object] = value.extend if found[2] is None else file.write
        reader.until(b"\r\n--" + boundary, take)
        fields[found[1].decode()] = (bytes(value) if found[2] is None else found[2]).decode()
    if "file" not in fields:
        raise RefusedError("the form holds no file")
    return fields


class _Form:
    """A body, read up to one mark after another."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._held = b""

    def until(self, mark: bytes, take: Callable[[bytes], object]) -> None:
        """Hand over what stands before the next mark, and go behind it."""
        while (at := self._held.find(mark)) < 0:
            keep = max(0, len(self._held) - len(mark) + 1)
            take(self._held[:keep])
            self._held = self._held[keep:] + self._more()
        take(self._held[:at])
        self._held = self._held[at + len(mark) :]

    def line(self) -> bytes:
        """The two bytes behind a boundary: `--` at the end of the form."""
        while len(self._held) < 2:  # noqa: PLR2004 - two bytes
            self._held += self._more()
        return self._held[:2]

    def _more(self) -> bytes:
        piece = self._body.read()
        if not piece:
            raise RefusedError("the form breaks off")
        return piece
