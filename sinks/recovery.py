"""What a run folder really holds after its last writer ended, however it ended.

Committed bytes must be there, to the bit: if they are not, nothing is redone silently, the run is refused. Bytes past
the last commit are answers that were paid for: whole, valid lines are kept; the first line that is none, and everything
after it, goes to `quarantine/`. What is kept is written once more in its place and synced before a commit record and a
snapshot say so: the kernel goes on showing bytes whose sync failed, and to sync them again would claim success.
Recovery changes files only by cutting such tails, so it may itself be killed anywhere and begun again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import SinkBroken
from sinks.checkpoint import LOG, Checkpoint, Commit, State, crc32c, restore_spent, spent_in
from sinks.files import Files, read_all, replace_file, write_all
from sinks.folder import CHECKPOINT, FAILURES, QUARANTINE, RESULTS, shard_name
from sinks.lines import FAILURE_KEYS, RESULT_KEYS, row_of


@dataclass(slots=True)
class Recovered:
    """The state after recovery and what it took."""

    state: State
    salvaged: int = 0
    notes: list[str] = field(default_factory=list)


class Recovery:
    """One recovery of one folder, by the process that holds its lock."""

    def __init__(self, out: Path, *, shards: int, files: Files, checkpoint: Checkpoint) -> None:
        self._out = out
        self._shards = shards
        self._files = files
        self._checkpoint = checkpoint
        self._found = Recovered(state=State())
        self._adopted: dict[str, tuple[int, int, int]] = {}

    def run(self) -> Recovered:
        """Bring the folder in order.

        Raises:
            SinkBroken: committed bytes are missing or damaged.
        """
        state, commits, torn = self._checkpoint.load()
        self._found.state = state
        if torn:
            self._set_aside(f"{CHECKPOINT}/{LOG}", torn, "a torn record at the end of the commit log")
        afresh = bool(commits or torn)
        if lost := _lost(state, commits):
            self._found.notes.append(f"{lost}; every line of every shard was read again")
            self._found.state = state = State(seq=commits[-1].seq, epoch=commits[-1].epoch)
            restore_spent(state, commits)
            commits = []
        segments = _segments(commits)
        for folder in (RESULTS, FAILURES):
            for number in range(self._shards):
                self._shard(folder, number, segments.get(shard_name(folder, number), []))
        if commits:
            state.seq, state.epoch = commits[-1].seq, commits[-1].epoch
            restore_spent(state, commits)
        state.epoch += 1
        self._checkpoint.start(afresh=afresh)
        if self._adopted:
            self._checkpoint.append(self._adoption(state))
        if afresh or self._adopted or self._found.notes:
            self._checkpoint.snapshot(state)
        return self._found

    def _adoption(self, state: State) -> Commit:
        state.seq += 1
        return Commit(
            seq=state.seq,
            epoch=state.epoch,
            time_s=time.time(),
            shards=self._adopted,
            done=state.results.count,
            failed=state.failed(),
            spent=spent_in(state),
        )

    def _shard(self, folder: str, number: int, segments: list[tuple[int, int]]) -> None:
        """Check one shard's committed bytes, take in what is new, cut what is torn."""
        name = shard_name(folder, number)
        path = self._out / name
        start = self._found.state.ends.get(name, 0)
        committed = segments[-1][0] if segments else start
        try:
            fd = self._files.open_update(path)
        except FileNotFoundError:
            if not committed:
                return
            raise SinkBroken(
                f"{path} is gone, {committed} bytes were committed: committed bytes are missing. "
                "Nothing was changed; restore the file from a copy"
            ) from None
        except OSError as error:
            raise SinkBroken(f"{path} cannot be opened: {error.strerror}") from error
        try:
            size = self._files.size(fd)
            if size < committed:
                raise SinkBroken(
                    f"{path} has {size} bytes, {committed} were committed: committed bytes are missing. "
                    "Nothing was changed; restore the file from a copy"
                )
            for end, crc in segments:
                data = read_all(self._files, fd, start, end)
                if crc32c(data) != crc:
                    raise SinkBroken(f"{path}: committed bytes {start} to {end} are damaged. Nothing was changed")
                self._take(folder, data)
                start = end
            if committed and self._files.read(fd, 1, committed - 1) != b"\n":
                # Whoever cut here would cut lines that were committed.
                raise SinkBroken(
                    f"{path}: byte {committed}, up to which it is said to be committed, is in the middle of a line. "
                    "Nothing was changed"
                )
            if segments:
                self._found.state.ends[name] = committed
            if size > committed:
                self._tail(folder, number, fd, committed, size)
        finally:
            self._files.close(fd)

    def _tail(self, folder: str, number: int, fd: int, start: int, size: int) -> None:
        """Keep the whole new lines after the last commit, set the rest aside."""
        name = shard_name(folder, number)
        data = read_all(self._files, fd, start, size)
        kept = lines = 0
        for line in _lines(data):
            if not self._is_new(folder, number, line):
                break
            self._take(folder, line)
            kept += len(line)
            lines += 1
        if kept < len(data):
            self._set_aside(name, data[kept:], f"{len(data) - kept} bytes past the last whole line of {name}")
            self._files.truncate(fd, start + kept)
        write_all(self._files, fd, data[:kept], at=start)
        self._files.sync_data(fd)
        if lines:
            self._files.sync_folder(self._out / folder)
            self._found.state.ends[name] = start + kept
            self._found.salvaged += lines
            self._adopted[name] = (start + kept, lines, crc32c(data[:kept]))

    def _is_new(self, folder: str, number: int, line: bytes) -> bool:
        row = row_of(line, keys=RESULT_KEYS if folder == RESULTS else FAILURE_KEYS)
        if row is None or row % self._shards != number:
            return False
        return folder == FAILURES or row not in self._found.state.results

    def _take(self, folder: str, data: bytes) -> None:
        keys = RESULT_KEYS if folder == RESULTS else FAILURE_KEYS
        for line in _lines(data):
            row = row_of(line, keys=keys)
            if row is not None:
                end_row(self._found.state, row, failed=folder == FAILURES)

    def _set_aside(self, name: str, data: bytes, what: str) -> None:
        """Keep bytes that are cut off; the name says where they stood, so that doing it twice is doing it once."""
        place = f"{name.replace('/', '-')}.{self._found.state.epoch}.{crc32c(data):08x}"
        replace_file(self._files, self._out / QUARANTINE / place, data)
        self._found.notes.append(f"{what} went to {QUARANTINE}/{place}")


def end_row(state: State, row: int, *, failed: bool) -> None:
    """Note that a row has a line. A result beats a failure."""
    mine, other = (state.failures, state.results) if failed else (state.results, state.failures)
    if mine.add(row) and row in other:
        state.superseded += 1


def _lost(state: State, commits: list[Commit]) -> str | None:
    """What is missing between a snapshot and the commits after it; rotation keeps every record after the older one."""
    if commits and commits[0].seq != state.seq + 1:
        return "both snapshots are lost"
    whole = all(commit.seq == seq for seq, commit in enumerate(commits, state.seq + 1))
    return None if whole else "a record is missing in the commit log"


def _segments(commits: list[Commit]) -> dict[str, list[tuple[int, int]]]:
    """Per shard, the ends and checksums of the committed pieces after the snapshot."""
    segments: dict[str, list[tuple[int, int]]] = {}
    for commit in commits:
        for name, (end, _, crc) in commit.shards.items():
            segments.setdefault(name, []).append((end, crc))
    return segments


def _lines(data: bytes) -> list[bytes]:
    """Lines ended by a newline alone; `splitlines` would also split at a carriage return."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]
