"""Cut answers withdrawn and asked for again, with a crash at every operation and every damage a power loss may do."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import RunError, SinkBroken
from engine.types import FailureKind, Record
from sinks.checkpoint import LOG, SLOTS, read_log
from sinks.files import Files
from sinks.lines import line_of
from sinks.shards import ShardSink
from sinks.withdraw import INTENT, decode_intent
from tests.fakes.commands import lines_of
from tests.fakes.disk import MORE_DAMAGES, Disk, Fault, PowerCutError
from tests.fakes.records import cut, failure, result
from tests.soak.explore import scratch
from tests.soak.report import note

SHARDS, ROWS = 3, 16
ONLY = frozenset({"truncated", "server"})
CUT_AGAIN = {1, 2, 5, 13}
"""Rows whose result is cut off when the life begins that is crashed; shard 2 then holds no other line."""
WAITING = {8, 14}
"""Rows that were withdrawn before: one failed since, one was not asked for again."""
REFUSED = {11}
DAMAGES = [damage for damage in MORE_DAMAGES if damage != "flip"]
"""A flipped bit in a line that was not committed may go unseen."""


def open_run(out: Path, *, only: frozenset[str] | None = None, files: Files | None = None) -> ShardSink:
    # The model of a disk syncs nothing in earnest: thousands of folders are opened here.
    files, resume = files or Disk(), (out / "run.json").exists()
    return ShardSink.open(out, manifest={}, shards=SHARDS, resume=resume, only=only, files=files, clock=lambda: 0.0)


def killed(sink: ShardSink) -> None:
    sink._broken = "killed"
    sink.close()


def commit(sink: ShardSink, *records: Record) -> None:
    for record in records:
        sink.put(record)
    sink.commit()


def prepare(out: Path) -> Path:
    """A run with a history: rows withdrawn before, some cut off again, a paid answer after the last commit."""
    first_cut = {1, 2, 4, 5, 8, 10, 14}
    sink = open_run(out)
    for row in sorted(set(range(ROWS)) - {13}):
        commit(sink, failure(row) if row in REFUSED else (cut if row in first_cut else result)(row, f"first {row}"))
    sink.close()
    sink = open_run(out, only=frozenset({"truncated"}))
    commit(sink, *(cut(row, f"second {row}", max_tokens_used=1024) for row in (1, 2, 5)))
    commit(sink, result(4, "second 4"), failure(8, kind=FailureKind.SERVER), result(10, "second 10"))
    killed(sink)
    with (out / "results" / "shard-00001.jsonl").open("ab") as file:
        file.write(line_of(cut(13, "second 13")) + line_of(result(7))[:-20])
    return out


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: thousands of folders live there for milliseconds."""
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("base") / "run")


class Life:
    """A life that redoes rows of certain kinds, a row a commit."""

    def __init__(self, out: Path, files: Files, *, only: frozenset[str] | None = ONLY) -> None:
        self.acknowledged: dict[int, str] = {}
        self._out, self._files, self._only = out, files, only
        self._sink: ShardSink | None = None

    def run(self) -> None:
        self._sink = sink = open_run(self._out, only=self._only, files=self._files)
        if self._only is not None:
            for row in [row for row in range(ROWS) if not sink.is_done(row)]:
                commit(sink, result(row, f"whole {row}"))
                self.acknowledged[row] = f"whole {row}"
        sink.close()

    def die(self) -> None:
        if self._sink is not None:
            self._sink._pool.shutdown()
            self._sink._lock.release()
        if isinstance(self._files, Disk):
            self._files.abandon()


def crash(out: Path, at: int, damage: str, *, seed: int, only: frozenset[str] | None = ONLY) -> dict[int, str] | None:
    """A life in a folder of lasting files that ends before operation `at`; None if it ended well before that."""
    disk = Disk(crash_at=at)
    disk.take_in(out)
    life = Life(out, disk, only=only)
    try:
        life.run()
    except PowerCutError:
        life.die()
        disk.lose_power(out, damage, seed=seed)
        return life.acknowledged
    return None


