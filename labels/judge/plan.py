"""Every review that is wanted: each pair, in each order, so many times, by each judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from labels.judge.inputs import Pair
from labels.judge.prompt import SYSTEM_LINE, Rule, digest_of, messages, user_text
from labels.judge.rules import Rules

STRAIGHT, SWAPPED = "ab", "ba"
"""Which model's answer the judge sees first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a judge is asked to write."""

    temperature: float = 0.2
    top_p: float | None = 0.7
    seed: int | None = 42
    """Of the first sample; the n-th after it has n more."""
    samples: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The pictures that go with a question."""

    addresses: tuple[str, ...]
    digest: str
    """Of all their bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One review that is wanted."""

    number: int
    """From 1, the same whichever chunk it is in."""
    pair: Pair
    rule: Rule
    judge_model: str
    order: str
    sample: int
    """From 0."""
    text: str
    """What the judge reads."""
    frames: tuple[str, ...]
    digest: str
    """Of all that decides what the judge writes."""

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What a review must have in common with it to be its."""
        return self.pair.question.id, self.order, self.sample, self.judge_model, self.digest

    @property
    def name(self) -> str:
        """The id of its chat: the key as one word, without the judge."""
        return f"q{quote(self.pair.question.id, safe='', errors='replace')}/{self.order}/{self.sample}@{self.digest}"

    def chat(self) -> dict[str, Any]:
        """The line of its chat in a file of prompts."""
        return {"meta_id": self.name, "messages": messages(self.text, self.frames)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is wanted of all judges."""

    rules: Rules
    judges: Sequence[str]
    orders: tuple[str, ...]
    sampling: Sampling
    shown: Mapping[str, Shown]
    """By the id of the question; empty where judges see no pictures."""

    def asks(self, pairs: Sequence[Pair], *, first: int = 0) -> Iterator[Ask]:
        """Every review of these pairs.

        Args:
            pairs: what is judged.
            first: how many pairs come before them.

        Raises:
            InputError: a category has no rule.
        """
        number = 1 + first * len(self.judges) * len(self.orders) * self.sampling.samples
        for pair in pairs:
            rule = self.rules.rule_for(pair.question)
            for judge in self.judges:
                for order in self.orders:
                    for sample in range(self.sampling.samples):
                        yield self._ask(pair, rule, judge, order, (number, sample))
                        number += 1

    def _ask(self, pair: Pair, rule: Rule, judge: str, order: str, place: tuple[int, int]) -> Ask:
        number, sample = place
        first, second = (response.text or "" for response in pair.answers)
        answers = (first, second) if order == STRAIGHT else (second, first)
        text = user_text(question=pair.question.text, answers=answers, rule=rule, context=pair.context)
        shown = self.shown.get(pair.question.id, Shown(addresses=(), digest=""))
        how = self.sampling
        return Ask(
            number=number,
            pair=pair,
            rule=rule,
            judge_model=judge,
            order=order,
            sample=sample,
            text=text,
            frames=shown.addresses,
            digest=digest_of(SYSTEM_LINE, text, shown.digest, judge, how.temperature, how.top_p, how.seed, sample),
        )
