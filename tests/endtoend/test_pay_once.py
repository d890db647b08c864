"""Identical rows are paid for once: in a run, over its lives, and with a cache over runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sinks.summary import summarise
from sinks.verify import verify
from tests.fakes.commands import Simulated, cli, finished, lines_of, run_arguments, simulated, start_cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = 100
DISTINCT = 70
PRICED = ("--price-in", 1, "--price-out", 2)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("provider")) as running:
        yield running


def write_rows(path: Path, contents: Sequence[int]) -> Path:
    """A CSV of rows with ids of their own and these contents."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "meta_desc"])
        for row, content in enumerate(contents):
            table.writerow([f"id-{row}", f"row {content}"])
    return path


def content_of(row: int) -> int:
    """Three rows in ten say what another one said: some at once, some much later."""
    return row if row % 10 < 7 else (row // 10 * 10 if row % 10 < 9 else row % 7)


CONTENTS = [content_of(row) for row in range(ROWS)]


def calls_of(provider: Simulated) -> int:
    return int(provider.ledger()["requests"])


def check_shares(lines: list[dict[str, Any]], contents: Sequence[int]) -> None:
    """One line a row; who shares has the answer of a row with the same content that was asked."""
    by_row = {line["row"]: line for line in lines}
    assert len(by_row) == len(lines)
    for line in lines:
        assert line["meta_id"] == f"id-{line['row']}"
        if "shared_with" in line and line["shared_with"] != "cache":
            leader = by_row[line["shared_with"]]
            assert "shared_with" not in leader
            assert contents[leader["row"]] == contents[line["row"]]
            assert (leader["raw"], leader["labels"]) == (line["raw"], line["labels"])


def test_of_identical_rows_one_is_sent_and_all_have_their_line(tmp_path: Path, provider: Simulated) -> None:
    assert len(set(CONTENTS)) == DISTINCT
    table, out = write_rows(tmp_path / "videos.csv", CONTENTS), tmp_path / "out"
    before = calls_of(provider)
    said = cli(*run_arguments(table, out, provider.url, *PRICED))
    assert said.code == 0, said.err
    assert calls_of(provider) - before == DISTINCT
    lines = lines_of(out)
    assert sorted(line["row"] for line in lines) == list(range(ROWS))
    check_shares(lines, CONTENTS)
    sharing = [line for line in lines if "shared_with" in line]
    assert len(sharing) == ROWS - DISTINCT
    for line in sharing:
        assert list(line)[-2:] == ["request_id", "shared_with"]
        assert (line["attempt"], line["cost_usd"]) == (0, 0.0)
        assert set(line["usage"].values()) == {0}
    report = json.loads((out / "report.json").read_text())
    assert (report["ended"], report["shared"]) == (ROWS, ROWS - DISTINCT)
    assert report["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
    costs = {line["row"]: line["cost_usd"] for line in lines}
    assert report["spared_usd"] == pytest.approx(sum(costs[line["shared_with"]] for line in sharing))
    assert f"30 rows shared an answer, saving about ${report['spared_usd']:.4f}" in said.err
    assert summarise(out).shared == ROWS - DISTINCT
    assert verify(out).sound


def test_no_share_sends_every_row(tmp_path: Path, provider: Simulated) -> None:
    table, out = write_rows(tmp_path / "videos.csv", [0] * 20), tmp_path / "out"
    before = calls_of(provider)
    arguments = run_arguments(table, out, provider.url, "--no-share")
    assert cli(*arguments).code == 0
    assert calls_of(provider) - before == 20
    assert not any("shared_with" in line for line in lines_of(out))
    assert not (out / "answers.sqlite").exists()
    said = cli(*arguments, "--cache", tmp_path / "cache")
    assert said.code == 64
    assert "--no-share" in said.err


def test_rows_added_later_have_the_answers_of_an_earlier_life(tmp_path: Path, provider: Simulated) -> None:
    table, out = write_rows(tmp_path / "videos.csv", range(20)), tmp_path / "out"
    arguments = run_arguments(table, out, provider.url)
    assert cli(*arguments).code == 0
    write_rows(table, [*range(20), *range(15), 20])
    before = calls_of(provider)
    said = cli(*arguments, "--resume", "--extend")
    assert said.code == 0, said.err
    assert calls_of(provider) - before == 1
    lines = lines_of(out)
    assert {line["row"]: line["shared_with"] for line in lines if "shared_with" in line} == {
        20 + row: row for row in range(15)
    }


def test_kills_leave_one_line_a_row_and_none_that_shares_with_a_row_without(tmp_path: Path) -> None:
    rows, kills = 200, 2
    contents = [row % 100 if row % 2 else row for row in range(rows)]
    table, out = write_rows(tmp_path / "videos.csv", contents), tmp_path / "out"
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.05}}) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 32, "--shards", 8, "--resume")
        for kill in range(kills):
            process = start_cli(*arguments)
            before = calls_of(provider)
            while calls_of(provider) - before < 20 + 20 * kill and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.3 * kill)
            process.kill()
            assert finished(process).code == -signal.SIGKILL
            if (out / "results").exists():
                check_whole_shares(out, contents)
        assert finished(start_cli(*arguments)).code == 0
        calls = calls_of(provider)
    lines = lines_of(out)
    assert sorted(line["row"] for line in lines) == list(range(rows))
    check_shares(lines, contents)
    distinct = len(set(contents))
    sharing = sum("shared_with" in line for line in lines)
    # Answers that a kill kept from the index are asked for again: at most two commits of them.
    assert sharing > 0.4 * (rows - distinct)
    assert calls < distinct + kills * 32 * 15


