"""A run of three lives on one modelled machine, and what must hold after whatever ended it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import RunError
from engine.types import Record
from sinks.checkpoint import Checkpoint
from sinks.files import Files
from sinks.folder import CHECKPOINT, FAILURES, QUARANTINE, RESULTS
from sinks.lines import FAILURE_KEYS, RESULT_KEYS, row_of
from sinks.shards import ShardSink
from tests.fakes.commands import lines_of
from tests.fakes.disk import Disk, PowerCutError
from tests.fakes.records import failure, result

SHARDS, ROWS, COMMIT_EVERY = 3, 30, 3
FAILED = frozenset({4, 11, 17, 23})
"""Rows that fail when first asked for."""
FIRST_ROWS = 15
"""Rows committed by the first life before it is killed."""
COMPLETE = {row: f"again {row}" if row in FAILED else f"answer {row}" for row in range(ROWS)}


def open_run(out: Path, files: Files, *, retry_failed: bool = False, now_s: float = 0.0) -> ShardSink:
    """Syncs by one thread, so that the same operation is the same one in every run."""
    resume = (out / "run.json").exists()
    sink = ShardSink.open(
        out, manifest={}, shards=SHARDS, resume=resume, retry_failed=retry_failed, files=files, clock=Clock(now_s)
    )
    sink._pool.shutdown()
    sink._pool = ThreadPoolExecutor(1)
    return sink


class Clock:
    """Shows what it is set to."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def record(row: int, *, again: bool) -> Record:
    if row in FAILED:
        return result(row, COMPLETE[row]) if again else failure(row)
    return result(row, COMPLETE[row])


@dataclass(slots=True)
class Promise:
    """What a run has said is safe."""

    rows: dict[int, str | None] = field(default_factory=dict)
    """Row to the text of its result, or None where a failure was acknowledged."""
    lines: int = 0
    """How many were committed; none of these may look like a tail that was written after the last commit."""
    reported: int = 0
    """Most rows that the statistics ever called done."""


class Story:
    """The first life is killed while it writes lines, the second while it writes a commit record, the third closes.

    Snapshots are due at every other commit, the log is rotated in each life, the last tries failed rows again.
    """

    def __init__(self, out: Path, disk: Disk) -> None:
        self.promise = Promise()
        self._out, self.disk = out, disk
        self._sink: ShardSink | None = None
        self._waiting: dict[int, str | None] = {}

    def run(self) -> None:
        self._life(range(FIRST_ROWS), tear="shard-00001.jsonl")
        self._life(range(ROWS - COMMIT_EVERY), tear="commit.log")
        self._life(range(ROWS), again=True)

    def _life(self, rows: range, *, tear: str | None = None, again: bool = False) -> None:
        disk = self.disk
        disk.phase = f"open{' anew' if disk.operations else ''}"
        self._sink = sink = open_run(self._out, disk, retry_failed=again)
        clock = sink._clock
        assert isinstance(clock, Clock)
        try:
            for row in rows:
                self._put(sink, row, again=again)
                if row % COMMIT_EVERY == COMMIT_EVERY - 1:
                    clock.now_s += 20
                    self._commit(sink)
            if tear is not None:
                for row in range(rows.stop, rows.stop + COMMIT_EVERY):
                    self._put(sink, row, again=again)
                disk.tear = tear
                self._killed_commit(sink)
                return
            disk.phase = "close"
            sink.close()
        except RunError:
            sink.close()
            raise
        finally:
            self._look(sink)
        self._waiting.clear()

    def _killed_commit(self, sink: ShardSink) -> None:
        try:
            sink.commit()
        except PowerCutError:
            if self.disk.cut:
                raise
            self.die()

    def _put(self, sink: ShardSink, row: int, *, again: bool) -> None:
        if not sink.is_done(row):
            sink.put(record(row, again=again))
            self._waiting[row] = None if row in FAILED and not again else COMPLETE[row]

    def _commit(self, sink: ShardSink) -> None:
        self.disk.phase = "commit"
        if sink.commit():
            self.promise.rows |= self._waiting
            self.promise.lines += len(self._waiting)
        self._waiting.clear()

    def _look(self, sink: ShardSink) -> None:
        self.promise.reported = max(self.promise.reported, sink.statistics().done)

    def die(self) -> None:
        """Give back what the kernel takes from a dead process."""
        self._waiting.clear()
        if self._sink is not None:
            self._sink._pool.shutdown()
            self._sink._lock.release()
        self.disk.abandon()


def told(out: Path, disk: Disk) -> Story:
    """The story up to where the disk ends it: by a power cut or an error."""
    story = Story(out, disk)
    with suppress(PowerCutError, RunError):
        story.run()
    story.die()
    return story


def gone_on(out: Path, disk: Disk, promise: Promise) -> Promise:
    """What a next life on the same machine calls done: it has made all lasting that it took over, and one row more."""
    if not (out / "run.json").exists():
        return promise
    sink = open_run(out, disk)
    results = {line["row"]: line["raw"] for line in lines_of(out)}
    done: dict[int, str | None] = {row: results.get(row) for row in range(ROWS) if sink.is_done(row)}
    fresh = next(row for row in (*range(ROWS), None) if row is None or not sink.is_done(row))
    if fresh is not None:
        sink.put(record(fresh, again=True))
        sink.commit()
        done[fresh] = COMPLETE[fresh]
    reported = sink.statistics().done
    sink._broken = "killed"
    sink.close()
    return Promise(promise.rows | done, sum(map(len, lines_in_place(out))), max(reported, promise.reported))


