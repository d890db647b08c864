"""Whether the input is still what it was: between two lives of a run, and while one reads it.

A row is its ordinal, so a run must never go on with other bytes before that ordinal. The identity of an input is its
size and a SHA-256 per 64 MiB. Size, time of change, first and last piece say at once that nothing has changed; wherever
they say otherwise, every piece is compared, and the difference is named.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from engine.errors import InputError, ResumeMismatch
from engine.marks import Block, Marks, crc_between
from engine.readers import is_plain_text, open_table

CHUNK_BYTES = 64 << 20
"""The input is digested in pieces of this size, so that an appended file can be told from an edited one."""
READ_BYTES = 1 << 20
SIZE, CHANGED_NS, SUMS = "size_bytes", "mtime_ns", "sha256_per_64_mib"
"""Keys of an identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An input beside the one that a run began with."""

    differences: tuple[str, ...] = ()
    """In words, each led by the field it is about; empty if it is the same input."""
    grown: bool = False
    """Whether all that differs is that rows were added at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What earlier lives of a run, and its beginning, know of the input."""

    first_open: int = 0
    """Every row before this one is done."""
    marks: Marks = field(default_factory=Marks)
    """Where records begin; more are added while the file is read."""
    identity: Mapping[str, Any] | None = None
    """What `describe_input` gave; reading ends where the file ended then. None takes the file as it comes."""


def digest_file(path: Path, *, known: Mapping[str, Any] | None = None) -> dict[str, object]:
    """Size, time of change, and the digests of the pieces, as JSON values.

    Args:
        path: the file.
        known: what this gave in an earlier life. If neither size nor time of change has moved since, and the first and
            the last piece are the same, the others are taken to be.

    Raises:
        InputError: the file cannot be read.
    """
    with _Opened(path) as file:
        size, changed_ns = file.size_bytes, file.changed_ns
        sums = None
        if known is not None and (known.get(SIZE), known.get(CHANGED_NS)) == (size, changed_ns):
            sums = _confirmed(file, known.get(SUMS))
        return {SIZE: size, CHANGED_NS: changed_ns, SUMS: list(file.sums(size)) if sums is None else sums}


def _confirmed(file: _Opened, sums: Any) -> list[str] | None:
    """The known digests, if they are those of the first and the last piece."""
    pieces = range(0, file.size_bytes, CHUNK_BYTES)
    if not isinstance(sums, list) or len(sums) != len(pieces):
        return None
    ends = sorted({0, len(pieces) - 1}) if sums else []
    return sums if all(file.sum_of(pieces[at], file.size_bytes) == sums[at] for at in ends) else None


def compare(path: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, marks: Marks) -> Comparison:
    """What differs between two identities of an input, of which the new one is that of the file as it is now.

    Args:
        path: the file.
        old: as `describe_input` gave it, read back from JSON; likewise `new`.
        new: the same for the file as it is now.
        marks: of the old file, as far as it was read.

    Raises:
        InputError: the file cannot be read.
    """
    columns = tuple(_differing_columns(old.get("columns"), new.get("columns")))
    size = old.get(SIZE)
    if not isinstance(size, int) or len(old.get(SUMS) or ()) != len(range(0, size, CHUNK_BYTES)):
        return Comparison(differences=(*columns, f"input: {path} cannot be compared with what run.json says of it"))
    with _Opened(path) as file:
        found = _find(file, size, old[SUMS], marks, known=new)
    if found is None and new[SIZE] == size:
        return Comparison(differences=(*columns, *_differing_header(old, new)))
    if found is None:
        grown = f"input.{SIZE}: {path} has grown at its end: it had {size:,} bytes, now it has {new[SIZE]:,}"
        if not is_plain_text(path):
            return Comparison(differences=(*columns, f"{grown}; only .csv, .tsv and .jsonl files may grow"))
        if not _ends_with_a_record(path, size, marks):
            why = "its last row was not finished then, or is another one now"
            return Comparison(differences=(*columns, f"{grown}, and {why}"))
        if columns:
            return Comparison(differences=(*columns, grown))
        return Comparison(differences=(f"{grown}. With --extend the run goes on with the new rows too",), grown=True)
    return Comparison(differences=(*columns, *_differing_header(old, new), f"input.{SUMS}: {path} {found}"))


def _differing_columns(old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for role in sorted(old.keys() | new.keys()):
            if old.get(role) != new.get(role):
                yield f"input.columns.{role}: the run has {old.get(role)!r}, now it is {new.get(role)!r}"


def _differing_header(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, now = old.get("header") or [], new.get("header") or []
    if before == now:
        return
    gone, added = [name for name in before if name not in now], [name for name in now if name not in before]
    said = [f"{words} {', '.join(names)}" for words, names in (("without", gone), ("with the new", added)) if names]
    yield f"input.header: the columns are other ones: {' and '.join(said) or 'the same in another order'}"


def _find(
    file: _Opened, size: int, sums: list[str], marks: Marks, *, known: Mapping[str, Any] | None = None
) -> str | None:
    """The first difference between a file of old and the first bytes of the file now, as what can be said of it.

    Args:
        file: as it is now.
        size: of old.
        sums: of old.
        marks: of old.
        known: the identity of the file as it is now, if it has been digested already.
    """
    common = min(size, file.size_bytes)
    for at, start in enumerate(range(0, size, CHUNK_BYTES)):
        end = min(start + CHUNK_BYTES, size)
        if known is not None and end in (start + CHUNK_BYTES, known[SIZE]) and end <= known[SIZE]:
            same = known[SUMS][at] == sums[at]
        else:
            same = end <= file.size_bytes and file.sum_of(start, size) == sums[at]
        if not same:
            if (block := _differing_block(file, marks, start, common)) is not None:
                rows = f"rows {block.first_row:,} to {block.last_row:,} differ"
                return f"was edited: {rows}, somewhere in bytes {block.start:,} to {block.end:,}"
            if end > file.size_bytes:
                return f"is shorter: it was cut, or edited; it had {size:,} bytes, now it has {file.size_bytes:,}"
            return f"was edited: bytes {start:,} to {end:,} differ"
    return None


def _differing_block(file: _Opened, marks: Marks, start: int, end: int) -> Block | None:
    """The first rows of old, all of whose bytes would have to lie in this part, that are not what they were."""
    for block in marks.blocks():
        if block.end > end or block.start >= start + CHUNK_BYTES:
            return None
        if block.end > start and file.crc(block) != block.crc:
            return block
    return None


def _ends_with_a_record(path: Path, size: int, marks: Marks) -> bool:
    """Whether in the file as it is now no record stands on both sides of where the old one ended.

    An old end without a newline may have got one. A quote that was open at the old end may be closed by what follows:
    then the file is read otherwise from there on.
    """
    # Where records end is all that counts, so lines of JSON need not be read as objects.
    with open_table(path, whole_lines=True) as table:
        table.skip_to(marks.last_row, marks)
        start = path.stat().st_size
        for _ in table.records(()):
            place = table.here()
            if place is not None and place.byte >= size:
                start = place.byte
                break
    with _Opened(path) as file:
        return all(not piece.strip(b"\r\n") for piece in file.pieces(size, start))


class Watch:
    """Notices that the input is changed while it is read.

    What is appended is left for later, if the bytes before it are the same: a run covers what it began with.

    Args:
        path: the file.
        identity: what it was when the run began, as `describe_input` gave it.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._sums: list[str] = identity[SUMS]
        self.size_bytes: int = identity[SIZE]
        self.grown = False
        """Whether something was appended."""
        self._unproven = False
        with _Opened(path) as file:
            self._file_id = file.file_id
        self._seen: _Stamp = (self.size_bytes, identity[CHANGED_NS], self._file_id)

    def check(self, *, last: bool = False) -> None:
        """Look whether the file has changed; cheap as long as it has not.

        Args:
            last: whether this is the end of reading, where what was put off is made up for.

        Raises:
            ResumeMismatch: it is another file, or its bytes are others.
        """
        try:
            now = _stamp(self._path.stat())
        except OSError as error:
            raise self._changed(f"is gone ({error.strerror})") from error
        if now == self._seen and not (last and self._unproven):
            return
        # A file that is written to all the time is compared when this is noticed and once more at the end.
        grows = self.grown and now[0] > self._seen[0] and now[2] == self._seen[2]
        self._seen = now
        if grows and not last:
            self._unproven = True
            return
        self._unproven = False
        self._compare()

    def _compare(self) -> None:
        try:
            with _Opened(self._path) as file:
                found = _find(file, self.size_bytes, self._sums, Marks())
                self.grown = file.size_bytes > self.size_bytes
        except InputError as error:
            raise self._changed(str(error)) from error
        if found is not None:
            raise self._changed(found)

    def _changed(self, what: str) -> ResumeMismatch:
        return ResumeMismatch(
            f"{self._path} {what}, during the run. Answers committed so far are safe, but rows read since the change "
            "may be other ones. Put the file back as it was and go on with --resume, or start a new run with another "
            "--out"
        )


_Stamp = tuple[int, int, tuple[int, int]]


def _stamp(said: os.stat_result) -> _Stamp:
    return said.st_size, said.st_mtime_ns, (said.st_dev, said.st_ino)


class _Opened:
    """A file opened to be digested. Every method raises InputError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self.size_bytes, self.changed_ns, self.file_id = _stamp(os.fstat(self._fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def sums(self, size: int) -> Iterator[str]:
        """The digest of each piece of the first `size` bytes."""
        return (self.sum_of(start, size) for start in range(0, size, CHUNK_BYTES))

    def sum_of(self, start: int, size: int) -> str:
        """The digest of the piece that begins here, of a file that ends at `size`."""
        digest = hashlib.sha256()
        for piece in self.pieces(start, min(start + CHUNK_BYTES, size)):
            digest.update(piece)
        return digest.hexdigest()

    def crc(self, block: Block) -> int:
        return crc_between(self._fd, block.start, block.end)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes between, as far as there are any."""
        try:
            while start < end and (piece := os.pread(self._fd, min(READ_BYTES, end - start), start)):
                start += len(piece)
                yield piece
        except OSError as error:
            raise InputError(f"{self._path} cannot be read past byte {start}: {error.strerror}") from error
