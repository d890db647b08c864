"""What a whole HTTP response is: a `Reply`, or one error of ours. Pure: status, headers and bytes in.

A 200 is not success: it may hold an error, a refusal, a filtered answer, or nothing. Nothing in here raises anything
but an `ApiError` on what a server may send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from engine.errors import ApiError, BadReply, RequestBlocked
from engine.hints import forbids_retry, rate_hint, wait_hint_s
from engine.providers import GENERIC, RateNames
from engine.secret import Secret
from engine.types import Reply, Usage
from engine.verdicts import (
    MAX_MESSAGE_CHARS,
    MAX_NAME_CHARS,
    OK,
    Said,
    Show,
    error_for,
    one_line,
    parsed,
    said_in,
    said_of,
    spent,
    usage_in,
)

_FILTERED = "content_filter"
_BROKEN_OFF = frozenset({"error", "abort"})
"""OpenRouter's word, and vLLM's and SGLang's, for an answer that was never finished."""
_TEXT_PARTS = frozenset({"text", "output_text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One HTTP response, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case, or a mapping that does not mind the case."""
    payload: bytes
    reason: str = ""
    latency_s: float = 0.0


def reply_from(response: Response, *, key: Secret | None = None, names: RateNames = GENERIC) -> Reply:
    """The answer this response holds.

    Args:
        response: whatever a server sent.
        key: to be hidden, should the server echo it.
        names: which headers speak of limits.

    Raises:
        ApiError: it holds none; exactly what `verdicts.error_for` says, for an error, or what the 200 lacks.
    """
    show = partial(one_line, key=key)
    if response.status != OK:
        raise _refusal(response, said_in(response.payload, show=show), names, otherwise=show(response.reason))
    if response.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise BadReply("the server compressed a reply that was asked for uncompressed", status=OK, paid=True)
    said = parsed(response.payload)
    if not isinstance(said, dict):
        raise BadReply("the reply is no JSON object", status=OK, paid=True)
    if said.get("error") or said.get("object") == "error":
        raise _refusal(response, said_in(response.payload, show=show), names)
    usage = usage_in(said.get("usage"))
    choice = _choice(said, usage)
    if choice.get("error"):
        raise spent(_refusal(response, said_of(choice, show=show), names), usage)
    finish_reason = choice.get("finish_reason")
    return Reply(
        text=_text(choice, finish_reason, usage, show),
        finish_reason=finish_reason[:MAX_NAME_CHARS] if isinstance(finish_reason, str) else None,
        usage=usage,
        model=_name(said.get("model"), show) or "",
        request_id=_name(response.headers.get("x-request-id"), show) or _name(said.get("id"), show),
        latency_s=response.latency_s,
        hint=rate_hint(response.headers, names),
    )


def _refusal(response: Response, said: Said, names: RateNames, *, otherwise: str = "") -> ApiError:
    headers = response.headers
    return error_for(
        response.status,
        said,
        retry_after_s=wait_hint_s(headers, said.message, names=names, inner=said.headers),
        final=forbids_retry(headers),
        otherwise=otherwise,
    )


def _choice(said: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
    choices = said.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        _bad("the reply has no choices[0]", usage)
    return choice


def _text(choice: dict[str, Any], finish_reason: object, usage: Usage | None, show: Show) -> str:
    """The answer's text, empty where the model spent its allowance on thinking."""
    message = choice.get("message")
    if not isinstance(message, dict):
        _bad("the reply has no choices[0].message", usage)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        _blocked(f"HTTP 200 with a refusal: {show(refusal)}", usage)
    if finish_reason == _FILTERED:
        _blocked("HTTP 200 with an answer that a content filter took back", usage)
    if isinstance(finish_reason, str) and finish_reason in _BROKEN_OFF:
        _bad(f"the answer was broken off: finish_reason {finish_reason}", usage)
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content:
        return _joined(content, usage)
    if finish_reason == "length":
        return ""
    wrong = "calls a tool instead of answering" if message.get("tool_calls") else "has no choices[0].message.content"
    return _bad(f"the reply {wrong}", usage)


def _joined(content: object, usage: Usage | None) -> str:
    """Text that came in parts."""
    texts = [part["text"] for part in content if _is_text(part)] if isinstance(content, list) else []
    return "".join(texts) if texts else _bad("choices[0].message.content is no text", usage)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)


def _bad(message: str, usage: Usage | None) -> NoReturn:
    raise spent(BadReply(message, status=OK), usage)


def _blocked(message: str, usage: Usage | None) -> NoReturn:
    raise spent(RequestBlocked(message[:MAX_MESSAGE_CHARS], status=OK), usage)


def _name(said: object, show: Show) -> str | None:
    return show(said)[:MAX_NAME_CHARS] if isinstance(said, str) else None
