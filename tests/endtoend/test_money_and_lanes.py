"""Lanes, limits, money and mended answers as a user meets them: real processes, real sockets, real files."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import (
    KEY,
    cli,
    environment,
    finished,
    lines_of,
    report_of,
    run_arguments,
    simulated,
    start_cli,
    write_table,
)
from tests.fakes.photos import encoded, phone_photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def rows_of(lines: list[dict[str, Any]]) -> list[int]:
    return sorted(line["row"] for line in lines)


def put_frames(root: Path, rows: int, *, frames: int) -> Path:
    data = encoded(phone_photo("coffee", (240, 320)))
    for row in range(rows):
        folder = root / str(7_000_000_000_000_000_000 + row)
        folder.mkdir(parents=True)
        for at in range(frames):
            (folder / f"frame_{at}.jpg").write_bytes(data)
    return root


def test_two_endpoints_share_the_rows_and_each_is_asked_for_its_own_model(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 400), tmp_path / "out"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    latency = {"latency": {"kind": "fixed", "median": 0.05}}
    with simulated(tmp_path / "a", latency) as one, simulated(tmp_path / "b", latency) as two:
        said = cli(
            *("run", "--input", table, "--out", out),
            *("--endpoint", f"{one.url},model=m/one,price-in=1,price-out=1"),
            *("--endpoint", f"{two.url},model=m/two,price-in=1,price-out=1,key-env=SECOND_KEY"),
            env=environment(SECOND_KEY=KEY),
        )
        counts = {model: one.ledger()["by_model"].get(model, 0) for model in ("m/one", "m/two")}
        second = two.ledger()["by_model"]
    assert said.code == 0, said.err
    assert rows_of(lines_of(out)) == list(range(400))
    assert counts["m/one"] > 100
    assert counts["m/two"] == 0
    assert second == {"m/two": 400 - counts["m/one"]}
    assert {line["model"] for line in lines_of(out)} == {"m/one", "m/two"}
    assert KEY not in (out / "run.json").read_text()


def test_when_one_endpoint_refuses_its_key_the_other_does_all_the_work(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 60), tmp_path / "out"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with simulated(tmp_path / "a", {"api_key": "another-key-entirely"}) as bad, simulated(tmp_path / "b") as good:
        said = cli(
            *("run", "--input", table, "--out", out, "--model", "m"),
            *("--endpoint", bad.url, "--endpoint", good.url),
        )
        refused, answered = bad.ledger(), good.ledger()
    assert said.code == 0, said.err
    assert refused["requests"] <= 3
    assert answered["delivered"] == 60


def test_a_spent_quota_stops_the_run_after_three_calls_at_most_and_burns_no_row(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 60), tmp_path / "out"
    with simulated(tmp_path, {"profile": "openai", "keys_spent": [KEY]}) as provider:
        said = cli(*run_arguments(table, out, provider.url), env=environment(OPENAI_API_KEY=KEY))
        assert provider.ledger()["requests"] <= 3
    assert said.code == 69
    assert "quota" in said.err
    assert lines_of(out) == []
    assert lines_of(out, "failures") == []


def test_the_run_stops_before_it_costs_more_than_it_may_and_goes_on_when_it_may_cost_more(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 300), tmp_path / "out"
    prices = ("--price-in", 1000, "--price-out", 1000)
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.02}}) as provider:
        arguments = [*run_arguments(table, out, provider.url), *prices, "--resume", "--max-tokens", 256]
        # A row takes about 1,200 tokens: at these prices more than a dollar.
        said = cli(*arguments, "--max-cost", 60)
        ledger = provider.ledger()
        spent = (ledger["prompt_tokens"] + ledger["completion_tokens"]) / 1000
        assert said.code == 75, said.err
        assert 40 < spent <= 60
        assert "--max-cost" in said.err
        again = cli(*arguments, "--max-cost", 60)
        assert again.code == 75
        assert provider.ledger()["requests"] == ledger["requests"], "nothing is sent once the money is spent"
        assert cli(*arguments, "--max-cost", 10_000).code == 0
        total = provider.ledger()
    assert rows_of(lines_of(out)) == list(range(300))
    assert report_of(out)["cost_usd"] == pytest.approx((total["prompt_tokens"] + total["completion_tokens"]) / 1000)


def test_a_ceiling_without_a_price_is_a_usage_error(tmp_path: Path) -> None:
    table = write_table(tmp_path / "videos.csv", 3)
    said = cli(*run_arguments(table, tmp_path / "out", "http://127.0.0.1:9/v1", "--max-cost", 5))
    assert said.code == 64
    assert "--price-in" in said.err


def test_a_dry_run_says_what_would_be_sent_and_sends_and_writes_nothing(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 50), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 50, frames=2)
    with simulated(tmp_path) as provider:
        said = cli(
            *run_arguments(table, out, provider.url, "--frames-dir", frames, "--dry-run"),
            *("--price-in", 1, "--price-out", 2),
            env=environment(TOGETHER_API_KEY=KEY),
        )
        assert provider.ledger()["requests"] == 0
    assert said.code == 0, said.err
    assert not out.exists()
    assert "50 to send" in said.out
    assert "2.0 frames" in said.out
    assert "$" in said.out
    assert '"model": "simulated/vision"' in said.out
    assert KEY not in said.out + said.err
    assert max(map(len, re.findall(r"[A-Za-z0-9+/]{40,}", said.out)), default=0) < 64, "pictures are shortened"


def test_a_provider_that_takes_four_pictures_gets_four_after_two_refusals_at_most(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 60), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 60, frames=8)
    with simulated(tmp_path, {"profile": "vllm", "max_images": 4}) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--frames-dir", frames))
        ledger = provider.ledger()
    assert said.code == 0, said.err
    assert ledger["by_status"].get("400", 0) <= 2
    lines = lines_of(out)
    assert rows_of(lines) == list(range(60))
    assert all(len(line["frames"]) == 4 for line in lines)
    assert all(line["degraded"] == ["fewer_frames:8>4"] for line in lines)


def test_a_context_that_is_too_short_costs_frames_and_not_rows(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 20), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 20, frames=8)
    with simulated(tmp_path, {"profile": "openai", "context_tokens": 9000}) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--frames-dir", frames))
    assert said.code == 0, said.err
    lines = lines_of(out)
    assert rows_of(lines) == list(range(20))
    assert all(0 < len(line["frames"]) < 8 for line in lines)
    assert all(line["degraded"] for line in lines)


def test_a_wrong_answer_is_mended_by_a_call_without_frames(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 40), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 40, frames=2)
    with simulated(tmp_path, {"structured": "ignored", "malformed_share": 0.5}) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--frames-dir", frames))
        entries = provider.entries()
    assert said.code == 0, said.err
    lines = lines_of(out)
    mended = [line for line in lines if line["degraded"]]
    assert all(line["labels"] is not None for line in lines)
    assert 5 < len(mended) < 35
    assert all(line["degraded"][0].startswith("repaired:") and line["attempt"] == 2 for line in mended)
    # One more without frames is the first of the two calls that measure a picture of this unknown model.
    assert sum(entry["images"] == 0 for entry in entries) == len(mended) + 1


def test_a_provider_that_does_not_know_schemas_is_asked_without_them(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 60), tmp_path / "out"
    with simulated(tmp_path, {"structured": "refused"}) as provider:
        said = cli(*run_arguments(table, out, provider.url))
        assert provider.ledger()["by_status"].get("400", 0) <= 2
    assert said.code == 0, said.err
    assert rows_of(lines_of(out)) == list(range(60))


def test_only_the_truncated_rows_of_a_finished_run_are_asked_again(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 80), tmp_path / "out"
    long_ones = {"answer_tokens": {"kind": "lognormal", "median": 120, "sigma": 0.7}}
    with simulated(tmp_path, long_ones) as provider:
        cut = ("--max-tokens", 150, "--no-retry-on-trunc")
        assert cli(*run_arguments(table, out, provider.url, *cut)).code == 0
        first = {line["row"]: line for line in lines_of(out)}
        truncated = {row for row, line in first.items() if line["truncated"]}
        before = provider.ledger()["requests"]
        assert 10 < len(truncated) < 70
        again = cli(*run_arguments(table, out, provider.url, "--resume", "--only", "truncated", "--max-tokens", 4096))
        asked = {int(entry["row"]) for entry in provider.entries() if entry["seq"] > before}
    assert again.code == 0, again.err
    assert asked == truncated
    lines = lines_of(out)
    assert rows_of(lines) == list(range(80))
    assert not any(line["truncated"] for line in lines)
    assert all(line == first[line["row"]] for line in lines if line["row"] not in truncated)


def test_a_dead_provider_is_waited_for_idly_and_the_run_ends_resumably_in_the_end(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 20), tmp_path / "out"
    process = start_cli(*run_arguments(table, out, "http://127.0.0.1:9/v1", "--max-outage", "12s", "--workers", 1))
    time.sleep(5)
    before, at = cpu_s(process.pid), time.monotonic()
    time.sleep(5)
    share = (cpu_s(process.pid) - before) / (time.monotonic() - at)
    said = finished(process)
    assert share < 0.02
    assert said.code == 75
    assert "--max-outage" in said.err
    assert "--resume" in said.err
    assert lines_of(out, "failures") == []


def cpu_s(pid: int) -> float:
    """Seconds of CPU a process has used; its children, which wait for rows, are not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
