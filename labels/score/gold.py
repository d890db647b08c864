"""Where gold comes from: the last message of each chat in a JSONL file, or the columns of a table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from encoders.body import SECTIONS
from engine.errors import ConfigError, InputError
from engine.readers import open_table
from engine.source import RowReader, SourceConfig
from engine.types import Failure, Row
from labels.codebook import Codebook, load_codebook
from labels.gold import DEFAULT_YN_THRESH, GoldColumns
from labels.messages import Chat, read_chats
from labels.score.choice import LOOKED_AT_ROWS, fitting, shipped_codebooks
from labels.score.options import Options
from labels.score.truth import Entry, Truth

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
PACKED_SUFFIXES = (".gz", ".zst")
_HEADINGS = re.compile("^(?:" + "|".join(title for _, title in SECTIONS) + "):$", re.MULTILINE)


def read_truth(path: Path, *, codebook: str | None, id_column: str | None, options: Options) -> Truth:
    """All gold of a file: a table by its suffix, else chats.

    Args:
        path: the file.
        codebook: a shipped name or a file; None finds the shipped one that fits.
        id_column: of a table; None looks for the usual names.
        options: how to score.

    Raises:
        ConfigError: there is no such file or codebook.
        InputError: a line is wrong, an id stands twice, or no row has gold.
    """
    book = load_codebook(codebook) if codebook is not None else None
    if not path.is_file():
        raise ConfigError(f"--val-file {path}: {'not a file' if path.exists() else 'no such file'}")
    if is_table(path):
        truth = gold_from_table(path, book, id_column=id_column, options=options)
    elif id_column is not None:
        raise ConfigError("--id-column is for a table of gold; chats have a meta_id")
    else:
        truth = gold_from_chats(path, book, options=options)
    truth.close()
    return truth


def is_table(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in TABLE_SUFFIXES


def gold_from_chats(path: Path, codebook: Codebook | None, *, options: Options) -> Truth:
    truth = Truth.empty(path, codebook or fitting(_first_answers(path), path), options)
    known = set(truth.coders)
    for chat in read_chats(path, flag="--val-file"):
        said = gold_of(path, chat)
        unknown = [key for key in said or () if key not in known]
        truth.add(
            Entry(
                line=chat.line,
                id=chat.meta_id,
                index=chat.index,
                labels=said,
                is_short=options.min_text_len > 0 and text_chars(chat.user_text) < options.min_text_len,
                problems=tuple(f"{key}, a key that {truth.codebook.name} does not have" for key in unknown),
            )
        )
    return truth


def _first_answers(path: Path) -> list[dict[str, Any]]:
    answers = (said for chat in read_chats(path, flag="--val-file") if (said := gold_of(path, chat)) is not None)
    found = list(itertools.islice(answers, LOOKED_AT_ROWS))
    if not found:
        raise InputError(
            f"{path}: no chat ends with a message of the assistant, so there is no gold to score against; "
            "`build` writes it unless --no-labels is given"
        )
    return found


def gold_of(path: Path, chat: Chat) -> dict[str, Any] | None:
    """The labels a chat ends with; None without such a message.

    Raises:
        InputError: that message is no JSON object.
    """
    if chat.answer is None:
        return None
    try:
        said = orjson.loads(chat.answer)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise InputError(f"{path} line {chat.line}: the gold, its last message, is no JSON object")
    return said


def text_chars(user_text: str) -> int:
    """The length of what users say, without the headings over it."""
    return sum(len(part.strip()) for part in _HEADINGS.split(user_text))


def gold_from_table(path: Path, codebook: Codebook | None, *, id_column: str | None, options: Options) -> Truth:
    """The gold of a table, by the names that the codebook gives to its columns.

    Args:
        path: .csv, .tsv or .parquet.
        codebook: None takes the shipped one with the most columns there.
        id_column: None looks for the usual names.
        options: how to score.

    Raises:
        ConfigError: there is no such column.
        InputError: the table cannot be read, or has no gold column.
    """
    config = SourceConfig(path=path, id_column=id_column)
    try:
        with open_table(path) as table:
            header = table.header
        book = codebook or max(shipped_codebooks(), key=lambda book: len(GoldColumns.find(book, header).columns))
        yn_thresh = DEFAULT_YN_THRESH if options.yn_thresh is None else options.yn_thresh
        gold = GoldColumns.find(book, header, yn_thresh=yn_thresh)
        if not gold.columns:
            looked = sorted({name for dimension in book.dimensions for name in dimension.gold})
            raise InputError(f"{path} has no gold column of {book.name}; looked for {', '.join(looked)}")
        truth = Truth.empty(path, book, options)
        for row in _rows(config, gold, truth.broken):
            truth.add(_entry(row, gold, options))
    except ConfigError as error:
        # Tables are read by the file that reads inputs of runs, which names the flag of `run`.
        raise type(error)(str(error).replace("--input ", "--val-file ")) from error
    return truth


def _rows(config: SourceConfig, gold: GoldColumns, broken: list[str]) -> Iterator[Row]:
    carried = SourceConfig(path=config.path, id_column=config.id_column, carried=gold.carried)
    with RowReader(carried, is_done=lambda _: False) as reader:
        while batch := reader.next_batch():
            for item in batch:
                if isinstance(item, Row):
                    yield item
                elif isinstance(item.outcome, Failure):
                    broken.append(item.outcome.message)


def _entry(row: Row, gold: GoldColumns, options: Options) -> Entry:
    read = gold.read(gold.cells(row.fields))
    chars = sum(len(row.fields.get(name, "").strip()) for name, _ in SECTIONS)
    return Entry(
        line=row.row + 1,
        id=row.id,
        index=row.row,
        labels=read.labels or None,
        is_short=chars < options.min_text_len,
        problems=read.problems,
    )
