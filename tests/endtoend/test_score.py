"""`score` as it is typed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.fakes.commands import Said, cli
from tests.fakes.scores import GOLD, SAID, gold_file, said_file, write_lines

pytestmark = pytest.mark.slow


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return gold_file(tmp_path / "val.jsonl", GOLD)


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return said_file(tmp_path / "preds.parsed.jsonl", SAID)


def refused(said: Said, *, code: int, words: str) -> None:
    assert said.code == code, said
    assert words in said.err, said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_command_line_of_the_first_scripts_works(tmp_path: Path, gold: Path, said: Path) -> None:
    found = cli("score", "--val-file", gold, "--preds", said, "--dump-csv", tmp_path / "rows.csv")
    assert found.code == 0, found.err
    lines = squeezed(found.out)
    assert "parse rate: 4/5 = 0.800" in lines
    assert "china_sensitive_yes 0.500 0.500 0.500 1 1 1" in lines
    assert "stance_R2 0.865" in lines
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(GOLD)


def test_the_command_line_of_the_last_scripts_works(tmp_path: Path, gold: Path, said: Path) -> None:
    other = said_file(tmp_path / "tuned.jsonl", GOLD)
    flags = (
        *("--stance-thresh", 0.3, "--yn-metric", "f1", "--cd-map", "yes=1,no=0,cannot_determine=0.5"),
        *("--min-text-len", 0, "--ci", "--ci-n", 100, "--ci-alpha", 0.1, "--ci-seed", 7),
    )
    found = cli("score", "--val-file", gold, said, other, *flags, "--out", tmp_path / "s.csv")
    assert found.code == 0, found.err
    assert "Metrics, 90 % intervals from 100 replicates (seed 7)" in found.out
    assert "metric preds tuned" in squeezed(found.out)
    with (tmp_path / "s.csv").open(newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"preds", "tuned", "tuned - preds"}
    again = cli("score", "--val-file", gold, said, other, *flags)
    assert again.out == found.out


def test_flags_may_stand_in_a_file(tmp_path: Path, gold: Path, said: Path) -> None:
    config = tmp_path / "score.toml"
    config.write_text(f'val-file = "{gold}"\nyn-metric = "r2"\n')
    found = cli("score", "--config", config, said)
    assert "ch_sensitive_R2 -0.818" in squeezed(found.out)


def test_a_page_is_written(tmp_path: Path, gold: Path, said: Path) -> None:
    assert cli("score", "--val-file", gold, said, "--ci", "--ci-seed", 1, "--out", tmp_path / "s.html").code == 0
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>")


def test_what_is_typed_wrong_is_told_before_anything_is_read(tmp_path: Path, gold: Path, said: Path) -> None:
    refused(cli("score", "--val-file", gold), code=64, words="nothing to score")
    refused(cli("score", "--val-file", gold, "--compare", said), code=64, words="--preds")
    refused(cli("score", "--val-file", gold, tmp_path / "no.jsonl"), code=64, words="no such file")
    refused(cli("score", "--val-file", tmp_path / "no.jsonl", said), code=64, words="--val-file")
    refused(cli("score", "--val-file", gold, said, "--out", tmp_path / "s.pdf"), code=64, words="must end in")
    both = ("--out", tmp_path / "s.csv", "--dump-csv", tmp_path / "s.csv")
    refused(cli("score", "--val-file", gold, said, *both), code=64, words="choose two names")
    refused(cli("score", "--val-file", gold, said, "--codebook", "nonesuch"), code=64, words="comprehensive")


def test_files_that_are_wrong_are_named_with_their_line(tmp_path: Path, gold: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    refused(cli("score", "--val-file", bad, gold), code=65, words=f"{bad} line 1")
    refused(cli("score", "--val-file", gold, bad), code=65, words=f"{bad} line 1")
    others = write_lines(tmp_path / "others.jsonl", [{"meta_id": "x", "parsed": True, "json": GOLD[0]}])
    refused(cli("score", "--val-file", gold, others), code=65, words="no id in common")


def test_a_table_of_gold_and_a_codebook_of_ones_own_need_no_code(tmp_path: Path) -> None:
    book = tmp_path / "pets.toml"
    book.write_text(
        'name = "pets"\ntitle = "Pets"\nrole = "You label."\n[[dimensions]]\nkey = "animal"\ntitle = "Animal"\n'
        'kind = "categorical"\ndefinition = "d"\nevidence = "e"\nvalues = ["cat", "dog"]\ngold = ["species"]\n'
    )
    table = tmp_path / "gold.csv"
    table.write_text("id,species\nv0,cat\nv1,dog\n")
    said = said_file(tmp_path / "p.jsonl", [{"animal": "cat"}, {"animal": "cat"}])
    found = cli("score", "--val-file", table, "--codebook", book, said)
    assert found.code == 0, found.err
    assert "animal_F1_cat 0.667" in squeezed(found.out)
