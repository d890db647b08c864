"""`build` as a user types it: the commands of the workflow, what it says, its exit codes, and no half file."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sinks.files import partial_of
from tests.fakes.commands import Said, cli, finished, start_cli
from tests.fakes.photos import encoded, phone_photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

STANDARD = {"china_stance_score": "0.4", "sensitive": "no", "collective_action": "yes"}
COMPREHENSIVE = {
    "china_related": "yes",
    "stance_gov": "pro",
    "stance_culture": "anti",
    "stance_tech": "neutral/unclear",
    "hate_speech": "no",
    "harmful": "no",
    "news": "no",
    "inauthentic": "no",
    "derivative": "no",
}
FIRST = 7_531_309_745_475_554_591


def write_labelled(path: Path, rows: int, *, labels: bool = True) -> Path:
    gold = STANDARD | COMPREHENSIVE if labels else {}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "subtitle", "meta_desc", *gold])
        for row in range(rows):
            table.writerow([FIRST + row, f"they walk through the market {row}", f"row {row}", *gold.values()])
    return path


def write_frames(folder: Path, rows: int, each: int) -> Path:
    data = encoded(phone_photo("china", (72, 128)))
    for row in range(rows):
        place = folder / str(FIRST + row)
        place.mkdir(parents=True)
        for at in range(each):
            (place / f"frame_{at}.jpg").write_bytes(data)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refused(said: Said, *, code: int, words: str) -> None:
    assert (said.code, said.out) == (code, ""), said
    assert words in said.err, said.err
    assert "Traceback" not in said.err
    assert "bug" not in said.err


def test_the_builds_of_the_workflow_work_as_they_are_written(tmp_path: Path) -> None:
    labelled = write_labelled(tmp_path / "labeled_videos.csv", 3)
    unlabelled = write_labelled(tmp_path / "unlabeled_videos.csv", 3, labels=False)
    frames = write_frames(tmp_path / "frames", 2, 2)
    images = ("--include-images", "--frames-dir", frames)
    train, asked, simple = (tmp_path / name for name in ("train.jsonl", "inference.jsonl", "simple.jsonl"))
    for command in (
        ("build", "--input", labelled, "--output", simple, *images),
        ("build", "--input", labelled, "--output", train, *images, "--comprehensive"),
        ("build", "--input", unlabelled, "--output", asked, *images, "--comprehensive", "--no-labels"),
    ):
        said = cli(*command)
        assert (said.code, said.out) == (0, ""), said.err
        assert "2 rows with 4 frames" in said.err
        assert f"No frames found for 1 rows, for videos {FIRST + 2}" in said.err
    assert [len(line["messages"]) for line in lines(train) + lines(asked)] == [3, 3, 3, 2, 2, 2]
    assert [part["type"] for part in lines(train)[0]["messages"][1]["content"]] == ["image_url", "image_url", "text"]
    assert isinstance(lines(train)[2]["messages"][1]["content"], str)
    answer = json.loads(lines(simple)[0]["messages"][2]["content"])
    assert answer == {"china_stance_score": 0.4, "china_sensitive": "no", "collective_action": "yes"}

    said = cli("build", "--check", train, "--json")
    assert said.code == 0, said.out
    report = json.loads(said.out)
    assert (report["codebook"], report["lines"], report["errors"]) == ("comprehensive", 3, 0)
    assert report["frames"] == {"count": 3, "min": 0, "mean": 4 / 3, "max": 2}


def test_a_file_of_flags_is_taken(tmp_path: Path) -> None:
    write_labelled(tmp_path / "in.csv", 2)
    (tmp_path / "flags.toml").write_text(
        f'input = "{tmp_path / "in.csv"}"\noutput = "{tmp_path / "out.jsonl"}"\ncomprehensive = true\n'
        'group-mode = "binary"\nstrip-meta-id = true\n'
    )
    said = cli("build", "--config", tmp_path / "flags.toml")
    assert said.code == 0, said.err
    assert [list(line) for line in lines(tmp_path / "out.jsonl")] == [["messages"]] * 4
    assert len(lines(tmp_path / "out_merged.jsonl")) == 2


def test_what_is_wrong_is_said_with_its_code(tmp_path: Path) -> None:
    table, out = write_labelled(tmp_path / "in.csv", 1, labels=False), tmp_path / "out.jsonl"
    given = ("build", "--input", table, "--output", out)
    refused(cli("build"), code=64, words="--input is missing")
    refused(cli(*given, "--include-images"), code=64, words="--include-images needs --frames-dir")
    refused(cli(*given, "--include-images", "--frames-dir", tmp_path / "none"), code=64, words="No such file")
    refused(cli(*given, "--gold", "mood=x", "--comprehensive"), code=64, words="no such dimension")
    refused(cli(*given, "--comprehensive"), code=65, words="--no-labels")
    refused(cli("build", "--check", tmp_path / "none.jsonl"), code=64, words="No such file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_rows_that_cannot_be_read_end_in_1_and_the_others_are_written(tmp_path: Path) -> None:
    table, out = write_labelled(tmp_path / "in.csv", 2), tmp_path / "out.jsonl"
    with table.open("a") as file:
        file.write("9,ragged\n")
    said = cli("build", "--input", table, "--output", out)
    assert said.code == 1, said.err
    assert "Failed: 1 rows with a line that cannot be read: line 4" in said.err
    assert len(lines(out)) == 2


def test_a_file_with_errors_ends_in_65_and_names_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": []}\nnothing\n')
    said = cli("build", "--check", path)
    assert said.code == 65
    assert "2 errors" in said.out
    assert "line 2: no JSON" in said.out
    assert said.err == ""


def started(process: subprocess.Popen[str], out: Path, *, within_s: float = 40.0) -> None:
    """Wait until the build has begun to write."""
    until = time.monotonic() + within_s
    while not partial_of(out).exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_half_file_and_tells_what_to_type(tmp_path: Path, number: signal.Signals) -> None:
    table, out = write_labelled(tmp_path / "in.csv", 100_000), tmp_path / "out.jsonl"
    out.write_text("as it was\n")
    process = start_cli("build", "--input", table, "--output", out, "--comprehensive", "--group-mode", "per-item")
    started(process, out)
    process.send_signal(number)
    said = finished(process)
    assert said.code == 75, said.err
    assert f"Stopped by {number.name}" in said.err
    assert f"build --input {table} --output {out} --comprehensive" in said.err
    assert out.read_text() == "as it was\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.jsonl"]


def test_a_signal_stops_the_workers_too(tmp_path: Path) -> None:
    table, out = write_labelled(tmp_path / "in.csv", 3000), tmp_path / "out.jsonl"
    frames = write_frames(tmp_path / "frames", 3000, 1)
    images = ("--include-images", "--frames-dir", frames, "--workers", 2)
    process = start_cli("build", "--input", table, "--output", out, *images)
    started(process, out)
    process.send_signal(signal.SIGTERM)
    said = finished(process)
    assert said.code == 75, said.err
    assert not out.exists()
    assert not partial_of(out).exists()


def test_a_killed_build_is_begun_again(tmp_path: Path) -> None:
    table, out = write_labelled(tmp_path / "in.csv", 20_000), tmp_path / "out.jsonl"
    process = start_cli("build", "--input", table, "--output", out)
    started(process, out)
    process.kill()
    finished(process)
    assert not out.exists()
    assert cli("build", "--input", table, "--output", out, "--limit", 10).code == 0
    assert len(lines(out)) == 10
    assert not partial_of(out).exists()
