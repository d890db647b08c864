"""The sink against a dictionary: any order of puts, commits, crashes and new lives."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from engine.types import FailureKind
from sinks.shards import ShardSink
from tests.fakes.commands import lines_of
from tests.fakes.disk import MORE_DAMAGES, Disk, PowerCutError
from tests.fakes.records import cut, failure, result
from tests.soak.explore import MEMORY
from tests.soak.lives import Clock

ROWS, SHARDS = 12, 3
KINDS = (FailureKind.REFUSED, FailureKind.SERVER, FailureKind.TRUNCATED)
rows = st.integers(0, ROWS - 1)
damages = st.sampled_from([damage for damage in MORE_DAMAGES if damage != "flip"])
"""A flipped bit in a line that was not committed may go unseen; all else must not."""
lives = st.sampled_from(
    [None, "retry", frozenset({"server"}), frozenset({"truncated"}), frozenset({"truncated", "refused"})]
)


class SinkMachine(RuleBasedStateMachine):
    """Holds what a sink should hold."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
        self._out = Path(self._folder) / "run"
        self._disk = Disk()
        self._clock = Clock(0.0)
        self._said = 0
        self._results: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        """Row to the kind of its newest failure."""
        self._pending: list[tuple[int, str | None, str]] = []
        """Row, text of a result, kind of a failure."""
        self._open(None)

    def teardown(self) -> None:
        try:
            self._sink.close()
        finally:
            shutil.rmtree(self._folder)

    def _open(self, life: str | frozenset[str] | None) -> None:
        only = life if isinstance(life, frozenset) else None
        retry = life == "retry"
        self._sink = ShardSink.open(
            self._out,
            manifest={},
            shards=SHARDS,
            resume=(self._out / "run.json").exists(),
            retry_failed=retry,
            only=only,
            files=self._disk,
            clock=self._clock,
        )
        self._only = only is not None
        self._duplicates = 0
        withdrawn = set()
        if only is not None and "truncated" in only:
            withdrawn = {row for row, text in self._results.items() if text.startswith("cut")}
            self._failures |= dict.fromkeys(withdrawn, "truncated")
        for row in withdrawn:
            del self._results[row]
        failed = {row: kind for row, kind in self._failures.items() if row not in self._results}
        chosen = {row for row, kind in failed.items() if only is not None and kind in only}
        self._again = set(failed) if retry else chosen | withdrawn

    def _done(self, row: int) -> bool:
        ended = row in self._results or row in self._failures or any(row == other for other, _, _ in self._pending)
        return row not in self._again and (self._only or ended)

    @rule(row=rows, whole=st.booleans())
    def put_result(self, row: int, *, whole: bool) -> None:
        self._said += 1
        text = f"{'whole' if whole else 'cut'} {self._said}"
        self._sink.put(result(row, text) if whole else cut(row, text))
        if row in self._results or any(row == other and said is not None for other, said, _ in self._pending):
            self._duplicates += 1
        else:
            self._take(row, text, "")

    @rule(row=rows, kind=st.sampled_from(KINDS))
    def put_failure(self, row: int, kind: FailureKind) -> None:
        self._said += 1
        self._sink.put(failure(row, f"no {self._said}", kind))
        has_result = row in self._results or any(row == other and said is not None for other, said, _ in self._pending)
        if has_result or self._done(row):
            self._duplicates += 1
        else:
            self._take(row, None, str(kind))

    def _take(self, row: int, text: str | None, kind: str) -> None:
        self._pending.append((row, text, kind))
        self._again.discard(row)

    @rule(later_s=st.sampled_from([0.0, 40.0]))
    def commit(self, later_s: float) -> None:
        self._clock.now_s += later_s
        assert self._sink.commit() == len(self._pending)
        self._settle()

    def _settle(self) -> None:
        for row, text, kind in self._pending:
            if text is None:
                self._failures[row] = kind
            else:
                self._results[row] = text
        self._pending.clear()

    @rule(life=lives)
    def close_and_go_on(self, life: str | frozenset[str] | None) -> None:
        self._sink.close()
        self._settle()
        self._open(life)
        assert not [note for note in self._sink.notes if "withdrawn" not in note]

    @rule(after=st.integers(0, 25), half=st.booleans(), damage=damages, seed=st.integers(0, 99), life=lives)
    def crash(self, *, after: int, half: bool, damage: str, seed: int, life: str | frozenset[str] | None) -> None:
        """In a commit, or just behind it."""
        self._disk.crash_in(after, half=half)
        try:
            self._sink.commit()
            self._settle()
        except PowerCutError:
            pass
        self._sink._pool.shutdown()
        self._sink._lock.release()
        self._disk.abandon()
        self._disk.lose_power(self._out, damage, seed=seed)
        self._disk.well()
        self._open(None)
        self._keep_what_was_salvaged()
        self._sink.close()
        self._open(life)

    def _keep_what_was_salvaged(self) -> None:
        """Of what waited, whole lines may have lasted; nothing else may be new."""
        held = {line["row"]: line["raw"] for line in lines_of(self._out)}
        waited = {row: text for row, text, _ in self._pending if text is not None}
        assert held.items() <= (waited | self._results).items()
        failed = {line["row"]: line["kind"] for line in lines_of(self._out, "failures")}
        assert failed.keys() <= self._failures.keys() | {row for row, text, _ in self._pending if text is None}
        assert self._results.items() <= held.items()
        assert self._failures.keys() <= failed.keys()
        self._results, self._failures = held, failed
        self._pending.clear()

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        said = self._sink.statistics()
        failed = len(self._failures.keys() - self._results.keys())
        assert (said.done, said.failed, said.pending) == (len(self._results), failed, len(self._pending))
        assert said.duplicates == self._duplicates
        assert said.finished == said.done + failed - len(self._again)
        assert said.chosen == (len(self._again) if self._only else None)
        assert [self._sink.is_done(row) for row in range(ROWS)] == [self._done(row) for row in range(ROWS)]


def compare(examples: int, steps: int) -> None:
    """So many random sequences, the same ones each time."""
    run_state_machine_as_test(
        SinkMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_sink_holds_what_a_dictionary_would() -> None:
    compare(80, 30)
