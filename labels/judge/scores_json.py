"""Scores that a judge gives as a JSON object: a list of two under one key, or a key for each answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_STARTS = 200
"""Braces that are tried; a text with more is no review."""
LISTS = frozenset({"score", "scores", "rating", "ratings", "tuple"})
_PLAIN = re.compile(r"[^a-z0-9]+")
_WORDS = "assistant|model|answer|response|candidate|ai|bot"

ReadOne = Callable[[str], float | None]


class TwiceError(Exception):
    """An object gives two scores for the same answer."""


class _Pairs:
    """An object as its pairs, so that a repeated key cannot hide."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=lambda _: None)


def scores_in_json(text: str, role: str, *, read_one: ReadOne) -> Iterator[tuple[float, float]]:
    """The pairs of scores that objects in a text give; whatever else they hold is passed over.

    Args:
        text: what the judge wrote.
        role: what its prompt called the answers, in small letters.
        read_one: reads a score that is given as text.

    Raises:
        TwiceError: an object says two things of one answer.
    """
    whose = _whose(role)
    for found in _objects(text):
        pair = _pair(found, whose, read_one)
        if pair is not None:
            yield pair


def _whose(role: str) -> re.Pattern[str]:
    plain = _PLAIN.sub("", role)
    name = f"(?:{plain}|{_WORDS})" if plain else f"(?:{_WORDS})"
    # A letter or digit alone may be a key of anything that a judge quotes.
    return re.compile(rf"(?:(?:scores?|ratings?)(?:for|of)?(?:{name})?|{name})(?P<who>[12ab])(?:scores?|ratings?)?")


def _objects(text: str) -> Iterator[_Pairs]:
    """The objects of a text that stand in no other."""
    at = text.find("{")
    for _ in range(MAX_STARTS):
        if at < 0:
            return
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _pair(found: _Pairs, whose: re.Pattern[str], read_one: ReadOne) -> tuple[float, float] | None:
    """The scores of one object; None if it gives no two."""
    scores: dict[int, float] = {}
    listed: list[tuple[float, float]] = []
    for key, value in found.pairs:
        plain = _PLAIN.sub("", key.casefold())
        owner = whose.fullmatch(plain)
        if plain in LISTS:
            inner = _listed(value, whose, read_one)
            listed += [] if inner is None else [inner]
        elif owner and (score := _score(value, read_one)) is not None:
            who = 0 if owner["who"] in "1a" else 1
            if who in scores:
                raise TwiceError(key)
            scores[who] = score
    if len(scores) == 2:  # noqa: PLR2004 - the scores of two answers
        listed.append((scores[0], scores[1]))
    if len(set(listed)) > 1:
        raise TwiceError("scores")
    return listed[0] if listed else None


def _listed(value: Any, whose: re.Pattern[str], read_one: ReadOne) -> tuple[float, float] | None:
    if isinstance(value, _Pairs):
        return _pair(value, whose, read_one)
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - as above
        return None
    first, second = (_score(item, read_one) for item in value)
    return None if first is None or second is None else (first, second)


def _score(value: Any, read_one: ReadOne) -> float | None:
    """A number, a text that is one, or an object with one under `score` or `rating`."""
    if isinstance(value, _Pairs):
        inner = [item for key, item in value.pairs if key.casefold() in LISTS]
        return _score(inner[0], read_one) if len(inner) == 1 and not isinstance(inner[0], _Pairs) else None
    if isinstance(value, str):
        return read_one(value)
    return float(value) if type(value) in {int, float} else None
