"""What is judged: files joined by id, rules by category, and the text that a judge reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ConfigError, InputError
from labels.judge.answers import write_answers
from labels.judge.inputs import Files, Joined, chunk, joined
from labels.judge.plan import STRAIGHT, SWAPPED, Plan, Sampling, Shown
from labels.judge.prompt import SYSTEM_LINE, Rule, messages, user_text
from labels.judge.rules import SHIPPED, load_rules
from tests.fakes.judged import read_lines, write_lines
from tests.fakes.judging import asks_of, pair, question

NAMES = ("gpt", "bard")
Line = dict[str, object]


def files(
    tmp_path: Path, questions: list[Line], first: list[Line], second: list[Line], context: list[Line] | None = None
) -> Files:
    return Files(
        questions=write_lines(tmp_path / "q.jsonl", questions),
        responses=(write_lines(tmp_path / "a.jsonl", first), write_lines(tmp_path / "b.jsonl", second)),
        context=None if context is None else write_lines(tmp_path / "c.jsonl", context),
    )


def asked(*ids: object, **more: object) -> list[Line]:
    return [{"question_id": identity, "text": f"Q{identity}?", "category": "conv"} | more for identity in ids]


def said(*ids: object) -> list[Line]:
    return [{"question_id": identity, "text": f"A{identity}"} for identity in ids]


def join(found: Files, *, context_needed: bool = True) -> Joined:
    return joined(found, names=NAMES, context_needed=context_needed)


def told(found: Joined) -> list[str]:
    return [left_out.text() for left_out in found.left_out]


def test_answers_meet_their_questions_by_id_whatever_the_order_of_lines(tmp_path: Path) -> None:
    found = join(files(tmp_path, asked(3, 1, 2), said(1, 2, 3), said(2, 3, 1)))
    assert [pair.question.id for pair in found.pairs] == ["3", "1", "2"]
    assert all(answer.text == f"A{pair.question.id}" for pair in found.pairs for answer in pair.answers)
    assert found.left_out == ()


def test_what_has_no_counterpart_is_left_out_and_told(tmp_path: Path) -> None:
    found = join(files(tmp_path, asked(*range(9)), said(*range(8)), said(0, 1, "x")))
    assert [pair.question.id for pair in found.pairs] == ["0", "1"]
    assert told(found) == [
        "1 questions have no answer of gpt (8)",
        "7 questions have no answer of bard (2, 3, 4, 5, 6, ...)",
        "1 answers of bard belong to no question (x)",
    ]


def test_ids_of_any_kind_are_compared_as_text(tmp_path: Path) -> None:
    big = 7_531_309_745_475_554_591
    found = join(files(tmp_path, asked(1, str(big), "v-7"), said("1", big, "v-7"), said(1.0, str(big), "v-7")))
    assert [pair.question.id for pair in found.pairs] == ["1", str(big), "v-7"]
    assert found.pairs[0].question.said_id == 1


@pytest.mark.parametrize("identity", [7.53e18, True, [1], 1.5])
def test_an_id_that_may_have_lost_digits_is_refused(tmp_path: Path, identity: object) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl line 1: question_id .* is no id"):
        join(files(tmp_path, asked(1), said(identity), said(1)))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"response_id": 0, "response": "R"}, "R"),
        ({"question_id": 0, "prompt": "P", "text": "R", "answer_id": "x", "model_id": "m", "metadata": {}}, "R"),
        ({"question_id": 0, "text": "the question", "pred_answer": "R", "category": "conv"}, "R"),
    ],
)
def test_every_form_of_answer_is_read_and_the_question_never_taken_for_one(
    tmp_path: Path, line: Line, text: str
) -> None:
    found = join(files(tmp_path, asked(0), [line], said(0)))
    assert found.pairs[0].answers[0].text == text


def test_one_list_of_objects_is_read_like_lines(tmp_path: Path) -> None:
    found = files(tmp_path, asked(1), said(1), [])
    found.responses[1].write_text(json.dumps(said(1, 2), indent=1))
    assert told(join(found)) == ["1 answers of bard belong to no question (2)"]


def test_an_answer_that_never_came_is_none(tmp_path: Path) -> None:
    failed: Line = {"question_id": 1, "text": "the question", "pred_answer": None}
    found = join(files(tmp_path, asked(0, 1), [*said(0), failed], said(0, 1)))
    assert told(found) == ["1 questions have no answer of gpt (1)"]


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    found = join(files(tmp_path, asked(0), [{"question_id": 0, "text": ""}], said(0)))
    assert found.pairs[0].answers[0].text == ""


def test_a_line_that_repeats_another_counts_once_and_one_that_contradicts_it_is_refused(tmp_path: Path) -> None:
    assert told(join(files(tmp_path, asked(0), said(0, 0), said(0)))) == [
        f"1 lines of {tmp_path / 'a.jsonl'} repeat another to the letter and count once (0)"
    ]
    with pytest.raises(InputError, match=r"b\.jsonl lines 1 and 3 both have the id 0"):
        join(files(tmp_path, asked(0), said(0), [*said(0, 1), {"question_id": 0, "text": "other"}]))
    with pytest.raises(InputError, match=r"q\.jsonl lines 1 and 2 both have the id 0"):
        join(files(tmp_path, [*asked(0), *asked(0, category="detail")], said(0), said(0)))


def test_a_context_is_found_by_question_by_video_and_by_image(tmp_path: Path) -> None:
    questions = [
        *asked(0, image="a.jpg"),
        *asked(1, image="a.jpg"),
        *asked(2, video="v.mp4"),
        *asked(3, image="b.jpg"),
    ]
    context: list[Line] = [
        {"image": "a.jpg", "caption": ["one", "two"]},
        {"question_id": 1, "image": "a.jpg", "caption": "of the question"},
        {"video": "v.mp4", "caption": "of the video"},
    ]
    found = join(files(tmp_path, questions, said(0, 1, 2, 3), said(0, 1, 2, 3), context))
    assert [pair.context for pair in found.pairs] == ["one\ntwo", "of the question", "of the video"]
    assert told(found) == ["1 questions are not in the context file (3)"]


def test_a_judge_that_sees_needs_no_context(tmp_path: Path) -> None:
    questions = asked(0, image="b.jpg")
    found = join(files(tmp_path, questions, said(0), said(0), [{"image": "a", "caption": "x"}]), context_needed=False)
    assert [pair.context for pair in found.pairs] == [None]


def test_contexts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    context: list[Line] = [{"image": "a", "caption": "x"}, {"image": "a", "caption": "y"}]
    with pytest.raises(InputError, match="lines 1 and 2 both are about image a"):
        join(files(tmp_path, asked(0, image="a"), said(0), said(0), context))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "holds no record|int where an object should be"),
        ("1", "int where an object should be"),
        ("{", "line 1: no JSON"),
        ('{"text": "x"}', "there is no id"),
        ('{"question_id": 1}', "an answer needs its text under pred_answer, response, text"),
        ('{"question_id": 1, "text": 3}', "text must be text, not int"),
        ("", "holds no record"),
    ],
)
def test_a_wrong_file_of_answers_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    found = files(tmp_path, asked(0), said(0), said(0))
    found.responses[0].write_text(line)
    with pytest.raises(InputError, match=words):
        join(found)


def test_a_missing_file_is_named_with_its_flag(tmp_path: Path) -> None:
    found = files(tmp_path, asked(0), said(0), said(0))
    found.questions.unlink()
    with pytest.raises(ConfigError, match=r"--question-file .*q\.jsonl: No such file"):
        join(found)


def test_chunks_part_the_same_pairs(tmp_path: Path) -> None:
    pairs = join(files(tmp_path, asked(*range(10)), said(*range(10)), said(*reversed(range(10))))).pairs
    parts = [list(chunk(pairs, chunks=4, index=index)) for index in range(4)]
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [pair for part in parts for pair in part] == list(pairs)


def test_what_a_judge_reads_is_laid_out_to_the_letter() -> None:
    rule = Rule(category="conv", role="Assistant", prompt="Rate them.\nScores first.")
    text = user_text(question="What is it?", answers=("A cat.", "A dog.\n"), rule=rule, context="One.\nTwo.")
    assert text == (
        "[Context]\nOne.\nTwo.\n\n"
        "[Question]\nWhat is it?\n\n"
        "[Assistant 1]\nA cat.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nA dog.\n\n\n[End of Assistant 2]\n\n"
        "[System]\nRate them.\nScores first.\n\n"
    )
    without = user_text(question="What?", answers=("a", "b"), rule=rule, context=None)
    assert without.startswith("[Question]\nWhat?\n\n[Assistant 1]\na\n\n")
    empty = user_text(question="What?", answers=("a", "b"), rule=rule, context="")
    assert empty.startswith("[Context]\n\n\n[Question]\n")


def test_pictures_stand_before_the_text() -> None:
    assert messages("text") == [
        {"role": "system", "content": SYSTEM_LINE},
        {"role": "user", "content": "text"},
    ]
    content = messages("text", ["frames:1/frame_0.jpg"])[1]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": "frames:1/frame_0.jpg"}},
        {"type": "text", "text": "text"},
    ]


def test_the_rule_for_the_bench_goes_before_the_plain_one_and_the_default_last(tmp_path: Path) -> None:
    rules = load_rules()
    assert rules.rule_for(question(category="conv")).category == "llava_bench_conv"
    assert rules.rule_for(question(category="llava_bench_detail")).category == "llava_bench_detail"
    assert rules.rule_for(question(category="math")).category == "math"
    other = rules.rule_for(question(category="temporal"))
    assert (other.category, other.prompt) == ("temporal", rules.by_category["default"][1])
    assert rules.rule_for(question(category=None)).category == "default"
    path = tmp_path / "rule.json"
    path.write_text('{"conv": {"role": "Assistant", "prompt": "p"}}')
    own = load_rules(path)
    assert own.rule_for(question(category="conv")).category == "conv"
    with pytest.raises(InputError, match=r"category temporal has no rule .* llava_bench_temporal or temporal"):
        own.rule_for(question(category="temporal"))


def test_the_shipped_rules_have_every_category_of_the_old_file_and_ask_for_scores_first() -> None:
    said = json.loads(SHIPPED.read_text())
    assert list(said) == [
        *("coding", "math", "default", "conv", "detail", "complex"),
        *("llava_bench_conv", "llava_bench_detail", "llava_bench_complex"),
    ]
    for rule in said.values():
        assert set(rule) == {"role", "prompt"}
        assert rule["role"] == "Assistant"
        assert "from 1 to 10" in rule["prompt"]
        assert "first line" in rule["prompt"]


@pytest.mark.parametrize("text", ["[]", "{}", '{"conv": "x"}', '{"conv": {"role": "r"}}', "no"])
def test_a_wrong_rule_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(text)
    with pytest.raises(InputError, match="--rule-file"):
        load_rules(path)


def test_every_review_has_a_number_and_a_name_of_its_own() -> None:
    asks = asks_of(
        [pair("0"), pair("a/b")], judges=("j", "k"), orders=(STRAIGHT, SWAPPED), sampling=Sampling(samples=3)
    )
    assert [ask.number for ask in asks] == list(range(1, 25))
    assert len({(ask.judge_model, ask.name) for ask in asks}) == 24
    assert len({ask.name for ask in asks}) == 24, "names alone tell judges apart, by the digest"
    assert asks[-1].name.startswith("qa%2Fb/ba/2@")


def test_the_second_order_shows_the_second_answer_first() -> None:
    straight, swapped = asks_of([pair("0", "A cat.", "A dog.")], orders=(STRAIGHT, SWAPPED))
    assert "[Assistant 1]\nA cat." in straight.text
    assert "[Assistant 1]\nA dog." in swapped.text


def test_whatever_decides_a_review_changes_its_digest() -> None:
    plain = asks_of([pair()])[0].digest
    others = [
        asks_of([pair(first="A lion.")])[0],
        asks_of([pair(context=None)])[0],
        asks_of([pair()], judges=("k",))[0],
        asks_of([pair()], sampling=Sampling(temperature=0.3))[0],
        asks_of([pair()], sampling=Sampling(top_p=None))[0],
        asks_of([pair()], sampling=Sampling(seed=43))[0],
    ]
    plan = Plan(
        rules=load_rules(),
        judges=("j",),
        orders=(STRAIGHT,),
        sampling=Sampling(),
        shown={"0": Shown(addresses=("frames:1/frame_0.jpg",), digest="x")},
    )
    others += plan.asks([pair()])
    assert len({plain, *(ask.digest for ask in others)}) == 1 + len(others)
    assert asks_of([pair()])[0].digest == plain


def test_answer_files_have_the_old_form_and_never_take_each_others_names(tmp_path: Path) -> None:
    found = files(tmp_path, asked(0, 1), said(0, 1), said(1, 0))
    other = write_lines(tmp_path / "other" / "a.jsonl", said(0, 1))
    out = tmp_path / "answers"
    pairs = join(found).pairs
    first, second = write_answers(out, pairs, sources=(found.responses[0], other), names=NAMES)
    assert (first.name, second.name) == ("a_answer.jsonl", "a_answer_2.jsonl")
    line = read_lines(first)[0]
    assert list(line) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert line | {"answer_id": ""} == {
        "question_id": 0,
        "prompt": "Q0?",
        "text": "A0",
        "answer_id": "",
        "model_id": "gpt",
        "metadata": {},
    }
    again = write_answers(out, pairs, sources=(found.responses[0], other), names=NAMES)
    assert again == (first, second)
    listed = json.loads((out / "answers.json").read_text())
    assert listed["a_answer_2.jsonl"] == {"responses": str(other), "model": "bard", "answers": 2}


def test_an_answer_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    found = files(tmp_path, asked(0), said(0), said(0))
    out = tmp_path / "answers"
    theirs = write_lines(out / "a_answer.jsonl", [{"question_id": "theirs"}])
    first, _ = write_answers(out, join(found).pairs, sources=found.responses, names=NAMES)
    assert first.name == "a_answer_2.jsonl"
    assert read_lines(theirs) == [{"question_id": "theirs"}]


def test_one_source_for_both_models_makes_two_files(tmp_path: Path) -> None:
    found = files(tmp_path, asked(0), said(0), said(0))
    path = found.responses[0]
    first, second = write_answers(tmp_path / "o", join(found).pairs, sources=(path, path), names=("x", "y"))
    assert first != second
