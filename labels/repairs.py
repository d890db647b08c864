"""The text of an answer to the pairs of its one object, its form mended where no label can change by it.

Mended are quotes of another kind, full-width punctuation, words and numbers that are no JSON, a trailing comma, and an
end that is missing, if every way the text could have gone on to a valid answer says the same: each value is closed, so
only a comma or the brace may be lacking. A number or a word at the very end may go on, and is never taken for whole.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
TRUNCATED, TRUNCATED_TAIL, BAD_VALUE = "truncated", "truncated_tail", "bad_value"
_MARK = re.compile(r'[{}"]')
_STRING_REST = re.compile(r'(?:[^"\\]|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<blank>\s++)
    |(?P<text>"(?:[^"\\]|\\.)*+")
    |(?P<quoted>'[^'"\\\n]*+'|[“”„＂][^"'“”„＂\\\n]*+[“”„＂]|[‘’][^"'‘’\\\n]*+[‘’])
    |(?P<mark>[{}\[\],:])
    |(?P<wide>[，：])
    |(?P<word>[^\W\d][\w/\-]*+)
    |(?P<number>[+\-]?[\d.][\w.+\-]*+)
    """,  # noqa: RUF001 - those are the characters it is about
    re.VERBOSE | re.DOTALL,
)
_WIDE = {"，": ",", "：": ":"}  # noqa: RUF001 - as above
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_NO_NUMBERS = {"nan", "inf", "infinity"}
_SHORT_NUMBER = re.compile(r"\+?(-?)(\d*)(\.\d+)?")
_MAY_GO_ON = {"word", "number"}


class RefusedError(Exception):
    """The text is no answer; `str()` is the reason code."""


def pairs_of(text: str, repairs: list[str]) -> list[tuple[str, Any]]:
    """The key-value pairs of the last whole object in a text, or of one at its end that lacks its end alone.

    Args:
        text: what a model wrote.
        repairs: takes a note of each repair.

    Raises:
        RefusedError: there is none.
    """
    said = text.lstrip()
    if not said:
        raise RefusedError("empty")
    found, is_cut = _last_object(said)
    if found is None:
        raise RefusedError("not_an_object" if _is_json(said) else "not_json")
    whole = said.rstrip()
    if is_cut:
        whole = said
        repairs.append(TRUNCATED_TAIL)
    if found != whole:
        repairs.append("code_fence" if said.startswith("```") else "prose_around")
    pairs = None if is_cut else _pairs(found)
    if pairs is None:
        pairs = _pairs(_as_json(found, repairs, is_cut=is_cut))
    if pairs is None:
        raise RefusedError(TRUNCATED if is_cut else "not_json")
    return pairs


def _last_object(text: str) -> tuple[str | None, bool]:
    """The last top-level object, and whether the text ends inside it; braces in strings do not count."""
    found, start, depth, at = None, -1, 0, 0
    while mark := _MARK.search(text, at):
        char, at = mark[0], mark.end()
        if char == "{":
            start = mark.start() if depth == 0 else start
            depth += 1
            if depth > MAX_DEPTH:
                raise RefusedError("too_deep")
        elif char == "}" and depth:
            depth -= 1
            found = text[start:at] if depth == 0 else found
        elif char == '"' and depth:
            string = _STRING_REST.match(text, at)
            if string is None:
                raise RefusedError(TRUNCATED)
            at = string.end()
    if depth > 1:
        raise RefusedError(TRUNCATED)
    return (text[start:], True) if depth else (found, False)


def _pairs(text: str) -> list[tuple[str, Any]] | None:
    """The pairs of an object, repeated keys kept; None if it is no JSON."""
    try:
        said = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return said.pairs if isinstance(said, _Pairs) else None


class _Pairs:
    """An object as its pairs."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _as_json(text: str, repairs: list[str], *, is_cut: bool) -> str:
    """The text token by token as JSON, as far as it can be. What comes out is still to be parsed."""
    if is_cut and text.rstrip().endswith("```"):
        # The brace was forgotten, and the fence closed.
        text = text.rstrip().rstrip("`") + "\n"
    pieces: list[str] = []
    notes: dict[str, None] = {}
    at, kind = 0, ""
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None or token.lastgroup is None:
            raise RefusedError(TRUNCATED if is_cut else "not_json")
        at, kind = token.end(), token.lastgroup
        if kind == "blank":
            continue
        piece = _piece(kind, token[0], notes)
        if piece in {"}", "]"} and pieces and pieces[-1] == ",":
            pieces.pop()
            notes["trailing_comma"] = None
        pieces.append(piece)
    if is_cut:
        if kind in _MAY_GO_ON:
            raise RefusedError(TRUNCATED)
        if pieces[-1] == ",":
            pieces.pop()
        pieces.append("}")
    repairs += notes
    return " ".join(pieces)


def _piece(kind: str, said: str, notes: dict[str, None]) -> str:
    """One token as JSON, with a note of what was wrong with it."""
    if kind == "quoted":
        notes["quotes"] = None
        return json.dumps(said[1:-1])
    if kind == "wide":
        notes["punctuation"] = None
        return _WIDE[said]
    if kind == "word":
        if said in _CONSTANTS and _CONSTANTS[said] == said:
            return said
        if said.casefold() in _NO_NUMBERS:
            raise RefusedError("not_json")
        notes["bare_word"] = None
        return _CONSTANTS.get(said) or json.dumps(said)
    if kind == "number":
        return _number(said, notes)
    return said


def _number(said: str, notes: dict[str, None]) -> str:
    """`+0.5` and `.5` as JSON has them; anything else as it stands."""
    short = _SHORT_NUMBER.fullmatch(said)
    if short is None or not (said.startswith("+") or not short[2]):
        return said
    notes["number_form"] = None
    return f"{short[1]}{short[2] or '0'}{short[3] or ''}"