def fresh(base: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(base, out)
    return out


def results_of(out: Path) -> dict[int, str]:
    """Row to text; no row has two lines, and each stands in its shard."""
    lines = lines_of(out)
    assert max(Counter(line["row"] for line in lines).values()) == 1
    for number in range(SHARDS):
        shard = (out / "results" / f"shard-{number:05d}.jsonl").read_bytes().splitlines()
        assert all(json.loads(line)["row"] % SHARDS == number for line in shard)
    return {line["row"]: line["raw"] for line in lines}


def quarantined(out: Path) -> set[str]:
    files = [path for path in (out / "quarantine").iterdir() if ".withdrawn." in path.name]
    return {json.loads(line)["raw"] for path in files for line in path.read_bytes().splitlines()}


def newest_failures(out: Path) -> dict[int, str]:
    return {line["row"]: line["kind"] for line in lines_of(out, "failures")}


def paid_before(base: Path) -> set[str]:
    return {line["raw"] for line in lines_of(base)} | quarantined(base)


@pytest.fixture(scope="module")
def paid(base: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every answer the base folder holds, the one after its last commit included."""
    out = fresh(base, tmp_path_factory.mktemp("paid"))
    open_run(out).close()
    return paid_before(out)


def assert_in_order(out: Path, paid: set[str], acknowledged: dict[int, str]) -> None:
    """What any opening must find, whatever happened before."""
    with open_run(out) as sink:
        held = sink.statistics()
    results, failures = results_of(out), newest_failures(out)
    assert results.keys() | failures.keys() == set(range(ROWS)), "a row was lost"
    assert acknowledged.items() <= results.items(), "an acknowledged result was lost"
    assert paid <= set(results.values()) | quarantined(out), "an answer that was paid for is gone"
    for row in CUT_AGAIN - results.keys():
        assert failures[row] == "truncated"
    assert (held.done, held.failed) == (len(results), len(failures.keys() - results.keys()))
    assert not list(out.rglob("results/*.partial"))
    assert not (out / "checkpoint" / INTENT).exists()


def assert_completes(out: Path) -> None:
    """The next life for the same kinds redoes what is left, and then there is one whole line a row."""
    Life(out, Disk()).run()
    results = results_of(out)
    assert results.keys() == set(range(ROWS)) - REFUSED
    for row in CUT_AGAIN | WAITING:
        assert results[row] == f"whole {row}"
    with open_run(out, only=ONLY) as sink:
        assert all(sink.is_done(row) for row in range(ROWS))
        assert sink.statistics().salvaged == 0
        assert not sink.notes


def operations(*, only: frozenset[str] | None = ONLY) -> int:
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk()
        Life(prepare(Path(folder) / "run"), disk, only=only).run()
        return disk.operations


TOTAL = operations()


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_whatever_operation_of_a_withdrawal_the_power_fails_at(
    tmp_path: Path, base: Path, paid: set[str]
) -> None:
    for at in range(TOTAL):
        for turn in range(3):
            survive_crash(base, tmp_path, paid, at=at, damage=DAMAGES[(at + 2 * turn) % len(DAMAGES)], seed=at + turn)


def survive_crash(base: Path, tmp_path: Path, paid: set[str], *, at: int, damage: str, seed: int) -> None:
    out = fresh(base, tmp_path)
    acknowledged = crash(out, at, damage, seed=seed)
    assert acknowledged is not None
    assert_in_order(out, paid, acknowledged)
    assert_completes(out)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_damage_at_every_operation_of_a_withdrawal_is_survived(
    tmp_path: Path, base: Path, paid: set[str]
) -> None:
    began, seeds = time.monotonic(), range(8)
    for at in range(TOTAL):
        for damage in DAMAGES:
            for seed in seeds:
                survive_crash(base, tmp_path, paid, at=at, damage=damage, seed=1000 * seed + at + seed)
    note(
        "power cut at every operation of a withdrawal of cut answers",
        time.monotonic() - began,
        tried=TOTAL * len(DAMAGES) * len(seeds),
        lost=0,
        doubled=0,
    )


def intents(base: Path, tmp_path: Path, damage: str) -> Iterator[Path]:
    """A folder after each crash that left a whole intent."""
    for at in range(TOTAL):
        out = fresh(base, tmp_path / "intents")
        if crash(out, at, damage, seed=at) is not None and (out / "checkpoint" / INTENT).exists():
            yield out


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["nothing", "mixed"])
def test_a_recovery_that_completes_a_withdrawal_may_crash_at_every_operation(
    tmp_path: Path, base: Path, paid: set[str], damage: str
) -> None:
    crashed = 0
    for left in intents(base, tmp_path, damage):
        for second in range(TOTAL):
            out = fresh(left, tmp_path)
            if crash(out, second, damage, seed=second, only=None) is None:
                break
            crashed += 1
            assert_in_order(out, paid, {})
        assert_completes(out)
    assert crashed > 90


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("only", [None, ONLY])
def test_two_crashes_at_any_two_operations_are_survived(
    tmp_path: Path, base: Path, paid: set[str], damage: str, only: frozenset[str] | None
) -> None:
    for first in range(TOTAL):
        left = fresh(base, tmp_path / "first")
        acknowledged = crash(left, first, damage, seed=first)
        assert acknowledged is not None
        for second in range(2 * TOTAL):
            out = fresh(left, tmp_path)
            more = crash(out, second, damage, seed=1000 * first + second, only=only)
            if more is None:
                break
            assert_in_order(out, paid, acknowledged | more)
            assert_completes(out)


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_operation_of_a_withdrawal_ends_the_life_and_the_next_one_completes(
    tmp_path: Path, base: Path, paid: set[str], error: int
) -> None:
    for at in range(1, TOTAL + 1):
        out = fresh(base, tmp_path)
        disk = Disk(fail_at=at, error=error)
        life = Life(out, disk)
        with suppress(RunError):
            life.run()
        life.die()
        assert_in_order(out, paid, life.acknowledged)
        assert_completes(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["open_read", "read", "close", "unlink"])
def test_a_withdrawal_is_completed_whatever_call_of_a_kind_failed(
    tmp_path: Path, base: Path, paid: set[str], kind: str
) -> None:
    nth, met = 1, True
    while met:
        out = fresh(base, tmp_path)
        disk = Disk(fault=Fault(kind=kind, nth=nth, error=errno.EIO))
        life = Life(out, disk)
        with suppress(SinkBroken):
            life.run()
        life.die()
        met = disk.calls[kind] >= nth
        assert_in_order(out, paid, life.acknowledged)
        assert_completes(out)
        nth += 1
    assert nth > 2


def test_a_crash_between_announcing_and_withdrawing_announces_nothing_twice(
    tmp_path: Path, base: Path, paid: set[str]
) -> None:
    for at in range(TOTAL):
        out = fresh(base, tmp_path)
        crash(out, at, "nothing", seed=0)
        Life(out, Disk()).run()
        announced = Counter((line["row"], line["message"]) for line in lines_of(out, "failures"))
        assert set(announced.values()) == {1}


def test_partial_files_without_an_intent_are_cleared_away(tmp_path: Path, base: Path, paid: set[str]) -> None:
    out = fresh(base, tmp_path)
    (out / "results" / "shard-00001.jsonl.partial").write_bytes(b"torn")
    (out / "quarantine" / "results-shard-00001.jsonl.partial").write_bytes(b"torn")
    assert_in_order(out, paid, {})
    assert not list(out.rglob("*.partial"))


def test_a_damaged_intent_is_set_aside_and_the_withdrawal_has_not_happened(
    tmp_path: Path, base: Path, paid: set[str]
) -> None:
    out = fresh(base, tmp_path)
    (out / "checkpoint" / INTENT).write_bytes(b"{} 00000000\n")
    sink = open_run(out)
    assert any("damaged checkpoint/withdrawal went to quarantine/" in note for note in sink.notes)
    sink.close()
    assert_in_order(out, paid, {})
    assert_completes(out)


def left_with_an_intent(base: Path, tmp_path: Path) -> Path:
    return next(intents(base, tmp_path, "nothing"))


def test_a_completed_withdrawal_is_told(tmp_path: Path, base: Path) -> None:
    sink = open_run(left_with_an_intent(base, tmp_path))
    assert "the withdrawal of 4 answers that were cut off was completed" in sink.notes
    sink.close()


def test_the_state_after_a_withdrawal_has_a_number_of_its_own(tmp_path: Path, base: Path) -> None:
    out = left_with_an_intent(base, tmp_path)
    intent = decode_intent((out / "checkpoint" / INTENT).read_bytes())
    commits, _ = read_log((out / "checkpoint" / LOG).read_bytes())
    assert intent is not None
    assert intent.state.seq == commits[-1].seq + 1


@pytest.mark.parametrize("lost", [SLOTS[:1], SLOTS[1:], SLOTS])
def test_snapshots_lost_after_a_withdrawal_do_not_bring_old_bytes_to_mind(
    tmp_path: Path, base: Path, paid: set[str], lost: tuple[str, ...]
) -> None:
    out = fresh(base, tmp_path)
    killed(open_run(out, only=ONLY))
    for slot in lost:
        (out / "checkpoint" / slot).unlink()
    assert_in_order(out, paid, {})
    assert_completes(out)


def test_the_log_of_a_young_run_forgets_the_old_bytes_as_well(tmp_path: Path) -> None:
    assert_young_log_forgets(tmp_path / "run")


def assert_young_log_forgets(out: Path) -> None:
    """After a withdrawal, nothing is left to read that speaks of the old bytes, even if both snapshots are lost."""
    sink = open_run(out)
    commit(sink, result(0), cut(3))
    killed(sink)
    killed(open_run(out, only=ONLY))
    for slot in SLOTS:
        (out / "checkpoint" / slot).unlink()
    with open_run(out) as sink:
        assert (sink.statistics().done, sink.statistics().failed) == (1, 1)


def test_a_withdrawal_whose_files_are_gone_is_refused_and_changes_nothing(tmp_path: Path, base: Path) -> None:
    out = left_with_an_intent(base, tmp_path)
    partial = out / "results" / "shard-00002.jsonl.partial"
    whole = partial.read_bytes()
    for damaged in (b"torn", None):
        partial.unlink()
        if damaged is not None:
            partial.write_bytes(damaged)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.lock"}
        with pytest.raises(SinkBroken, match=r"shard-00002.* cannot be completed"):
            open_run(out)
        assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "run.lock"}
        partial.touch()
    partial.write_bytes(whole)
    assert_completes(out)
