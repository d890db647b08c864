"""`parse` as a user types it: on raw files and run folders, what it prints, its exit codes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import cli, finished, lines_of, run_arguments, simulated, start_cli, write_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

STANDARD = {"china_stance_score": 0.5, "china_sensitive": "no", "collective_action": "yes"}


def write_raw(path: Path, *texts: object) -> Path:
    with path.open("w") as file:
        for idx, said in enumerate(texts):
            text = said if isinstance(said, str) else json.dumps(said)
            failed = text.startswith("<<REQUEST FAILED")
            line = {"idx": idx, "meta_id": str(7 * 10**18 + idx), "raw": text, "attempt": 1, "latency_s": 0.5}
            line |= {"model": "m", "finish_reason": None if failed else "stop", "truncated": False}
            file.write(json.dumps(line | {"max_tokens_used": 512}) + "\n")
    return path


def parsed_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_line_of_the_scripts_works_as_it_was(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "preds.raw.jsonl", STANDARD, "No \x1b[31m JSON", "<<REQUEST FAILED: timeout>>", STANDARD)
    said = cli("parse", "--raw", raw, "--out", tmp_path / "out" / "preds.parsed.jsonl", "--print-bad", 5)
    assert said.code == 0, said
    assert said.out == (
        "parsed 2/4 = 0.500\n"
        "requests without an answer: 1; of the answers 2/3 = 0.667\n"
        "answers without labels: 1\n"
        "  1 not_json\n"
        "IDX=1 META_ID=7000000000000000001 GROUP= REASON=not_json\nNo \ufffd[31m JSON\n---\n"
    )
    assert "Codebook standard: it reads 2 of the first 4 answers" in said.err
    lines = parsed_in(tmp_path / "out" / "preds.parsed.jsonl")
    assert [line["reason"] for line in lines] == [None, "not_json", "request_failed", None]
    assert lines[1]["raw"] == "No \x1b[31m JSON"


def test_older_spellings_and_a_file_of_flags_are_understood(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw.jsonl", STANDARD, STANDARD, "?"), tmp_path / "parsed.jsonl"
    flags = tmp_path / "flags.toml"
    flags.write_text(f'codebook = "standard"\nlimit = 2\nfail-log = "{tmp_path / "logs" / "bad.log"}"\n')
    said = cli("parse", "--raw-path", raw, "--out-path", out, "--config", flags)
    assert (said.code, said.out, said.err) == (0, "parsed 2/2 = 1.000\n", ""), said
    said = cli("parse", "--raw-path", raw, "--out-path", out, "--config", flags, "--limit", 0)
    assert said.out.startswith("parsed 2/3 = 0.667\n")
    assert (tmp_path / "logs" / "bad.log").read_text().endswith("REASON=not_json\n?\n---\n")


def test_a_run_folder_gives_the_labels_that_the_run_found(tmp_path: Path) -> None:
    table, out, parsed = write_table(tmp_path / "videos.csv", 40), tmp_path / "run", tmp_path / "parsed.jsonl"
    refusing = {"kind": "status", "status": 400, "message": "no", "containing": "row 13"}
    with simulated(tmp_path, {"structured": "ignored", "malformed_share": 0.3, "faults": [refusing]}) as provider:
        arguments = run_arguments(table, out, provider.url, "--codebook", "cooking", "--max-failed", "50%")
        assert cli(*arguments, "--response-format", "none").code == 1
    said = cli("parse", "--raw", out, "--out", parsed)
    assert said.code == 0, said
    found, known = parsed_in(parsed), {line["row"]: line for line in lines_of(out)}
    assert [line["idx"] for line in found] == list(range(40))
    for line in found:
        if line["idx"] == 13:
            assert line["reason"] == "request_failed"
            continue
        row = known[line["idx"]]
        assert (line["meta_id"], line["raw"]) == (row["meta_id"], row["raw"])
        assert (line["json"], line["reason"]) == (row["labels"], row["label_error"])


def test_groups_are_merged_and_complete_ones_chosen(tmp_path: Path) -> None:
    raw, merged = tmp_path / "raw.jsonl", tmp_path / "merged.jsonl"
    lines = [
        {"meta_id": f"{video}__group_{key}", "raw": json.dumps({key: value})}
        for video, more in (("a", {}), ("b", {"collective_action": "perhaps"}))
        for key, value in (STANDARD | more).items()
    ]
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--raw", raw, "--out", merged, "--codebook", "standard", "--group-mode", "per-item", "--merge")
    said = cli("parse", *flags)
    assert said.out.endswith("merged 2 videos: 1 complete, 1 with groups missing\n")
    assert [line["json"] for line in parsed_in(merged)] == [
        STANDARD,
        {key: STANDARD[key] for key in ("china_stance_score", "china_sensitive")},
    ]
    said = cli("parse", *flags, "--require-complete")
    assert said.out.endswith("merged 1 videos: 1 complete, 1 left out as incomplete\n")
    assert [line["meta_id"] for line in parsed_in(merged)] == ["a"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--raw", "nonesuch.jsonl"), 64, "--raw nonesuch.jsonl: No such file"),
        (("--codebook", "nonesuch"), 64, "shipped are comprehensive"),
        (("--group-mode", "thirds"), 64, "--group-mode thirds: standard has per-item, single"),
        (("--require-complete",), 64, "--require-complete goes with --merge"),
        (("--merge",), 65, "has no group"),
        (("--raw", "{broken}"), 65, "broken.jsonl line 1: no raw record"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, more: tuple[str, ...], code: int, words: str) -> None:
    raw = write_raw(tmp_path / "raw.jsonl", STANDARD)
    (tmp_path / "broken.jsonl").write_text("{\n")
    told = {"--raw": str(raw), "--out": str(tmp_path / "parsed.jsonl"), "--codebook": "standard"}
    if len(more) == 2:
        told[more[0]] = more[1].format(broken=tmp_path / "broken.jsonl")
    flags = [word for pair in told.items() for word in pair]
    said = cli("parse", *flags, *(more if len(more) == 1 else ()))
    assert (said.code, said.out) == (code, ""), said
    assert words in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "parsed.jsonl").exists()


def test_a_parse_that_is_stopped_leaves_no_file_with_the_name(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw.jsonl", *[STANDARD] * 60_000), tmp_path / "parsed.jsonl"
    process = start_cli("parse", "--raw", raw, "--out", out, "--codebook", "standard")
    deadline = time.monotonic() + 30
    while not (tmp_path / "parsed.jsonl.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    said = finished(process)
    assert said.code == 75, said
    assert "Traceback" not in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.jsonl"]
