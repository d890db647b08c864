"""Known rows score what is known of them, under the names users know."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.errors import ConfigError, InputError
from labels.score import first
from labels.score.options import Options, Resampling, parsed_cd_map
from labels.score.slots import ALL, ANSWERED
from labels.score.tables import notes
from tests.fakes.scores import (
    GOLD,
    SAID,
    STANDARD,
    answer,
    chat,
    figure,
    gold_file,
    headlines_of,
    said_file,
    scored,
    write_lines,
)

COMPREHENSIVE = {
    "china_related": "yes",
    "china_ccp_government": "pro",
    "china_people_culture": "anti",
    "china_technology_development": "neutral/unclear",
    "china_sensitive": "no",
    "collective_action": "yes",
    "hate_speech": "no",
    "harmful_content": "no",
    "news_segments": "no",
    "inauthentic_content": "no",
    "derivative_content": "yes",
}
UNRELATED = COMPREHENSIVE | dict.fromkeys(list(COMPREHENSIVE)[1:5], "") | {"china_related": "no"}


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return gold_file(tmp_path / "val.jsonl", GOLD)


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return said_file(tmp_path / "preds.parsed.jsonl", SAID)


def test_the_five_rows_score_what_the_scripts_gave(gold: Path, said: Path) -> None:
    found = scored(gold, said)
    assert found.truth.codebook.name == "standard"
    expected = {"stance_R2": 0.8646, "stance_pos_F1": 0.5, "stance_neg_F1": 1.0}
    expected |= {"ch_sensitive_F": 0.5, "col_action_F": 2 / 3}
    assert headlines_of(found) == pytest.approx(expected, abs=5e-5)


def test_yes_and_no_as_numbers_score_what_the_scripts_gave(gold: Path, said: Path) -> None:
    found = headlines_of(scored(gold, said, options=Options(yn_metric="r2")))
    assert found["ch_sensitive_R2"] == pytest.approx(-0.818, abs=5e-4)
    assert found["col_action_R2"] == 1.0
    assert "ch_sensitive_F" not in found


def test_the_map_of_labels_to_numbers_is_obeyed(gold: Path, said: Path) -> None:
    mapped = Options(yn_metric="r2", cd_map=parsed_cd_map("yes=1,no=0,cannot_determine=0"))
    # Gold 1, 0, 0, 0 against 1, 1, 0, 0.
    assert headlines_of(scored(gold, said, options=mapped))["ch_sensitive_R2"] == pytest.approx(1 - 1 / 0.75)


def test_the_form_of_the_first_scripts(gold: Path, said: Path) -> None:
    text = first.block(scored(gold, said))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "preds"
    assert "parse rate: 4/5 = 0.800" in lines
    assert "exact match: 0/5 = 0.000" in lines
    assert "china_stance_score, answered rows: R2 0.865, MAE 0.175, RMSE 0.194, pearson 0.983, spearman 1.000" in lines
    assert "china_stance_positive 1.000 0.500 0.667 1 0 1" in lines
    assert "china_stance_negative 1.000 0.500 0.667 1 0 1" in lines
    assert "china_sensitive_yes 0.500 0.500 0.500 1 1 1" in lines
    assert "collective_action_yes 1.000 0.500 0.667 1 0 1" in lines


def test_the_second_file_is_shown_as_its_difference_to_the_first(tmp_path: Path, gold: Path, said: Path) -> None:
    perfect = said_file(tmp_path / "perfect.jsonl", GOLD)
    text = first.block(scored(gold, said, perfect))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "perfect - preds" in lines
    assert "china_sensitive_yes +0.500 +0.500 +0.500" in lines
    assert "exact match: 5/5 = 1.000" in lines


def test_languages_are_scored_each_by_itself_and_match_as_sets(tmp_path: Path) -> None:
    golds = [GOLD[0] | {"languages": ["english", "mandarin"]}, GOLD[1] | {"languages": ["spanish"]}]
    answers = [GOLD[0] | {"languages": ["mandarin", "english"]}, GOLD[1] | {"languages": ["english"]}]
    found = scored(gold_file(tmp_path / "val.jsonl", golds), said_file(tmp_path / "p.jsonl", answers))
    assert found.models[0].exact_match == 1
    lines = [" ".join(line.split()) for line in first.block(found).splitlines()]
    assert "language=english 0.500 1.000 0.667 1 1 0" in lines
    assert "language=mandarin 1.000 1.000 1.000 1 0 0" in lines
    assert "language=spanish n/a 0.000 0.000 0 0 1" in lines
    assert "language=other n/a n/a n/a 0 0 0" in lines


def test_numbers_match_exactly_within_eps(tmp_path: Path, gold: Path) -> None:
    near = said_file(
        tmp_path / "near.jsonl", [row | {"china_stance_score": float(str(row[STANDARD[0]])) + 0.01} for row in GOLD]
    )
    assert scored(gold, near).models[0].exact_match == 0
    assert scored(gold, near, options=Options(eps=0.02)).models[0].exact_match == 5


def test_the_comprehensive_codebook_has_the_names_of_the_scripts(tmp_path: Path) -> None:
    gold = gold_file(tmp_path / "val.jsonl", [COMPREHENSIVE, UNRELATED])
    found = headlines_of(scored(gold, said_file(tmp_path / "p.jsonl", [COMPREHENSIVE, UNRELATED])))
    assert list(found) == [
        "china_related_F1",
        *(
            f"{name}_f1_{label}"
            for name in ("stance_gov", "stance_culture", "stance_tech")
            for label in ("pro", "anti", "neutral", "macro")
        ),
        *(f"{name}_F1" for name in ("sensitive", "collective", "hate", "harmful", "news", "inauthentic", "derivative")),
    ]
    assert found["stance_gov_f1_pro"] == 1.0
    # Absent labels count 0 in the scripts' mean.
    assert found["stance_gov_f1_macro"] == pytest.approx(1 / 3)
    assert found["hate_F1"] == 0.0


def test_stances_are_scored_where_they_are_asked(tmp_path: Path) -> None:
    wrong = UNRELATED | {"china_ccp_government": "pro"}
    gold = gold_file(tmp_path / "val.jsonl", [COMPREHENSIVE, UNRELATED])
    found = scored(gold, said_file(tmp_path / "p.jsonl", [COMPREHENSIVE, wrong]))
    assert headlines_of(found)["stance_gov_f1_pro"] == 1.0
    assert figure(found, "china_ccp_government", ALL, "accuracy") == 1.0
    assert found.models[0].matrices["china_ccp_government"].counts[3] == (1, 0, 0, 0, 0)


def test_r2_is_never_asked_of_the_comprehensive_codebook(tmp_path: Path) -> None:
    gold = gold_file(tmp_path / "val.jsonl", [COMPREHENSIVE])
    found = scored(gold, said_file(tmp_path / "p.jsonl", [COMPREHENSIVE]), options=Options(yn_metric="r2"))
    assert "collective_F1" in headlines_of(found)
    assert any("--yn-metric r2 has no meaning for comprehensive" in note for note in notes(found))


def test_a_missing_answer_is_wrong_in_one_reading_and_left_out_of_the_other(gold: Path, said: Path) -> None:
    found = scored(gold, said)
    assert figure(found, "collective_action", ALL, "accuracy") == 0.8
    assert figure(found, "collective_action", ANSWERED, "accuracy") == 1.0
    assert figure(found, "collective_action", ALL, "coverage") == 0.8
    # The missing answer to 0.8 counts as -1.
    errors = [0.1, 0.3, 0.1, 1.8, 0.2]
    assert figure(found, "china_stance_score", ALL, "MAE") == pytest.approx(sum(errors) / 5)
    assert figure(found, "china_stance_score", ANSWERED, "MAE") == pytest.approx(0.175)


def test_what_is_not_defined_is_no_zero(tmp_path: Path) -> None:
    always = [{"china_stance_score": 0.5, "china_sensitive": "no", "collective_action": "no"}] * 3
    found = scored(gold_file(tmp_path / "val.jsonl", always), said_file(tmp_path / "p.jsonl", always))
    for measure in ("kappa", "MCC"):
        assert math.isnan(figure(found, "china_sensitive", ALL, measure))
    assert math.isnan(figure(found, "china_sensitive", ALL, "F1", "yes"))
    assert figure(found, "china_sensitive", ALL, "macro_F1") == 1.0
    assert math.isnan(figure(found, "china_stance_score", ALL, "R2"))
    # The scripts' own numbers stay as the scripts had them.
    assert headlines_of(found)["ch_sensitive_F"] == 0.0
    assert headlines_of(found)["stance_R2"] == 1.0
    told = "\n".join(notes(found))
    assert "china_sensitive: the gold is 'no' on all 3 rows" in told


def test_the_confusion_matrix_has_every_value_and_a_column_for_missing(gold: Path, said: Path) -> None:
    matrix = scored(gold, said).models[0].matrices["china_sensitive"]
    assert matrix.golds == ("yes", "no", "cannot_determine")
    assert matrix.saids == ("yes", "no", "cannot_determine", "missing")
    assert matrix.counts == ((1, 0, 0, 1), (1, 1, 0, 0), (0, 1, 0, 0))


def test_percents_are_refused_and_counted_and_never_made_smaller(tmp_path: Path, gold: Path) -> None:
    percents = [row | {"china_sensitive": 85} for row in GOLD]
    found = scored(gold, said_file(tmp_path / "p.jsonl", percents), options=Options(yn_metric="r2"))
    assert math.isnan(headlines_of(found)["ch_sensitive_R2"])
    assert found.models[0].predictions.columns["china_sensitive"].refused == {"85": 5}
    assert any("china_sensitive 85, 5 times" in note for note in notes(found))


def test_a_number_beyond_its_range_is_missing_here_and_cut_to_the_range_in_the_scripts_r2(tmp_path: Path) -> None:
    golds = [GOLD[0] | {"china_stance_score": value} for value in (1.0, -1.0, 0.0)]
    answers = [GOLD[0] | {"china_stance_score": value} for value in (7, -1.0, 0.0)]
    found = scored(gold_file(tmp_path / "val.jsonl", golds), said_file(tmp_path / "p.jsonl", answers))
    assert headlines_of(found)["stance_R2"] == 1.0
    assert figure(found, "china_stance_score", ALL, "coverage") == pytest.approx(2 / 3)
    assert figure(found, "china_stance_score", ALL, "MAE") == pytest.approx(2 / 3)


def test_scores_are_labels_from_the_threshold_on_if_one_is_told(tmp_path: Path, gold: Path) -> None:
    numbers = [row | {"china_sensitive": 0.6, "collective_action_score": 0.2} for row in GOLD]
    said = said_file(tmp_path / "p.jsonl", numbers)
    untold = scored(gold, said)
    assert figure(untold, "china_sensitive", ALL, "coverage") == 0.0
    told = scored(gold, said, options=Options(yn_thresh=0.6))
    assert figure(told, "china_sensitive", ALL, "recall", "yes") == 1.0
    assert figure(told, "collective_action", ALL, "recall", "yes") == 0.0
    above = scored(gold, said, options=Options(yn_thresh=0.61))
    assert figure(above, "china_sensitive", ALL, "recall", "yes") == 0.0


@pytest.mark.parametrize("suffix", ["score", "prob", "yes_prob", "p"])
def test_a_score_beside_the_label_counts_more_than_the_label_under_r2(tmp_path: Path, gold: Path, suffix: str) -> None:
    sure = {"yes": 1.0, "no": 0.0, "cannot_determine": 0.5}
    answers = [
        row | {"china_sensitive": "no", f"china_sensitive_{suffix}": sure[str(row["china_sensitive"])]} for row in GOLD
    ]
    found = scored(gold, said_file(tmp_path / "p.jsonl", answers), options=Options(yn_metric="r2"))
    assert headlines_of(found)["ch_sensitive_R2"] == 1.0


def test_the_same_seed_gives_the_same_intervals_and_another_does_not(gold: Path, said: Path) -> None:
    def intervals(seed: int) -> list[tuple[float, float]]:
        found = scored(gold, said, resampling=Resampling(n=200, seed=seed))
        return [(found.models[0].of(metric).low, found.models[0].of(metric).high) for metric in found.headlines]

    assert intervals(1) == intervals(1)
    assert intervals(1) != intervals(2)


def test_replicates_without_a_value_are_counted(gold: Path, said: Path) -> None:
    found = scored(gold, said, resampling=Resampling(n=500, seed=1))
    r2 = found.models[0].of(found.headlines[0])
    assert 0 < r2.dropped < 500
    assert r2.low <= r2.value <= r2.high


def test_differences_are_paired(tmp_path: Path) -> None:
    """Two models that err together differ by nothing in every replicate, however wide each interval is."""
    labels = ["yes", "no"] * 20
    golds = [GOLD[0] | {"china_sensitive": label} for label in labels]
    answers = [row | {"china_sensitive": "yes"} if at % 3 == 0 else row for at, row in enumerate(golds)]
    paths = [said_file(tmp_path / f"{name}.jsonl", answers) for name in "ab"]
    found = scored(gold_file(tmp_path / "val.jsonl", golds), *paths, resampling=Resampling(n=200, seed=1))
    metric = next(metric for metric in found.headlines if metric.name == "ch_sensitive_F")
    each, difference = found.models[1].of(metric), found.models[1].differences[metric.key, metric.slot]
    assert each.high - each.low > 0.05
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_ids_join_the_two_files_in_any_order(tmp_path: Path, gold: Path) -> None:
    lines = [answer(99 - at, row, meta_id=f"v{at}") for at, row in enumerate(GOLD)]
    assert scored(gold, write_lines(tmp_path / "p.jsonl", lines[::-1])).models[0].exact_match == 5


def test_rows_without_ids_are_joined_by_position(tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "val.jsonl", [chat(None, row) for row in GOLD])
    said = write_lines(tmp_path / "p.jsonl", [answer(at, row, meta_id=str(at)) for at, row in enumerate(GOLD)])
    assert scored(gold, said).models[0].exact_match == 5


def test_a_position_never_stands_for_another_id(tmp_path: Path, gold: Path) -> None:
    said = write_lines(tmp_path / "p.jsonl", [answer(at, row, meta_id=f"other{at}") for at, row in enumerate(GOLD)])
    with pytest.raises(InputError, match="no id in common"):
        scored(gold, said)


def test_rows_of_one_side_only_are_counted_and_named(tmp_path: Path, gold: Path) -> None:
    lines = [answer(0, GOLD[0]), answer(7, GOLD[1]), answer(8, GOLD[1])]
    found = scored(gold, write_lines(tmp_path / "p.jsonl", lines))
    told = "\n".join(notes(found))
    assert "2 records answer rows that have no gold here, the first: v7, v8" in told
    assert "4 rows with gold have no record, the first: v1, v2, v3" in told
    assert figure(found, "", ALL, "coverage") == 0.2


def test_groups_of_questions_are_scored_row_by_row(tmp_path: Path) -> None:
    groups = {"A": ["china_related", "china_ccp_government"], "B": ["hate_speech"]}
    parts = [(f"v0__group_{group}", {key: COMPREHENSIVE[key] for key in keys}) for group, keys in groups.items()]
    gold = write_lines(tmp_path / "val.jsonl", [chat(name, labels) for name, labels in parts])
    lines = [answer(at, labels, meta_id=name) for at, (name, labels) in enumerate(parts)]
    found = scored(gold, write_lines(tmp_path / "p.jsonl", lines))
    assert found.truth.codebook.name == "comprehensive"
    assert found.models[0].exact_match == 2
    assert figure(found, "hate_speech", ALL, "accuracy") == 1.0
    assert found.supports["hate_speech"]["no"] == 1


def test_parts_against_whole_gold_are_sent_to_be_merged(tmp_path: Path, gold: Path) -> None:
    lines = [answer(0, {"china_sensitive": "yes"}, meta_id="v0__group_A") | {"group_id": "A"}]
    with pytest.raises(InputError, match=r"parse --merge"):
        scored(gold, write_lines(tmp_path / "p.jsonl", lines))


@pytest.mark.parametrize(
    "options",
    [
        {"yn_metric": "auc"},
        {"yn_thresh": 1.5},
        {"stance_thresh": -0.1},
        {"eps": math.nan},
        {"min_text_len": -1},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--" + next(iter(options)).replace("_", "-")):
        Options(**options)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("text", ["", "yes", "yes=2", "yes=nan", "maybe=0.5", "yes=1;no=0"])
def test_a_map_that_maps_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--cd-map"):
        parsed_cd_map(text)


@pytest.mark.parametrize("resampling", [{"n": 0}, {"alpha": 0.0}, {"alpha": 1.0}, {"seed": -1}])
def test_intervals_that_mean_nothing_are_refused(resampling: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--ci-"):
        Resampling(**resampling)  # type: ignore[arg-type]  # wrong on purpose
