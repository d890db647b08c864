"""Lines that wait for a commit, and what the counts are once they are committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from sinks.checkpoint import State

RECORD_BYTES_BESIDE_LINE = 200
"""What a pending record costs besides its line; keeps the memory bound honest for short answers."""


class Answered(NamedTuple):
    """A line whose answer may be given to others."""

    key: bytes
    """Of the request that was answered."""
    row: int
    name: str
    """Of its shard."""
    at: int
    """Where the line begins, in bytes: among those of the batch, or once that is committed in the shard."""
    line: bytes


class Batch:
    """Grows until it is committed as a whole."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        """By the name of their shard."""
        self.rows: list[tuple[int, bool]] = []
        """Row, and whether its line is a failure."""
        self.answered: list[Answered] = []
        self.n_bytes = 0
        self._sizes: dict[str, int] = defaultdict(int)

    def add(self, name: str, line: bytes, *, row: int, failed: bool, key: bytes = b"") -> None:
        self.lines[name].append(line)
        if key:
            self.answered.append(Answered(key, row, name, self._sizes[name], line))
        self._sizes[name] += len(line)
        self.rows.append((row, failed))
        self.n_bytes += len(line) + RECORD_BYTES_BESIDE_LINE

    def answered_from(self, starts: Mapping[str, int]) -> list[Answered]:
        """The lines that may answer others, where they stand in shards that had these sizes before."""
        return [Answered(key, row, name, starts[name] + at, line) for key, row, name, at, line in self.answered]

    def counts_after(self, state: State) -> tuple[int, int]:
        """Done and failed rows once this is committed on top of the state."""
        results = {row for row, failed in self.rows if not failed}
        failures = {
            row for row, failed in self.rows if failed and row not in state.failures and row not in state.results
        }
        overtaken = sum(1 for row in results if row in state.failures or row in failures)
        return state.results.count + len(results), state.failed() + len(failures) - overtaken
