"""A report in each of its forms: the same figures, nothing that runs, nothing from elsewhere, and never half a file."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, SinkBroken
from labels.score.drawings import WIDTH_PX, bars, heatmap
from labels.score.files import check_target, write_examples, write_report
from labels.score.matrices import Matrix
from labels.score.options import Resampling
from labels.score.report import Estimate, Report
from labels.score.tables import brief_grid, cell, count_grid, difference_grid, headline_grid, number, text_of
from tests.fakes.scores import GOLD, SAID, answer, chat, gold_file, said_file, scored, write_lines

HOSTILE = '=cmd()<script>alert(1)</script>"&'


@pytest.fixture
def found(tmp_path: Path) -> Report:
    gold = gold_file(tmp_path / "val.jsonl", GOLD)
    base, tuned = said_file(tmp_path / "base.jsonl", SAID), said_file(tmp_path / "tuned.jsonl", GOLD)
    return scored(gold, base, tuned, resampling=Resampling(n=50, seed=1))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_is_long_and_has_the_columns_of_the_scripts(tmp_path: Path, found: Report) -> None:
    write_report(found, tmp_path / "s.csv")
    rows = rows_of(tmp_path / "s.csv")
    assert list(rows[0]) == ["model", "metric", "score", "CI_low", "CI_high"]
    first = {row["metric"]: row for row in rows if row["model"] == "base"}
    assert float(first["stance_R2"]["score"]) == pytest.approx(0.86456, abs=1e-5)
    assert float(first["stance_R2"]["CI_low"]) <= float(first["stance_R2"]["CI_high"])
    assert first["collective_action.recall.cannot_determine.all"]["score"] == ""
    differences = {row["metric"]: row["score"] for row in rows if row["model"] == "tuned - base"}
    assert float(differences["ch_sensitive_F"]) == 0.5
    assert set(differences) == set(first)


def test_the_json_holds_every_figure_matrix_and_note(tmp_path: Path, found: Report) -> None:
    write_report(found, tmp_path / "s.json")
    said = json.loads((tmp_path / "s.json").read_text())
    assert said["codebook"]["name"] == "standard"
    assert said["ci"] == {"n": 50, "alpha": 0.05, "seed": 1}
    base, tuned = said["models"]
    assert base["metrics"]["col_action_F"]["score"] == pytest.approx(2 / 3)
    assert base["metrics"]["china_sensitive.precision.cannot_determine.all"]["score"] is None
    assert base["confusion"]["china_sensitive"]["counts"][0] == [1, 0, 0, 1]
    assert base["differences"] == {}
    assert tuned["differences"]["ch_sensitive_F"]["score"] == 0.5
    assert said["gold"]["support"]["china_sensitive"] == {"yes": 2, "no": 2, "cannot_determine": 1}


def test_the_markdown_has_a_table_a_section(tmp_path: Path, found: Report) -> None:
    write_report(found, tmp_path / "s.md")
    text = (tmp_path / "s.md").read_text()
    assert "| stance\\_R2 | 0.865" in text
    assert "china\\_sensitive, gold in rows, answers in columns" in text
    table = text.split("## Metrics")[1].split("##")[0].strip().splitlines()[2:]
    assert {line.count("|") for line in table} == {4}
    assert "| n/a" in text


class Page(HTMLParser):
    """Which tags and attributes a page has, and whether each that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path, found: Report) -> None:
    write_report(found, tmp_path / "s.html")
    page = page_of(tmp_path / "s.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "a"}
    given = {name: value for _, attributes in page.tags for name, value in attributes.items()}
    assert not {"src", "href", "style"} & set(given)
    assert not [name for name in given if name.startswith("on")]
    text = (tmp_path / "s.html").read_text()
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text
    assert "0.865" in "".join(page.texts)
    drawn = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert "china_sensitive: gold against the answers of tuned" in drawn
    assert "china_sensitive: F1 of each label, missing answers wrong" in drawn


def test_what_strangers_wrote_stays_text(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat(HOSTILE, GOLD[0]), chat("v1", GOLD[1])])
    lines = [answer(1, GOLD[1] | {HOSTILE: 1, "china_sensitive": HOSTILE}), answer(2, GOLD[1], meta_id=HOSTILE + "2")]
    found = scored(gold, write_lines(tmp_path / "<b>=m.jsonl", lines))
    for suffix in (".html", ".md", ".csv", ".json"):
        write_report(found, tmp_path / f"s{suffix}")
    page = page_of(tmp_path / "s.html")
    assert not {tag for tag, _ in page.tags} & {"script", "b"}
    assert any(HOSTILE in text for text in page.texts)
    assert "<script" not in (tmp_path / "s.md").read_text()
    assert json.loads((tmp_path / "s.json").read_text())["models"][0]["model"] == "<b>=m"
    write_examples(found.truth, found.models[0].predictions, tmp_path / "d.csv", first_form=False)
    assert rows_of(tmp_path / "d.csv")[0]["meta_id"] == "'" + HOSTILE


