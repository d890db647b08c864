"""An alarm is raised when the answers change, and never by chance."""

from __future__ import annotations

import random

import pytest

from labels.codebook import load_codebook
from labels.drift import Drift, z_of

BOOK = load_codebook("standard")


def labels(*, sensitive: str = "no", score: float = 0.0) -> dict[str, object]:
    return {"china_stance_score": score, "china_sensitive": sensitive, "collective_action": "no"}


def fed(drift: Drift, rng: random.Random, *, rows: int, yes: float, refused: float = 0.0) -> Drift:
    for _ in range(rows):
        drift.add(None if rng.random() < refused else labels(sensitive="yes" if rng.random() < yes else "no"))
    return drift


def test_steady_answers_raise_no_alarm_over_many_rows() -> None:
    drift = fed(Drift(BOOK), random.Random(1), rows=50_000, yes=0.3, refused=0.02)
    assert drift.alarms == []
    assert drift.refused_share == pytest.approx(0.02, abs=0.005)


def test_a_share_that_moves_is_named_once_with_both_figures() -> None:
    rng = random.Random(2)
    drift = fed(fed(Drift(BOOK), rng, rows=5_000, yes=0.3), rng, rows=5_000, yes=0.6)
    (alarm,) = drift.alarms
    assert alarm.startswith('china_sensitive is "')
    assert "of the last 500 answers" in alarm


def test_more_rows_without_labels_are_an_alarm_of_their_own() -> None:
    rng = random.Random(3)
    drift = fed(fed(Drift(BOOK), rng, rows=5_000, yes=0.3, refused=0.01), rng, rows=1_000, yes=0.3, refused=0.15)
    (alarm,) = drift.alarms
    assert alarm.startswith("rows end without labels in 1")


def test_numbers_are_watched_by_thirds_of_their_range() -> None:
    drift = Drift(BOOK, block_rows=100)
    for at in range(1000):
        drift.add(labels(score=-0.9 if at < 800 else 0.9))
    (alarm,) = drift.alarms
    assert alarm.startswith("china_stance_score is ")
    assert drift.as_json()["label_shares"]["china_stance_score"] == {"low": 0.8, "high": 0.2}


def test_a_block_of_refusals_alone_is_no_division_by_zero() -> None:
    drift = Drift(BOOK, block_rows=10)
    for _ in range(20):
        drift.add(None)
    assert drift.as_json() == {"refused_share": 1.0, "label_shares": {}, "alarms": []}
    assert Drift(BOOK).refused_share is None


def test_the_z_statistic_is_that_of_the_textbook() -> None:
    # 15 of 20 against 10 of 25: pooled 25/45, z = -2.3479 (worked by hand).
    assert z_of(0.75, 20, 0.40, 25) == pytest.approx(-2.3479, abs=1e-4)
    assert z_of(0.0, 20, 0.0, 25) == 0.0
