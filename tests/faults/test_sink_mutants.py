"""The checks of the store are only as good as the faults they find: each of these, made on purpose, must fail one.

This file alone changes the product while it runs: to break it is its purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sinks.checkpoint
import sinks.files
import sinks.recovery
import sinks.shards
import sinks.withdraw
from engine.errors import RunError
from sinks.batch import Batch
from sinks.checkpoint import Checkpoint, State
from sinks.files import Files, partial_of
from sinks.recovery import Recovery
from sinks.shards import ShardSink
from sinks.withdraw import Withdrawals, decode_intent
from tests.soak.checks import CHECKS, passed
from tests.soak.explore import Tally

Patch = pytest.MonkeyPatch
FAILED = (AssertionError, RunError, OSError, json.JSONDecodeError, pytest.fail.Exception)
"""How a check ends that a store does not pass."""


class Through:
    """Files of which one method does something else."""

    def __init__(self, files: Files, name: str, instead: Callable[..., Any]) -> None:
        self._files, self._name, self._instead = files, name, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead if name == self._name else getattr(self._files, name)


def nothing(*_: object) -> None:
    pass


def within(patch: Patch, owner: type, method: str, name: str, make: Callable[[Files], Callable[..., Any]]) -> None:
    """While this method of the store runs, one call to its files does something else."""
    whole = getattr(owner, method)

    def changed(self: Any, *args: Any, **settings: Any) -> Any:
        files = self._files
        self._files = Through(files, name, make(files))
        try:
            return whole(self, *args, **settings)
        finally:
            self._files = files

    patch.setattr(owner, method, changed)


def skip(owner: type, method: str, name: str) -> Callable[[Patch], None]:
    """The method does not make this call."""
    return lambda patch: within(patch, owner, method, name, lambda _: nothing)


def late(owner: type, method: str, until: type, after: str) -> Callable[[Patch], None]:
    """Shards are synced not in this method, but after that one."""

    def mutate(patch: Patch) -> None:
        waiting: list[tuple[Files, Path]] = []
        whole = getattr(until, after)

        def put_off(files: Files) -> Callable[[int], None]:
            def sync(fd: int) -> None:
                path = Path(f"/proc/self/fd/{fd}").readlink()
                if path.suffix == ".jsonl":
                    waiting.append((files, path))
                else:
                    files.sync_data(fd)

            return sync

        def changed(self: Any, *args: Any, **settings: Any) -> Any:
            value = whole(self, *args, **settings)
            for path in [path for files, path in waiting if files is self._files]:
                fd = self._files.open_update(path)
                self._files.sync_data(fd)
                self._files.close(fd)
            waiting.clear()
            return value

        patch.setattr(until, after, changed)
        within(patch, owner, method, "sync_data", put_off)

    return mutate


def cut_one_byte_late(patch: Patch) -> None:
    within(patch, Recovery, "_tail", "truncate", lambda files: lambda fd, size: files.truncate(fd, size + 1))


def cut_one_byte_early(patch: Patch) -> None:
    within(patch, Recovery, "_tail", "truncate", lambda files: lambda fd, size: files.truncate(fd, max(0, size - 1)))
    within(patch, Recovery, "_tail", "write_at", lambda _: lambda _fd, data, _at: len(data))


class Anything(int):
    """A checksum that fits."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def check_no_crc(patch: Patch) -> None:
    whole = sinks.recovery._segments
    patch.setattr(
        sinks.recovery,
        "_segments",
        lambda commits: {name: [(end, Anything(crc)) for end, crc in found] for name, found in whole(commits).items()},
    )


def accept_a_short_shard(patch: Patch) -> None:
    within(patch, Recovery, "_shard", "size", lambda files: lambda fd: max(files.size(fd), 1 << 20))
    # It is noticed twice: such a file does not end where it should, either.
    within(
        patch,
        Recovery,
        "_shard",
        "read",
        lambda files: lambda fd, size, at: b"\n" if size == 1 else files.read(fd, size, at),
    )


def keep_duplicates(patch: Patch) -> None:
    whole = Recovery._is_new

    def changed(self: Recovery, folder: str, number: int, line: bytes) -> bool:
        results, self._found.state.results = self._found.state.results, type(self._found.state.results)()
        try:
            return whole(self, folder, number, line)
        finally:
            self._found.state.results = results

    patch.setattr(Recovery, "_is_new", changed)


