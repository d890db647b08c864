"""The sink of a run: one line a row, in shards, made safe in groups.

`put` makes the line and keeps it. `commit` writes the lines of all dirty shards, syncs those files (in threads: a disk
syncs many as fast as one), appends one record to the commit log, syncs that, and only then counts the rows as done. A
file that failed to sync is never trusted again: the kernel forgets the bytes and a second sync would claim success.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import FolderInUse, SinkBroken
from engine.ports import SinkStatistics
from engine.types import Failure, Record
from sinks.batch import Answered, Batch
from sinks.checkpoint import Checkpoint, Commit, State, crc32c, spent_in
from sinks.choice import Chooser, check_kinds
from sinks.files import OS_FILES, Files, room_in, sync_above, write_all
from sinks.folder import (
    CHECKPOINT,
    FAILURES,
    FOLDERS,
    MANIFEST,
    RESULTS,
    FolderLock,
    continue_folder,
    shard_name,
    start_folder,
)
from sinks.lines import line_of
from sinks.recovery import Recovery, end_row
from sinks.rows import DoneRows
from sinks.withdraw import Withdrawals

SNAPSHOT_EVERY_S = 30.0
"""What a recovery has to read is at most so long a piece of the run."""
SYNC_THREADS = 16
"""Sixty-four files synced by sixteen threads take a quarter of the time one thread takes; more gain nothing."""
WITHDRAWN_BYTES = 8 << 20
"""Of failure lines of withdrawn answers, held at most before they are committed."""


class ShardSink:
    """Owns an open run folder. A context manager; `open` makes one."""

    def __init__(self, out: Path, lock: FolderLock, files: Files, *, shards: int, clock: Callable[[], float]) -> None:
        self._out = out
        self._lock = lock
        self._files = files
        self._clock = clock
        self.shards = shards
        self._checkpoint = Checkpoint(out / CHECKPOINT, files)
        self._withdrawals = Withdrawals(out, files=files, checkpoint=self._checkpoint)
        self._state = State()
        self._open: dict[str, int] = {}
        self._batch = Batch()
        self._in_commit = 0
        self._swap = threading.Lock()
        self._turn = threading.Lock()
        """Two commits at once would both begin where the last one ended."""
        self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="sync")
        self._done = DoneRows()
        """With what was put since the last commit."""
        self._spent: dict[str, Any] | None = None
        """As of the last commit."""
        self._duplicates = self._salvaged = 0
        self._snapshot_s = clock()
        self._broken: str | None = None
        self.notes: list[str] = []
        """What recovery did, in sentences."""
        self.remember: Callable[[Sequence[Answered]], None] = lambda _: None
        """Told within a commit, once it is acknowledged, which lines in it may answer other rows; raises nothing."""

    @classmethod
    def open(  # noqa: PLR0913 - the lead parameters of a folder; grouping them would only move the list
        cls,
        out: Path,
        *,
        manifest: Mapping[str, object],
        shards: int,
        resume: bool,
        retry_failed: bool = False,
        only: frozenset[str] | None = None,
        files: Files = OS_FILES,
        clock: Callable[[], float] = time.monotonic,
    ) -> ShardSink:
        """Start a run in a folder, or go on with the one it holds.

        Args:
            out: the folder; created if missing.
            manifest: what `run.json` shall say; its `input` and `settings` must match on a resume.
            shards: files a kind; on a resume the stored number wins.
            resume: whether a run that is there may be continued.
            retry_failed: whether rows in `failures/` count as not done.
            only: kinds of failures: rows that ended so count as not done, and all others as done, those without a
                line too, whatever `retry_failed` says. `truncated` also withdraws every answer that was cut off.
            files: how the disk is reached.
            clock: monotonic seconds, by which snapshots are due.

        Raises:
            ConfigError: `only` names a kind that there is not.
            FolderInUse: another process has it, it holds a run and `resume` is off, or it cannot be written.
            ResumeMismatch: it holds another run.
            SinkBroken: committed bytes are missing or damaged.
        """
        if only is not None:
            check_kinds(only)
        try:
            lock = FolderLock(out)
        except OSError as error:
            raise FolderInUse(f"the run folder {out} cannot be written: {error.strerror or error}") from error
        try:
            if (out / MANIFEST).exists():
                shards = continue_folder(out, manifest, resume=resume, files=files)
            else:
                start_folder(out, manifest, shards=shards, files=files)
        except BaseException:
            lock.release()
            raise
        sink = cls(out, lock, files, shards=shards, clock=clock)
        try:
            sink._begin(retry_failed=retry_failed, only=only)
        except BaseException:
            sink._release()
            raise
        return sink

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_done(self, row: int) -> bool:
        """Whether the row has a line that stands, or is none of those that this life works on."""
        return self._done.has(row)

    def done_rows(self) -> DoneRows:
        """What `is_done` says now, for another process."""
        return self._done.copy()

    def put(self, record: Record) -> None:
        """Keep a record for the next commit.

        Raises:
            SinkBroken: an earlier commit failed.
        """
        self._check()
        failed = isinstance(record.outcome, Failure)
        if record.row in self._done.results or (failed and self.is_done(record.row)):
            self._duplicates += 1
            return
        name = shard_name(FAILURES if failed else RESULTS, record.row % self.shards)
        line = line_of(record)
        with self._swap:
            self._batch.add(name, line, row=record.row, failed=failed, key=record.key)
            self._done.again.discard(record.row)
            (self._done.failures if failed else self._done.results).add(record.row)

    def commit(self) -> int:
        """Make everything put so far last; a snapshot too when one is due.

        Raises:
            SinkBroken: the disk failed, or the folder is no longer at its place; nothing of this commit counts, and the
                sink takes no more.
        """
        with self._turn:
            return self._commit()

    def _commit(self) -> int:
        self._broken = self._broken or self._lock.lost()
        self._check()
        with self._swap:
            batch, self._batch = self._batch, Batch()
            self._in_commit = len(batch.rows)
        try:
            if batch.rows or self._spent != spent_in(self._state):
                self._write(batch)
            if self._clock() - self._snapshot_s >= SNAPSHOT_EVERY_S:
                self._snapshot()
        except OSError as error:
            self._broken = self._lock.lost() or (
                f"writing to {self._out} failed: {error.strerror or error}. {self._state.results.count} results are "
                "safe; once the disk is well again, go on with --resume"
            )
            raise SinkBroken(self._broken) from error
        except BaseException:
            # There may be lines in the files of which no record will speak: nothing may be written behind them.
            self._broken = self._broken or f"a commit to {self._out} did not end; go on with --resume"
            raise
        finally:
            self._in_commit = 0
        return len(batch.rows)

    def close(self) -> None:
        """Commit what is left, write a snapshot, release the folder. After a failed commit: only release it."""
        try:
            if self._broken is None:
                self.commit()
                self._snapshot()
        finally:
            self._release()

    def free_bytes(self) -> int | None:
        return room_in(self._out, self._files)

    def statistics(self) -> SinkStatistics:
        return SinkStatistics(
            done=self._state.results.count,
            failed=self._state.failed(),
            finished=self._state.results.count + self._state.failed() - self._done.again.count,
            pending=len(self._batch.rows) + self._in_commit,
            pending_bytes=self._batch.n_bytes,
            duplicates=self._duplicates,
            salvaged=self._salvaged,
            chosen=self._done.again.count if self._done.only_again else None,
        )

    @property
    def learnt(self) -> dict[str, Any]:
        """What a later life should know; saved with every snapshot, `spent` with every commit too. JSON values."""
        return self._state.learnt

    def _begin(self, *, retry_failed: bool, only: frozenset[str] | None) -> None:
        """Bring the folder in order, and find the rows that are to be worked on again."""
        try:
            self._recover()
            if only is not None:
                self._take_up(only)
        except OSError as error:
            raise SinkBroken(f"{self._out} cannot be brought in order: {error}") from error
        state = self._state
        self._done.results, self._done.failures = state.results.copy(), state.failures.copy()
        if retry_failed and only is None:
            self._done.again = state.failures.without(state.results)

    def _recover(self) -> None:
        for name in FOLDERS:
            # A power loss may keep `run.json` and lose the name of a folder that was made before it.
            if not (self._out / name).is_dir():
                self._files.make_folder(self._out / name)
        # In every life: an earlier one may have been killed before it had synced the name of `run.json`.
        self._files.sync_folder(self._out)
        sync_above(self._files, self._out)
        notes = self._withdrawals.settle()
        found = Recovery(self._out, shards=self.shards, files=self._files, checkpoint=self._checkpoint).run()
        self._state = found.state
        self._spent = spent_in(found.state)
        self._salvaged = found.salvaged
        self.notes = notes + found.notes
        if found.salvaged:
            self.notes.append(f"{found.salvaged} answers written after the last commit were kept")

    def _take_up(self, only: frozenset[str]) -> None:
        self._done.only_again = True
        chooser = Chooser(self._out, self._files, state=self._state, only=only, withdraw=self._announce_withdrawal)
        choice = chooser.choose(self.shards)
        self._done.again = choice.again
        if choice.cut.count:
            self.commit()
            self._state = self._withdrawals.withdraw(self._state, rows=choice.cut, shards=choice.cut_shards)
            self._done.again.update(choice.cut)
            self.notes.append(f"{choice.cut.count} answers that were cut off were withdrawn; quarantine/ keeps them")

    def _announce_withdrawal(self, row: int, line: bytes) -> None:
        self._batch.add(shard_name(FAILURES, row % self.shards), line, row=row, failed=True)
        if self._batch.n_bytes >= WITHDRAWN_BYTES:
            self.commit()

    def _write(self, batch: Batch) -> None:
        state, files = self._state, self._files
        touched: dict[str, tuple[int, int, int]] = {}
        created: set[str] = set()
        for name, lines in batch.lines.items():
            data = b"".join(lines)
            if name not in self._open:
                self._open[name] = files.open_append(self._out / name)
                if name not in state.ends:
                    created.add(name.partition("/")[0])
            write_all(files, self._open[name], data)
            touched[name] = (state.ends.get(name, 0) + len(data), len(lines), crc32c(data))
        list(self._pool.map(files.sync_data, [self._open[name] for name in touched]))
        for folder in created:
            files.sync_folder(self._out / folder)
        done, failed = batch.counts_after(state)
        commit = Commit(
            seq=state.seq + 1,
            epoch=state.epoch,
            time_s=time.time(),
            shards=touched,
            done=done,
            failed=failed,
            spent=spent_in(state),
        )
        self._checkpoint.append(commit)
        self._spent = commit.spent
        state.seq += 1
        before = {name: state.ends.get(name, 0) for name in touched}
        state.ends.update((name, end) for name, (end, _, _) in touched.items())
        for row, is_failure in batch.rows:
            end_row(state, row, failed=is_failure)
        if batch.answered:
            self.remember(batch.answered_from(before))

    def _snapshot(self) -> None:
        try:
            self._checkpoint.snapshot(self._state)
        except OSError as error:
            self._broken = (
                f"writing a snapshot to {self._out} failed: {error.strerror or error}. "
                "All results are safe; once the disk is well again, go on with --resume"
            )
            raise SinkBroken(self._broken) from error
        self._snapshot_s = self._clock()

    def _release(self) -> None:
        # After a failed commit threads may still be syncing what is closed here.
        self._pool.shutdown()
        for fd in self._open.values():
            # Committed bytes are on the disk already; others are known not to be safe.
            with suppress(OSError):
                self._files.close(fd)
        self._open.clear()
        with suppress(OSError):
            self._checkpoint.close()
        self._lock.release()

    def _check(self) -> None:
        if self._broken is not None:
            raise SinkBroken(self._broken)
