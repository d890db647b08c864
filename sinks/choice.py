"""Which rows a life takes up that was asked to work on certain kinds of ends and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ConfigError
from engine.types import FailureKind
from sinks.checkpoint import State, crc32c
from sinks.files import Files, reading_lines
from sinks.folder import FAILURES, RESULTS, shard_name
from sinks.lines import cut_answer, kind_of, withdrawal_line
from sinks.rows import RowSet


@dataclass(slots=True)
class Choice:
    """What one reading of the shards found."""

    again: RowSet = field(default_factory=RowSet)
    """Failed rows whose newest failure is of a kind asked for."""
    cut: RowSet = field(default_factory=RowSet)
    """Rows whose result was cut off and is to be withdrawn."""
    cut_shards: list[str] = field(default_factory=list)
    """The results shards they stand in."""


def check_kinds(only: frozenset[str]) -> None:
    """Refuse words that name no kind.

    Raises:
        ConfigError: names them, and the known ones.
    """
    if unknown := sorted(only - set(FailureKind)):
        raise ConfigError(f"no kind of failure is called {', '.join(unknown)}; there are {', '.join(FailureKind)}")


class Chooser:
    """Reads every committed line once, a piece at a time; remembers a bit a row, and little more for one shard.

    Args:
        out: the run folder, in order and with nothing uncommitted.
        files: how the disk is reached.
        state: what is committed.
        only: the kinds asked for.
        withdraw: takes row and failure line of each cut answer, unless that line is in `failures/` already because
            an earlier life ended between writing it and withdrawing the answer.
    """

    def __init__(
        self, out: Path, files: Files, *, state: State, only: frozenset[str], withdraw: Callable[[int, bytes], None]
    ) -> None:
        self._out = out
        self._files = files
        self._state = state
        self._only = only
        self._withdraw = withdraw
        self._choice = Choice()

    def choose(self, shards: int) -> Choice:
        for number in range(shards):
            noted = self._read_failures(shard_name(FAILURES, number))
            if FailureKind.TRUNCATED in self._only:
                self._read_results(shard_name(RESULTS, number), noted)
        return self._choice

    def _read_failures(self, name: str) -> dict[int, int]:
        """Take up failed rows; of rows with a result as well, the checksums of lines that announce a withdrawal."""
        noted: dict[int, int] = {}
        if not (end := self._state.ends.get(name, 0)):
            return noted
        with reading_lines(self._files, self._out / name, end) as lines:
            for line in lines:
                if (found := kind_of(line)) is None:
                    continue
                row, kind = found
                if row not in self._state.results:
                    # A later line of the same row is its newer end.
                    (self._choice.again.add if kind in self._only else self._choice.again.discard)(row)
                elif kind == FailureKind.TRUNCATED:
                    noted[row] = crc32c(line)
                else:
                    # It has ended otherwise since: a cut answer that looks the same is another one.
                    noted.pop(row, None)
        return noted

    def _read_results(self, name: str, noted: dict[int, int]) -> None:
        if not (end := self._state.ends.get(name, 0)):
            return
        before = self._choice.cut.count
        with reading_lines(self._files, self._out / name, end) as lines:
            for line in lines:
                if (said := cut_answer(line)) is None:
                    continue
                row, failure = said["row"], withdrawal_line(said)
                self._choice.cut.add(row)
                if noted.get(row) != crc32c(failure):
                    self._withdraw(row, failure)
        if self._choice.cut.count > before:
            self._choice.cut_shards.append(name)
