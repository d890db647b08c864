"""Two models compared as a user does it, by judges that know the truth: the shape of LLaVA-Bench, and every fault."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clips import plain
from tests.fakes.commands import cli, environment, finished, simulated, start_cli
from tests.fakes.judge_server import Judge, JudgeServer
from tests.fakes.judged import QUESTIONS, Bench, bench, read_lines, with_pictures, write_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def first_worth(n: int) -> float:
    return 8 + n % 3 / 2


def second_worth(n: int) -> float:
    return 7 + n % 4 / 2


FIRST = sum(map(first_worth, range(QUESTIONS))) / QUESTIONS
SECOND = sum(map(second_worth, range(QUESTIONS))) / QUESTIONS


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path, first=first_worth, second=second_worth)


def by(server: JudgeServer, *more: object, judge: str = "j") -> tuple[object, ...]:
    return ("--base-url", server.url, "--judge-model", judge, "--base-sleep", 0.01, *more)


def report_of(made: Bench) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((made.folder / "report.json").read_text())
    return said


def wait_until(fact: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def test_the_command_line_of_the_old_script_gives_its_table(made: Bench) -> None:
    with JudgeServer() as server:
        said = cli(
            *("judge", *made.flags("--max-tokens", 1024, "--num-chunks", 1, "--chunk-idx", 0)),
            *("--base-url", server.url),
            env=environment(API_TOKEN="nvapi-secret"),
        )
        assert said.code == 0, said.err
        assert server.keys == {"Bearer nvapi-secret"}
        assert len(server.asked) == QUESTIONS
        body = server.asked[0].body
    table = said.out.splitlines()[:5]
    assert table[0] == f"all {10 * FIRST:.1f} {10 * SECOND:.1f}"
    assert [line.split()[0] for line in table[1:4]] == [
        *("llava_bench_complex", "llava_bench_conv", "llava_bench_detail"),
    ]
    assert table[4] == "=" * 33
    assert body | {"messages": []} == {
        "messages": [],
        "model": "mistralai/mixtral-8x7b-instruct-v0.1",
        "stream": False,
        "temperature": 0.2,
        "top_p": 0.7,
        "seed": 42,
        "max_tokens": 1024,
    }
    reviews = made.reviews()
    assert [review["id"] for review in reviews] == list(range(1, QUESTIONS + 1))
    assert [review["question_id"] for review in reviews] == list(range(QUESTIONS))
    for n, review in enumerate(reviews):
        assert review["tuple"] == [first_worth(n), second_worth(n)], "each answer met its own question"
        assert review["answer1_id"] == f"gpt-{n}"
    answers = read_lines(made.folder / "answers" / "bard_0718_answer.jsonl")
    assert answers[3]["text"] == f"Reply 3, worth {second_worth(3)}."
    assert "nvapi-secret" not in "".join(
        path.read_text(errors="replace") for path in made.folder.rglob("*") if path.is_file()
    )


def test_the_judge_reads_context_question_and_both_answers(made: Bench) -> None:
    with JudgeServer() as server:
        assert cli("judge", *made.flags(*by(server))).code == 0
        text = next(asked.text for asked in server.asked if "Question 30?" in asked.text)
    start = (
        "[Context]\nPicture 6.\nIt is sharp.\n\n[Question]\nQuestion 30?\n\n"
        "[Assistant 1]\nAnswer 30, worth 8.0.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nReply 30, worth 8.0.\n\n[End of Assistant 2]\n\n[System]\n"
    )
    assert text.startswith(start)


def test_a_planted_difference_and_a_planted_position_bias_are_recovered(made: Bench) -> None:
    with JudgeServer(Judge(first_bonus=0.5)) as server:
        said = cli("judge", *made.flags(*by(server, "--swap", "--report", made.folder / "report.json")))
        assert said.code == 0, said.err
        assert len(server.asked) == 2 * QUESTIONS
    whole = report_of(made)["blocks"][0]
    assert whole["difference"] == pytest.approx(FIRST - SECOND)
    low, high = whole["difference_interval"]
    assert low < FIRST - SECOND < high
    assert whole["position"]["first_minus_second"] == pytest.approx(0.5)
    assert whole["mean_1"] == pytest.approx(FIRST + 0.25)
    assert (whole["wins_1"], whole["ties"], whole["wins_2"]) == (45, 10, 5)
    assert "standing first is worth +5.0" in said.out


def test_without_swapping_the_same_bias_would_have_passed_for_quality(made: Bench) -> None:
    with JudgeServer(Judge(first_bonus=0.5)) as server:
        assert cli("judge", *made.flags(*by(server, "--report", made.folder / "report.json"))).code == 0
    assert report_of(made)["blocks"][0]["difference"] == pytest.approx(FIRST - SECOND + 0.5)


def faulty() -> Judge:
    """A fifth of all calls ends with a 500, a few reviews with a 400 or without scores, each but once."""
    return Judge(
        fails=lambda asked: asked.times == 0 and asked.chance("fails") < 0.1,
        stumbles=lambda asked: asked.chance("stumbles") < 0.2,
        mumbles=lambda asked: asked.seed == 42 and asked.chance("mumbles") < 0.2,
    )


def test_whatever_a_judge_left_out_is_told_and_a_second_run_fills_it(made: Bench) -> None:
    report = ("--report", made.folder / "report.json")
    with JudgeServer(faulty()) as server:
        said = cli("judge", *made.flags(*by(server, "--swap", *report)))
        assert said.code == 1, said.err
        reviews = made.reviews()
        status = Counter(review["status"] for review in reviews)
        assert status["error"] >= 4
        assert status["no_scores"] >= 4
        assert len(reviews) == status.total() == 2 * QUESTIONS
        assert all((review["tuple"] is None) == (review["status"] != "ok") for review in reviews)
        first = report_of(made)
        assert sum(first["reviews"]["failed"].values()) == status["error"]
        assert first["reviews"]["without_scores"] == {"no_scores": status["no_scores"]}
        assert f"{status['error']} reviews failed: {status['error']} refused" in said.out
        assert f"{status['no_scores']} reviews have no scores" in said.out
        counted = first["blocks"][0]["counted"]
        assert counted == QUESTIONS - len(first["reviews"]["questions_not_counted"])
        assert "--resume" in said.err

        server.asked.clear()
        server.judge = Judge()
        again = cli("judge", *made.flags(*by(server, "--swap", *report, "--resume")))
        assert again.code == 0, again.err
        assert len(server.asked) == status["error"] + status["no_scores"], "what was answered is not paid for twice"
        assert {asked.seed for asked in server.asked} == {42, 1042}, "another seed, where the first brought no scores"
    assert report_of(made)["blocks"][0]["mean_1"] == pytest.approx(FIRST)
    assert all(review["status"] == "ok" for review in made.reviews())


def test_missing_and_repeated_answers_are_left_out_and_told(made: Bench) -> None:
    second = read_lines(made.second)
    write_lines(made.second, [line for line in second if line["response_id"] not in {3, 4, 59}] + second[:2])
    with JudgeServer() as server:
        said = cli("judge", *made.flags(*by(server)))
        assert said.code == 0, said.err
        assert "2 questions have no answer of bard (3, 4)" in said.out
        assert f"1 lines of {made.second} repeat another to the letter and count once (58)" in said.out
        assert len(server.asked) == QUESTIONS - 3 + 1


def test_answers_that_contradict_each_other_end_it_before_any_call(made: Bench) -> None:
    second = read_lines(made.second)
    write_lines(made.second, [*second, second[0] | {"response": "something else"}])
    with JudgeServer() as server:
        said = cli("judge", *made.flags(*by(server)))
        assert server.asked == []
    assert said.code == 65
    assert "lines 1 and 61 both have the id 59" in said.err
    assert not made.output.exists()


def test_a_category_without_a_rule_ends_it_before_any_call(made: Bench) -> None:
    rules = made.folder / "rule.json"
    rules.write_text(json.dumps({"conv": {"role": "Assistant", "prompt": "Rate."}}))
    with JudgeServer() as server:
        said = cli("judge", *made.flags(*by(server, "--rule-file", rules)))
        assert server.asked == []
    assert said.code == 65
    assert "category complex has no rule" in said.err


def test_a_changed_answer_is_judged_again_and_nothing_else(made: Bench) -> None:
    with JudgeServer() as server:
        assert cli("judge", *made.flags(*by(server))).code == 0
        first = read_lines(made.first)
        write_lines(made.first, [first[0] | {"text": "Better, worth 9.75."}, *first[1:]])
        server.asked.clear()
        assert cli("judge", *made.flags(*by(server, "--resume"))).code == 0
        assert [Judge.answers(asked.text)[0] for asked in server.asked] == ["Better, worth 9.75."]
    assert made.reviews()[0]["tuple"] == [9.75, 7.0]


def test_reviews_that_are_there_are_not_begun_over(made: Bench) -> None:
    with JudgeServer() as server:
        assert cli("judge", *made.flags(*by(server))).code == 0
        before = made.output.read_bytes()
        said = cli("judge", *made.flags(*by(server)))
        assert len(server.asked) == QUESTIONS
    assert said.code == 73
    assert "--resume goes on with it" in said.err
    assert made.output.read_bytes() == before


def answered(made: Bench) -> int:
    """Reviews that the calls behind the output are known to hold."""
    found = 0
    for log in (made.folder / "output.json.run").glob("*/calls/checkpoint/commit.log"):
        records = log.read_bytes().splitlines()
        found += json.loads(records[-1].rpartition(b" ")[0])["done"] if records else 0
    return found


def slow_after(count: int) -> Judge:
    """Keeps everybody waiting once it has judged so many."""
    left = iter(range(count))
    return Judge(holds=lambda _: next(left, None) is None)


def test_a_killed_run_goes_on_without_paying_again_for_what_was_answered(made: Bench) -> None:
    with JudgeServer(slow_after(20)) as server:
        process = start_cli("judge", *made.flags(*by(server, "--concurrency", 4)))
        wait_until(lambda: answered(made) == 20)
        process.kill()
        finished(process)
        assert not made.output.exists()
        asked = {asked.text for asked in server.asked[:20]}
        server.asked.clear()
        server.judge = Judge()
        said = cli("judge", *made.flags(*by(server, "--resume")))
        assert said.code == 0, said.err
        assert not asked & {again.text for again in server.asked}
        assert len(server.asked) == QUESTIONS - 20
    assert [review["id"] for review in made.reviews()] == list(range(1, QUESTIONS + 1))


def test_a_signal_keeps_what_came_shows_it_and_says_how_to_go_on(made: Bench) -> None:
    with JudgeServer(slow_after(20)) as server:
        process = start_cli("judge", *made.flags(*by(server, "--concurrency", 4, "--drain-seconds", 0.5)))
        wait_until(lambda: answered(made) == 20)
        os.kill(process.pid, signal.SIGTERM)
        said = finished(process)
    assert said.code == 75, said.err
    assert "SIGTERM" in said.err
    assert "--resume" in said.err
    assert sum(review["status"] == "ok" for review in made.reviews()) == 20
    assert "reviews have not been asked for yet" in said.out


def test_judges_that_see_are_shown_the_picture_and_need_no_context(made: Bench) -> None:
    folder = with_pictures(made)
    (folder / "003.jpg").unlink()
    (folder / "clip.mp4").write_bytes(plain())
    questions = read_lines(made.questions)
    questions[0] = {key: value for key, value in questions[0].items() if key != "image"} | {"video": "clip.mp4"}
    write_lines(made.questions, questions)
    page = made.folder / "report.html"
    media = ("--with-media", "--media-base-path", folder, "--num-frames", 4, "--report", page)
    with JudgeServer() as server:
        said = cli("judge", *made.flags(*by(server, *media)))
        assert said.code == 0, said.err
        images = {asked.text: asked.images for asked in server.asked}
        again = cli("judge", *made.flags(*by(server, *media, "--resume")))
        assert again.code == 0
        assert len(server.asked) == QUESTIONS
        parts = server.asked[0].body["messages"][1]["content"]
    shown = {int(text.partition("Question ")[2].partition("?")[0]): count for text, count in images.items()}
    assert shown[0] == 4
    assert (shown[3], shown[27], shown[51]) == (0, 0, 0)
    assert {count for n, count in shown.items() if n not in {0, 3, 27, 51}} == {1}
    assert parts[0]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert "3 questions were judged without their picture or video (3, 27, 51): there is no 003.jpg" in said.out
    assert page.read_text().count("<img ") == QUESTIONS - 3


def test_several_judges_and_samples_are_told_apart_and_their_agreement_shown(made: Bench) -> None:
    harsh = replace(Judge(), mumbles=lambda asked: asked.model == "k" and "Question 7?" in asked.text)
    several = (*("--judge-model", "k", "--samples", 2, "--temperature", 1), "--report", made.folder / "report.json")
    with JudgeServer(harsh) as server:
        said = cli("judge", *made.flags(*by(server, *several)))
        assert said.code == 1, said.err
        assert Counter((asked.model, asked.seed) for asked in server.asked) == {
            ("j", 42): QUESTIONS,
            ("j", 43): QUESTIONS,
            ("k", 42): QUESTIONS,
            ("k", 43): QUESTIONS,
        }
    whole = report_of(made)["blocks"][0]
    assert whole["counted"] == QUESTIONS - 1
    assert whole["agreement"]["krippendorff_alpha"] == 1.0
    assert whole["agreement"]["judges"][0]["same_verdict"] == 1.0
    assert whole["steady"] == 1.0
    assert "all: j and k: same verdict in 100% of 59 questions" in said.out


def test_chunks_join_to_the_whole(made: Bench) -> None:
    with JudgeServer() as server:
        for index in range(2):
            output = made.folder / f"part{index}.json"
            flags = [output if word == made.output else word for word in made.flags(*by(server))]
            assert cli("judge", *flags, "--num-chunks", 2, "--chunk-idx", index).code == 0
        assert len({asked.text for asked in server.asked}) == len(server.asked) == QUESTIONS
    parts = [read_lines(made.folder / f"part{index}.json") for index in range(2)]
    whole = write_lines(made.folder / "all.json", [line for part in parts for line in part])
    assert [line["id"] for line in read_lines(whole)] == list(range(1, QUESTIONS + 1))
    said = cli("judge", "--table-only", "--output", whole, "--model-name-list", "gpt", "bard")
    assert said.out.startswith(f"all {10 * FIRST:.1f} {10 * SECOND:.1f}\n")


def test_the_table_of_an_old_file_needs_nothing_else_and_changes_nothing(tmp_path: Path) -> None:
    old = {"answer1_id": "x", "answer2_id": "y", "category": "llava_bench_conv", "content": ""}
    lines = [old | {"id": n + 1, "question_id": n, "tuple": said} for n, said in enumerate([[8.0, 6.0], [-1, -1]])]
    output = write_lines(tmp_path / "output.json", lines)
    before = output.read_bytes()
    said = cli("judge", "--table-only", "--output", output)
    assert said.code == 0
    assert said.out.startswith(f"all 80.0 60.0\nllava_bench_conv 80.0 60.0\n{'=' * 33}\n")
    assert "1 reviews have no scores: 1 failed_before" in said.out
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]


def test_what_all_calls_cost_has_one_ceiling_over_all_lives(made: Bench) -> None:
    prices = ("--price-in", 1000, "--price-out", 1000, "--max-tokens", 20, "--concurrency", 1)
    with JudgeServer() as server:
        said = cli("judge", *made.flags(*by(server, *prices, "--max-cost", 2.0)))
        assert said.code == 75, said.err
        done = len(server.asked)
        assert 0 < done < 20, "a call costs ten cents"
        assert "reviews have not been asked for yet" in said.out
        assert cli("judge", *made.flags(*by(server, *prices, "--max-cost", 2.0, "--resume"))).code == 75
        assert len(server.asked) * 0.103 <= 2.0


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda made: ("--output", made.output), 64, "--question-file is missing"),
        (lambda made: ("--question-file", made.questions), 64, "--responses-list is missing"),
        (lambda made: made.flags("--report", "x.csv"), 64, "--report x.csv: the name must end in"),
        (lambda made: made.flags("--judge-model", "j", "--endpoint", "https://a/v1,model=k"), 64, "serves j"),
        (lambda made: made.flags("--context-file", made.folder / "none"), 64, "--context-file"),
        (lambda made: made.flags(), 64, "no API key: set API_TOKEN"),
        (lambda made: ("--table-only", "--output", made.output), 64, "--output"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_leaves_nothing(
    made: Bench, change: Callable[[Bench], tuple[object, ...]], code: int, words: str
) -> None:
    said = cli("judge", *change(made), env=environment(API_TOKEN=""))
    assert said.code == code, said.err
    assert words in said.err
    assert "Traceback" not in said.err
    assert not made.output.exists()


def test_judging_goes_through_the_simulated_provider_and_its_troubles(made: Bench, tmp_path: Path) -> None:
    score = {"type": "integer", "minimum": 1, "maximum": 10}
    schema = {
        "type": "object",
        "properties": {"assistant_1": score, "assistant_2": score},
        "additionalProperties": False,
    }
    schema["required"] = ["assistant_1", "assistant_2"]
    troubles = [{"kind": "status", "status": 500, "share": 0.2}, {"kind": "reset", "share": 0.05}]
    with simulated(tmp_path, {"answer_schema": schema, "faults": troubles}) as provider:
        more = ("--base-url", provider.url, "--judge-model", "simulated/judge", "--base-sleep", 0.01, "--swap")
        said = cli("judge", *made.flags(*more))
        assert said.code == 0, said.err
    assert all(1 <= score <= 10 for review in made.reviews() for score in review["tuple"])
