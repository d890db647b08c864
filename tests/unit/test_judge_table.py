"""The table: the old one to the digit, and what it left out, held against sums done by hand and by SciPy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from scipy import stats  # type: ignore[import-untyped]  # it ships no annotations

from engine.errors import InputError
from labels.judge.compare import Block
from labels.judge.figures import as_json
from labels.judge.inputs import LeftOut
from labels.judge.numbers import interval, krippendorff, resampled_means, sign_test, spearman, wilson
from labels.judge.plan import STRAIGHT, SWAPPED
from labels.judge.reviews import ERROR, NO_SCORES, Review, read_reviews, write_reviews
from labels.judge.table import Table, Wanted, table_of, wanted_of
from labels.judge.text import Report, as_markdown, as_text
from tests.fakes.judged import WEIGHTS, write_lines
from tests.fakes.judging import scored

PUBLISHED = {"complex": (7.70, 6.904), "conv": (9.18, 7.714), "detail": (9.13, 7.324)}
"""Means of the categories that round to those of the LLaVA-Bench example."""


def table(reviews: Sequence[Review], wanted: Wanted | None = None) -> Table:
    return table_of(reviews, wanted=wanted or wanted_of(reviews))


def report(reviews: Sequence[Review], wanted: Wanted | None = None) -> Report:
    return Report(names=("gpt", "bard"), table=table(reviews, wanted))


def whole(reviews: Sequence[Review]) -> Block:
    return table(reviews).blocks[0]


def published() -> list[Review]:
    """Sixty reviews with those means; neighbours stand as far above as below them."""
    reviews: list[Review] = []
    for category, (first, second) in PUBLISHED.items():
        count = WEIGHTS[category]
        for at in range(count):
            off = 0.0 if at == count - 1 and count % 2 else (0.5, -0.5)[at % 2]
            said = (first + off, second - off)
            reviews.append(scored(len(reviews), said, category=f"llava_bench_{category}"))
    return reviews


def test_the_published_table_comes_out_to_the_digit() -> None:
    lines = as_text(report(published())).splitlines()
    assert lines[:5] == [
        "all 84.8 72.4",
        "llava_bench_complex 77.0 69.0",
        "llava_bench_conv 91.8 77.1",
        "llava_bench_detail 91.3 73.2",
        "=================================",
    ]


def test_reviews_without_scores_are_counted_and_never_averaged_in() -> None:
    failed = [
        scored(100, None, category="llava_bench_conv", status=NO_SCORES, score_error="out_of_range"),
        scored(101, None, category="llava_bench_conv", status=ERROR, error_kind="server"),
    ]
    text = as_text(report([*published(), *failed]))
    assert text.startswith("all 84.8 72.4\n")
    assert "60 of 62" in text
    assert "1 reviews failed: 1 server" in text
    assert "1 reviews have no scores: 1 out_of_range" in text
    assert "2 questions do not count, since a review of them is missing (100, 101)" in text


def test_a_small_set_matches_the_sums_done_by_hand() -> None:
    reviews = [
        scored("a", (8, 6), category="x"),
        scored("b", (5, 7), category="x"),
        scored("c", (9, 9), category="y"),
        scored("d", (10, 4), category="y"),
    ]
    found = table(reviews)
    assert [block.name for block in found.blocks] == ["all", "x", "y"]
    block = found.blocks[0]
    assert block.means is not None
    assert (block.means.first, block.means.second) == (8.0, 6.5)
    assert block.means.difference == 1.5
    assert block.means.ratio == 81.25
    assert (block.verdicts.wins, block.verdicts.ties, block.verdicts.losses) == (2, 1, 1)
    assert block.verdicts.p_value == 1.0
    assert block.verdicts.win_share == pytest.approx(2 / 3)
    assert block.position is None
    assert block.agreement is None
    said = as_json(report(reviews))
    assert orjson.loads(orjson.dumps(said)) == json.loads(json.dumps(said))
    assert said["blocks"][1]["mean_1"] == 6.5
    assert said["reviews"]["scored"] == 4


def test_the_interval_of_the_difference_is_paired() -> None:
    # The questions differ widely, the models by exactly one: whole questions drawn again always say so.
    block = whole([scored(n, (2 + n % 8, 1 + n % 8)) for n in range(40)])
    assert block.means is not None
    assert block.means.difference_interval == pytest.approx((1.0, 1.0))
    assert block.means.first_interval is not None
    assert block.means.first_interval[1] - block.means.first_interval[0] > 0.5


def test_one_question_has_no_interval() -> None:
    block = whole([scored(0, (8, 7))])
    assert block.means is not None
    assert block.means.difference_interval is None
    assert "80.0  70.0  87.5%" in as_text(report([scored(0, (8, 7))]))


def test_without_any_scores_there_are_no_figures_and_no_crash() -> None:
    text = as_text(report([scored(0, None, status=NO_SCORES, score_error="empty")]))
    assert text.startswith("all n/a n/a\n")
    assert as_json(report([scored(0, None)]))["blocks"][0]["mean_1"] is None


def swapped_pair(identity: object, straight: tuple[float, float], swapped: tuple[float, float]) -> list[Review]:
    return [scored(identity, straight, order=STRAIGHT), scored(identity, swapped, order=SWAPPED)]


def test_both_orders_are_averaged_and_what_standing_first_is_worth_is_told() -> None:
    # Worth 8 and 7, and one more point for whoever stands first.
    block = whole([review for n in range(5) for review in swapped_pair(n, (9, 7), (8, 8))])
    assert block.means is not None
    assert (block.means.first, block.means.second) == (8.5, 7.5)
    assert block.position is not None
    assert (block.position.pairs, block.position.bias) == (5, 1.0)
    assert block.position.flipped == 5, "won in one order, a tie in the other"
    assert block.position.turned == 0
    turned = whole(swapped_pair(0, (9, 8), (7, 8))).position
    assert turned is not None
    assert (turned.flipped, turned.turned) == (1, 1)


def test_a_better_model_is_no_position_bias() -> None:
    block = whole([review for n in range(5) for review in swapped_pair(n, (9, 5), (9, 5))])
    assert block.position is not None
    assert (block.position.bias, block.position.flipped) == (0.0, 0)


def test_a_question_with_one_order_alone_does_not_count() -> None:
    reviews = [*swapped_pair(0, (9, 7), (8, 8)), scored(1, (10, 1), order=STRAIGHT)]
    found = table(reviews)
    means = found.blocks[0].means
    assert means is not None
    assert (means.first, means.second) == (8.5, 7.5)
    assert found.incomplete == ("1",)
    assert found.not_asked == 1


def test_samples_weigh_no_more_than_one_review() -> None:
    reviews = [scored(0, (10, 10), sample=n) for n in range(3)] + [scored(1, (5, 5), sample=0)]
    block = whole(reviews)
    assert block.means is not None
    assert block.means.first == 7.5
    assert block.steady == 1.0
    wavering = whole([scored(0, (10, 9), sample=0), scored(0, (9, 10), sample=1)])
    assert wavering.steady == 0.0
    assert wavering.verdicts.ties == 1


def test_judges_weigh_the_same_and_their_agreement_is_told() -> None:
    differences = {"j": (3, 1, -2, 0, 2), "k": (2, 2, -1, -1, 3)}
    reviews = [
        scored(n, (5 + difference, 5), judge_model=judge)
        for judge, found in differences.items()
        for n, difference in enumerate(found)
    ]
    block = whole(reviews)
    assert block.means is not None
    assert block.means.first == pytest.approx(5 + (4 / 5 + 5 / 5) / 2)
    assert block.agreement is not None
    (two,) = block.agreement.two
    assert two.same_verdict == 4 / 5
    assert two.rank_correlation == pytest.approx(stats.spearmanr(*differences.values()).statistic)
    assert block.agreement.means == {"j": (5.8, 5.0), "k": (6.0, 5.0)}
    text = as_text(report(reviews))
    assert "all: by judge (gpt, bard): j 58.0 50.0; k 60.0 50.0; Krippendorff's alpha 0." in text
    assert "all: j and k: same verdict in 80% of 5 questions, rank correlation 0." in text


def test_what_was_wanted_and_is_not_there_is_told() -> None:
    wanted = Wanted(cells=(("j", STRAIGHT),), samples=1, questions={"0": "conv", "1": "conv", "2": "detail"})
    found = report([scored(0, (8, 7))], wanted)
    text = as_text(found)
    assert "2 reviews have not been asked for yet" in text
    assert "2 questions do not count" in text
    assert "detail n/a n/a" in text


def test_left_out_records_are_in_every_form_of_the_table() -> None:
    left_out = LeftOut(why="questions have no answer of bard", count=7, ids=("3", "<b>", "x|y"))
    found = Report(names=("gpt", "b|rd"), table=table(published()), left_out=(left_out,))
    assert "7 questions have no answer of bard (3, <b>, x|y, ...)" in as_text(found)
    markdown = as_markdown(found)
    assert "7 questions have no answer of bard (3, \\<b\\>, x\\|y, ...)" in markdown
    assert "| b\\|rd |" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    assert as_json(found)["left_out"][0]["count"] == 7


def test_a_category_called_all_does_not_hide_behind_the_whole() -> None:
    found = table([scored(0, (8, 7), category="all"), scored(1, (6, 7), category="b")])
    assert [block.name for block in found.blocks] == ["all", "category all", "b"]


def test_old_reviews_have_a_table_and_their_failures_do_not_count(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "output.json",
        [
            {
                "id": n + 1,
                "question_id": n,
                "answer1_id": "x",
                "answer2_id": "y",
                "category": "llava_bench_conv",
                "content": "8 7",
                "tuple": said,
            }
            for n, said in enumerate([[8.0, 7.0], [-1, -1], [6.0, 9.0]])
        ],
    )
    found = table(read_reviews(path))
    assert found.blocks[0].means is not None
    assert found.blocks[0].means.first == 7.0
    assert found.without_scores == {"failed_before": 1}


def test_reviews_come_back_as_they_were_written(tmp_path: Path) -> None:
    reviews = [
        scored(7_531_309_745_475_554_591, (8.5, 7.0), content="8.5 7\nyes", order=SWAPPED, sample=2, cost_usd=0.1),
        scored("v", None, status=ERROR, error_kind="server", error="down", usage={"prompt_tokens": 3}),
        scored(1, None, status=NO_SCORES, score_error="conflict", request_id="r"),
    ]
    write_reviews(tmp_path / "o.json", reviews)
    assert read_reviews(tmp_path / "o.json") == reviews
    first = json.loads((tmp_path / "o.json").read_text().splitlines()[0])
    assert list(first)[:7] == ["id", "question_id", "answer1_id", "answer2_id", "category", "content", "tuple"]


def test_half_a_character_of_a_judge_is_written_as_a_mark(tmp_path: Path) -> None:
    write_reviews(tmp_path / "o.json", [scored(0, (8, 7), content="8 7 \ud83d")])
    assert read_reviews(tmp_path / "o.json")[0].content == "8 7 \ufffd"


@pytest.mark.parametrize("line", [{"question_id": 1}, {"tuple": [1, 2]}, {"question_id": 1, "tuple": [1]}])
def test_a_line_that_is_no_review_is_refused(tmp_path: Path, line: dict[str, object]) -> None:
    with pytest.raises(InputError, match="line 1"):
        read_reviews(write_lines(tmp_path / "o.json", [line]))


def test_tests_and_correlations_are_those_of_scipy() -> None:
    for wins, losses in ((0, 1), (3, 3), (45, 5), (1200, 1100), (7, 0)):
        assert sign_test(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)
    for hits, count in ((0, 5), (3, 7), (60, 60)):
        low, high = stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert wilson(hits, count) == pytest.approx((low, high))
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 40).tolist(), rng.integers(0, 5, 40).tolist()
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (sign_test(0, 0), wilson(0, 0), spearman([1], [1]), spearman([1, 1], [1, 2])) == (None, None, None, None)


def test_alpha_is_that_of_the_published_example() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", C and E: four observers, twelve units, gaps.
    observers = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    )
    units = [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]
    assert krippendorff(units) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff([[1, 1], [1, 1]]) is None
    assert krippendorff([[1], [2]]) is None
    assert krippendorff([[1, 1], [2, 2]]) == 1.0


def test_resampling_is_the_same_for_the_same_seed_and_covers_the_mean() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=(200, 1))
    drawn = resampled_means(values, seed=1)
    assert drawn.shape == (2_000, 1)
    assert (drawn == resampled_means(values, seed=1)).all()
    found = interval(drawn[:, 0])
    assert found is not None
    error = values.std() / np.sqrt(200)
    assert found == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.02)
    assert interval(np.array([])) is None
    assert interval(np.array([1.0, np.nan])) is None


def test_few_different_results_are_drawn_as_often_as_they_came() -> None:
    values = np.repeat([[2.0, 1.0], [8.0, 9.0]], [300, 100], axis=0)
    drawn = resampled_means(values, seed=1)
    assert drawn.shape == (10_000, 2)
    assert drawn.mean(axis=0) == pytest.approx((3.5, 3.0), abs=0.01)
    assert drawn[:, 0].std() == pytest.approx(values[:, 0].std() / np.sqrt(400), rel=0.05)
    assert (resampled_means(values[::-1], seed=1) == drawn).all()


def test_means_are_rounded_twice_as_they_always_were() -> None:
    # 8.0449 is 8.045 and then 80.5; rounded once it would be 80.4.
    assert as_text(report([scored(0, (8.0449, 7.0))])).startswith("all 80.5 70.0\n")