def rotate_by_the_newer_snapshot(patch: Patch) -> None:
    whole = Checkpoint.snapshot

    def changed(self: Checkpoint, state: State) -> None:
        whole(self, state)
        self._keep_after(state.seq)

    patch.setattr(Checkpoint, "snapshot", changed)


def write_both_snapshots_to_one_slot(patch: Patch) -> None:
    whole = Checkpoint._write_slot

    def changed(self: Checkpoint, slot: str, state: State) -> None:
        whole(self, sinks.checkpoint.SLOTS[0], state)
        self._slot_seqs[slot] = state.seq

    patch.setattr(Checkpoint, "_write_slot", changed)


def drop_one_record_too_many(patch: Patch) -> None:
    whole = Checkpoint._keep_after
    patch.setattr(Checkpoint, "_keep_after", lambda self, seq: whole(self, seq + 1 if seq else 0))


def count_failures_that_were_overtaken(patch: Patch) -> None:
    def changed(self: Batch, state: State) -> tuple[int, int]:
        results = sum(1 for _, failed in self.rows if not failed)
        return state.results.count + results, state.failed() + len(self.rows) - results

    patch.setattr(Batch, "counts_after", changed)


def forget_that_a_result_beats_a_failure(patch: Patch) -> None:
    def changed(state: State, row: int, *, failed: bool) -> None:
        (state.failures if failed else state.results).add(row)

    patch.setattr(sinks.shards, "end_row", changed)


def drop_quarantine(patch: Patch) -> None:
    patch.setattr(Recovery, "_set_aside", lambda self, name, data, what: self._found.notes.append(what))


def bump_no_epoch(patch: Patch) -> None:
    whole = Recovery.run

    def changed(self: Recovery) -> Any:
        found = whole(self)
        found.state.epoch -= 1
        return found

    patch.setattr(Recovery, "run", changed)


def report_uncommitted_rows(patch: Patch) -> None:
    whole = ShardSink.statistics
    patch.setattr(ShardSink, "statistics", lambda self: replace(whole(self), done=self._done.results.count))


def sync_again_after_a_failure(patch: Patch) -> None:
    def again(files: Files) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            try:
                files.sync_data(fd)
            except OSError:
                files.sync_data(fd)

        return sync

    within(patch, ShardSink, "_write", "sync_data", again)


def keep_the_tail_as_it_is_shown(patch: Patch) -> None:
    within(patch, Recovery, "_tail", "write_at", lambda _: lambda _fd, data, _at: len(data))


def keep_the_old_log(patch: Patch) -> None:
    whole = Checkpoint.start
    patch.setattr(Checkpoint, "start", lambda self, *, afresh: whole(self, afresh=False))


def write_once(patch: Patch) -> None:
    def changed(files: Files, fd: int, data: bytes, *, at: int | None = None) -> None:
        if data:
            _ = files.write(fd, data) if at is None else files.write_at(fd, data, at)

    for module in (sinks.files, sinks.shards, sinks.checkpoint, sinks.recovery):
        patch.setattr(module, "write_all", changed)


def replace_without(name: str) -> Callable[[Patch], None]:
    """Snapshots and logs are put in place without this call."""

    def mutate(patch: Patch) -> None:
        whole = sinks.files.replace_file

        def changed(files: Any, path: Path, data: bytes) -> None:
            whole(Through(files, name, nothing), path, data)  # type: ignore[arg-type]  # looks like files

        patch.setattr(sinks.checkpoint, "replace_file", changed)

    return mutate


def leak_after_a_failure(patch: Patch) -> None:
    def changed(self: ShardSink) -> None:
        self._pool.shutdown()
        if self._broken is None:
            for fd in self._open.values():
                self._files.close(fd)
        self._checkpoint.close()
        self._lock.release()

    patch.setattr(ShardSink, "_release", changed)


def write_shards_anew_without_sync(patch: Patch) -> None:
    whole = sinks.files.writing_new
    patch.setattr(
        sinks.withdraw,
        "writing_new",
        lambda files, path: whole(Through(files, "sync_data", nothing), path),  # type: ignore[arg-type]  # as files
    )


