"""Whatever judges and files say: no exception, no score out of nowhere, no pair that belongs to another question."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.judge.inputs import Files, chunk, joined
from labels.judge.plan import STRAIGHT, SWAPPED
from labels.judge.reviews import NO_SCORES, Heard, review_of
from labels.judge.scores import LEAST, MOST, read_scores
from labels.judge.table import table_of, wanted_of
from tests.fakes.judged import write_lines
from tests.fakes.judging import asks_of, pair, scored

SCORES = st.integers(10, 100).map(lambda tenths: tenths / 10)
PROSE = st.text(alphabet=st.characters(exclude_characters="{}<"), max_size=60).map(lambda text: f"\nReasons: {text}")
FEW = settings(deadline=None, max_examples=40)
"""For laws whose every example draws intervals or writes files."""
FORMS = [
    "{0:g} {1:g}",
    "{0:g}, {1:g}",
    "{0:g},{1:g}",
    "\n\n{0} {1}",
    "({0:g}, {1:g})",
    "**{0:g} {1:g}**",
    "Scores: {0:g} {1:g}",
    "{0:g}/10 {1:g}/10",
    "Assistant 1: {0:g}\nAssistant 2: {1:g}",
    "Assistant 2: {1:g}\nAssistant 1: {0:g}",
    '{{"scores": [{0}, {1}]}}',
    '{{"assistant_2": {1}, "assistant_1": "{0:g}/10"}}',
]


@given(st.text(max_size=300) | st.text(alphabet='0123456789., /()[]{}":assistnt-*\n', max_size=60))
def test_any_text_has_two_scores_in_range_or_a_reason(text: str) -> None:
    found = read_scores(text)
    assert (found.pair is None) != (found.why_not is None)
    if found.pair is not None:
        assert all(LEAST <= score <= MOST for score in found.pair)


@given(st.sampled_from(FORMS), SCORES, SCORES, PROSE)
def test_scores_come_out_of_every_form_as_they_went_in(form: str, first: float, second: float, reasons: str) -> None:
    assert read_scores(form.format(first, second) + reasons).pair == (first, second)


@given(st.text(max_size=100).filter(lambda text: not any(char.isdecimal() for char in text)))
def test_a_text_without_a_digit_has_no_scores(text: str) -> None:
    assert read_scores(text).pair is None


@given(SCORES, SCORES)
def test_what_the_old_script_read_is_read_the_same(first: float, second: float) -> None:
    for text in (f"{first} {second}", f"{first}, {second}", f" {first},{second} \nWhy"):
        said = [float(part) for part in text.split("\n")[0].replace(",", " ").split()]
        assert read_scores(text).pair == tuple(said)


@FEW
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12), st.randoms())
def test_the_order_of_reviews_and_failures_among_them_change_no_figure(
    pairs: list[tuple[float, float]], rng: object
) -> None:
    reviews = [scored(n, said) for n, said in enumerate(pairs)]
    wanted = wanted_of(reviews)
    plain = table_of(reviews, wanted=wanted).blocks[0]
    mixed = [*reviews, *(scored(n, None, status=NO_SCORES) for n in range(3))]
    rng.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis draws it
    assert table_of(mixed, wanted=wanted).blocks[0] == plain
    assert plain.means is not None
    assert plain.means.first == pytest.approx(sum(first for first, _ in pairs) / len(pairs))


@FEW
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12))
def test_models_that_change_places_change_signs_alone(pairs: list[tuple[float, float]]) -> None:
    one = table_of(found := [scored(n, said) for n, said in enumerate(pairs)], wanted=wanted_of(found)).blocks[0]
    back = [scored(n, said[::-1]) for n, said in enumerate(pairs)]
    other = table_of(back, wanted=wanted_of(back)).blocks[0]
    assert one.means is not None
    assert other.means is not None
    assert one.means.difference == pytest.approx(-other.means.difference)
    assert (one.verdicts.wins, one.verdicts.losses) == (other.verdicts.losses, other.verdicts.wins)
    assert one.verdicts.p_value == other.verdicts.p_value


@FEW
@given(st.integers(2, 8), st.integers(2, 8), st.integers(-1, 2))
def test_a_judge_with_a_bias_is_undone_by_swapping(first: int, second: int, bonus: int) -> None:
    straight, swapped = asks_of([pair()], orders=(STRAIGHT, SWAPPED))
    reviews = [
        review_of(straight, Heard(text=f"{first + bonus} {second}")),
        review_of(swapped, Heard(text=f"{second + bonus} {first}")),
    ]
    block = table_of(reviews, wanted=wanted_of(reviews)).blocks[0]
    assert block.means is not None
    assert block.means.difference == first - second
    assert block.position is not None
    assert block.position.bias == bonus


IDS = st.integers(0, 30) | st.sampled_from(["a", "b c", "ü", "7531309745475554591"])


@FEW
@given(st.lists(IDS, unique_by=str, min_size=1, max_size=12), st.data())
def test_an_answer_is_never_paired_with_another_question(ids: list[int | str], data: st.DataObject) -> None:
    first, second = (data.draw(st.lists(st.sampled_from(ids), unique_by=str, min_size=1)) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        found = joined(
            Files(
                questions=write_lines(where / "q", [{"question_id": n, "text": f"Q{n}"} for n in ids]),
                responses=(_answers(where / "a", first), _answers(where / "b", second)),
                context=None,
            ),
            names=("a", "b"),
            context_needed=True,
        )
        in_both = {str(n) for n in first} & {str(n) for n in second}
        assert [each.question.id for each in found.pairs] == [str(n) for n in ids if str(n) in in_both]
        for each in found.pairs:
            assert [answer.text for answer in each.answers] == [f"A{each.question.id}"] * 2
        assert sum(each.count for each in found.left_out) == 2 * len(ids) - len(first) - len(second)
        chunks = data.draw(st.integers(1, 5))
        parts = [each for index in range(chunks) for each in chunk(found.pairs, chunks=chunks, index=index)]
        assert parts == list(found.pairs)


def _answers(path: Path, ids: Sequence[int | str]) -> Path:
    return write_lines(path, [json.loads(json.dumps({"question_id": n, "text": f"A{n}"})) for n in ids])
