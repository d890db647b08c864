"""The two scores in what a judge wrote, or the reason why there are none.

They are looked for where a judge was told to put them: in the first lines, or in a JSON object. Two laws decide. A line
counts only if it holds scores and nothing else, so that numbers in prose are none. What can be read in two ways is not
read: there is a reason instead, and the review can be asked for again. A comma always separates: "8,9" is two scores,
and "8,5 7,5" is four.

Reason codes: `empty`, `too_long`, `no_scores`, `one_score`, `too_many`, `other_scale`, `out_of_range`, `conflict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from labels.judge.scores_json import TwiceError, scores_in_json

LEAST, MOST = 1.0, 10.0
SCALE = 10
MAX_CHARS = 256 << 10
MAX_LINES = 8
"""Lines that are looked at for scores with labels; the reasons come after them."""
NUMBER = r"[+-]?\d{1,6}(?:\.\d{1,6})?(?![\d.])"
_SCORE = rf"(?P<value>{NUMBER})(?:\s*(?:/|out\s+of)\s*(?P<scale>\d{{1,6}})(?!\d|\.\d))?"
_ONE = re.compile(_SCORE, re.ASCII)
_BETWEEN = re.compile(r"\s*(?:[,;|&]|\s)\s*(?:and\s+)?", re.ASCII)
_HEADING = re.compile(
    r"(?:here\s+are\s+)?(?:the\s+|my\s+)?(?:final\s+|overall\s+)?(?:scores?|ratings?)(?:\s+are)?\s*(?:[:=]\s*|\s+(?=[\d(\[])|$)"
)
_DECORATION = re.compile(r"(?<![\d*_`#])[*_`#]+|[*_`#]+(?![\d*_`#])")
"""Marks of Markdown; one between two digits means something else."""
_BULLET = re.compile(r"(?:>\s*|[-•]\s+|\d{1,2}[.)]\s+(?=[a-z\[]))+")
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
"""What a reasoning model writes before its answer, where its server leaves it in."""
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_WORDS = "assistant|model|answer|response|candidate|ai|bot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one review gives, in the order in which its judge saw the answers."""

    pair: tuple[float, float] | None
    """Each from 1 to 10."""
    why_not: str | None = None
    """A reason code where there is none."""


class _RefusedError(Exception):
    """There is no pair to be had; `str()` is the reason code."""


def read_scores(text: str, *, role: str = "Assistant") -> Scores:
    """The scores of a review.

    Args:
        text: all that the judge wrote.
        role: what its prompt called the answers.
    """
    if len(text) > MAX_CHARS:
        return Scores(pair=None, why_not="too_long")
    said = _THOUGHTS.sub("", text, count=1)
    if not said.strip():
        return Scores(pair=None, why_not="empty")
    try:
        return Scores(pair=_pair(said, role.casefold()))
    except _RefusedError as refusal:
        return Scores(pair=None, why_not=str(refusal))


def _pair(text: str, role: str) -> tuple[float, float]:
    """The one pair that both places agree on."""
    try:
        found = set(scores_in_json(text, role, read_one=read_one))
    except TwiceError as error:
        raise _RefusedError("conflict") from error
    lines = _of_lines(text, role)
    if lines is not None:
        found.add(lines)
    if len(found) > 1:
        raise _RefusedError("conflict")
    if not found:
        raise _RefusedError("no_scores")
    return _in_range(found.pop())


def _in_range(pair: tuple[float, float]) -> tuple[float, float]:
    if not all(LEAST <= score <= MOST for score in pair):
        raise _RefusedError("out_of_range")
    return pair


def read_one(text: str) -> float | None:
    """A score that stands alone, such as `8`, `8.5` or `8/10`; None for anything else, another scale included."""
    found = _ONE.fullmatch(text.strip())
    return float(found["value"]) if found and found["scale"] in {None, str(SCALE)} else None


def _of_lines(text: str, role: str) -> tuple[float, float] | None:
    """The scores in the first lines that say anything; None if they hold no number that could be one.

    Raises:
        _RefusedError: they hold other than two.
    """
    labelled = _Labelled(role)
    alone: list[float] = []
    for line in _first_lines(text):
        heading = _HEADING.match(line)
        rest = _unbracketed(line[heading.end() :] if heading else line)
        if not rest and heading and not (alone or labelled.scores):
            continue
        numbers = _numbers(rest)
        if numbers is not None and not labelled.scores:
            # Lines of numbers may go on; what follows two scores is the reasons.
            alone += numbers
            continue
        if alone or not labelled.take(rest):
            break
    if labelled.scores:
        return labelled.pair()
    return _two(alone) if alone else None


def _two(alone: list[float]) -> tuple[float, float]:
    if len(alone) == 2:  # noqa: PLR2004 - the scores of two answers
        return alone[0], alone[1]
    raise _RefusedError("one_score" if len(alone) == 1 else "too_many")


def _first_lines(text: str) -> Iterator[str]:
    """The first lines with something in them, in small letters and without what only decorates."""
    seen = 0
    for raw in text.splitlines():
        line = _DECORATION.sub("", raw).strip().casefold()
        bullet = _BULLET.match(line)
        line = line[bullet.end() :] if bullet else line
        if not line or line in {"json", "text", "plaintext"}:
            continue
        yield line.rstrip(" ,;.")
        seen += 1
        if seen == MAX_LINES:
            return


def _unbracketed(text: str) -> str:
    """Without the brackets around all of it."""
    text = text.strip()
    if len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]:
        return text[1:-1].strip()
    return text


def _numbers(text: str) -> list[float] | None:
    """The scores of a line that holds nothing else; None for any other line.

    Raises:
        _RefusedError: they are of another scale.
    """
    found: list[re.Match[str]] = []
    at = 0
    while score := _ONE.match(text, at):
        found.append(score)
        at = score.end()
        if at == len(text):
            return [_of_ten(score) for score in found]
        between = _BETWEEN.match(text, at)
        if between is None:
            return None
        at = between.end()
    return None


def _of_ten(score: re.Match[str]) -> float:
    if score["scale"] not in {None, str(SCALE)}:
        raise _RefusedError("other_scale")
    return float(score["value"])


class _Labelled:
    """Scores that each say whose they are."""

    def __init__(self, role: str) -> None:
        name = rf"(?:{re.escape(role)}|{_WORDS})" if role else rf"(?:{_WORDS})"
        self._item = re.compile(
            rf"(?:(?:scores?|ratings?)\s+(?:for|of)\s+)?(?:the\s+)?\[?{name}\s*#?\s*(?P<who>[12ab])\b\]?"
            rf"(?:'s)?(?:\s+(?:scores?|ratings?))?\s*(?:[:=]|is\b|gets\b|\s[-\u2013]\s)?\s*{_SCORE}",
            re.ASCII,
        )
        self.scores: dict[int, float] = {}

    def take(self, line: str) -> bool:
        """Keep the scores of a line that holds nothing else; whether it does.

        Raises:
            _RefusedError: they are of another scale, or contradict one that was kept.
        """
        found: list[re.Match[str]] = []
        at = 0
        while item := self._item.match(line, at):
            found.append(item)
            at = item.end()
            if at == len(line):
                break
            between = _BETWEEN.match(line, at)
            if between is None:
                return False
            at = between.end()
        else:
            return False
        for item in found:
            score = _of_ten(item)
            if self.scores.setdefault(0 if item["who"] in "1a" else 1, score) != score:
                raise _RefusedError("conflict")
        return True

    def pair(self) -> tuple[float, float]:
        if len(self.scores) == 1:
            raise _RefusedError("one_score")
        return self.scores[0], self.scores[1]
