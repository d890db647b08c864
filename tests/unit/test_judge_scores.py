"""Scores are read where a judge was told to put them, and never guessed."""

from __future__ import annotations

import pytest

from labels.judge.scores import read_scores


@pytest.mark.parametrize(
    "text",
    [
        "8 9",
        "8, 9",
        "8,9",
        "8; 9",
        "8 | 9",
        "8 and 9",
        "8 9.",
        "  8\t9  \nThe first ...",
        "\n\n8 9\n\nThe first ...",
        "8 9\n10 reasons why",
        "Scores: 8 9",
        "**Scores:** 8, 9",
        "Score: (8, 9)",
        "Here are the final scores: 8 9",
        "Scores:\n8 9\nReasons",
        "(8, 9)",
        "[8, 9]",
        "**8 9**",
        "`8 9`",
        "## 8 9",
        "> 8 9",
        "8/10 9/10",
        "8/10, 9/10",
        "8 / 10 and 9 / 10",
        "8 out of 10, 9 out of 10",
        "8\n9\n\nThe first ...",
        "Assistant 1: 8\nAssistant 2: 9",
        "Assistant 2: 9\n\nAssistant 1: 8\nThe first ...",
        "Assistant 1: 8, Assistant 2: 9",
        "- **Assistant 1**: 8/10\n- **Assistant 2**: 9/10",
        "1. Assistant 1: 8\n2. Assistant 2: 9",
        "[Assistant 1] 8\n[Assistant 2] 9",
        "Assistant 1's score: 8; Assistant 2's score: 9",
        "Score for Assistant 1: 8.\nScore for Assistant 2: 9.",
        "Answer A: 8\nAnswer B: 9",
        "Model 1 - 8\nModel 2 - 9",
        '{"scores": [8, 9]}',
        '{"assistant_1": 8, "assistant_2": 9, "reason": "x } {"}',
        '{"Assistant 1": "8/10", "Assistant 2": "9"}',
        '{"scores": {"assistant_1": 8, "assistant_2": 9}}',
        '```json\n{"assistant_1": {"score": 8}, "assistant_2": {"score": 9}}\n```',
        'I think so.\n{"score_1": 8, "score_2": 9}',
        '8 9\n{"scores": [8, 9]}',
        '8/9 of it is right.\n{"scores": [8, 9]}',
        "<think>\n1 1, or 2 2?\n</think>\n\n8 9",
    ],
)
def test_every_way_of_writing_two_scores_is_read(text: str) -> None:
    assert read_scores(text).pair == (8.0, 9.0)
    assert read_scores(text).why_not is None


@pytest.mark.parametrize(
    ("text", "why_not"),
    [
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("8 9" + " " * (300 << 10), "too_long"),
        ("Both answers are good.", "no_scores"),
        ("The first scores 8 and the second 9.", "no_scores"),
        ("Assistant 1: 8 reasons to like it", "no_scores"),
        ("nan 5", "no_scores"),
        ("1e1 9", "no_scores"),
        ("8-9", "no_scores"),
        ("\uff18 \uff19", "no_scores"),
        ("<think>8 9", "no_scores"),
        ('{"a": 8, "b": 9}', "no_scores"),
        ('{"assistant_1": true, "assistant_2": 9}', "no_scores"),
        ("8", "one_score"),
        ("8\n\nThe first ...", "one_score"),
        ("Assistant 1: 8\nIt is good.\nAssistant 2: 9", "one_score"),
        ("8 9 10", "too_many"),
        ("8\n9\n10", "too_many"),
        ("1 8\n2 9", "too_many"),
        ("8 9\n10", "too_many"),
        ("1. 8\n2. 9", "no_scores"),
        ("1) 8\n2) 9", "no_scores"),
        ("8*9", "no_scores"),
        ("8**9", "no_scores"),
        ("8. 9.", "no_scores"),
        ("8.5.2 9", "no_scores"),
        ("8,5 7,5", "too_many"),
        ("8/9", "other_scale"),
        ("4/5 3/5", "other_scale"),
        ("80/100 90/100", "other_scale"),
        ("0 5", "out_of_range"),
        ("11 2", "out_of_range"),
        ("-1 -1", "out_of_range"),
        ("85 90", "out_of_range"),
        ('{"scores": [0, 9]}', "out_of_range"),
        ('8 9\n{"scores": [7, 9]}', "conflict"),
        ('0 9\n{"scores": [7, 9]}', "conflict"),
        ('8 9 7\n{"scores": [8, 9]}', "too_many"),
        ('7/9\n{"scores": [8, 9]}', "other_scale"),
        ('{"scores": [8, 9]} {"scores": [7, 9]}', "conflict"),
        ('{"score_1": 8, "score_1": 9, "score_2": 3}', "conflict"),
        ("Assistant 1: 8\nAssistant 1: 9", "conflict"),
    ],
)
def test_what_is_not_two_scores_has_a_reason_instead(text: str, why_not: str) -> None:
    found = read_scores(text)
    assert found.pair is None
    assert found.why_not == why_not


def test_answers_may_be_called_anything() -> None:
    assert read_scores("Robot 1: 8\nRobot 2: 9", role="Robot").pair == (8.0, 9.0)
    assert read_scores("Robot 1: 8\nRobot 2: 9").pair is None
    assert read_scores('{"robot (x) 1": 8, "robot (x) 2": 9}', role="Robot (x)").pair == (8.0, 9.0)


def test_a_wall_of_braces_ends() -> None:
    assert read_scores("{" * 100_000).why_not == "no_scores"
