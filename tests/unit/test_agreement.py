"""Running agreement says what `score` says in the end."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from labels.agreement import Agreement
from labels.codebook import load_codebook

BOOK = load_codebook("standard")
VALUES = ("yes", "no", "cannot_determine")


def answer(score: float, sensitive: str, action: str) -> dict[str, object]:
    return {"china_stance_score": score, "china_sensitive": sensitive, "collective_action": action}


def test_kappa_and_agreement_are_those_of_scikit_learn() -> None:
    rng = random.Random(4)
    agreement = Agreement(BOOK)
    golds = rng.choices(VALUES, k=400)
    answers = [gold if rng.random() < 0.7 else rng.choice(VALUES) for gold in golds]
    for gold, said in zip(golds, answers, strict=True):
        agreement.add({"china_sensitive": gold}, answer(0.0, said, "no"))
    found = agreement.as_json()["dimensions"]["china_sensitive"]
    assert found["kappa"] == pytest.approx(cohen_kappa_score(golds, answers))
    assert found["agreement"] == sum(map(str.__eq__, golds, answers)) / 400
    assert list(agreement.as_json()["dimensions"]) == ["china_sensitive"]


def test_a_row_without_labels_is_wrong_and_counted_apart() -> None:
    agreement = Agreement(BOOK)
    gold = answer(0.5, "yes", "no")
    agreement.add(gold, answer(0.25, "yes", "yes"))
    agreement.add(gold, None)
    said = agreement.as_json()
    assert said["rows"] == 2
    assert said["dimensions"]["china_sensitive"]["agreement"] == 0.5
    assert said["dimensions"]["china_sensitive"]["gold_to_answer"] == {"yes": {"(no answer)": 1, "yes": 1}}
    assert said["dimensions"]["china_stance_score"] == {"rows": 2, "unanswered": 1, "mean_absolute_error": 0.25}
    assert agreement.line() == (
        "2 rows with gold · 25.0% of labels agree · least collective_action, 0.0% · china_stance_score off by 0.25"
    )


def test_rows_without_gold_are_not_counted_and_kappa_may_be_undefined() -> None:
    agreement = Agreement(BOOK)
    agreement.add({}, answer(0.0, "no", "no"))
    assert agreement.line() is None
    agreement.add({"china_sensitive": "no"}, answer(0.0, "no", "no"))
    assert agreement.as_json()["dimensions"]["china_sensitive"]["kappa"] is None


def test_lists_agree_whatever_their_order() -> None:
    book = load_codebook("cooking")
    dimension = next(dimension for dimension in book.dimensions if dimension.kind == "list")
    agreement = Agreement(book)
    agreement.add({dimension.key: list(dimension.values[:2])}, {dimension.key: list(dimension.values[1::-1])})
    assert agreement.as_json()["dimensions"][dimension.key]["agreement"] == 1.0
