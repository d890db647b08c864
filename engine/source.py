"""Stage 1: the input file as rows, lazily.

A row is its ordinal among the data records of the file, good and bad alike; ids are data and stay to the letter.
A record that cannot be a row becomes a failure that names its line. Memory holds one batch, whatever the file's size.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Callable, Container, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.cells import Placed, Table
from engine.errors import ConfigError, InputError
from engine.inputs import Resumption, Watch, digest_file
from engine.readers import WHOLE_LINE, open_table
from engine.textlines import MAX_LINE_BYTES
from engine.types import Failure, FailureKind, Record, Row

BATCH_ROWS = 256
"""One hop to the reading thread serves so many rows."""
BATCH_CHARS = 4 << 20
"""A batch of very long rows ends early, so that a few batches never fill the memory."""

ID_ALIASES = ("meta_id", "id", "tt_video_id", "yt_video_id", "video_id")
DESCRIPTION_ALIASES = ("meta_desc", "description", "processed_desc")
EMBEDDED_TEXT_ALIASES = ("embedded_text", "stickersonitem_stickertext")
VIDEO_ALIASES = ("video",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of `of` parts of an input. Rows that say the same are in the same part, whatever they are called."""

    at: int
    of: int

    def has(self, item: Row | Record, *, ignored: Container[str]) -> bool:
        """Whether a row, or the failure of one, is in it.

        Args:
            item: as it was read.
            ignored: names of fields that no request holds.
        """
        if isinstance(item, Record):
            return item.row % self.of == self.at
        said = "\0".join([text for name, text in item.fields.items() if name not in ignored and text])
        # Rows of pictures alone say nothing here, and must not all be one part's.
        return zlib.crc32((said or item.id).encode("utf-8", "surrogatepass")) % self.of == self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Which file, which of its columns, which part of it."""

    path: Path
    id_column: str | None = None
    """None takes the first of `ID_ALIASES` there is; likewise below."""
    transcript_column: str | None = None
    description_column: str | None = None
    embedded_text_column: str | None = None
    video_column: str | None = None
    carried: tuple[tuple[str, str], ...] = ()
    """Further columns that come along in `Row.fields`: under which name, and what the header calls them. They are no
    part of what makes an input the same: no request holds them."""
    whole_lines: bool = False
    """Whether each line of a .jsonl file is a row as it stands: `Row.fields` has nothing but its text, as `line`; the
    id is its `meta_id`, or else the row's ordinal."""
    max_line_bytes: int = MAX_LINE_BYTES
    """A longer line of text is no row."""
    skip: int = 0
    """Records left out at the beginning; they keep their ordinals."""
    limit: int = 0
    """Records taken at most; 0 takes all."""
    part: Part | None = None
    """The part of these whose rows are given; None gives all. It changes nothing of what a row is or of how many there
    are."""

    def __post_init__(self) -> None:
        if self.skip < 0 or self.limit < 0:
            raise ConfigError("--skip and --limit must not be negative")


def describe_input(config: SourceConfig, *, known: Mapping[str, Any] | None = None) -> dict[str, object]:
    """What makes this input this input, as JSON values: size, header, chosen columns, SHA-256 per 64 MiB.

    Args:
        config: which file, which of its columns.
        known: what this gave in an earlier life of the run; it saves reading the whole file if nothing has moved.

    Raises:
        ConfigError: the file is missing, not a regular file, not readable, or of an unknown kind.
        InputError: it is empty, not the format its name says, or has no id column.
    """
    path = config.path
    _check_file(path)
    with _opened(config) as table:
        columns = _columns(config, table)
        header = list(table.header)
    about: dict[str, object] = {
        "path": str(path.resolve()),
        "header": header,
        "columns": {role: header[at] for role, at in columns.items() if role not in dict(config.carried)},
    }
    return about | digest_file(path, known=known)


def header_of(path: Path) -> tuple[str, ...]:
    """The names of the columns.

    Raises:
        ConfigError, InputError: as `describe_input`.
    """
    _check_file(path)
    with open_table(path) as table:
        return table.header


