"""Reviews: what a judge said of one pair, with its scores or the reason why it has none; one JSON line each.

The first keys are those of the scripts this takes over, in their order. `tuple` gives the score of the first model
first, whichever answer the judge saw first; it is null where there are no scores. Those scripts wrote [-1, -1] instead,
which is no score either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import InputError
from labels.judge.plan import STRAIGHT, SWAPPED, Ask
from labels.judge.records import Entry, id_text, read_entries
from labels.judge.scores import LEAST, MOST, read_scores
from labels.new_file import new_file

OK, NO_SCORES, ERROR = "ok", "no_scores", "error"
"""Scored; answered without scores; the call failed."""
FAILED_BEFORE = "failed_before"
"""Why there are no scores in a review that says [-1, -1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came back for one ask."""

    text: str | None
    """None where the call failed."""
    error_kind: str | None = None
    error: str | None = None
    usage: Mapping[str, Any] | None = None
    cost_usd: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One line."""

    id: int
    question_id: Any
    answer1_id: Any
    answer2_id: Any
    category: str
    content: str
    """All that the judge wrote; empty where it wrote nothing."""
    pair: tuple[float, float] | None
    """The scores of the first and the second model."""
    judge_model: str | None
    """None in reviews of earlier programs."""
    order: str
    sample: int
    status: str
    score_error: str | None
    """Why an answer has no scores: a code of `scores`."""
    error_kind: str | None
    """Why a call failed."""
    error: str | None
    usage: Mapping[str, Any] | None
    cost_usd: float | None
    request_id: str | None
    digest: str | None

    @property
    def question(self) -> str:
        """The id of its question, as text."""
        return id_text(self.question_id) or str(self.question_id)

    @property
    def key(self) -> tuple[str, str, int, str | None, str | None]:
        """As `Ask.key`."""
        return self.question, self.order, self.sample, self.judge_model, self.digest

    @property
    def seen(self) -> tuple[float, float] | None:
        """The scores in the order in which the judge saw the answers."""
        return self.pair[::-1] if self.pair is not None and self.order == SWAPPED else self.pair

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "id": self.id,
            "question_id": self.question_id,
            "answer1_id": self.answer1_id,
            "answer2_id": self.answer2_id,
            "category": self.category,
            "content": self.content,
            "tuple": None if self.pair is None else list(self.pair),
        }
        return said | {key: getattr(self, key) for key in OURS}


OURS = (
    *("judge_model", "order", "sample", "status", "score_error", "error_kind", "error"),
    *("usage", "cost_usd", "request_id", "digest"),
)
"""The keys that follow those of the scripts."""


def review_of(ask: Ask, heard: Heard) -> Review:
    """The review of an ask."""
    scores = None if heard.text is None else read_scores(heard.text, role=ask.rule.role)
    seen = None if scores is None else scores.pair
    first, second = ask.pair.answers
    question = ask.pair.question
    return Review(
        id=ask.number,
        question_id=question.said_id,
        answer1_id=first.answer_id,
        answer2_id=second.answer_id,
        category=ask.rule.category,
        content=heard.text or "",
        pair=seen if seen is None or ask.order == STRAIGHT else seen[::-1],
        judge_model=ask.judge_model,
        order=ask.order,
        sample=ask.sample,
        status=_status(heard, seen),
        score_error=None if scores is None else scores.why_not,
        error_kind=heard.error_kind,
        error=heard.error,
        usage=heard.usage,
        cost_usd=heard.cost_usd,
        request_id=heard.request_id,
        digest=ask.digest,
    )


def _status(heard: Heard, seen: tuple[float, float] | None) -> str:
    if heard.text is None:
        return ERROR
    return NO_SCORES if seen is None else OK


def read_reviews(path: Path, *, flag: str = "--output") -> list[Review]:
    """The reviews of a file, of ours or of the scripts.

    Raises:
        ConfigError: it cannot be read.
        InputError: a line is no review.
    """
    return [_review(entry) for entry in read_entries(path, flag=flag)]


def write_reviews(path: Path, reviews: Iterable[Review]) -> None:
    """Put the reviews at the path: after any crash there are the old ones or these.

    Raises:
        SinkBroken: the disk failed; what stood there still does.
    """
    with new_file(path) as put:
        for review in reviews:
            put(line_of(review.as_json()))


def line_of(said: Mapping[str, Any]) -> bytes:
    """One line; what JSON cannot hold, such as half a surrogate pair, is replaced."""
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return orjson.dumps(_replaced(said), option=orjson.OPT_APPEND_NEWLINE)


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_replaced(str(key)): _replaced(item) for key, item in value.items()}
    return [_replaced(item) for item in value] if isinstance(value, list | tuple) else value


def _review(entry: Entry) -> Review:
    said = entry.said
    if entry.identity("question_id") is None or "tuple" not in said:
        raise InputError(f"{entry.place}: no review; one has question_id and tuple")
    pair = _pair(entry)
    status = OK if pair is not None else ERROR if said.get("status") == ERROR else NO_SCORES
    without = FAILED_BEFORE if status == NO_SCORES else None
    order, sample, number = said.get("order"), said.get("sample"), said.get("id")
    return Review(
        id=number if type(number) is int else entry.line,
        question_id=said["question_id"],
        answer1_id=said.get("answer1_id"),
        answer2_id=said.get("answer2_id"),
        category=entry.identity("category") or "default",
        content=entry.text("content") or "",
        pair=pair,
        judge_model=entry.text("judge_model"),
        order=order if order in {STRAIGHT, SWAPPED} else STRAIGHT,
        sample=sample if type(sample) is int else 0,
        status=status,
        score_error=entry.text("score_error") or without,
        error_kind=entry.text("error_kind"),
        error=entry.text("error"),
        usage=said["usage"] if isinstance(said.get("usage"), dict) else None,
        cost_usd=said["cost_usd"] if isinstance(said.get("cost_usd"), int | float) else None,
        request_id=entry.text("request_id"),
        digest=entry.text("digest"),
    )


def _pair(entry: Entry) -> tuple[float, float] | None:
    """The scores of a line; None where they are no scores of this scale."""
    value = entry.said["tuple"]
    if value is None:
        return None
    numbers = isinstance(value, list) and all(type(score) in {int, float} for score in value)
    if not numbers or len(value) != 2:  # noqa: PLR2004 - the scores of two models
        raise InputError(f"{entry.place}: tuple must be two scores, or null")
    return (float(value[0]), float(value[1])) if all(LEAST <= score <= MOST for score in value) else None