def check_whole_shares(out: Path, contents: Sequence[int]) -> None:
    """As the kill left them, uncommitted lines included; torn ones are no lines."""
    lines = []
    for path in (out / "results").glob("shard-*.jsonl"):
        whole = path.read_bytes().rpartition(b"\n")[0]
        lines += [json.loads(line) for line in whole.splitlines()]
    check_shares(lines, contents)


def test_runs_share_a_cache_at_the_same_time_and_a_later_one_needs_no_call(tmp_path: Path, provider: Simulated) -> None:
    rows = 40
    table, cache = write_rows(tmp_path / "videos.csv", range(rows)), tmp_path / "cache"

    def arguments(name: str) -> Sequence[object]:
        return run_arguments(table, tmp_path / name, provider.url, "--cache", cache, *PRICED)

    for said in [finished(process) for process in [start_cli(*arguments("one")), start_cli(*arguments("two"))]]:
        assert said.code == 0, said.err
        assert "cannot be used" not in said.err
    before = calls_of(provider)
    said = cli(*arguments("three"))
    assert said.code == 0, said.err
    assert calls_of(provider) == before
    one, three = lines_of(tmp_path / "one"), lines_of(tmp_path / "three")
    assert [line["shared_with"] for line in three] == ["cache"] * rows
    assert {line["row"]: line["labels"] for line in one} == {line["row"]: line["labels"] for line in three}
    report = json.loads((tmp_path / "three" / "report.json").read_text())
    assert (report["cost_usd"], report["usage"]["prompt_tokens"]) == (0.0, 0)
    assert "40 rows shared an answer, saving about $" in said.err


def test_a_broken_cache_is_said_once_and_fails_nothing(tmp_path: Path, provider: Simulated) -> None:
    table, cache = write_rows(tmp_path / "videos.csv", range(10)), tmp_path / "cache"
    cache.mkdir()
    (cache / "answers.sqlite").write_bytes(os.urandom(4096))
    said = cli(*run_arguments(table, tmp_path / "out", provider.url, "--cache", cache))
    assert said.code == 0, said.err
    assert said.err.count("the run goes on without it") == 1
    assert len(lines_of(tmp_path / "out")) == 10
