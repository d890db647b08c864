"""What `status` says of a run folder."""

from __future__ import annotations

from pathlib import Path

from engine.types import Shares
from sinks.shards import ShardSink
from sinks.summary import summarise
from tests.fakes.records import cut, failure, result


def open_run(out: Path, only: frozenset[str] | None = None) -> ShardSink:
    return ShardSink.open(out, manifest={}, shards=2, resume=(out / "run.json").exists(), only=only)


def run_of_four(out: Path, spent: dict[str, float] | None = None) -> Path:
    with open_run(out) as sink:
        sink.learnt["rows_total"] = 6
        for record in (result(0, cost_usd=0.5), cut(1, cost_usd=0.25), cut(2), failure(3)):
            sink.put(record)
        sink.commit()
        if spent is not None:
            sink.learnt["spent"] = spent
    return out


def test_cut_answers_are_counted_among_the_results(tmp_path: Path) -> None:
    summary = summarise(run_of_four(tmp_path / "run"))
    assert (summary.done, summary.truncated, summary.failed, summary.left) == (3, 2, 1, 2)
    assert "done        3\n              2 of them cut off" in summary.text()


def test_rows_that_share_an_answer_are_counted_among_the_results(tmp_path: Path) -> None:
    out = run_of_four(tmp_path / "run")
    assert "of them share" not in summarise(out).text()
    with open_run(out) as sink:
        sink.put(result(4, shares=Shares(row=0, spared_usd=0.5), cost_usd=0.0))
        sink.put(result(5, shares=Shares(row=None, spared_usd=None), cost_usd=0.0))
    summary = summarise(out)
    assert (summary.done, summary.shared, summary.cost_usd) == (5, 2, 0.75)
    assert "2 of them share the answer of another" in summary.text()


def test_a_withdrawn_answer_is_a_failed_row_until_it_is_asked_for_again(tmp_path: Path) -> None:
    out = run_of_four(tmp_path / "run")
    with open_run(out, frozenset({"truncated"})) as sink:
        sink.put(result(2))
        sink.commit()
        summary = summarise(out)
    assert (summary.done, summary.truncated, summary.failed) == (2, 0, 2)
    assert summary.failed_by_kind == {"refused": 1, "truncated": 1}
    assert "1 truncated" in summary.text()
    assert summarise(out).left == 2


def test_without_the_engines_count_the_money_is_that_of_the_result_lines(tmp_path: Path) -> None:
    summary = summarise(run_of_four(tmp_path / "run"))
    assert (summary.cost_usd, summary.unpriced_rows, summary.spent) == (0.75, 1, None)
    assert summary.text().endswith("cost        $0.7500 and 1 rows of unknown cost")


def test_the_engines_count_is_the_money_of_the_whole_run_and_names_what_is_unknown(tmp_path: Path) -> None:
    spent = {"cost_usd": 2.5, "unknown_calls": 1200, "unknown_usd": 3.0, "unpriced_calls": 2}
    summary = summarise(run_of_four(tmp_path / "run", spent))
    assert (summary.cost_usd, summary.spent) == (0.75, spent)
    assert summary.text().endswith(
        "cost        $2.5000, and 1,200 calls of unknown cost (worst case $3.0000), and 2 calls without a known price"
    )


def test_money_of_a_commit_after_the_last_snapshot_is_seen_while_the_run_goes_on(tmp_path: Path) -> None:
    out = run_of_four(tmp_path / "run", {"cost_usd": 2.5, "unknown_calls": 0})
    with open_run(out) as sink:
        sink.learnt["spent"] = {"cost_usd": 2.75}
        sink.put(result(4))
        sink.commit()
        summary = summarise(out)
    assert summary.spent == {"cost_usd": 2.75}
    assert summary.text().endswith("cost        $2.7500")