class RowReader:
    """The rows that are not done, in batches. A context manager that holds the file open.

    Args:
        config: which file and which part of it.
        is_done: whether a row, by its ordinal, is to be left out.
        batch_size: rows a batch at most.
        resume: what earlier lives of the run know of the input.

    Raises:
        ConfigError, InputError: as `describe_input`; InputError also when a compressed file breaks off.
        ResumeMismatch: the file is not the one that was described.
    """

    def __init__(
        self,
        config: SourceConfig,
        *,
        is_done: Callable[[int], bool],
        batch_size: int = BATCH_ROWS,
        resume: Resumption | None = None,
    ) -> None:
        resume = resume or Resumption()
        self._config = config
        self._is_done = is_done
        self._batch_size = batch_size
        self._marks = resume.marks
        self._part = config.part
        self._ignored = frozenset(name for name, _ in config.carried)
        self._ended = False
        self._broken: InputError | None = None
        self._share = 0.0
        """Of the file's bytes, what the batches so far have taken."""
        _check_file(config.path)
        self._watch = Watch(config.path, resume.identity) if resume.identity is not None else None
        self._opened = ExitStack()
        with ExitStack() as opened:
            size_bytes = self._watch.size_bytes if self._watch else None
            self._table = opened.enter_context(_opened(config, size_bytes=size_bytes))
            self._fd = os.open(config.path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, self._fd)
            if self._watch:
                self._watch.check()
            columns = _columns(config, self._table)
            self._roles = tuple(columns)
            self._passed = self._table.skip_to(self._first_wanted(resume.first_open), self._marks)
            """Records of the table so far, whether they were read or skipped."""
            self._records = self._table.records(tuple(columns.values()))
            self._opened = opened.pop_all()

    def _first_wanted(self, first_open: int) -> int:
        config = self._config
        first = max(config.skip, first_open)
        return min(first, config.skip + config.limit) if config.limit else first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def next_batch(self) -> list[Row | Record]:
        """The next rows; an empty list at the end. Blocking.

        Raises:
            InputError: the file breaks off here. Every row before has been given.
            ResumeMismatch: the file was changed since it was described.
        """
        if self._broken:
            raise self._broken
        try:
            return self._next_batch()
        finally:
            # After reading, so that no row is given whose bytes had been changed before; an error may come of it too.
            if self._watch:
                self._watch.check(last=self._ended)

    def _next_batch(self) -> list[Row | Record]:
        batch: list[Row | Record] = []
        chars = 0
        while len(batch) < self._batch_size and chars < BATCH_CHARS:
            try:
                placed = self._next_record()
            except InputError as error:
                self._broken = error
                if batch:
                    break
                raise
            if placed is None:
                self._ended = True
                break
            ordinal = self._passed - 1
            if ordinal >= self._config.skip and not self._is_done(ordinal):
                item = _row(ordinal, placed, self._roles, id_from_position=self._config.whole_lines)
                if self._part is not None and not self._part.has(item, ignored=self._ignored):
                    continue
                batch.append(item)
                chars += len(item.id) + sum(map(len, item.fields.values())) if isinstance(item, Row) else 0
        self._share = self._table.share_read()
        return batch

    def _next_record(self) -> Placed | None:
        config = self._config
        if config.limit and self._passed >= config.skip + config.limit:
            return None
        placed = next(self._records, None)
        if placed is not None:
            if self._marks.is_next(self._passed) and (place := self._table.here()) is not None:
                self._marks.add(place, fd=self._fd)
            self._passed += 1
        return placed

    def rows_total(self) -> tuple[int, bool]:
        """How many rows the run covers, and whether that is known; until the end it is judged by the bytes read."""
        config, share = self._config, self._share
        covered = max(0, self._passed - config.skip)
        if self._ended:
            return covered, True
        guess = math.ceil(self._passed / share) - config.skip if share > 0 else 0
        return max(covered, min(guess, config.limit or guess)), False

    @property
    def grown(self) -> bool:
        """Whether rows were appended to the file since it was described. They are not among the rows given."""
        return self._watch is not None and self._watch.grown

    def close(self) -> None:
        self._opened.close()