def content(out: Path, *folders: str) -> dict[str, bytes]:
    """Files of these folders by their names in the run folder."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in folders
        for path in sorted((out / folder).glob("*"))
        if path.is_file()
    }


def assert_survived(out: Path, promise: Promise, *, exact: bool = True) -> None:
    """Open the folder as the next life does; nothing is lost or doubled, and the run can be completed.

    Args:
        out: what is left of the run; completed here.
        promise: what was said to be safe.
        exact: whether kept answers must be the right ones to the bit; a flipped bit in an unsynced line is not seen.
    """
    before = content(out, RESULTS, FAILURES)
    epoch = newest_epoch(out)
    if not (out / "run.json").exists():
        assert not promise.rows, "the run itself was lost"
        assert not before, "lines stand in a folder that is no run"
    sink = open_run(out, Disk())
    assert sink._state.epoch > epoch, "two lives have one epoch"
    held = sink.statistics()
    assert_in_order(sink, out, promise, exact=exact)
    assert held.done >= promise.reported, "the statistics called rows done that are not"
    sink.close()
    after = content(out, RESULTS, FAILURES, QUARANTINE)
    assert_nothing_vanished(before, after)
    assert_completes(out, after, exact=exact)


def newest_epoch(out: Path) -> int:
    state, commits, _ = Checkpoint(out / CHECKPOINT, Files()).load()
    return commits[-1].epoch if commits else state.epoch


def assert_in_order(sink: ShardSink, out: Path, promise: Promise, *, exact: bool) -> None:
    results, failures = lines_in_place(out)
    assert len(set(results)) == len(results), "a row has two results"
    found = {line["row"]: line["raw"] for line in lines_of(out)}
    for row, text in promise.rows.items():
        assert row in (failures if text is None else found), f"row {row} was acknowledged and is lost"
        assert text is None or text == found[row], f"row {row} has another answer than the acknowledged one"
        assert sink.is_done(row), f"row {row} was acknowledged and would be asked for again"
    assert not exact or found.items() <= COMPLETE.items(), "an answer that nobody gave"
    held = sink.statistics()
    found_new = len(results) + len(failures) - promise.lines
    assert held.salvaged <= found_new, "acknowledged lines are covered by no record"
    assert held.done == len(results), "the statistics miscount results"
    assert held.failed == len(set(failures) - set(results)), "the statistics miscount failures"
    done = {row for row in range(ROWS) if sink.is_done(row)}
    assert done == set(results) | set(failures), "a row is called done that has no line, or the other way"


def lines_in_place(out: Path) -> tuple[list[int], list[int]]:
    """Rows of the result lines and of the failure lines; every line is whole, valid, and in its shard."""
    rows: dict[str, list[int]] = {RESULTS: [], FAILURES: []}
    for name, data in content(out, RESULTS, FAILURES).items():
        folder, _, shard = name.partition("/shard-")
        for line in data.split(b"\n")[:-1]:
            row = row_of(line + b"\n", keys=RESULT_KEYS if folder == RESULTS else FAILURE_KEYS)
            assert row is not None, f"{name} holds a line that is none"
            assert row % SHARDS == int(shard.removesuffix(".jsonl")), f"{name} holds a row of another shard"
            rows[folder].append(row)
        assert data.endswith(b"\n") or not data, f"{name} ends in the middle of a line"
    return rows[RESULTS], rows[FAILURES]


def assert_nothing_vanished(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """What recovery cut off a shard is in quarantine, and it did nothing else to it."""
    aside = [data for name, data in after.items() if name.startswith(QUARANTINE)]
    for name, old in before.items():
        kept = after.get(name, b"")
        assert old.startswith(kept), f"recovery changed {name}"
        assert kept == old or old[len(kept) :] in aside, f"what was cut off {name} is gone"


def assert_completes(out: Path, after: dict[str, bytes], *, exact: bool) -> None:
    """A second recovery finds nothing to do, and then the rows that are left can be done."""
    sink = open_run(out, Disk(), retry_failed=True)
    assert (sink.statistics().salvaged, sink.notes) == (0, []), "a second recovery had something to do"
    assert content(out, RESULTS, FAILURES, QUARANTINE) == after, "a second recovery changed something"
    for row in range(ROWS):
        if not sink.is_done(row):
            sink.put(record(row, again=True))
    sink.commit()
    assert_last_commit(out, sink)
    sink.close()
    found = {line["row"]: line["raw"] for line in lines_of(out)}
    assert found == COMPLETE if exact else found.keys() == COMPLETE.keys(), "the run does not end as undisturbed"
    assert max(Counter(line["row"] for line in lines_of(out)).values()) == 1


def assert_last_commit(out: Path, sink: ShardSink) -> None:
    """The newest record counts what there is."""
    _, commits, _ = Checkpoint(out / CHECKPOINT, Files()).load()
    held = sink.statistics()
    assert not commits or (commits[-1].done, commits[-1].failed) == (held.done, held.failed), "a record miscounts"
