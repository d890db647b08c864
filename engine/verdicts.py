"""What an error response says and which error of ours it is. Pure: bytes and headers in, one `ApiError` out.

Providers agree on no shape. One extractor reads them all into a `Said`, and the table in `providers` judges that.
Nothing in here raises on what a server may send.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeGuard

import orjson

from engine.errors import (
    ApiError,
    BadReply,
    LaneRefused,
    RateLimited,
    RequestBlocked,
    RequestRefused,
    RequestTooLarge,
    ServerError,
)
from engine.providers import CONTEXT_COUNTS, CONTEXT_LIMITS, IMAGE_LIMITS, VERDICTS, Rule, Verdict
from engine.secret import Secret
from engine.types import Fix, Usage

MAX_MESSAGE_CHARS = 2000
MAX_PAGE_CHARS = 300
"""Of a body that is no error we know, often a web page of some proxy: its title is in here, its style sheet is not."""
MAX_NAME_CHARS = 200
"""Of a code, a type, a model name, a request id or a finish reason."""
MAX_HEADERS_INSIDE = 64
MAX_TOKENS_SAID = 1 << 31
"""A number beyond this is no count of tokens."""
DEEPEST = 4
"""Levels of `error`, `message`, `detail` and lists around the words; no known server has more than three."""

OK = 200
_STATUSES = range(400, 600)
_REFUSED = Rule(verdict=Verdict.REFUSED, statuses=())
_FINAL = {Verdict.RATE: Verdict.LANE_DOUBTFUL, Verdict.CAPACITY: Verdict.REFUSED}
"""What becomes of an error that would pass with time, where the server says that it will not."""

Show = Callable[[str], str]
"""Makes a foreign text fit to be printed and kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an error body says, whatever its shape. Every text is short, on one line, and holds no key."""

    message: str = ""
    code: str = ""
    kind: str = ""
    """Its types, of which it may have several, with a blank between."""
    param: str = ""
    limit_source: str = ""
    usage: Usage | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of a provider behind a router, as the router tells them; names in lower case."""

    @property
    def status(self) -> int | None:
        """The HTTP status that a code of digits stands for."""
        code = self.code
        return int(code) if len(code) == 3 and code.isdecimal() and int(code) in _STATUSES else None  # noqa: PLR2004 - digits of a status

    @property
    def codes(self) -> tuple[str, ...]:
        return (self.code, self.limit_source, *self.kind.split())


def one_line(text: str, key: Secret | None = None) -> str:
    """One line that can be printed, written and encoded: no key, no control characters, no lone surrogates."""
    # The key goes before the cut: half a key is still half a key.
    short = (key.redact(text) if key else text)[: 2 * MAX_MESSAGE_CHARS]
    if short.isprintable() and "  " not in short:
        # As nearly all that is sent: nothing to take out.
        return short.strip()[:MAX_MESSAGE_CHARS]
    return " ".join("".join(char if char.isprintable() else " " for char in short).split())[:MAX_MESSAGE_CHARS]


def said_in(payload: bytes, *, show: Show = one_line) -> Said:
    """What the body of an error says; its own beginning if it has no words. Never raises.

    Args:
        payload: the whole body: JSON, a page of a proxy, anything.
        show: applied to each text before it is cut.
    """
    said = said_of(parsed(payload), show=show)
    if said.message:
        return said
    return replace(said, message=show(payload.decode(errors="replace"))[:MAX_PAGE_CHARS])


def said_of(value: Any, *, show: Show = one_line) -> Said:
    """The same of a JSON value; without words the message is empty."""
    outer = value[0] if isinstance(value, list) and value else value
    outer = outer if isinstance(outer, dict) else {}
    error = outer.get("error")
    error = parsed(error.encode(errors="replace")) if isinstance(error, str) and error[:1] == "{" else error
    inner = error if isinstance(error, dict) else outer
    detail = outer.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    metadata = inner.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    azure = inner.get("innererror")
    azure = azure if isinstance(azure, dict) else {}
    kinds = (inner.get("type"), outer.get("error_type"), azure.get("code"), first.get("type"))

    def name(said: object) -> str:
        return show(str(said))[:MAX_NAME_CHARS] if isinstance(said, str | int) and not isinstance(said, bool) else ""

    return Said(
        message=_words(value, metadata.get("raw"), show=show),
        code=name(inner.get("code")),
        kind=" ".join(filter(None, map(name, kinds))),
        param=name(inner.get("param")),
        limit_source=name(metadata.get("limit_source")),
        usage=usage_in(outer.get("usage")),
        headers=_headers(metadata.get("headers"), show=show),
    )


