"""What is known is kept, what is not is asked, and nothing is paid for twice; by an asker that makes no call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import BudgetSpent, ConfigError, FolderInUse, SinkBroken
from labels.judge.calls import Ended, endpoints_of, model_of
from labels.judge.comparison import Comparison, check
from labels.judge.plan import STRAIGHT, SWAPPED, Ask, Sampling
from labels.judge.reviews import Heard, read_reviews, review_of
from labels.judge.work import Outcome, check_output, judge, run_folder, wanted_from
from tests.fakes.judged import read_lines, write_lines
from tests.fakes.judging import FakeAsker, asks_of, pair

PAIRS = [pair(str(n)) for n in range(4)]
BOTH = (STRAIGHT, SWAPPED)


def fine(_: Ask) -> Heard:
    return Heard(text="8 6\nThe first is better.", cost_usd=0.5, request_id="r")


def failing(ask: Ask) -> Heard:
    if ask.pair.question.id == "1":
        return Heard(text=None, error_kind="server", error="down")
    return Heard(text="Hm.") if ask.pair.question.id == "2" else fine(ask)


def work(tmp_path: Path, asks: list[Ask], asker: FakeAsker, say: Callable[[str], None] = lambda _: None) -> Outcome:
    return judge(asks, tmp_path / "output.json", asker, say=say)


def test_a_review_says_everything_and_the_first_model_comes_first(tmp_path: Path) -> None:
    work(tmp_path, asks_of(PAIRS[:1], orders=BOTH), FakeAsker(fine))
    straight, swapped = read_lines(tmp_path / "output.json")
    assert list(straight) == [
        *("id", "question_id", "answer1_id", "answer2_id", "category", "content", "tuple"),
        *("judge_model", "order", "sample", "status", "score_error", "error_kind", "error"),
        *("usage", "cost_usd", "request_id", "digest"),
    ]
    assert straight["tuple"] == [8.0, 6.0]
    assert swapped["tuple"] == [6.0, 8.0], "the judge saw the second model's answer first"
    assert straight["content"] == swapped["content"] == "8 6\nThe first is better."
    assert (straight["answer1_id"], swapped["answer1_id"]) == ("A cat.-0", "A cat.-0")
    assert [line["id"] for line in (straight, swapped)] == [1, 2]
    assert straight["category"] == "llava_bench_conv"


def test_failures_are_no_scores(tmp_path: Path) -> None:
    work(tmp_path, asks_of(PAIRS), FakeAsker(failing))
    lines = read_lines(tmp_path / "output.json")
    assert [line["tuple"] for line in lines] == [[8.0, 6.0], None, None, [8.0, 6.0]]
    assert [line["status"] for line in lines] == ["ok", "error", "no_scores", "ok"]
    assert (lines[1]["error_kind"], lines[2]["score_error"]) == ("server", "no_scores")


def test_a_second_life_asks_for_what_failed_alone(tmp_path: Path) -> None:
    asks, asker = asks_of(PAIRS), FakeAsker(failing)
    work(tmp_path, asks, asker)
    asker.asked.clear()
    asker.say = fine
    outcome = work(tmp_path, asks, asker)
    assert [(ask.pair.question.id, tries) for ask, tries in asker.asked] == [("1", 0), ("2", 1)]
    assert outcome.kept == 2
    assert all(line["status"] == "ok" for line in read_lines(tmp_path / "output.json"))


def test_the_file_of_reviews_alone_is_enough_to_go_on(tmp_path: Path) -> None:
    asks = asks_of(PAIRS, orders=BOTH)
    work(tmp_path, asks, FakeAsker(fine))
    before = (tmp_path / "output.json").read_bytes()
    other = FakeAsker(fine)
    work(tmp_path, asks, other)
    assert other.asked == []
    assert (tmp_path / "output.json").read_bytes() == before


def test_calls_whose_reviews_were_never_written_are_found_again(tmp_path: Path) -> None:
    asks, asker = asks_of(PAIRS), FakeAsker(fine)
    asker.ask([(ask, 0) for ask in asks[:3]])
    asker.asked.clear()
    work(tmp_path, asks, asker)
    assert [ask.pair.question.id for ask, _ in asker.asked] == ["3"]


def test_a_changed_answer_is_judged_again_and_the_old_review_set_aside(tmp_path: Path) -> None:
    asker, said = FakeAsker(fine), list[str]()
    work(tmp_path, asks_of(PAIRS), asker)
    asker.asked.clear()
    changed = [*PAIRS[:3], pair("3", first="A lion.")]
    work(tmp_path, asks_of(changed), asker, said.append)
    assert [ask.pair.question.id for ask, _ in asker.asked] == ["3"]
    (aside,) = run_folder(tmp_path / "output.json").glob("reviews-before-*.jsonl")
    assert [line["question_id"] for line in read_lines(aside)] == ["3"]
    assert any("1 reviews are of other answers" in text for text in said)


def test_more_samples_orders_and_judges_are_added_to_what_is_there(tmp_path: Path) -> None:
    asker = FakeAsker(fine)
    work(tmp_path, asks_of(PAIRS), asker)
    asker.asked.clear()
    asks = asks_of(PAIRS, judges=("j", "k"), orders=BOTH, sampling=Sampling(samples=2))
    outcome = work(tmp_path, asks, asker)
    assert len(asker.asked) == len(asks) - 4
    assert [review.id for review in outcome.reviews] == list(range(1, 33))
    assert list(run_folder(tmp_path / "output.json").glob("reviews-before-*")) == []


def test_what_stops_early_keeps_what_came(tmp_path: Path) -> None:
    trouble = BudgetSpent("no more")
    outcome = work(tmp_path, asks_of(PAIRS), FakeAsker(fine, most=1, ended=Ended(trouble=trouble)))
    assert outcome.trouble is trouble
    assert [line["question_id"] for line in read_lines(tmp_path / "output.json")] == ["0"]
    stopped = work(tmp_path, asks_of(PAIRS), FakeAsker(fine, most=1, ended=Ended(stopped_by="SIGINT")))
    assert stopped.stopped_by == "SIGINT"
    assert len(stopped.reviews) == 2


def test_an_error_in_the_middle_still_writes_what_came(tmp_path: Path) -> None:
    def broken(ask: Ask) -> Heard:
        if ask.pair.question.id == "2":
            raise SinkBroken("full")
        return fine(ask)

    with pytest.raises(SinkBroken):
        work(tmp_path, asks_of(PAIRS), FakeAsker(broken))
    assert len(read_reviews(tmp_path / "output.json")) == 2


def test_what_never_began_leaves_no_file(tmp_path: Path) -> None:
    def wrong(_: Ask) -> Heard:
        raise ConfigError("no key")

    with pytest.raises(ConfigError):
        work(tmp_path, asks_of(PAIRS), FakeAsker(wrong))
    assert list(tmp_path.iterdir()) == []


def test_an_answer_with_scores_beats_a_later_one_without(tmp_path: Path) -> None:
    asks, asker = asks_of(PAIRS[:1]), FakeAsker(fine)
    asker.ask([(asks[0], 0)])
    asker.say = failing
    asker.ask([(asks[0], 0)])
    asker._heard[asks[0].name].append(Heard(text="Hm."))
    outcome = work(tmp_path, asks, asker)
    assert outcome.reviews[0].pair == (8.0, 6.0)


def test_reviews_that_are_there_are_never_begun_over(tmp_path: Path) -> None:
    output = tmp_path / "output.json"
    check_output(output, resume=False)
    work(tmp_path, asks_of(PAIRS), FakeAsker(fine))
    with pytest.raises(FolderInUse, match="--resume goes on with it"):
        check_output(output, resume=False)
    check_output(output, resume=True)


def test_calls_without_their_file_of_reviews_are_not_begun_over_either(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "output.json") / "0001" / "calls"
    folder.mkdir(parents=True)
    check_output(tmp_path / "output.json", resume=False)
    (folder / "run.json").write_text("{}")
    with pytest.raises(FolderInUse, match=r"output\.json\.run is there already"):
        check_output(tmp_path / "output.json", resume=False)


def test_old_reviews_are_never_written_over(tmp_path: Path) -> None:
    output = write_lines(tmp_path / "output.json", [{"question_id": 1, "tuple": [8, 9]}])
    with pytest.raises(FolderInUse, match="--table-only shows the table"):
        check_output(output, resume=True)


def test_wanted_is_every_judge_in_every_order() -> None:
    wanted = wanted_from(asks_of(PAIRS, judges=("j", "k"), orders=BOTH, sampling=Sampling(samples=3)))
    assert wanted.cells == (("j", "ab"), ("j", "ba"), ("k", "ab"), ("k", "ba"))
    assert wanted.reviews == 48
    assert wanted.questions["0"] == "llava_bench_conv"


def test_scores_are_read_with_the_role_of_the_rule() -> None:
    ask = asks_of(PAIRS[:1])[0]
    assert review_of(ask, Heard(text="Assistant 1: 8\nAssistant 2: 9")).pair == (8.0, 9.0)


def test_an_address_serves_the_judge_it_names_and_otherwise_all() -> None:
    addresses = ("https://a/v1,model=j,rpm=5", "https://b/v1", "https://c/v1,model=k")
    assert endpoints_of("j", addresses) == addresses[:2]
    assert endpoints_of("x", addresses) == addresses[1:2]
    assert [model_of(text) for text in addresses] == ["j", None, "k"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling": Sampling(samples=0)}, "--samples"),
        ({"num_frames": 0}, "--num-frames"),
        ({"chunks": 3, "chunk_index": 3}, "--chunk-idx 3"),
        ({"chunks": 0}, "--num-chunks 0"),
        ({"with_media": True}, "--with-media needs --media-base-path"),
        ({"names": ("a", "a")}, "both models are called a"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_is_read(changes: dict[str, object], words: str) -> None:
    told = {"names": ("a", "b"), "files": None, "output": Path("o.json")} | changes
    with pytest.raises(ConfigError, match=words):
        check(Comparison(**told), ())  # type: ignore[arg-type]  # names of fields


def test_a_report_of_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--report x\.csv"):
        check(Comparison(names=("a", "b"), files=None, output=Path("o")), [Path("x.csv")])
