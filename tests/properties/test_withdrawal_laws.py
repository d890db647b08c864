"""Withdrawing answers from shards of any content leaves exactly the others, to the bit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.files import PIECE_BYTES, Files, reading_lines
from sinks.rows import RowSet
from sinks.shards import ShardSink
from tests.fakes.commands import lines_of
from tests.fakes.disk import Disk
from tests.fakes.records import cut, failure, result

CUT_ONLY = frozenset({"truncated"})
ENDS = st.sampled_from(["result", "cut", "failure", "none"])
LARGE = PIECE_BYTES // 3
"""Three such answers are more than what is read at once."""


def open_run(out: Path, *, shards: int, only: frozenset[str] | None = None) -> ShardSink:
    return ShardSink.open(
        out, manifest={}, shards=shards, resume=(out / "run.json").exists(), only=only, files=Disk(), clock=lambda: 0.0
    )


@settings(max_examples=40, deadline=None)
@given(
    ends=st.lists(ENDS, min_size=1, max_size=300),
    shards=st.integers(1, 4),
    commits=st.integers(1, 60),
    large=st.sets(st.integers(0, 299), max_size=8),
    redone=st.sets(st.integers(0, 299)),
    closed=st.booleans(),
)
def test_a_withdrawal_takes_the_cut_lines_and_no_others(
    *, ends: list[str], shards: int, commits: int, large: set[int], redone: set[int], closed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sink = open_run(out, shards=shards)
        for row, end in enumerate(ends):
            text = f'row {row} says "truncated":true ' + "x" * (LARGE if row in large else row % 7)
            if end != "none":
                sink.put(failure(row, text) if end == "failure" else (cut if end == "cut" else result)(row, text))
            if row % commits == 0:
                sink.commit()
        sink.commit()
        if not closed:
            # As a killed process: what was committed stands in the log alone.
            sink._broken = "killed"
        sink.close()
        before = {line["row"]: line for line in lines_of(out)}
        was_cut = {row for row, line in before.items() if line["truncated"]}

        sink = open_run(out, shards=shards, only=CUT_ONLY)
        assert {row for row in range(len(ends)) if not sink.is_done(row)} == was_cut
        after = {line["row"]: line for line in lines_of(out)}
        assert after == {row: line for row, line in before.items() if row not in was_cut}
        aside = [json.loads(line) for path in (out / "quarantine").iterdir() for line in path.read_bytes().splitlines()]
        assert {line["row"]: line for line in aside} == {row: before[row] for row in was_cut}
        assert len(aside) == len(was_cut)

        for row in sorted(was_cut & redone):
            sink.put(result(row, "whole"))
            if row % 3 == 0:
                sink.commit()
        sink.commit()
        sink._broken = "killed"
        sink.close()
        with open_run(out, shards=shards) as sink:
            assert sink.statistics().salvaged == 0
            assert sink.statistics().done == len(after) + len(was_cut & redone)
            assert sink.statistics().failed == ends.count("failure") + len(was_cut - redone)
        assert len(lines_of(out)) == len(after) + len(was_cut & redone)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 100, LARGE, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1]), max_size=6))
def test_lines_are_read_whole_wherever_a_piece_ends(sizes: list[int]) -> None:
    lines = [b"%d" % number + b"x" * size + b"\n" for number, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(b"".join(lines) + b"not committed\n")
        with reading_lines(Files(), path, sum(map(len, lines))) as found:
            assert list(found) == lines


@given(st.sets(st.integers(0, 5000)), st.sets(st.integers(0, 5000)), st.integers(0, 9000))
def test_sets_of_rows_add_and_subtract_as_sets_do(some: set[int], others: set[int], one: int) -> None:
    def rows(members: set[int]) -> RowSet:
        made = RowSet()
        for member in members:
            made.add(member)
        return made

    def members(made: RowSet) -> set[int]:
        found = {row for row in range(9001) if row in made}
        assert made.count == len(found)
        return found

    left, both = rows(some).without(rows(others)), rows(some)
    both.update(rows(others))
    assert (members(left), members(both)) == (some - others, some | others)
    left.add(one)
    assert members(left) == (some - others) | {one}