def parsed(payload: bytes) -> Any:
    """The JSON value, or None where it is none; the parser's error would keep the whole payload."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def usage_in(said: object) -> Usage | None:
    """Token counts, or None unless both are plain counts."""
    if not isinstance(said, dict):
        return None
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else said.get("cached_tokens")
    prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
    if not _is_count(prompt) or not _is_count(completion):
        return None
    cached = cached if _is_count(cached) and cached <= prompt else 0
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def error_for(
    status: int, said: Said, *, retry_after_s: float | None = None, final: bool = False, otherwise: str = ""
) -> ApiError:
    """The one error of ours that this response is.

    Args:
        status: of the response; for a 200 the code inside decides, where it is a status.
        said: its body.
        retry_after_s: what it asks to wait.
        final: whether the server says not to try again.
        otherwise: words to use where the body has none.
    """
    message = f"HTTP {status}: {said.message or otherwise or 'no message'}"
    if status != OK:
        return _error(status, said, message[:MAX_MESSAGE_CHARS], retry_after_s=retry_after_s, final=final)
    message = f"HTTP 200 with an error inside: {said.message or 'no message'}"[:MAX_MESSAGE_CHARS]
    inner = said.status
    if inner is None:
        return spent(BadReply(message, status=OK), said.usage)
    return spent(_error(inner, said, message, retry_after_s=retry_after_s, final=final), said.usage)


def spent(error: ApiError, usage: Usage | None) -> ApiError:
    """The error of a call that was answered: what it took is known, or may have been charged unseen."""
    error.usage, error.paid = usage, usage is None
    return error


def _error(status: int, said: Said, message: str, *, retry_after_s: float | None, final: bool) -> ApiError:
    rule = next((rule for rule in VERDICTS if _fits(rule, status, said)), _REFUSED)
    match _FINAL.get(rule.verdict, rule.verdict) if final else rule.verdict:
        case Verdict.RATE:
            return RateLimited(message, status=status, retry_after_s=retry_after_s)
        case Verdict.CAPACITY:
            return ServerError(message, status=status, retry_after_s=retry_after_s, paid=rule.paid)
        case Verdict.TOO_LARGE:
            return _too_large(status, said.message, message, rule.fix or Fix.CONTEXT)
        case Verdict.BLOCKED:
            return RequestBlocked(message, status=status)
        case Verdict.LANE | Verdict.LANE_DOUBTFUL as verdict:
            return LaneRefused(message, status=status, doubtful=verdict is Verdict.LANE_DOUBTFUL)
        case Verdict.BAD_REPLY:
            return BadReply(message, status=status, paid=rule.paid)
    return RequestRefused(message, status=status, paid=rule.paid)


def _fits(rule: Rule, status: int, said: Said) -> bool:
    if status not in rule.statuses:
        return False
    if rule.text is None and rule.code is None:
        return True
    if rule.text is not None and _compiled(rule.text).search(said.message):
        return True
    return rule.code is not None and any(map(_compiled(rule.code).fullmatch, said.codes))


def _too_large(status: int, words: str, message: str, fix: Fix) -> RequestTooLarge:
    """With the numbers that the words hold: where prompt and limit are both known, what fits can be computed."""
    limits: tuple[str, ...] = {Fix.CONTEXT: CONTEXT_LIMITS, Fix.IMAGES: IMAGE_LIMITS}.get(fix, ())
    counts = CONTEXT_COUNTS if fix is Fix.CONTEXT else ()
    return RequestTooLarge(
        message, status=status, fix=fix, limit=_number(limits, words), counted=_number(counts, words)
    )


def _number(patterns: tuple[str, ...], words: str) -> int | None:
    """The first number that a pattern finds, less what it names as output; None if it is no count above zero."""
    for pattern in patterns:
        found = _compiled(pattern).search(words)
        if found is not None:
            output = found.groupdict().get("output")
            number = _digits(found[1]) - (0 if output is None else _digits(output))
            return number if 0 < number < MAX_TOKENS_SAID else None
    return None


def _digits(text: str) -> int:
    digits = text.replace(",", "")
    # A longer number is no count, and Python refuses to read one of thousands of digits.
    return int(digits) if digits and len(digits) <= 12 else 0  # noqa: PLR2004 - well above MAX_TOKENS_SAID


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _words(value: Any, raw: object, *, show: Show) -> str:
    """The words of an error, and behind them those of the provider that a router passes on."""
    words = _innermost(value, show=show)
    passed_on = _innermost(raw, show=show)
    return words if passed_on in words else f"{words}: {passed_on}"[:MAX_MESSAGE_CHARS]


def _innermost(said: Any, *, show: Show) -> str:
    for _ in range(DEEPEST):
        if isinstance(said, dict):
            said = next((said[part] for part in ("error", "message", "msg", "detail") if said.get(part)), "")
        elif isinstance(said, list):
            said = said[0] if said else ""
        elif isinstance(said, str) and said[:1] == "{":
            said = parsed(said.encode(errors="replace")) or said  # JSON told as a string within JSON.
    return show(said) if isinstance(said, str) else ""


def _headers(said: object, *, show: Show) -> Mapping[str, str]:
    if not isinstance(said, dict):
        return {}
    pairs = list(said.items())[:MAX_HEADERS_INSIDE]
    return {name.lower(): show(str(value))[:MAX_NAME_CHARS] for name, value in pairs if isinstance(value, str | int)}


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_TOKENS_SAID
