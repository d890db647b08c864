"""What every memory of answers promises: the index of a run, the cache of many runs, and their fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.ports import Answers
from engine.types import Record, Usage
from sinks.answers import Cache, RunAnswers
from sinks.shards import ShardSink
from tests.fakes.answers import MemoryAnswers
from tests.fakes.records import cut, failure, result

KEY, OTHER = b"k" * 16, b"o" * 16


class Place:
    """A memory, and the way in which ended rows get into it."""

    def __init__(
        self, answers: Answers, *, put: Callable[[Record], None], commit: Callable[[], object], of_this_run: bool = True
    ) -> None:
        self.answers = answers
        self.put = put
        self.commit = commit
        self.of_this_run = of_this_run


def in_memory() -> Place:
    held: list[Record] = []
    answers = MemoryAnswers()
    return Place(answers, put=held.append, commit=lambda: answers.remember(held))


@pytest.fixture(params=["run", "cache", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        yield in_memory()
        return
    with ExitStack() as opened:
        sink = opened.enter_context(ShardSink.open(tmp_path / "run", manifest={}, shards=3, resume=False))
        answers: RunAnswers | Cache
        if request.param == "run":
            answers = opened.enter_context(RunAnswers(tmp_path / "run", shards=3))
        else:
            answers = opened.enter_context(Cache(tmp_path / "cache", salt=b"m"))
        sink.remember = answers.remember
        yield Place(answers, put=sink.put, commit=sink.commit, of_this_run=request.param == "run")
        assert answers.trouble is None


def test_an_answer_is_known_once_its_line_is_safe_and_no_sooner(place: Place) -> None:
    place.put(result(7, "yes", key=KEY, cost_usd=0.25, max_tokens_used=1024))
    assert place.answers.find(KEY) is None
    place.commit()
    known = place.answers.find(KEY)
    assert known is not None
    assert known.row in {7, None}
    assert (known.max_tokens_used, known.cost_usd) == (1024, 0.25)
    reply = known.reply
    assert (reply.text, reply.finish_reason, reply.model, reply.request_id) == ("yes", "stop", "m", "r7")
    assert (reply.latency_s, reply.usage) == (1.25, Usage(prompt_tokens=100, completion_tokens=3))
    assert place.answers.find(OTHER) is None


def test_only_what_is_to_be_given_away_is_remembered(place: Place) -> None:
    place.put(result(0))
    place.put(cut(1))
    place.put(failure(2))
    place.commit()
    assert place.answers.find(b"") is None
    assert place.answers.find(KEY) is None


def test_of_two_answers_either_may_be_given_but_never_a_mixture(place: Place) -> None:
    place.put(result(0, "one", key=KEY, max_tokens_used=1))
    place.commit()
    place.put(result(3, "two", key=KEY, max_tokens_used=2))
    place.commit()
    known = place.answers.find(KEY)
    assert known is not None
    assert (known.reply.text, known.max_tokens_used, known.reply.request_id) in {("one", 1, "r0"), ("two", 2, "r3")}


def test_many_answers_are_told_apart(place: Place) -> None:
    """Over several commits, in several shards, of very different lengths."""
    for row in range(600):
        place.put(result(row, f"answer {row} " + "x" * (row * 37 % 5000), key=row.to_bytes(16, "big")))
        if row % 100 == 99:
            place.put(result(1000 + row, "no key"))
            place.commit()
    for row in range(600):
        known = place.answers.find(row.to_bytes(16, "big"))
        assert known is not None
        assert known.row == (row if place.of_this_run or isinstance(place.answers, MemoryAnswers) else None)
        assert known.reply.text.split()[1] == str(row)
