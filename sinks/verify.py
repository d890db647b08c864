"""Every promise of a run folder, checked without its lock and without changing a byte: a run may be going on in it.

What is committed is found out first, and only that is read, a piece at a time: bytes past it are none of a reader's
business. Memory is a few bits a row. Damage is collected, not raised, and named by file and byte. What the format has
no checksum for cannot be seen: a text that still is a text, in a line that no record of the commit log covers any more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from engine.errors import SinkBroken
from sinks.answers import ANSWERS_FILES
from sinks.checkpoint import LOG, SLOTS, Commit, State, decode_snapshot, read_log
from sinks.files import OS_FILES, PARTIAL, PIECE_BYTES, partial_of, reading_lines
from sinks.findings import Check, Finding, Verdict
from sinks.folder import (
    ANSWERS,
    CHECKPOINT,
    FAILURES,
    FOLDERS,
    LOCK,
    MANIFEST,
    PROMPTS,
    QUARANTINE,
    RESULTS,
    SERVER_LOGS,
    read_manifest,
    shard_name,
)
from sinks.ordered import MAX_ROW
from sinks.rows import RowSet
from sinks.shapes import MAX_SHARDS, faults_of, manifest_faults
from sinks.summary import MALFORMED, TRIES, both, checkpoint_bytes, committed_ends, said_by
from sinks.withdraw import INTENT, decode_intent

MAX_NAMED = 20
"""Findings that are named; of the rest, only how many they are."""
REPORTS = ("events.jsonl", "report.json")


def verify(out: Path) -> Verdict:
    """Check a run folder.

    Raises:
        ConfigError: it holds no run.
        SinkBroken: the disk cannot be read.
    """
    try:
        for _ in range(TRIES - 1):
            look = _Look(out)
            verdict = look.verdict()
            if verdict.sound or not look.withdrawn_since():
                return verdict
        return _Look(out).verdict()
    except OSError as error:
        raise SinkBroken(f"{out} cannot be read: {error}. Nothing was changed") from error


@dataclass(slots=True)
class _Mark:
    """A snapshot, and how many rows the lines it covers have been found to hold."""

    slot: str
    state: State
    found: Counter[str] = field(default_factory=Counter)


class _Look:
    """One reading of one folder."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._shards = 0
        self._named: list[Finding] = []
        self._found = Counter[str]()
        self._ends: dict[str, int] = {}
        self._commits: list[tuple[int, Commit]] = []
        """With the place of their record."""
        self._marks: list[_Mark] = []
        self._rows = {RESULTS: RowSet(), FAILURES: RowSet()}
        self._seen = Counter[str]()
        self._uncommitted = 0
        self._withdrawing = False
        self._notes: list[str] = []

    def verdict(self) -> Verdict:
        checks = []
        for name, look in (
            ("run.json", self._manifest),
            ("checkpoint", self._checkpoint),
            ("lines", self._lines),
            ("checksums", self._checksums),
            ("rows", self._totals),
            ("folder", self._folder),
        ):
            text = look(name)
            checks.append(Check(name=name, findings=self._found[name], text=text))
            if self._shards < 1:
                self._notes.append("without the number of shards nothing else can be checked")
                break
        if self._uncommitted:
            self._notes.append(
                f"{self._uncommitted:,} bytes are not yet committed: a run goes on, or its next --resume sees to them"
            )
        return Verdict(
            out=str(self._out),
            sound=not self._named,
            checks=tuple(checks),
            findings=tuple(self._named),
            more=self._found.total() - len(self._named),
            uncommitted_bytes=self._uncommitted,
            notes=tuple(self._notes),
        )

    def withdrawn_since(self) -> bool:
        """Whether answers were withdrawn while this was reading: then what it found says nothing."""
        data = checkpoint_bytes(self._out / CHECKPOINT)
        states = [state for slot in SLOTS if (state := _or_none(decode_snapshot, data[slot]))]
        begun = bool(data[INTENT]) and not self._withdrawing
        return begun or any(
            state.seq > mark.state.seq and any(state.ends.get(name, 0) < end for name, end in mark.state.ends.items())
            for state in states
            for mark in self._marks
        )

    def _add(self, check: str, file: str, offset: int, what: str) -> None:
        self._found[check] += 1
        if len(self._named) < MAX_NAMED:
            self._named.append(Finding(file=file, offset=offset, what=what))

    def _manifest(self, check: str) -> str:
        try:
            said = read_manifest(self._out)
        except SinkBroken as error:
            cause = error.__cause__
            at = cause.pos if isinstance(cause, orjson.JSONDecodeError) else 0
            self._add(check, MANIFEST, at, str(error).partition(": ")[2])
            return "damaged"
        self._shards = said["shards"] if said["shards"] <= MAX_SHARDS else 0
        for fault in manifest_faults(said):
            self._add(check, MANIFEST, 0, fault)
        return f"format {said.get('format')}, {self._shards:,} shards"

    def _checkpoint(self, check: str) -> str:
        data = checkpoint_bytes(self._out / CHECKPOINT)
        if data[INTENT]:
            return self._intent(check, data[INTENT])
        for slot in SLOTS:
            state = _or_none(decode_snapshot, data[slot])
            if state is not None:
                self._marks.append(_Mark(slot=slot, state=state))
            elif data[slot]:
                self._add(check, f"{CHECKPOINT}/{slot}", 0, "this snapshot is damaged")
        self._log(check, data[LOG], lost=any(data[slot] for slot in SLOTS) and not self._marks)
        return f"{len(self._marks)} whole snapshots, {len(self._commits):,} whole records in the commit log"

    def _intent(self, check: str, data: bytes) -> str:
        """Answers are being withdrawn: what shall hold is what counts."""
        self._withdrawing = True
        intent = _or_none(decode_intent, data)
        if intent is None:
            self._add(check, f"{CHECKPOINT}/{INTENT}", 0, "the intent of a withdrawal is damaged")
            return "a withdrawal of answers that cannot be read"
        self._marks = [_Mark(slot=INTENT, state=intent.state)]
        self._ends = intent.state.ends
        self._notes.append("answers are being withdrawn, or were when the run ended; the next --resume completes it")
        return "a withdrawal of answers"

    def _log(self, check: str, data: bytes, *, lost: bool) -> None:
        name = f"{CHECKPOINT}/{LOG}"
        read = _or_none(read_log, data)
        if read is None:
            return self._add(check, name, 0, "a record is sealed rightly and says nothing we know")
        commits, end = read
        if b"\n" in data[end:]:
            self._add(check, name, end, "this record is damaged")
        else:
            self._uncommitted += len(data) - end
        at = 0
        for commit, line in zip(commits, data.split(b"\n"), strict=False):
            self._commits.append((at, commit))
            at += len(line) + 1
        for (_, one), (at, other) in pairwise(self._commits):
            if other.seq != one.seq + 1:
                self._add(check, name, at, f"record {other.seq} follows record {one.seq}")
            lines = sum(lines for shard, (_, lines, _) in other.shards.items() if shard.startswith(RESULTS))
            if other.done - one.done != lines:
                self._add(check, name, at, f"{lines} results were added, its total says {other.done - one.done}")
        newest = self._newest()
        last = commits[-1].seq if commits else 0
        if commits and commits[0].seq > newest.seq + 1:
            self._add(check, name, 0, f"begins at record {commits[0].seq}, the newest snapshot ends at {newest.seq}")
        elif last < newest.seq and len({mark.state.seq for mark in self._marks}) + (len(self._marks) < len(SLOTS)) > 1:
            self._add(check, name, end, f"ends at record {last}, a snapshot covers record {newest.seq}")
        self._ends = committed_ends(newest, (commit for commit in commits if commit.seq > newest.seq))
        if lost and not commits:
            self._add(check, name, 0, "neither a snapshot nor the log says what is committed")
        return None

    def _newest(self) -> State:
        return max((mark.state for mark in self._marks), key=lambda state: state.seq, default=State())

    def _names(self) -> Iterator[tuple[str, int]]:
        return ((folder, number) for folder in (RESULTS, FAILURES) for number in range(self._shards))

    def _lines(self, check: str) -> str:
        for folder, number in self._names():
            name = shard_name(folder, number)
            end = self._ends.get(name, 0)
            path = self._path(name)
            size = path.stat().st_size if path.exists() else None
            if (size or 0) < end:
                self._add(check, name, size or 0, f"committed bytes are missing: {_missing(size, end)}")
            self._uncommitted += max(0, (size or 0) - end)
            if size and end:
                self._read(check, folder, number, path)
        if self._uncommitted and not self._ends and not (self._out / CHECKPOINT / LOG).exists():
            self._add(check, f"{CHECKPOINT}/{LOG}", 0, "is missing, and there are lines")
        for name in sorted(self._ends.keys() - {shard_name(*name) for name in self._names()}):
            self._add(check, name, 0, f"was committed, and there are only {self._shards} shards")
        return f"{self._seen[RESULTS]:,} results, {self._seen[FAILURES]:,} failures, each read and checked"

    def _path(self, name: str) -> Path:
        """Where a shard's bytes stand: beside it while answers are being withdrawn."""
        partial = partial_of(self._out / name)
        return partial if self._withdrawing and partial.exists() else self._out / name

    def _read(self, check: str, folder: str, number: int, path: Path) -> None:
        name, at = shard_name(folder, number), 0
        covered = [(mark, mark.state.ends.get(name, 0)) for mark in self._marks]
        with reading_lines(OS_FILES, path, self._ends[name]) as lines:
            for line in lines:
                self._seen[folder] += 1
                row = self._line(check, folder, number, at=at, line=line)
                if row is not None:
                    self._row(name, at, row, [mark for mark, end in covered if at < end])
                at += len(line)

    def _line(self, check: str, folder: str, number: int, *, at: int, line: bytes) -> int | None:
        """The row of a line of ours; None if it is none."""
        name, failed = shard_name(folder, number), folder == FAILURES
        said = said_by(line, failed=failed)
        if said is None:
            self._add(check, name, at, "this is no whole line of ours")
            return None
        for fault in faults_of(said, failed=failed):
            self._add(check, name, at, fault)
        row = said["row"]
        if type(row) is not int or not 0 <= row < MAX_ROW or row % self._shards != number:
            self._add(check, name, at, f"row {row} does not belong here")
            return None
        return int(row)

    def _row(self, name: str, at: int, row: int, covering: list[_Mark]) -> None:
        folder = name.partition("/")[0]
        if not self._rows[folder].add(row):
            if folder == RESULTS:
                self._add("rows", name, at, f"row {row} stands in {RESULTS}/ a second time")
            return
        for mark in covering:
            mark.found[folder] += 1
            if row not in (mark.state.results if folder == RESULTS else mark.state.failures):
                self._add("rows", name, at, f"row {row} is not in {mark.slot}, which covers this line")

    def _checksums(self, check: str) -> str:
        first = self._commits[0][1].seq if self._commits else 1
        before = next((mark.state.ends for mark in self._marks if mark.state.seq == first - 1), None)
        ends: dict[str, int] = dict(before or {})
        pieces = n_bytes = 0
        for record, commit in self._commits:
            for name, (end, _, crc) in commit.shards.items():
                path = self._out / name
                # Without the state before the log, the first piece of a shard has no known beginning.
                start = ends.get(name, 0 if first == 1 or before is not None else None)
                ends[name] = end
                if start is None or not path.exists() or path.stat().st_size < end:
                    continue
                pieces, n_bytes = pieces + 1, n_bytes + end - start
                if _crc_of(path, start, end) != crc:
                    what = (
                        f"bytes {start:,} to {end:,} are not those that record {commit.seq} (at {record:,}) committed"
                    )
                    self._add(check, name, start, what)
        return f"{pieces:,} pieces still in the commit log, {n_bytes:,} bytes"

    def _totals(self, check: str) -> str:
        results, failures = self._rows[RESULTS], self._rows[FAILURES]
        for mark in self._marks:
            state, found = mark.state, mark.found
            if (state.results.count, state.failures.count) != (found[RESULTS], found[FAILURES]):
                what = (
                    f"names {state.results.count:,} rows with a result and {state.failures.count:,} with a failure, "
                    f"the lines it covers hold {found[RESULTS]:,} and {found[FAILURES]:,}"
                )
                self._add(check, f"{CHECKPOINT}/{mark.slot}", 0, what)
            if state.superseded != both(state.results, state.failures):
                self._add(check, f"{CHECKPOINT}/{mark.slot}", 0, "counts the rows with two lines wrongly")
        failed = failures.count - both(results, failures)
        at, last = self._commits[-1] if self._commits else (0, None)
        if last is not None and last.seq >= self._newest().seq and (last.done, last.failed) != (results.count, failed):
            what = (
                f"record {last.seq} counts {last.done:,} done and {last.failed:,} failed, "
                f"the lines {results.count:,} and {failed:,}"
            )
            self._add(check, f"{CHECKPOINT}/{LOG}", at, what)
        return f"{results.count:,} done, {failed:,} failed; none twice, as the checkpoint says"

    def _folder(self, check: str) -> str:
        partials = {name + PARTIAL for name in (MANIFEST, PROMPTS, ANSWERS, *REPORTS)}
        known = {MANIFEST, LOCK, PROMPTS, ANSWERS, *REPORTS, *SERVER_LOGS, *FOLDERS, *ANSWERS_FILES, *partials}
        of_checkpoint = (LOG, INTENT, *SLOTS)
        known |= {f"{CHECKPOINT}/{name}{end}" for name in of_checkpoint for end in ("", PARTIAL)}
        known |= {shard_name(*name) + end for name in self._names() for end in ("", PARTIAL)}
        for folder in ("", RESULTS, FAILURES, CHECKPOINT):
            if not (self._out / folder).is_dir():
                self._add(check, folder, 0, "this folder is missing")
                continue
            for entry in sorted((self._out / folder).iterdir()):
                name = str(entry.relative_to(self._out))
                if name not in known:
                    self._add(check, name, 0, "this is no file of a run")
                elif name not in FOLDERS and (entry.is_dir() or entry.is_symlink()):
                    self._add(check, name, 0, "this should be a file")
        if not (self._out / QUARANTINE).is_dir():
            self._add(check, QUARANTINE, 0, "this folder is missing")
        return "nothing foreign, nothing missing" if not self._found[check] else "not what a run leaves"


def _or_none(read: Callable[[bytes], Any], data: bytes) -> Any:
    """What reading gives, or None where the content is none of ours."""
    try:
        return read(data)
    except MALFORMED:
        return None


def _missing(size: int | None, end: int) -> str:
    there = "the file is gone" if size is None else f"there are {size:,}"
    return f"{there}, {end:,} were committed"


def _crc_of(path: Path, start: int, end: int) -> int:
    crc = 0
    with path.open("rb") as file:
        while start < end and (piece := os.pread(file.fileno(), min(PIECE_BYTES, end - start), start)):
            crc = google_crc32c.extend(crc, piece)
            start += len(piece)
    return crc
