"""What the pages say of speed is what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.command import SUITES
from bench.plots import costs, drawn, rates
from bench.tables import PAGES, TABLES, rewritten, table_of
from bench.targets import verdicts
from bench.throughput import RESULTS

ROOT = Path(__file__).parent.parent.parent
COMMAND = re.compile(r"python -m (bench\.[\w.]+)|cli\.py bench(?: ([a-z]+))?")
LONG = 512


def engine(
    who: str, cpu_s: list[float], *, body: str = "2 KB", concurrency: int = LONG, rate: float = 1000
) -> dict[str, Any]:
    names = ("rows_per_s", "main_cpu_s_per_1000_whole", "workers_cpu_s_per_1000", "main_peak_rss_mb")
    figures = {name: [rate] for name in (*names, "tree_peak_rss_mb", "most_in_flight")}
    about = {"name": f"{body}, {concurrency}, {who}", "who": who, "body": body, "concurrency": concurrency}
    return about | {"figures": figures | {"main_cpu_s_per_1000": cpu_s}, "last": {}}


def published(folder: Path, suite: str, *cases: Mapping[str, Any], quick: bool = False) -> None:
    about = {"command": f"python cli.py bench {suite}", "date": "2026-01-02", "machine": "two cores", "quick": quick}
    (folder / f"{suite}.json").write_text(json.dumps(about | {"cases": cases}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_results(page: Path) -> None:
    """`python -m bench.tables --write` makes it so."""
    text = page.read_text(encoding="utf-8")
    assert "<!-- bench:" in text
    assert rewritten(text, RESULTS) == text
    assert "<!-- /bench -->\n<!-- /bench -->" not in text


def test_every_suite_has_a_table_and_every_published_one_a_place() -> None:
    assert TABLES.keys() == SUITES.keys()
    places = {
        found for page in PAGES for found in re.findall(r"<!-- bench:(\w+) -->", page.read_text(encoding="utf-8"))
    }
    assert places <= SUITES.keys()
    for suite in places:
        assert (RESULTS / f"{suite}.json").exists(), f"{suite} has a place on a page and was never measured"


def test_every_benchmark_that_a_page_names_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for module, suite in COMMAND.findall(page.read_text(encoding="utf-8")):
            assert not module or importlib.util.find_spec(module), f"{page.name} names {module}"
            assert not suite or suite in SUITES, f"{page.name} names the suite {suite}"


def test_a_ratio_is_that_of_rounds_and_not_of_medians(tmp_path: Path) -> None:
    # In the second round the machine was three times as slow.
    published(tmp_path, "engine", engine("Reelbatch", [0.2, 0.6, 0.21]), engine("yardstick", [0.1, 0.3, 0.1]))
    lines = table_of("engine", tmp_path).splitlines()
    assert lines[0] == "`python cli.py bench engine`, 2026-01-02, two cores:"
    assert "| 0.210 (0.200 to 0.600) |" in lines[4]
    assert "| 2.0 |" in lines[4]
    assert "| 512 (1,000) | Reelbatch |" in lines[4]
    assert "| 512 | yardstick |" in lines[5]


def test_a_short_measurement_says_so(tmp_path: Path) -> None:
    published(tmp_path, "engine", engine("Reelbatch", [0.2]), quick=True)
    assert "(a short measurement, rough):" in table_of("engine", tmp_path)


def test_what_is_wanted_stands_beside_what_was_measured() -> None:
    cases = [
        engine("Reelbatch", [0.19]),
        engine("yardstick", [0.1]),
        engine("Reelbatch", [0.45], body="300 KB", rate=150),
        engine("Reelbatch", [0.2], concurrency=2000, rate=900),
    ]
    assert verdicts("engine", cases) == [
        (
            "main process at 2 KB, up to 512 in flight: 0.19 CPU-s per 1,000 rows, at most 0.20 wanted: "
            "met by 0.01 CPU-s per 1,000 rows"
        ),
        (
            "main process at 300 KB, up to 512 in flight: 0.45 CPU-s per 1,000 rows, at most 0.35 wanted: "
            "missed by 0.10 CPU-s per 1,000 rows"
        ),
        "main process at 2 KB, up to 512 in flight, peak RSS: 1,000 MB, at most 200 wanted: missed by 800 MB",
        "main process at 300 KB, up to 512 in flight, peak RSS: 150 MB, at most 200 wanted: met by 50.00 MB",
        "loss of rate from 512 to 2,000 allowed in flight, 2 KB: 10.00 %, at most 5.00 wanted: missed by 5.00 %",
    ]


def test_growth_is_from_the_fewest_rows_to_the_most() -> None:
    cases = [{"rows": rows, "figures": {"main_peak_rss_mb": [mb]}} for rows, mb in ((1_000, 110.0), (10, 100.0))]
    assert "10.00 %, at most 5.00 wanted: missed by 5.00 %" in verdicts("memory", cases)[0]
    assert verdicts("memory", cases[:1]) == []


def test_a_page_without_results_stays_as_it_is(tmp_path: Path) -> None:
    page = "before\n<!-- bench:engine -->\nold\n<!-- /bench -->\nafter\n"
    assert rewritten(page, tmp_path) == page
    published(tmp_path, "engine", engine("Reelbatch", [0.2]))
    new = rewritten(page, tmp_path)
    assert new.startswith("before\n<!-- bench:engine -->\n`python cli.py bench engine`")
    assert new.endswith("\n<!-- /bench -->\nafter\n")
    assert "old" not in new
    assert rewritten(new, tmp_path) == new


def test_several_processes_are_held_against_one_in_the_same_round(tmp_path: Path) -> None:
    def processes(number: int, *rates: float) -> dict[str, Any]:
        figures = {"rows_per_s": rates, "main_cpu_s_per_1000": [0.04], "workers_cpu_s_per_1000": [0.25]}
        return {"processes": number, "figures": figures}

    # In the second round the machine was half as fast.
    published(tmp_path, "processes", processes(1, 4000.0, 2000.0, 4000.0), processes(2, 6000.0, 3000.0, 6000.0))
    lines = table_of("processes", tmp_path).splitlines()
    assert lines[-1] == "| 2 | 6,000 (3,000 to 6,000) | 1.50 (1.50 to 1.50) | 0.040 | 0.250 |"


def test_of_several_seeds_a_trace_shows_the_worst(tmp_path: Path) -> None:
    def limits(controller: str, *shares: float, held_out: bool) -> dict[str, Any]:
        figures = {"share_of_ideal": shares, "rejected_share": [0.01, 0.02][: len(shares)]}
        return {"trace": "storm", "controller": controller, "held_out": held_out, "figures": figures}

    published(tmp_path, "limits", limits("Reelbatch", 0.9, 0.8, held_out=True), limits("AIMD", 0.5, held_out=True))
    assert "| storm * | 0.80 (2.0%) | 0.50 (1.0%) |" in table_of("limits", tmp_path)


def test_who_was_not_measured_is_named_with_the_reason(tmp_path: Path) -> None:
    about = {"subject": "other", "version": "1.0", "size": "2KB", "concurrency": 64}
    measured = about | {"figures": {"rows_per_s": [10.0], "cpu_s_per_1000": [2.5]}, "last": {}}
    absent = {"subject": "third", "figures": {}, "last": {"why_not": "it needs a service"}}
    published(tmp_path, "peers", measured, absent)
    said = table_of("peers", tmp_path)
    assert "| 2KB | 64 | other 1.0 | 10 | 2.500 | - | - | - |" in said
    assert said.endswith("- third: not measured: it needs a service")


def test_pictures_show_costs_at_one_concurrency_and_rates_over_all() -> None:
    cases = [
        engine("Reelbatch", [0.2, 0.4, 0.3]),
        engine("Reelbatch", [0.5], concurrency=64, rate=500),
        engine("Reelbatch", [0.6], concurrency=2000),
        engine("yardstick", [0.1], body="1 MB"),
    ]
    assert [(name, each.median) for name, each in costs(cases)] == [("Reelbatch, 2 KB", 0.3), ("yardstick, 1 MB", 0.1)]
    assert {name: [pair[0] for pair in pairs] for name, pairs in rates(cases).items()} == {
        "Reelbatch, 2 KB": [64, 512, 2000]
    }


def test_pictures_are_drawn_of_what_was_measured_and_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only the pictures need it")
    published(tmp_path, "engine", engine("Reelbatch", [0.2]), engine("Reelbatch", [0.3], concurrency=64))
    curve = {"rows": 10, "figures": {}, "last": {"curve": [[0, 50.0, 90.0], [10, 60.0, 99.0]]}}
    published(tmp_path, "memory", curve)
    first = {path.name: path.read_bytes() for path in drawn(tmp_path, tmp_path / "plots")}
    assert first.keys() == {"cost.svg", "rate.svg", "memory.svg"}
    assert first == {path.name: path.read_bytes() for path in drawn(tmp_path, tmp_path / "plots")}
