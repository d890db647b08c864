"""Raw answers to labels: one line an answer, each with its labels or the reason why there are none.

Answers stream through, and the file gets its name once it is whole and on the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, InputError
from labels.asked import Asked, Readers, original_of
from labels.codebook import Codebook, load_codebook
from labels.merge import Merged, Merger
from labels.new_file import Put, new_file
from labels.predictions_table import SUFFIXES, Joined, Predictions, join
from labels.raw_answers import RawAnswer, answers_of_file, answers_of_run
from labels.reading import Reading
from labels.which import SINGLE, check_mode, codebook_of_run
from sinks.folder import read_manifest
from sinks.one_file import GROUP_MARK

REQUEST_FAILED = "request_failed"
SAMPLE = 200
"""Answers looked at to find the codebook where nobody names it."""
CANDIDATES = {False: ("comprehensive", "standard"), True: ("numeric-comprehensive", "numeric")}
"""By --numeric-labels; of those that read as many answers the first."""
_NO_ANSWER = Reading(labels=None, error=REQUEST_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseOptions:
    """What to parse, and how."""

    raw: Path
    """A raw JSONL or a run folder."""
    out: Path
    codebook: str | None = None
    group_mode: str | None = None
    numeric_labels: bool = False
    print_bad: int = 0
    fail_log: Path | None = None
    limit: int = 0
    """At most so many answers; 0 is all."""
    merge: bool = False
    require_complete: bool = False
    """With `merge`: videos of which a group is missing are left out."""
    original_data: Path | None = None
    """A table that `out` shall be a copy of, with columns of labels."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of it."""

    total: int = 0
    parsed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Codes of answers that have no labels; of unknown keys and groups without their names."""
    repairs: Counter[str] = field(default_factory=Counter)
    """Answers by kind of repair."""
    bad: list[str] = field(default_factory=list)
    """The first few that have no labels, as blocks."""
    merged: Merged | None = None
    joined: Joined | None = None

    def text(self) -> str:
        """For a person; the first line is that of the scripts this takes over from."""
        failed = self.reasons[REQUEST_FAILED]
        answers = self.total - failed
        lines = [f"parsed {self.parsed}/{self.total} = {_share(self.parsed, self.total)}"]
        if failed:
            lines.append(
                f"requests without an answer: {failed:,}; of the answers {self.parsed}/{answers} = "
                f"{_share(self.parsed, answers)}"
            )
        bad = {code: count for code, count in self.reasons.most_common() if code != REQUEST_FAILED}
        if bad:
            lines.append(f"answers without labels: {sum(bad.values()):,}")
            lines += [f"  {count:,} {code}" for code, count in bad.items()]
        if self.repairs:
            lines.append("repairs: " + ", ".join(f"{count:,} {kind}" for kind, count in self.repairs.most_common()))
        if self.merged is not None:
            lines.append(self.merged.text())
        if self.joined is not None:
            lines.append(self.joined.text())
        return "\n".join(lines)


def parse(options: ParseOptions, *, say: Callable[[str], None]) -> Tally:
    """Write the parsed file.

    Args:
        options: what to do.
        say: takes what the user should know, in sentences.

    Raises:
        ConfigError, InputError: what was asked for, or a line, is wrong.
        SinkBroken: a file cannot be written, or the run folder is damaged.
        FolderInUse: answers are being withdrawn from the run folder. In each case no file was made or changed.
    """
    _check_options(options)
    answers = _answers(options, say)
    head = list(islice(answers, SAMPLE))
    book = _codebook(options, head, say)
    if options.group_mode is not None:
        check_mode(book, options.group_mode)
    with ExitStack() as opened:
        # The log gets its name first: where the output is, the log is.
        put = opened.enter_context(new_file(options.out))
        log = opened.enter_context(new_file(options.fail_log)) if options.fail_log else None
        predictions = Predictions(book, merged=options.merge) if options.original_data else None
        parser = _Parser(options, Readers(book, options.group_mode), predictions.add if predictions else _to(put), log)
        for answer in chain(head, answers):
            parser.take(answer)
        parser.end()
        if predictions is not None and options.original_data is not None:
            parser.tally.joined = join(options.original_data, predictions, put, suffix=options.out.suffix)
    return parser.tally


def _to(put: Put) -> Callable[[dict[str, Any]], None]:
    """What writes records as lines."""

    def write(record: dict[str, Any]) -> None:
        put(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    return write


def _check_options(options: ParseOptions) -> None:
    if options.codebook is not None and options.numeric_labels:
        raise ConfigError("--numeric-labels chooses among the shipped codebooks, --codebook names one: leave one out")
    if options.require_complete and not options.merge:
        raise ConfigError("--require-complete goes with --merge")
    if options.merge and options.group_mode == SINGLE:
        raise ConfigError("--merge joins the answers of several groups, and --group-mode single has one")
    if options.original_data is not None and options.out.suffix not in SUFFIXES:
        raise ConfigError(f"--out {options.out}: with --original-data the name must end in {' or '.join(SUFFIXES)}")
    if min(options.print_bad, options.limit) < 0:
        raise ConfigError("--print-bad and --limit are numbers from 0 up")
    written = [path.resolve() for path in (options.out, options.fail_log) if path is not None]
    read = [path.resolve() for path in (options.raw, options.original_data) if path is not None]
    for path in written:
        if path in read or read[0] in path.parents:
            raise ConfigError(f"{path} would stand in the place of what is read, or inside of it; choose another")
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file")
    if len(set(written)) < len(written):
        raise ConfigError("--out and --fail-log name the same file")


def _answers(options: ParseOptions, say: Callable[[str], None]) -> Iterator[RawAnswer]:
    raw = options.raw
    found = answers_of_run(raw) if raw.is_dir() else answers_of_file(raw, say=say)
    return islice(found, options.limit) if options.limit else found


def _codebook(options: ParseOptions, head: list[RawAnswer], say: Callable[[str], None]) -> Codebook:
    """The one that is named; that of the run; else the shipped one that reads most of the first answers."""
    recipe: dict[str, Any] = {}
    if options.raw.is_dir():
        recipe = read_manifest(options.raw).get("settings", {}).get("recipe") or {}
    if options.codebook is not None:
        book = load_codebook(options.codebook)
        if recipe.get("codebook_digest") not in {None, book.digest}:
            say(f"The run asked by another codebook than {options.codebook}, or by another edition of it.")
        return book
    if recipe.get("codebook") is not None:
        return codebook_of_run(recipe)
    books = [load_codebook(name) for name in CANDIDATES[options.numeric_labels]]
    books = [book for book in books if options.group_mode in {None, *book.groups}] or books[:1]
    read = [_read_among(head, book, options.group_mode) for book in books]
    book = books[read.index(max(read))]
    say(f"Codebook {book.name}: it reads {max(read)} of the first {len(head)} answers. --codebook names another.")
    return book


def _read_among(head: list[RawAnswer], book: Codebook, mode: str | None) -> int:
    readers = Readers(book, mode)
    count = 0
    for answer in head:
        reader = readers.of(answer).reader
        count += reader is not None and not answer.failed and reader.read_fully(answer.raw).labels is not None
    return count


class _Parser:
    """Takes records in their order and writes what they say."""

    def __init__(
        self, options: ParseOptions, readers: Readers, write: Callable[[dict[str, Any]], None], log: Put | None
    ) -> None:
        self._options = options
        self._readers = readers
        self._write = write
        self._log = log
        self._merger = Merger(readers.book, options.group_mode, require_complete=options.require_complete)
        self.tally = Tally()

    def take(self, answer: RawAnswer) -> None:
        asked = self._readers.of(answer)
        if answer.failed:
            reading = _NO_ANSWER
        elif asked.reader is None:
            reading = Reading(labels=None, error=asked.error)
        else:
            reading = asked.reader.read_fully(answer.raw)
        self._count(answer, reading)
        if self._options.merge:
            self._merge(answer, asked, reading)
        else:
            self._write(_record(answer, asked, reading))

    def end(self) -> None:
        """After the last record."""
        if self._options.merge:
            for record in self._merger.rest():
                self._write(record)
            self.tally.merged = self._merger.merged

    def _merge(self, answer: RawAnswer, asked: Asked, reading: Reading) -> None:
        if asked.group is None and asked.error is None:
            raise InputError(
                f"{self._options.raw}: {answer.meta_id} has no group, so there is nothing to merge it with; leave "
                "--merge out"
            )
        for record in self._merger.add(original_of(answer), asked.group, reading):
            self._write(record)

    def _count(self, answer: RawAnswer, reading: Reading) -> None:
        tally = self.tally
        tally.total += 1
        if reading.repairs:
            tally.repairs.update({repair.partition(":")[0] for repair in reading.repairs})
        if reading.error is None:
            tally.parsed += 1
            return
        code, _, name = reading.error.partition(":")
        tally.reasons[code if code.startswith("unknown_") or not name else reading.error] += 1
        if reading.error == REQUEST_FAILED:
            return
        if self._log is not None or len(tally.bad) < self._options.print_bad:
            block = _block(answer, reading)
            if len(tally.bad) < self._options.print_bad:
                tally.bad.append(block)
            if self._log is not None:
                self._log(block.encode(errors="replace"))


def _record(answer: RawAnswer, asked: Asked, reading: Reading) -> dict[str, Any]:
    grouped = asked.group is not None or answer.group_id is not None
    said: dict[str, Any] = {
        "idx": answer.idx,
        "meta_id": answer.meta_id,
        "original_meta_id": original_of(answer) if grouped else answer.original_meta_id or answer.meta_id,
        "parsed": reading.labels is not None,
        "raw": answer.raw,
        "json": reading.labels,
    }
    if grouped:
        said["group_id"] = asked.group[1] if asked.group else answer.group_id
    said["reason"] = reading.error
    said["repairs"] = reading.repairs
    return said


def _block(answer: RawAnswer, reading: Reading) -> str:
    group = answer.group_id or (answer.meta_id.rpartition(GROUP_MARK)[2] if GROUP_MARK in answer.meta_id else "")
    return f"IDX={answer.idx} META_ID={answer.meta_id} GROUP={group} REASON={reading.error}\n{answer.raw}\n---\n"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "n/a"