def _opened(config: SourceConfig, *, size_bytes: int | None = None) -> AbstractContextManager[Table]:
    return open_table(
        config.path, size_bytes=size_bytes, whole_lines=config.whole_lines, max_line_bytes=config.max_line_bytes
    )


def _columns(config: SourceConfig, table: Table) -> dict[str, int]:
    if config.whole_lines:
        return {"id": 0, WHOLE_LINE[1]: 1}
    columns = choose_columns(config, table.header)
    if columns["id"] in table.float_columns:
        name = table.header[columns["id"]]
        raise InputError(f"{config.path} holds the ids of {name!r} as floats, which lose digits; store them as strings")
    return columns


def choose_columns(config: SourceConfig, header: tuple[str, ...]) -> dict[str, int]:
    """Where each role is found in the header, by the flags, else by the aliases.

    Raises:
        ConfigError: a flag names a column there is not.
        InputError: there is no id column, or two of a name that was chosen.
    """
    names = [name.strip().casefold() for name in header]

    def first(aliases: tuple[str, ...]) -> int | None:
        return next((names.index(alias) for alias in aliases if alias in names), None)

    transcripts = [at for at, name in enumerate(names) if "transcript" in name or "subtitle" in name]
    described = first(DESCRIPTION_ALIASES)
    if described is None:
        described = next((at for at, name in enumerate(names) if "desc" in name and at not in transcripts), None)
    found = {
        "id": first(ID_ALIASES),
        "transcript": transcripts[-1] if transcripts else None,
        "description": described,
        "embedded_text": first(EMBEDDED_TEXT_ALIASES),
        "video": first(VIDEO_ALIASES),
    }
    asked = {
        "id": config.id_column,
        "transcript": config.transcript_column,
        "description": config.description_column,
        "embedded_text": config.embedded_text_column,
        "video": config.video_column,
    }
    for role, name in asked.items():
        if name is not None:
            found[role] = _named("--" + role.replace("_", "-") + "-column", name, names, header)
    for role, name in config.carried:
        found[role] = _named(config.path, name, names, header)
    if found["id"] is None:
        raise InputError(
            f"{config.path} has no id column (looked for {', '.join(ID_ALIASES)}; it has {', '.join(header)}). "
            "Name it with --id-column"
        )
    chosen = {role: at for role, at in found.items() if at is not None}
    for at in chosen.values():
        if names.count(names[at]) > 1:
            raise InputError(f"{config.path} has more than one column named {header[at]!r}")
    return chosen


def _named(who: object, name: str, names: list[str], header: tuple[str, ...]) -> int:
    try:
        return names.index(name.strip().casefold())
    except ValueError:
        raise ConfigError(f"{who} {name}: no such column; there are {', '.join(header)}") from None


def _row(ordinal: int, placed: Placed, roles: tuple[str, ...], *, id_from_position: bool) -> Row | Record:
    """One record as a row, or as the failure that says where and why it is none."""
    place, cells = placed
    if isinstance(cells, str):
        return _bad(ordinal, f"{place}: {cells}")
    found = {role: cell for role, cell in zip(roles, cells, strict=True) if cell is not None}
    identity = found.pop("id", "") or (str(ordinal) if id_from_position else "")
    if not identity:
        return _bad(ordinal, f"{place}: the id is empty")
    return Row(row=ordinal, id=identity, fields=found)


def _bad(ordinal: int, message: str) -> Record:
    return Record(row=ordinal, id="", outcome=Failure(kind=FailureKind.BAD_ROW, message=message))


def _check_file(path: Path) -> None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"--input {path} is not a regular file; give a .csv, .tsv, .parquet or .jsonl file")
        path.open("rb").close()
    except FileNotFoundError:
        raise ConfigError(f"--input {path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"--input {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"--input {str(path)!r}: {error}") from error
