"""Gold beside the rows: never sent, and agreement with it is in what the run says and in its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.fakes.commands import cli, run_arguments, simulated


def write_gold(path: Path, rows: int) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["meta_id", "desc", "hate_speech", "news"])
        for row in range(rows):
            table.writerow([str(row), f"row {row}", ("yes", "no", "", "maybe")[row % 4], "no"])
    return path


def test_agreement_is_shown_and_reported_and_gold_is_no_part_of_a_request_or_of_the_run(tmp_path: Path) -> None:
    table, out, cache = write_gold(tmp_path / "videos.csv", 40), tmp_path / "out", tmp_path / "cache"
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--cache", cache))
        assert said.code == 0, said.err
        assert "Gold labels are in 2 columns" in said.err
        assert "agreement 40 rows with gold" in " ".join(said.err.split())
        agreement = json.loads((out / "report.json").read_text())["findings"]["values"]["agreement"]
        assert agreement["gold_problems"] == {"unknown_value:hate_speech": 10}
        assert agreement["dimensions"]["hate_speech"]["rows"] == 20
        assert agreement["dimensions"]["news_segments"]["rows"] == 40
        again = cli(*run_arguments(table, out, provider.url, "--resume", "--gold", "none"))
        assert again.code == 0, again.err
        assert "Gold labels" not in again.err
        # Without gold the requests are the same to the byte: the cache knows every one of them.
        other = cli(*run_arguments(table, tmp_path / "other", provider.url, "--cache", cache, "--gold", "none"))
        assert other.code == 0, other.err
        assert provider.ledger()["requests"] == 40
    assert cli("verify", out).code == 0


def test_a_wrong_gold_column_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    table = write_gold(tmp_path / "videos.csv", 4)
    said = cli(*run_arguments(table, tmp_path / "out", "http://127.0.0.1:9", "--gold", "hate_speech=coder"))
    assert said.code == 64
    assert "--gold hate_speech=coder: no such column; there are meta_id, desc, hate_speech, news" in said.err
    assert not (tmp_path / "out").exists()