def test_the_rows_have_the_columns_of_the_first_scripts(tmp_path: Path, found: Report) -> None:
    write_examples(found.truth, found.models[0].predictions, tmp_path / "d.csv", first_form=True)
    rows = rows_of(tmp_path / "d.csv")
    names = ["idx", "parse_ok"]
    names += [f"{side}_{name}" for name in ("stance_score", "sensitive", "collective") for side in ("gold", "pred")]
    assert list(rows[0]) == [*names, "gold_languages", "pred_languages"]
    assert rows[3] == {
        "idx": "3",
        "parse_ok": "false",
        "gold_stance_score": "0.8",
        "pred_stance_score": "",
        "gold_sensitive": "yes",
        "pred_sensitive": "",
        "gold_collective": "yes",
        "pred_collective": "",
        "gold_languages": "",
        "pred_languages": "",
    }


def test_sets_are_joined_by_bars_and_other_codebooks_name_their_keys(tmp_path: Path) -> None:
    labels: dict[str, Any] = {
        "dish_type": "main",
        "vegetarian": "yes",
        "techniques": ["frying", "baking"],
        "clarity": 1,
    }
    gold = gold_file(tmp_path / "val.jsonl", [labels])
    found = scored(gold, said_file(tmp_path / "p.jsonl", [labels]))
    write_examples(found.truth, found.models[0].predictions, tmp_path / "d.csv", first_form=True)
    (row,) = rows_of(tmp_path / "d.csv")
    assert list(row)[:4] == ["idx", "meta_id", "parse_ok", "gold_dish_type"]
    assert (row["meta_id"], row["pred_techniques"], row["gold_clarity"]) == ("v0", "baking|frying", "1.0")


def test_a_report_replaces_one_of_that_name_and_leaves_nothing_beside_it(tmp_path: Path, found: Report) -> None:
    (tmp_path / "out").mkdir()
    for _ in range(2):
        write_report(found, tmp_path / "out" / "s.json")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["s.json"]


def test_a_report_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, found: Report) -> None:
    target = tmp_path / "s.csv"
    target.write_text("before")
    (tmp_path / "s.csv.partial").mkdir()
    with pytest.raises(SinkBroken, match=r"writing .* failed"):
        write_report(found, target)
    assert target.read_text() == "before"


@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("--out", "s.pdf", "must end in .csv, .json, .md, .html"),
        ("--out", "no/such/s.csv", "there is no folder"),
        ("--dump-csv", "folder.csv", "is a folder"),
        ("--out", "val.json", "one of the files to read"),
        ("--dump-csv", "val.json", "one of the files to read"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused_first(tmp_path: Path, flag: str, name: str, words: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    gold = write_lines(tmp_path / "val.json", [])
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_target(flag, tmp_path / name, [gold])


def test_the_terminal_shows_metrics_in_rows_and_models_in_columns(found: Report) -> None:
    lines = text_of(headline_grid(found)).splitlines()
    assert lines[0] == "Metrics, 95 % intervals from 50 replicates (seed 1)"
    assert lines[2].split() == ["metric", "base", "tuned"]
    assert re.fullmatch(r"ch_sensitive_F +0\.500 \[\d\.\d{3}, \d\.\d{3}\] +1\.000 \[\d\.\d{3}, 1\.000\]", lines[6])
    differences = difference_grid(found)
    assert differences is not None
    assert differences.head == ("metric", "tuned")
    assert differences.rows[3][1].startswith("+0.500 [")
    assert ("answered", "4", "5") in count_grid(found).rows
    assert ("collective_action accuracy", "0.800 / 1.000", "1.000 / 1.000") in brief_grid(found).rows


def test_one_model_has_no_differences(tmp_path: Path) -> None:
    gold = gold_file(tmp_path / "val.jsonl", GOLD)
    assert difference_grid(scored(gold, said_file(tmp_path / "p.jsonl", GOLD))) is None


def test_figures_are_written_with_three_decimals() -> None:
    assert number(0.86456) == "0.865"
    assert number(float("nan")) == "n/a"
    assert number(-0.0001) == "0.000"
    assert number(-0.0001, signed=True) == "+0.000"
    assert cell(Estimate(value=0.5, low=0.25, high=0.75)) == "0.500 [0.250, 0.750]"


def test_bars_are_as_long_as_their_figures_and_never_longer_than_the_track() -> None:
    drawn = bars([("a", [Estimate(value=0.5), Estimate(value=1.0), Estimate(value=float("nan"))])], title="t")
    half, whole = (float(width) for width in re.findall(r'class="m\d"[^>]* width="([\d.]+)"', drawn))
    assert whole == pytest.approx(2 * half)
    assert whole < WIDTH_PX
    assert "n/a" in drawn


def test_cells_are_the_darker_the_more_of_their_row_they_hold() -> None:
    matrix = Matrix(golds=("a", "b"), saids=("a", "b", "missing"), counts=((3, 1, 0), (0, 0, 0)))
    drawn = heatmap(matrix, title="t")
    assert re.findall(r'fill-opacity="([\d.]+)"', drawn) == ["0.750", "0.250", "0.000", *["0.000"] * 3]