def replace_shards_before_the_intent(patch: Patch) -> None:
    whole = sinks.files.replace_file

    def changed(files: Files, path: Path, data: bytes) -> None:
        out, intent = path.parent.parent, decode_intent(data)
        assert intent is not None
        for name in intent.ends:
            files.rename(partial_of(out / name), out / name)
        files.sync_folder(out / "results")
        whole(files, path, data)

    patch.setattr(sinks.withdraw, "replace_file", changed)


def keep_the_log_of_old_bytes(patch: Patch) -> None:
    def changed(self: Checkpoint, state: State) -> None:
        for slot in sinks.checkpoint.SLOTS:
            self._write_slot(slot, state)

    patch.setattr(Checkpoint, "restart", changed)


def drop_withdrawn_answers(patch: Patch) -> None:
    within(patch, Withdrawals, "_rewrite", "rename", lambda files: lambda old, _: files.unlink(old))


MUTANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "shards are not synced": (skip(ShardSink, "_write", "sync_data"), "power_loss"),
    "the commit log is not synced": (skip(Checkpoint, "append", "sync_data"), "power_loss"),
    "shards are synced after the commit record": (late(ShardSink, "_write", Checkpoint, "append"), "power_loss"),
    "new shards: the folder is not synced": (skip(ShardSink, "_write", "sync_folder"), "power_loss"),
    "the salvaged tail is not synced": (skip(Recovery, "_tail", "sync_data"), "power_loss"),
    "the salvaged tail is synced after the snapshot": (late(Recovery, "_tail", Recovery, "run"), "power_loss"),
    "the salvaged tail is not written anew": (keep_the_tail_as_it_is_shown, "failing_calls"),
    "a salvaged shard: the folder is not synced": (skip(Recovery, "_tail", "sync_folder"), "kill_then_power_loss"),
    "a torn tail is cut one byte late": (cut_one_byte_late, "power_loss"),
    "a torn tail is cut one byte early": (cut_one_byte_early, "power_loss"),
    "checksums of committed bytes are not compared": (check_no_crc, "damaged_committed_bytes"),
    "a shard that is too short is accepted": (accept_a_short_shard, "damaged_committed_bytes"),
    "a second line of a row is salvaged": (keep_duplicates, "power_loss"),
    "the log is rotated by the newer snapshot": (rotate_by_the_newer_snapshot, "lost_snapshot"),
    "rotation drops one record too many": (drop_one_record_too_many, "lost_snapshot"),
    "both snapshots go to one slot": (write_both_snapshots_to_one_slot, "lost_snapshot"),
    "snapshots and logs are not synced": (replace_without("sync_data"), "power_loss"),
    "snapshots and logs: the folder is not synced": (replace_without("sync_folder"), "power_loss"),
    "commit records count failures that were overtaken": (count_failures_that_were_overtaken, "power_loss"),
    "a result does not beat a failure": (forget_that_a_result_beats_a_failure, "power_loss"),
    "cut bytes are dropped": (drop_quarantine, "power_loss"),
    "the epoch is not bumped": (bump_no_epoch, "power_loss"),
    "rows that are not committed are reported as done": (report_uncommitted_rows, "failing_calls"),
    "a failed sync is tried again": (sync_again_after_a_failure, "failing_calls"),
    "the log goes on behind torn bytes": (keep_the_old_log, "kill_then_power_loss"),
    "a short write is not continued": (write_once, "writes_of_a_few_bytes"),
    "the names of the run are not synced": (skip(ShardSink, "_recover", "sync_folder"), "kill_then_power_loss"),
    "descriptors stay open after a failure": (leak_after_a_failure, "failing_calls"),
    "a withdrawal: new shards are not synced": (write_shards_anew_without_sync, "withdrawal"),
    "a withdrawal: folders are not synced": (skip(Withdrawals, "withdraw", "sync_folder"), "withdrawal"),
    "a withdrawal: shards are replaced before the intent": (replace_shards_before_the_intent, "withdrawal"),
    "a withdrawal: the intent stays": (skip(Withdrawals, "_complete", "unlink"), "withdrawal"),
    "a withdrawal: the log of the old bytes stays": (keep_the_log_of_old_bytes, "withdrawal"),
    "a withdrawal: the answers are dropped": (drop_withdrawn_answers, "withdrawal"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_store_that_is_broken_on_purpose_fails_a_check_it_passes_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, check = MUTANTS[name]
    assert passed(check).states
    mutate(monkeypatch)
    with pytest.raises(FAILED):
        CHECKS[check](Tally())
