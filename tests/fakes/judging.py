"""Parts of comparisons, and an asker that makes no call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from labels.judge.calls import Ended
from labels.judge.inputs import Pair, Question, Response
from labels.judge.plan import STRAIGHT, Ask, Plan, Sampling
from labels.judge.reviews import Heard, Review
from labels.judge.rules import load_rules

Say = Callable[[Ask], Heard]

BLANK = Review(
    id=1,
    question_id=0,
    answer1_id="a",
    answer2_id="b",
    category="conv",
    content="",
    pair=None,
    judge_model="j",
    order=STRAIGHT,
    sample=0,
    status="ok",
    score_error=None,
    error_kind=None,
    error=None,
    usage=None,
    cost_usd=None,
    request_id=None,
    digest="d",
)


def scored(question: object, pair: tuple[float, float] | None, **changes: object) -> Review:
    """A review with these scores of the first and the second model."""
    return replace(BLANK, question_id=question, pair=pair, **changes)  # type: ignore[arg-type]  # tests name real fields


def question(identity: str = "0", **changes: object) -> Question:
    whole = Question(
        id=identity, said_id=identity, text="What is it?", category="conv", image="a.jpg", video=None, place="q line 1"
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # as above


def pair(identity: str = "0", first: str = "A cat.", second: str = "A dog.", context: str | None = "A cat.") -> Pair:
    answers = [Response(id=identity, text=text, answer_id=f"{text}-{identity}") for text in (first, second)]
    return Pair(question=question(identity), answers=(answers[0], answers[1]), context=context)


def asks_of(
    pairs: Sequence[Pair],
    *,
    judges: Sequence[str] = ("j",),
    orders: tuple[str, ...] = (STRAIGHT,),
    sampling: Sampling | None = None,
) -> list[Ask]:
    plan = Plan(rules=load_rules(), judges=judges, orders=orders, sampling=sampling or Sampling(), shown={})
    return list(plan.asks(pairs))


class FakeAsker:
    """Says what it is told to, and remembers it."""

    def __init__(self, say: Say, *, most: int | None = None, ended: Ended | None = None) -> None:
        self.say = say
        self.most = most
        """Asks that are answered before it ends; None for all."""
        self.ended = ended or Ended()
        self.asked: list[tuple[Ask, int]] = []
        self._heard: dict[str, list[Heard]] = {}

    def heard(self) -> Mapping[str, Sequence[Heard]]:
        return self._heard

    def ask(self, asks: Sequence[tuple[Ask, int]]) -> Ended:
        for ask, tries in asks[: self.most]:
            self.asked.append((ask, tries))
            self._heard.setdefault(ask.name, []).append(self.say(ask))
        return self.ended
