"""Lines that wait for a commit, and what the counts are once they are committed."""

from __future__ import annotations

from collections import defaultdict

from sinks.checkpoint import State

RECORD_BYTES_BESIDE_LINE = 200
"""What a pending record costs besides its line; keeps the memory bound honest for short answers."""


class Batch:
    """Grows until it is committed as a whole."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        """By the name of their shard."""
        self.rows: list[tuple[int, bool]] = []
        """Row, and whether its line is a failure."""
        self.n_bytes = 0

    def add(self, name: str, line: bytes, *, row: int, failed: bool) -> None:
        self.lines[name].append(line)
        self.rows.append((row, failed))
        self.n_bytes += len(line) + RECORD_BYTES_BESIDE_LINE

    def counts_after(self, state: State) -> tuple[int, int]:
        """Done and failed rows once this is committed on top of the state."""
        results = {row for row, failed in self.rows if not failed}
        failures = {
            row for row, failed in self.rows if failed and row not in state.failures and row not in state.results
        }
        overtaken = sum(1 for row in results if row in state.failures or row in failures)
        return state.results.count + len(results), state.failed() + len(failures) - overtaken
