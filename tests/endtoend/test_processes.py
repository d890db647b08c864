"""`run --processes N` as a user has it: real processes, the simulated provider, signals and kills."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from engine.source import Part
from engine.types import Row
from tests.fakes.commands import (
    KEY,
    Said,
    children_of,
    cli,
    environment,
    finished,
    lines_of,
    report_of,
    run_arguments,
    simulated,
    start_cli,
    wait_for_commits,
    wait_for_end,
    write_table,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SLOW_SERVER: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.1}}
PRICES = ("--price-in", 1, "--price-out", 2)
ENCODERS = "engine.worker"
MEMBERS = "labels.member"


def processes_below(pid: int) -> dict[int, str]:
    """Every process that has this one above it, with its command line."""
    found: dict[int, str] = {}
    try:
        for child in children_of(pid):
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found |= processes_below(child)
    except FileNotFoundError:
        pass
    return found


def members_of(pid: int) -> list[int]:
    return [child for child, words in processes_below(pid).items() if MEMBERS in words]


def verified(out: Path) -> Said:
    said = cli("verify", out)
    assert said.code == 0, said.out
    return said


def test_every_row_gets_one_line_and_the_report_adds_up(tmp_path: Path) -> None:
    rows = 240
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--processes", 2, "--shards", 5, *PRICES))
        ledger = provider.ledger()
    assert said.code == 0, said.err
    lines = lines_of(out)
    assert sorted(line["row"] for line in lines) == list(range(rows))
    report = report_of(out)
    assert (report["ended"], report["rows_total"], report["rows_known"]) == (rows, rows, True)
    assert report["call"]["calls"] == report["lanes"][0]["calls"] == ledger["requests"] == rows
    assert report["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
    assert report["usage"]["prompt_tokens"] == ledger["prompt_tokens"]
    assert report["links"]["call-write"]["items"] == rows
    assert (report["in_flight"], report["unknown_calls"]) == (0, 0)
    assert [figures["main_cpu_s"] > 0 for figures in report["processes"]] == [True, True]
    assert f"{rows} done" in said.err
    verified(out)


def test_rows_that_say_the_same_meet_in_one_process_and_are_asked_once(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    with table.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(["meta_id", "meta_desc"])
        written.writerows([str(row), f"row {row % 20}"] for row in range(200))
    with simulated(tmp_path, SLOW_SERVER) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--processes", 3))
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 20
    assert sorted(line["row"] for line in lines_of(out)) == list(range(200))
    assert report_of(out)["shared"] == 180


def test_answers_of_earlier_lives_are_found_by_every_process(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    table.write_text("id,desc\n" + "".join(f"{row},row {row}\n" for row in range(40)))
    with simulated(tmp_path) as provider:
        assert cli(*run_arguments(table, out, provider.url, "--processes", 2)).code == 0
        with table.open("a") as file:
            file.writelines(f"{row},row {row % 40}\n" for row in range(40, 120))
        said = cli(*run_arguments(table, out, provider.url, "--processes", 3, "--resume", "--extend"))
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 40
    assert sorted(line["row"] for line in lines_of(out)) == list(range(120))
    verified(out)


def test_together_they_keep_to_the_ceilings(tmp_path: Path) -> None:
    rows, per_s = 45, 20
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    limits = ("--processes", 3, "--concurrency", 5, "--workers", 3, "--rpm", 60 * per_s)
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.3}}) as provider:
        said = cli(*run_arguments(table, out, provider.url, *limits))
        assert said.code == 0, said.err
        assert provider.ledger()["most_in_flight"] == 5
        arrived = sorted(entry["received_s"] for entry in provider.entries())
    # A burst of one each, and a tenth of a second for a machine that is busy.
    for at, first in enumerate(arrived):
        within = sum(first <= other < first + 1.0 for other in arrived[at:])
        assert within <= 1.1 * per_s + 3


def test_what_a_process_that_has_ended_may_do_the_others_may(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    parts = {at: Part(at=at, of=2) for at in range(2)}
    rows = [Row(row=row, id=str(row), fields={"description": f"row {row}"}) for row in range(400)]
    few, many = ([row for row in rows if part.has(row, ignored=())] for part in parts.values())
    with table.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(["id", "desc"])
        written.writerows([row.id, row.fields["description"]] for row in (*few[:2], *many[:80]))
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.2}}) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--processes", 2, "--concurrency", 8))
        assert said.code == 0, said.err
        assert provider.ledger()["most_in_flight"] == 8
    assert len(lines_of(out)) == 82


def test_a_signal_before_they_have_begun_ends_all_of_them(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 2000), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, "--processes", 2))
        while len(members_of(process.pid)) < 2:
            time.sleep(0.01)
        process.terminate()
        started = time.monotonic()
        said = finished(process)
        assert said.code == 75, said.err
        assert time.monotonic() - started < 6
        assert len(lines_of(out)) == provider.ledger()["delivered"] < 100


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--processes", 4, "--concurrency", 3), "--concurrency 3 is less than --processes 4"),
        (("--processes", 4, "--workers", 2), "--workers 2 is less than --processes 4"),
        (("--processes", 0), "--processes must be at least 1"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_made(
    tmp_path: Path, flags: tuple[object, ...], words: str
) -> None:
    table, out = write_table(tmp_path / "videos.csv", 3), tmp_path / "out"
    said = cli(*run_arguments(table, out, "http://127.0.0.1:9", *flags))
    assert said.code == 64
    assert words in said.err
    assert not out.exists()


def test_a_signal_to_all_of_them_drains_and_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    rows = 600
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 32, "--workers", 3)
        process = start_cli(*arguments, "--processes", 2)
        wait_for_commits(out, 20)
        # As a terminal does it: the run and everything below it.
        for pid in (*processes_below(process.pid), process.pid):
            os.kill(pid, signal.SIGINT)
        said = finished(process)
        assert said.code == 75, said.err
        assert "Stopped by SIGINT" in said.err
        assert "--resume" in said.err
        assert 20 <= len(lines_of(out)) < rows
        assert len(lines_of(out)) == provider.ledger()["delivered"], "an answer that was paid for is not in the folder"
        assert report_of(out)["unknown_calls"] == 0
        said = cli(*arguments, "--processes", 3, "--resume")
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == rows, "a row was sent twice"
    assert sorted(line["row"] for line in lines_of(out)) == list(range(rows))
    verified(out)


def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 200), tmp_path / "out"
    with simulated(tmp_path, {"latency": {"median": 3600.0}}) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, "--processes", 2))
        # A lane that has not answered yet is given two calls, by each of them.
        while provider.ledger()["in_flight"] < 4:
            time.sleep(0.02)
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None, "the first signal waits for what is in flight"
        process.terminate()
        started = time.monotonic()
        said = finished(process)
    assert said.code == 75
    assert time.monotonic() - started < 5
    assert "4 calls of unknown cost" in said.err


def test_a_kill_leaves_no_process_and_a_resume_without_others_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rows, in_flight = 600, 32
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", in_flight, "--shards", 8)
        process = start_cli(*arguments, "--processes", 2)
        wait_for_commits(out, 40)
        below = processes_below(process.pid)
        assert sum(MEMBERS in words for words in below.values()) == 2
        assert sum(ENCODERS in words for words in below.values()) >= 2
        process.kill()
        assert finished(process).code == -signal.SIGKILL
        wait_for_end(below)
        said = cli(*arguments, "--resume")
        assert said.code == 0, said.err
        assert "calls were in flight at its last commit; their cost counts as unknown" in said.err
        calls = Counter(entry["row"] for entry in provider.entries())
    assert sorted(line["row"] for line in lines_of(out)) == list(range(rows))
    assert len(calls) == rows
    # In flight, and what was answered within one commit interval.
    assert calls.total() - rows <= in_flight + 1.5 * in_flight / 0.1
    verified(out)


def test_where_one_process_dies_the_others_end_in_order_and_the_run_says_so(tmp_path: Path) -> None:
    rows = 600
    table, out = write_table(tmp_path / "videos.csv", rows), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 32, "--processes", 2, *PRICES)
        process = start_cli(*arguments)
        wait_for_commits(out, 40)
        victim = members_of(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        said = finished(process)
        assert said.code == 75, said.err
        assert f"error: an engine process (pid {victim}) was killed by SIGKILL" in said.err
        assert "--resume" in said.err
        report = report_of(out)
        assert 40 <= len(lines_of(out)) == report["ended"] < rows
        assert report["unknown_calls"] > 0, "what it had in flight may have been charged"
        said = cli(*arguments, "--resume")
        assert said.code == 0, said.err
    assert sorted(line["row"] for line in lines_of(out)) == list(range(rows))
    verified(out)


def test_a_refused_key_ends_all_of_them_with_69_and_the_right_one_goes_over_the_socket(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 100), tmp_path / "out"
    with simulated(tmp_path, {"api_key": "the right one"} | SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--processes", 2)
        said = cli(*arguments, env=environment(TOGETHER_API_KEY=KEY))
        assert said.code == 69, said.err
        assert "401" in said.err
        assert provider.ledger()["requests"] <= 8
        assert lines_of(out) == lines_of(out, "failures") == []
        process = start_cli(*arguments, "--resume", env=environment(TOGETHER_API_KEY="the right one"))
        wait_for_commits(out, 1)
        for pid in members_of(process.pid):
            assert b"the right one" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert finished(process).code == 0
    assert len(lines_of(out)) == 100


def test_the_money_ceiling_is_not_passed_and_the_next_life_spends_what_is_left(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 130), tmp_path / "out"
    ceiling_usd = 0.09
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--processes", 2, *PRICES)
        said = cli(*arguments, "--max-cost", ceiling_usd)
        assert said.code == 75, said.err
        assert f"--max-cost {ceiling_usd:g}" in said.err
        ledger = provider.ledger()
        spent_usd = (ledger["prompt_tokens"] + 2 * ledger["completion_tokens"]) / 1e6
        assert 0.85 * ceiling_usd < spent_usd <= ceiling_usd
        assert report_of(out)["cost_usd"] == pytest.approx(spent_usd)
        assert cli(*arguments, "--resume", "--max-cost", ceiling_usd).code == 75
        assert provider.ledger()["requests"] <= ledger["requests"] + 2
        said = cli(*arguments, "--resume", "--max-cost", 5)
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 130
    assert report_of(out)["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines_of(out)))


def test_too_many_failures_brake_all_of_them_and_broken_rows_are_counted_once(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    table.write_text("id,desc\n" + "".join(f"{row},row {row}{',x' * (row % 3 == 0)}\n" for row in range(60)))
    with simulated(tmp_path) as provider:
        arguments = run_arguments(table, out, provider.url, "--processes", 2, "--resume")
        said = cli(*arguments, "--max-failed", 19)
        assert said.code == 75, said.err
        assert "20 rows failed, more than --max-failed 19" in said.err
        said = cli(*arguments, "--max-failed", 20)
        assert said.code == 1, said.err
    assert [line["row"] for line in sorted(lines_of(out, "failures"), key=lambda line: line["row"])] == [
        *range(0, 60, 3)
    ]
    assert len(lines_of(out)) == 40
    verified(out)


def test_gold_is_held_against_the_answers_of_all_processes(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    gold = ("yes", "no", "", "maybe")
    table.write_text("id,desc,hate_speech\n" + "".join(f"{row},row {row},{gold[row % 4]}\n" for row in range(40)))
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--processes", 2))
        assert said.code == 0, said.err
    agreement = report_of(out)["findings"]["values"]["agreement"]
    assert agreement["gold_problems"] == {"unknown_value:hate_speech": 10}
    assert agreement["dimensions"]["hate_speech"]["rows"] == 20
