"""Scores of any answers: both ways of measuring agree, a perfect answer is perfect, order means nothing."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from bench.scenario import made_answer
from labels.codebook import SHIPPED, Codebook, Dimension, load_codebook
from labels.export import TEXT, CsvTable
from labels.reading import CodebookReader
from labels.score import points, replicas
from labels.score.columns import MISSING, Coder, Column, Numbers
from labels.score.options import Options, Resampling
from labels.score.report import Tuples, distinct, draws
from labels.score.slots import ALL, ANSWERED, SPEC, Slot, own_slots
from labels.score.tables import number

OPTIONS = Options()
BOOKS = [load_codebook(path.stem) for path in sorted(SHIPPED.glob("*.toml"))]
DIMENSIONS = {
    f"{book.name} {dimension.key}": dimension
    for book in BOOKS
    for dimension in book.dimensions
    if book.name in {"cooking", "comprehensive", "standard"}
}


def coded(coder: Coder, labels: list[Any]) -> Column:
    column = Column(coder=coder, options=OPTIONS)
    column.extend(len(labels))
    for row, label in enumerate(labels):
        column.put(row, {coder.dimension.key: label})
    return column


def labels_of(dimension: Dimension, rows: int, rng: random.Random) -> list[Any]:
    """Labels with gaps, some beyond the range, some not asked."""
    if dimension.kind == "number":
        return [rng.choice((None, dimension.minimum - 1, *([round(rng.uniform(-1, 1), 1)] * 6))) for _ in range(rows)]
    if dimension.kind == "list":
        few = dimension.values[:3]
        return [rng.choice((None, *([[value for value in few if rng.random() < 0.5]] * 6))) for _ in range(rows)]
    return rng.choices((None, *dimension.values, *([""] if dimension.when else [])), k=rows)


def tuples_of(dimension: Dimension, rows: int, seed: int) -> tuple[Coder, Tuples]:
    rng = random.Random(seed)
    coder = Coder(dimension=dimension)
    gold, said = (coded(coder, labels_of(dimension, rows, rng)) for _ in range(2))
    return coder, distinct(gold.view(), [said.view()])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(DIMENSIONS)), st.integers(1, 40), st.integers(0, 10**6))
def test_sums_over_replicates_measure_what_scikit_learn_does_on_the_rows_drawn(name: str, rows: int, seed: int) -> None:
    coder, found = tuples_of(DIMENSIONS[name], rows, seed)
    weights = next(draws(found, Resampling(n=3, seed=seed), 0))
    often = replicas.measured(coder, found.gold, found.said[0], weights, OPTIONS)
    for replicate, counts in enumerate(weights.astype(np.int64)):
        gold, said = np.repeat(found.gold, counts), np.repeat(found.said[0], counts)
        once = points.measured(coder, gold, said, np.ones(len(gold), dtype=np.int64), OPTIONS)
        assert set(once) == set(often)
        for slot, value in once.items():
            drawn = often[slot][replicate]
            assert math.isnan(value) == math.isnan(drawn), (slot, value, drawn)
            assert math.isnan(value) or drawn == pytest.approx(value, abs=1e-9), slot


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(DIMENSIONS)), st.integers(1, 40), st.integers(0, 10**6))
def test_counting_equal_rows_together_changes_no_figure(name: str, rows: int, seed: int) -> None:
    coder, found = tuples_of(DIMENSIONS[name], rows, seed)
    gold, said = np.repeat(found.gold, found.counts), np.repeat(found.said[0], found.counts)
    order = np.random.default_rng(seed).permutation(len(gold))
    apart = points.measured(coder, gold[order], said[order], np.ones(len(gold), dtype=np.int64), OPTIONS)
    together = points.measured(coder, found.gold, found.said[0], found.counts, OPTIONS)
    assert together == pytest.approx(apart, abs=1e-9, nan_ok=True)
    assert set(own_slots(coder.dimension, OPTIONS)) <= set(together)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_figures_are_those_scikit_learn_gives_for_the_labels_themselves(pairs: list[tuple[str, str]]) -> None:
    """Straight from texts, past our codes, tuples and weights."""
    dimension = Dimension(key="k", title="t", kind="categorical", definition="d", evidence="e", values=("a", "b", "c"))
    coder = Coder(dimension=dimension)
    gold, said = (coded(coder, list(side)) for side in zip(*pairs, strict=True))
    rows = distinct(gold.view(), [said.view()])
    found = points.measured(coder, rows.gold, rows.said[0], rows.counts, OPTIONS)
    golds, saids = map(list, zip(*pairs, strict=True))
    assert found[Slot(ALL, "accuracy")] == pytest.approx(metrics.accuracy_score(golds, saids))
    present = sorted(set(golds))
    assert found[Slot(ALL, "macro_F1")] == pytest.approx(
        metrics.f1_score(golds, saids, labels=present, average="macro", zero_division=0)
    )
    if len(present) > 1:
        assert found[Slot(ANSWERED, "kappa")] == pytest.approx(metrics.cohen_kappa_score(golds, saids))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-10, 10), st.integers(-10, 10)), min_size=2, max_size=30))
def test_ranks_with_weights_are_the_ranks_of_the_rows(pairs: list[tuple[int, int]]) -> None:
    gold, said = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    rows = distinct(gold, [said])
    weights = rows.counts[None, :].astype(np.float64)
    rho = replicas.spearman(weights, rows.gold, rows.said[0])[0]
    if len(set(gold)) == 1 or len(set(said)) == 1:
        assert math.isnan(rho)
        return
    x, y = (mean_ranks(side) for side in (gold, said))
    assert rho == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


def test_a_side_that_is_constant_in_a_replicate_has_no_correlation_there() -> None:
    # Sums over these leave a last digit where there is no spread.
    x, y = np.array([-0.37, -0.37, 0.9]), np.array([1.0, 2.0, 3.0])
    weights = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    for measure in (replicas.pearson, replicas.spearman):
        assert np.isnan(measure(weights, x, y)).tolist() == [True, False]
    assert np.isnan(replicas.errors(weights, x, y)["R2"]).tolist() == [True, False]


def mean_ranks(side: Numbers) -> Numbers:
    """Without sorting: how many are below, and half of those that tie."""
    return np.array([(side < each).sum() + ((side == each).sum() + 1) / 2 for each in side], dtype=np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_perfect_answer_is_perfect_in_every_figure_that_is_defined(book: Codebook, seed: int) -> None:
    rng = random.Random(seed)
    read = [CodebookReader(codebook=book).read(json.dumps(made_answer(book.json_schema(), rng))) for _ in range(12)]
    answers = [answer.labels for answer in read if answer.labels is not None]
    for dimension in book.dimensions:
        coder = Coder(dimension=dimension)
        labels = [answer[dimension.key] for answer in answers]
        gold, said = coded(coder, labels), coded(coder, labels)
        rows = distinct(gold.view(), [said.view()])
        found = points.measured(coder, rows.gold, rows.said[0], rows.counts, OPTIONS)
        of_labels = [found[slot] for slot in found if slot[:2] == (ALL, "F1")]
        for slot, value in found.items():
            if slot.reading == SPEC and any(map(math.isnan, of_labels)):
                continue  # The scripts count a label that no row has as 0.
            best = 0.0 if slot.measure in {"MAE", "RMSE"} else 1.0
            assert math.isnan(value) or value == pytest.approx(best), slot


@given(st.lists(st.lists(st.sampled_from((MISSING, 0, 1, 2)), min_size=3, max_size=3), min_size=1, max_size=50))
def test_distinct_tuples_stand_for_all_rows(rows: list[list[int]]) -> None:
    columns = [np.array(column, dtype=np.int32) for column in zip(*rows, strict=True)]
    found = distinct(columns[0], columns[1:])
    again = [
        [int(gold), *map(int, said)]
        for gold, *said, count in zip(found.gold, *found.said, found.counts, strict=True)
        for _ in range(count)
    ]
    assert sorted(again) == sorted(rows)
    assert len({tuple(row) for row in again}) == len(found.counts)


@given(st.text(max_size=20))
def test_no_cell_of_a_csv_is_run_by_a_spreadsheet(text: str) -> None:
    written: list[bytes] = []
    CsvTable(written.append, {"model": TEXT}, raw=False).put([text])
    cell = next(csv.reader(io.StringIO(b"".join(written[1:]).decode(), newline="")))[0]
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))


@given(st.floats(allow_infinity=False))
def test_figures_have_three_decimals_and_nothing_has_no_sign(value: float) -> None:
    text = number(value)
    assert text == "n/a" if math.isnan(value) else text == f"{float(text):.3f}"
    assert text != "-0.000"
    assert number(value, signed=True) != "-0.000"
