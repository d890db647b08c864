"""The main job as a user starts it, against the simulated provider."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import (
    KEY,
    Said,
    children_of,
    cli,
    environment,
    finished,
    lines_of,
    run_arguments,
    simulated,
    start_cli,
    wait_for_commits,
    wait_for_end,
    write_table,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SLOW_SERVER: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.15}}


def essence(line: dict[str, Any]) -> dict[str, Any]:
    """What of a result line does not depend on when it was made, or on what had been learnt by then."""
    passing = {"latency_s", "request_id", "attempt", "cost_usd", "max_tokens_used"}
    return {key: value for key, value in line.items() if key not in passing}


def test_every_row_gets_exactly_one_line_in_its_shard(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 300), tmp_path / "out"
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--shards", 7, "--price-in", 1, "--price-out", 2))
        assert provider.ledger()["requests"] == 300
    assert said.code == 0, said.err
    assert said.out == ""
    lines = lines_of(out)
    assert sorted(line["row"] for line in lines) == list(range(300))
    for path in (out / "results").iterdir():
        shard = int(path.stem.removeprefix("shard-"))
        assert all(json.loads(line)["row"] % 7 == shard for line in path.read_text().splitlines())
    first = next(line for line in lines if line["row"] == 0)
    assert list(first) == [
        *("row", "meta_id", "raw", "labels", "label_error", "finish_reason", "truncated", "attempt"),
        *("max_tokens_used", "latency_s", "model", "usage", "cost_usd", "frames", "degraded", "request_id"),
    ]
    assert first["meta_id"] == "7000000000000000000"
    assert first["labels"] == json.loads(first["raw"])
    assert all(line["label_error"] is None for line in lines)
    report = json.loads((out / "report.json").read_text())
    assert report["ended"] == 300
    assert report["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in lines))
    assert "300 done" in said.err


def test_a_row_whose_frames_are_missing_is_sent_as_text_and_says_so(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 3), tmp_path / "out"
    (tmp_path / "frames").mkdir()
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--frames-dir", tmp_path / "frames"))
    assert said.code == 0, said.err
    assert [line["degraded"] for line in lines_of(out)] == [["text_only:no_folder"]] * 3
    assert said.err.count("rows without a usable frame are sent as text alone") == 1


def test_broken_rows_are_failure_lines_with_line_numbers_and_the_others_finish(tmp_path: Path) -> None:
    table, out = tmp_path / "videos.csv", tmp_path / "out"
    table.write_bytes(b"id,description\n1,row 0\n2,row 1,too many\n3,row \xff2\n,row 3\n../x,row 4\n6,row 5\n")
    (tmp_path / "frames").mkdir()
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--max-failed", 10, "--frames-dir", tmp_path / "frames"))
    assert said.code == 1, said.err
    assert "--retry-failed" in said.err
    assert sorted(line["row"] for line in lines_of(out)) == [0, 5]
    failures = {line["row"]: line for line in lines_of(out, "failures")}
    assert {row: line["kind"] for row, line in failures.items()} == {
        **dict.fromkeys((1, 2, 3), "bad_row"),
        4: "invalid_id",
    }
    assert [failures[row]["message"].partition(":")[0] for row in (1, 2, 3)] == ["line 3", "line 4", "line 5"]
    assert list(failures[1]) == ["row", "meta_id", "kind", "status", "message", "attempt", "usage"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_commits_exits_75_and_resume_finishes(tmp_path: Path, number: signal.Signals) -> None:
    table, out = write_table(tmp_path / "videos.csv", 1500), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 32)
        process = start_cli(*arguments)
        wait_for_commits(out, 40)
        process.send_signal(number)
        said = finished(process)
        assert said.code == 75, said.err
        assert "--resume" in said.err
        assert number.name in said.err
        answered = provider.ledger()["delivered"]
        assert len(lines_of(out)) == answered, "an answer that was paid for is not in the folder"
        said = cli(*arguments, "--resume")
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 1500, "a row was sent twice"
    assert sorted(line["row"] for line in lines_of(out)) == list(range(1500))


def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 200), tmp_path / "out"
    with simulated(tmp_path, {"latency": {"median": 3600.0}}) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, "--concurrency", 8))
        # A lane that has not answered yet is given two calls.
        while provider.ledger()["in_flight"] < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None, "the first signal waits for what is in flight"
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        said = finished(process)
    assert said.code == 75
    assert time.monotonic() - started < 5
    assert "2 left without an answer" in said.err
    assert "2 calls of unknown cost" in said.err


def test_hung_servers_do_not_outlast_the_drain(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 50), tmp_path / "out"
    with simulated(tmp_path, {"faults": [{"kind": "stall"}]}) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, "--concurrency", 8, "--drain-seconds", 1))
        while provider.ledger()["requests"] < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        said = finished(process)
    assert said.code == 75
    assert time.monotonic() - started < 6


def test_kills_leave_the_results_of_an_undisturbed_run(tmp_path: Path) -> None:
    rows, in_flight, kills = 1200, 64, 8
    table = write_table(tmp_path / "videos.csv", rows)
    with simulated(tmp_path) as provider:
        assert cli(*run_arguments(table, tmp_path / "calm", provider.url)).code == 0
    calm = {line["row"]: essence(line) for line in lines_of(tmp_path / "calm")}
    out = tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", in_flight, "--shards", 8, "--resume")
        for kill in range(kills):
            process = start_cli(*arguments)
            before = provider.ledger()["requests"]
            while provider.ledger()["requests"] - before < 20 + 23 * kill % 110 and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.013 * (kill * 7 % 20))
            process.kill()
            assert finished(process).code == -signal.SIGKILL
        assert finished(start_cli(*arguments)).code == 0
        calls = Counter(entry["row"] for entry in provider.entries())
    lines = lines_of(out)
    assert len(lines) == rows
    assert {line["row"]: essence(line) for line in lines} == calm
    assert len(calls) == rows
    paid_twice = calls.total() - rows
    window = in_flight / 0.15 * 1.5
    assert paid_twice <= kills * (in_flight + window)
    assert paid_twice > 0, "the kills came when nothing was in flight"


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 2000), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, "--concurrency", 4, "--workers", 2))
        wait_for_commits(out, 4)
        workers = children_of(process.pid)
        assert len(workers) == 2
        process.kill()
        finished(process)
        wait_for_end(workers)


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 2000), tmp_path / "out"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 4)
        process = start_cli(*arguments)
        wait_for_commits(out, 4)
        before = len(lines_of(out))
        said = cli(*arguments, "--resume")
        assert said.code == 73
        assert f"process {process.pid}" in said.err
        assert process.poll() is None
        process.terminate()
        assert finished(process).code == 75
    assert len(lines_of(out)) >= before


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 5), tmp_path / "out"
    with simulated(tmp_path) as provider:
        arguments = run_arguments(table, out, provider.url)
        assert cli(*arguments).code == 0
        said = cli(*arguments)
        assert said.code == 73
        assert "--resume" in said.err
        again = cli(*arguments, "--resume")
        assert again.code == 0
        assert provider.ledger()["requests"] == 5, "a finished run was sent again"


@pytest.mark.parametrize("change", ["model", "prompt", "input", "temperature", "frames"])
def test_a_resume_that_would_mix_two_runs_is_refused_naming_the_difference(tmp_path: Path, change: str) -> None:
    table, out = write_table(tmp_path / "videos.csv", 5), tmp_path / "out"
    (tmp_path / "frames").mkdir()
    with simulated(tmp_path) as provider:
        arguments = list(run_arguments(table, out, provider.url))
        assert cli(*arguments).code == 0
        words = change
        match change:
            case "model":
                arguments[arguments.index("simulated/vision")] = "another/model"
            case "prompt":
                (tmp_path / "prompt.txt").write_text("What is this?")
                arguments += ["--system-prompt", tmp_path / "prompt.txt"]
            case "input":
                table.write_text(table.read_text().replace("market 3", "station 3"))
                words = "sha256_per_64_mib"
            case "temperature":
                arguments += ["--temperature", 0.5]
            case "frames":
                arguments += ["--frames-dir", tmp_path / "frames"]
        said = cli(*arguments, "--resume")
        assert said.code == 78
        assert words in said.err
        assert provider.ledger()["requests"] == 5
    assert len(lines_of(out)) == 5


def test_changed_speeds_resume(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 10), tmp_path / "out"
    with simulated(tmp_path) as provider:
        assert cli(*run_arguments(table, out, provider.url, "--limit", 0, "--concurrency", 2)).code == 0
        more = ("--resume", "--concurrency", 9, "--workers", 1, "--retries", 2, "--max-tokens", 700, "--shards", 3)
        assert cli(*run_arguments(table, out, provider.url, *more)).code == 0


def test_failed_rows_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 40), tmp_path / "out"
    refused = {"faults": [{"kind": "status", "status": 400, "message": "no such thing", "containing": "row 1"}]}
    with simulated(tmp_path, refused) as provider:
        arguments = run_arguments(table, out, provider.url, "--max-failed", 40)
        said = cli(*arguments)
        assert said.code == 1, said.err
        assert "11 refused" in said.err
        assert "no such thing" in said.err
        assert len(lines_of(out)) == 29
        assert cli(*arguments, "--resume").code == 1
        assert provider.ledger()["requests"] == 40
        provider.tell({})
        said = cli(*arguments, "--resume", "--retry-failed")
        assert said.code == 0, said.err
    assert sorted(line["row"] for line in lines_of(out)) == list(range(40))
    status = json.loads(cli("status", out, "--json").out)
    assert (status["done"], status["failed"], status["left"]) == (40, 0, 0)


def test_a_refused_key_ends_the_run_with_69_and_burns_no_row(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 500), tmp_path / "out"
    with simulated(tmp_path, {"api_key": "the right one"} | SLOW_SERVER) as provider:
        said = cli(*run_arguments(table, out, provider.url), env=environment(TOGETHER_API_KEY=KEY))
        assert said.code == 69, said.err
        assert "401" in said.err
        assert "--resume" in said.err
        assert provider.ledger()["requests"] <= 64
        assert lines_of(out) == lines_of(out, "failures") == []
        env = environment(TOGETHER_API_KEY="the right one")
        assert cli(*run_arguments(table, out, provider.url, "--resume"), env=env).code == 0
    assert len(lines_of(out)) == 500


def test_a_dead_server_fails_no_row_silently(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 30), tmp_path / "out"
    more = ("--retries", 1, "--concurrency", 4)
    said = cli(*run_arguments(table, out, "http://127.0.0.1:9/v1", *more))
    assert said.code == 69, said.err
    assert "cannot connect" in said.err
    assert "--resume" in said.err


def test_too_many_failures_stop_the_run_resumably(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 2000), tmp_path / "out"
    half = {"faults": [{"kind": "status", "status": 422, "share": 0.5}]} | SLOW_SERVER
    with simulated(tmp_path, half) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--concurrency", 32))
        assert said.code == 75, said.err
        assert "--max-failed 5%" in said.err
        assert provider.ledger()["requests"] < 500


def test_key_and_texts_show_nowhere_but_in_the_request(tmp_path: Path) -> None:
    canary = "canary transcript 81f0"
    table, out = write_table(tmp_path / "videos.csv", 300, transcript=canary), tmp_path / "out"
    with simulated(tmp_path, {"api_key": KEY} | SLOW_SERVER) as provider:
        env = environment(TOGETHER_API_KEY=KEY)
        process = start_cli(*run_arguments(table, out, provider.url, "--concurrency", 8), env=env)
        wait_for_commits(out, 8)
        seen = b""
        for pid in children_of(process.pid):
            seen += Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGINT)
        said = finished(process)
        assert said.code == 75
    seen += (said.out + said.err).encode()
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert KEY.encode() not in seen + written
    assert canary.encode() not in seen
    assert canary.encode() not in written


def test_what_a_run_writes_is_for_its_user_alone(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 5), tmp_path / "out"
    with simulated(tmp_path) as provider:
        assert cli(*run_arguments(table, out, provider.url)).code == 0
    for path in out.rglob("*"):
        assert not path.stat().st_mode & 0o077, path


def test_it_runs_from_any_folder(tmp_path: Path) -> None:
    table = write_table(tmp_path / "videos.csv", 5)
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        with simulated(tmp_path) as provider:
            said: Said = cli(*run_arguments(table, tmp_path / "out", provider.url))
    finally:
        os.chdir(here)
    assert said.code == 0, said.err
