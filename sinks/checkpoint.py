"""What is known to be on the disk: a log of commits and two alternating snapshots.

A commit record carries, for each shard it touched, the end of the committed bytes, the number of lines and the CRC32C
of the bytes it added; the record itself ends in a CRC32C. A snapshot holds the same knowledge up to one commit, and
which rows have ended. Reading takes the newest whole snapshot and every whole record after it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from sinks.files import Files, replace_file, write_all
from sinks.rows import RowSet

LOG, SLOTS = "commit.log", ("snapshot-a", "snapshot-b")
SPENT = "spent"
"""The one entry of `learnt` that every commit record carries: money must not be forgotten by a kill."""
CRC_CHARS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One group of lines made safe together."""

    seq: int
    """From 1, without gaps."""
    epoch: int
    """Which life of the run wrote it."""
    time_s: float
    """Wall clock, for people."""
    shards: dict[str, tuple[int, int, int]]
    """Shard name to end offset, lines added, CRC32C of the bytes added."""
    done: int
    """Rows with a result, this commit included."""
    failed: int
    """Rows whose end is a failure, this commit included."""
    spent: dict[str, Any] | None = None
    """What the calls of all lives have cost, as the engine counts it; None if it has said nothing."""


@dataclass(slots=True)
class State:
    """Everything committed up to `seq`."""

    seq: int = 0
    epoch: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Shard name to the end of its committed bytes."""
    results: RowSet = field(default_factory=RowSet)
    failures: RowSet = field(default_factory=RowSet)
    """Rows with a failure line; one that has a result as well counts as done."""
    learnt: dict[str, Any] = field(default_factory=dict)
    """What the engine wants a later life to know, as of the snapshot; `spent` alone as of the newest commit."""
    superseded: int = 0
    """Rows that have both."""

    def failed(self) -> int:
        """Rows with a failure line and no result."""
        return self.failures.count - self.superseded


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


def sealed(body: bytes) -> bytes:
    """A line that proves itself whole: body, space, CRC32C in hex, newline."""
    return b"%b %08x\n" % (body, crc32c(body))


def unsealed(line: bytes) -> bytes | None:
    """The body of a whole line, or None."""
    body, _, mark = line.removesuffix(b"\n").rpartition(b" ")
    if not line.endswith(b"\n") or len(mark) != CRC_CHARS:
        return None
    return body if mark == b"%08x" % crc32c(body) else None


def encode_commit(commit: Commit) -> bytes:
    return sealed(orjson.dumps(commit))


def read_log(data: bytes) -> tuple[list[Commit], int]:
    """The whole records at the beginning of the log, and where they end."""
    commits: list[Commit] = []
    end = 0
    for line in data.split(b"\n"):
        body = unsealed(line + b"\n")
        if body is None or end + len(line) == len(data):
            break
        said = orjson.loads(body)
        if commits and said["seq"] <= commits[-1].seq:
            # Older blocks of the disk show through where bytes were never written.
            break
        said["shards"] = {name: tuple(entry) for name, entry in said["shards"].items()}
        commits.append(Commit(**said))
        end += len(line) + 1
    return commits, end


def spent_in(state: State) -> dict[str, Any] | None:
    """A copy of what the engine has told of money, for a commit record."""
    spent = state.learnt.get(SPENT)
    return None if spent is None else dict(spent)


def restore_spent(state: State, commits: list[Commit]) -> None:
    """Bring the money in a snapshot's state up to the commits after it."""
    newest = next((commit.spent for commit in reversed(commits) if commit.spent is not None), None)
    if newest is not None:
        state.learnt[SPENT] = newest


def state_as_json(state: State) -> dict[str, Any]:
    return {
        "seq": state.seq,
        "epoch": state.epoch,
        "ends": state.ends,
        "superseded": state.superseded,
        "learnt": state.learnt,
        "results": base64.b64encode(state.results.packed()).decode(),
        "failures": base64.b64encode(state.failures.packed()).decode(),
    }


def state_from_json(said: dict[str, Any]) -> State:
    rows = {name: RowSet.unpacked(base64.b64decode(said[name])) for name in ("results", "failures")}
    return State(**(said | rows))


def encode_snapshot(state: State) -> bytes:
    return sealed(orjson.dumps(state_as_json(state)))


def decode_snapshot(data: bytes) -> State | None:
    """The state of a whole snapshot, or None."""
    body = unsealed(data)
    return None if body is None else state_from_json(orjson.loads(body))


class Checkpoint:
    """Writes the log and the snapshots of one open run folder."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files
        self._log = -1
        self._kept: list[tuple[int, bytes]] = []
        """Records a reader of the older snapshot needs."""
        self._slot_seqs = dict.fromkeys(SLOTS, 0)

    def load(self) -> tuple[State, list[Commit], bytes]:
        """The newest whole snapshot, the commits after it, and what follows the last whole record of the log.

        A state with `seq` 0 and a log that begins later means that both snapshots are lost.
        """
        best = State()
        for slot, data in self._slots():
            state = decode_snapshot(data)
            if state is not None:
                self._slot_seqs[slot] = state.seq
                best = state if state.seq > best.seq else best
        log = self._folder / LOG
        data = log.read_bytes() if log.exists() else b""
        commits, end = read_log(data)
        self._kept = [(commit.seq, encode_commit(commit)) for commit in commits]
        return best, [commit for commit in commits if commit.seq > best.seq], data[end:]

    def start(self, *, afresh: bool) -> None:
        """Open the log for appending.

        Args:
            afresh: put its whole records into a new file first. What follows them goes; and records whose sync failed
                in an earlier life, which the kernel shows though they may not be on the disk, are written once more.
        """
        if afresh:
            self._keep_after(0)
        self._log = self._files.open_append(self._folder / LOG)
        self._files.sync_folder(self._folder)

    def append(self, commit: Commit) -> None:
        """Write a commit record and make it last; what it covers must be on the disk already."""
        line = encode_commit(commit)
        write_all(self._files, self._log, line)
        self._files.sync_data(self._log)
        self._kept.append((commit.seq, line))

    def snapshot(self, state: State) -> None:
        """Write the state over the older snapshot, then drop the records that no snapshot needs any more."""
        self._write_slot(min(SLOTS, key=lambda name: self._slot_seqs[name]), state)
        oldest = min(self._slot_seqs.values())
        if oldest and self._kept and self._kept[0][0] <= oldest:
            self._keep_after(oldest)

    def restart(self, state: State) -> None:
        """Make the state what both snapshots hold and the log go on from; nothing older is left to read."""
        for slot in SLOTS:
            self._write_slot(slot, state)
        self._keep_after(state.seq)

    def _write_slot(self, slot: str, state: State) -> None:
        replace_file(self._files, self._folder / slot, encode_snapshot(state))
        self._slot_seqs[slot] = state.seq

    def _keep_after(self, seq: int) -> None:
        self._kept = [(number, line) for number, line in self._kept if number > seq]
        replace_file(self._files, self._folder / LOG, b"".join(line for _, line in self._kept))
        if self._log >= 0:
            self.close()
            self._log = self._files.open_append(self._folder / LOG)

    def close(self) -> None:
        fd, self._log = self._log, -1
        if fd >= 0:
            self._files.close(fd)

    def _slots(self) -> Iterator[tuple[str, bytes]]:
        for slot in SLOTS:
            path = self._folder / slot
            if path.exists():
                yield slot, path.read_bytes()
