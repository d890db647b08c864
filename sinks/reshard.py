"""A run folder written anew, from another one, with another number of shards and its lines in the order of rows.

The new folder gets its `run.json`, which is what makes it a run, last of all: after every line was read back from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import orjson

from engine.errors import ConfigError, FolderInUse, ResumeMismatch, SinkBroken
from sinks.checkpoint import LOG, Checkpoint, Commit, State, crc32c, encode_commit, spent_in
from sinks.files import OS_FILES, Files, replace_file, sync_above, write_all
from sinks.folder import (
    CHECKPOINT,
    FAILURES,
    FOLDERS,
    FORMAT,
    LOCK,
    MANIFEST,
    RESULTS,
    FolderLock,
    read_manifest,
    shard_name,
)
from sinks.ordered import CommittedLines
from sinks.recovery import Recovery
from sinks.rows import RowSet
from sinks.summary import both
from sinks.withdraw import Withdrawals

WAITING_BYTES, PIECES = 32 << 20, (4 << 10, 1 << 20)
"""Of lines not yet written, over all shards; and the least and the most for one."""


@dataclass(slots=True)
class _Proof:
    """That two folders hold the same lines, in whatever order."""

    lines: int = 0
    summed: int = 0
    mixed: int = 0

    def take(self, line: bytes) -> None:
        crc = crc32c(line)
        self.lines += 1
        self.summed += crc
        self.mixed ^= crc


@dataclass(slots=True)
class _Held:
    """What was read out of a folder."""

    proofs: dict[bool, _Proof] = field(default_factory=lambda: {False: _Proof(), True: _Proof()})
    """By whether they are of failures."""
    rows: dict[bool, RowSet] = field(default_factory=lambda: {False: RowSet(), True: RowSet()})

    def take(self, line: bytes, row: int, *, failed: bool) -> None:
        self.proofs[failed].take(line)
        self.rows[failed].add(row)

    def agrees_with(self, state: State) -> bool:
        """Whether the rows are those of the state, and none has two results."""
        wanted = {False: state.results, True: state.failures}
        same = all(rows.count == wanted[kind].count == both(rows, wanted[kind]) for kind, rows in self.rows.items())
        return same and self.proofs[False].lines == state.results.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Resharded:
    """What a reshard did."""

    results: int
    failures: int
    """Lines."""
    shards_before: int
    shards: int
    notes: tuple[str, ...]
    """What bringing the old folder in order did, in sentences."""


def reshard(
    out: Path, new: Path, *, shards: int, say: Callable[[str], None] = lambda _: None, files: Files = OS_FILES
) -> Resharded:
    """Write the run of one folder into another, with another number of shards.

    The old folder is first brought in order, as a resume does it; nothing else in it changes.

    Raises:
        ConfigError: there is no run, or the numbers or places make no sense. Nothing was done.
        FolderInUse: the old folder is in use; the new one is not empty or cannot be made.
        SinkBroken: something committed is damaged, or the disk failed. What was written has no `run.json`.
    """
    if shards < 1:
        raise ConfigError("--shards must be at least 1")
    manifest = read_manifest(out)
    if manifest.get("format", 0) > FORMAT:
        raise ResumeMismatch(f"{out} was written by a newer version of Reelbatch; use that one")
    _check_place(out, new)
    with _locked(out), _locked(new):
        _check_empty(new, beside=frozenset({LOCK}))
        say(f"Writing {new}: as long as it has no {MANIFEST} it is no run, and may be deleted")
        try:
            return _Copy(out, new, manifest=manifest, shards=shards, files=files).run()
        except OSError as error:
            why = error.strerror or error
            raise SinkBroken(f"copying {out} to {new} failed: {why}. {_undone(out, new)}") from error
        except SinkBroken as error:
            raise SinkBroken(f"{error}. {_undone(out, new)}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = FolderLock(folder)
    except OSError as error:
        raise FolderInUse(f"{folder} cannot be written: {error.strerror}; nothing was done") from error
    try:
        yield
    finally:
        lock.release()


def _undone(out: Path, new: Path) -> str:
    """Make sure that what was written is no run, and say so."""
    with suppress(OSError):
        (new / MANIFEST).unlink(missing_ok=True)
    return f"No answer in {out} was touched; {new} has no {MANIFEST} and is no run: delete it before you try again"


def _check_place(out: Path, new: Path) -> None:
    here, there = out.resolve(), new.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ConfigError(f"{new} and {out} must be two folders, neither inside the other")
    try:
        if new.exists():
            _check_empty(new)
    except OSError as error:
        raise FolderInUse(f"{new} cannot be a run folder: {error.strerror}") from error


def _check_empty(new: Path, beside: frozenset[str] = frozenset()) -> None:
    if any(entry.name not in beside for entry in new.iterdir()):
        what = "holds a run" if (new / MANIFEST).exists() else f"is not empty and holds no run (no {MANIFEST})"
        raise FolderInUse(f"{new} {what}; nothing was written. Take another folder, or delete this one first")


class _Copy:
    """One reshard, by the process that holds the locks of both folders."""

    def __init__(self, out: Path, new: Path, *, manifest: Mapping[str, Any], shards: int, files: Files) -> None:
        self._out, self._new = out, new
        self._manifest = manifest
        self._shards = shards
        self._before = int(manifest["shards"])
        self._files = files
        self._touched: dict[str, tuple[int, int, int]] = {}

    def run(self) -> Resharded:
        state, notes = self._in_order()
        free, needed = shutil.disk_usage(self._new).free, sum(state.ends.values())
        if free < needed:
            raise SinkBroken(f"{self._new} has room for {free:,} bytes, and {needed:,} are needed")
        for name in FOLDERS:
            self._files.make_folder(self._new / name)
        self._files.sync_folder(self._new)
        sync_above(self._files, self._new)
        held = self._copy(state)
        self._checkpoint(state)
        copied = self._read_back()
        if copied.proofs != held.proofs or not copied.agrees_with(state):
            raise SinkBroken(f"what was read back from {self._new} is not what was written")
        lines = sum(proof.lines for proof in held.proofs.values())
        origin = {"path": str(self._out.resolve()), "shards": self._before, "lines": lines}
        said = dict(self._manifest) | {"shards": self._shards, "resharded_from": origin}
        replace_file(self._files, self._new / MANIFEST, orjson.dumps(said, option=orjson.OPT_INDENT_2))
        return Resharded(
            results=held.proofs[False].lines,
            failures=held.proofs[True].lines,
            shards_before=self._before,
            shards=self._shards,
            notes=tuple(notes),
        )

    def _in_order(self) -> tuple[State, list[str]]:
        """Bring the old folder in order; answers past its last commit are paid for and come along."""
        checkpoint = Checkpoint(self._out / CHECKPOINT, self._files)
        try:
            notes = Withdrawals(self._out, files=self._files, checkpoint=checkpoint).settle()
            found = Recovery(self._out, shards=self._before, files=self._files, checkpoint=checkpoint).run()
        finally:
            checkpoint.close()
        if found.salvaged:
            notes.append(f"{found.salvaged} answers written after the last commit were kept")
        return found.state, notes + found.notes

    def _copy(self, state: State) -> _Held:
        held = _Held()
        with CommittedLines(self._out, shards=self._before, ends=state.ends) as source:
            for failed, line, said in source.scan(RESULTS, FAILURES):
                held.take(line, said["row"], failed=failed)
            if not held.agrees_with(state):
                raise SinkBroken(f"the lines in {self._out} are not those its checkpoint speaks of")
            with _ShardWriter(self._new, shards=self._shards, files=self._files) as writer:
                for row, places in source.rows():
                    for place in places:
                        failed, line = source.line(row, place)
                        writer.put(shard_name(FAILURES if failed else RESULTS, row % self._shards), line)
                self._touched = writer.finish()
        return held

    def _checkpoint(self, state: State) -> None:
        """One commit that covers every line, and a snapshot of it."""
        after = State(
            seq=1,
            epoch=state.epoch,
            ends={name: end for name, (end, _, _) in self._touched.items()},
            results=state.results,
            failures=state.failures,
            learnt=state.learnt,
            superseded=state.superseded,
        )
        commit = Commit(
            seq=1,
            epoch=state.epoch,
            time_s=time.time(),
            shards=self._touched,
            done=state.results.count,
            failed=state.failed(),
            spent=spent_in(state),
        )
        replace_file(self._files, self._new / CHECKPOINT / LOG, encode_commit(commit))
        Checkpoint(self._new / CHECKPOINT, self._files).snapshot(after)

    def _read_back(self) -> _Held:
        held = _Held()
        ends = {name: end for name, (end, _, _) in self._touched.items()}
        with CommittedLines(self._new, shards=self._shards, ends=ends) as written:
            for failed, line, said in written.scan(RESULTS, FAILURES):
                held.take(line, said["row"], failed=failed)
        return held


class _ShardWriter:
    """New shards, a piece of each in memory. A context manager; `finish` makes them last."""

    def __init__(self, new: Path, *, shards: int, files: Files) -> None:
        self._new = new
        self._files = files
        least, most = PIECES
        self._piece_bytes = max(least, min(most, WAITING_BYTES // shards))
        self._open: dict[str, int] = {}
        self._waiting: dict[str, bytearray] = {}
        self._written: dict[str, tuple[int, int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._open.values():
            self._files.close(fd)

    def put(self, name: str, line: bytes) -> None:
        if name not in self._open:
            self._open[name] = self._files.open_new(self._new / name)
            self._waiting[name], self._written[name] = bytearray(), (0, 0, 0)
        end, lines, crc = self._written[name]
        self._written[name] = end + len(line), lines + 1, int(google_crc32c.extend(crc, line))
        self._waiting[name] += line
        if len(self._waiting[name]) >= self._piece_bytes:
            self._flush(name)

    def _flush(self, name: str) -> None:
        write_all(self._files, self._open[name], bytes(self._waiting[name]))
        self._waiting[name].clear()

    def finish(self) -> dict[str, tuple[int, int, int]]:
        """Bring every byte to the disk; the end, the lines and the checksum of each shard."""
        for name, fd in self._open.items():
            self._flush(name)
            self._files.sync_data(fd)
        for folder in (RESULTS, FAILURES):
            self._files.sync_folder(self._new / folder)
        return self._written
