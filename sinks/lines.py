"""Record to one JSON line, and back as far as recovery needs. The order of keys is part of the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.types import Failure, FailureKind, MediaNote, Record, Usage

MAX_MESSAGE_CHARS = 2000
RESULT_KEYS = [
    "row",
    "meta_id",
    "raw",
    "labels",
    "label_error",
    "finish_reason",
    "truncated",
    "attempt",
    "max_tokens_used",
    "latency_s",
    "model",
    "usage",
    "cost_usd",
    "frames",
    "degraded",
    "request_id",
]
SHARED = "shared_with"
"""The last key of a result line whose answer is another row's; other lines do not have it."""
SHARED_KEYS = [*RESULT_KEYS, SHARED]
FROM_CACHE = "cache"
CUT_MARK = b'"truncated":true'
FAILURE_KEYS = ["row", "meta_id", "kind", "status", "message", "attempt", "usage"]


def line_of(record: Record) -> bytes:
    """The line of a record, newline included: for `results/` if it has a reply, else for `failures/`."""
    said = _failure(record, record.outcome) if isinstance(record.outcome, Failure) else _result(record)
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return orjson.dumps(_replaced(said), option=orjson.OPT_APPEND_NEWLINE)


def has_keys(said: Mapping[str, Any], keys: list[str]) -> bool:
    """Whether an object has the keys of a line, in their order."""
    found = list(said)
    return found == keys or (keys is RESULT_KEYS and found == SHARED_KEYS)


def row_of(line: bytes, *, keys: list[str]) -> int | None:
    """The row of a whole, valid line of ours, or None."""
    said = _said(line, keys=keys)
    return None if said is None else int(said["row"])


def kind_of(line: bytes) -> tuple[int, str] | None:
    """Row and kind of a whole, valid failure line, or None."""
    said = _said(line, keys=FAILURE_KEYS)
    return None if said is None else (said["row"], said["kind"])


def cut_answer(line: bytes) -> dict[str, Any] | None:
    """What a whole, valid result line says, if its answer was cut off; else None."""
    # Nearly every line is told apart by its bytes alone: inside a text the quotes would stand escaped.
    if CUT_MARK not in line:
        return None
    said = _said(line, keys=RESULT_KEYS)
    return said if said is not None and said["truncated"] is True else None


def withdrawal_message(max_tokens_used: int, request_id: str | None) -> str:
    """Says which answer it was, so that no two answers of a row have the same failure line."""
    asked = f" (request {request_id})" if request_id else ""
    return f"the answer was cut off at {max_tokens_used} tokens and withdrawn to be asked for again{asked}"


def withdrawal_line(said: Mapping[str, Any]) -> bytes:
    """The failure line of a result that is withdrawn."""
    failure = {
        "row": said["row"],
        "meta_id": said["meta_id"],
        "kind": str(FailureKind.TRUNCATED),
        "status": None,
        "message": withdrawal_message(said["max_tokens_used"], said["request_id"])[:MAX_MESSAGE_CHARS],
        "attempt": said["attempt"],
        "usage": said["usage"],
    }
    return orjson.dumps(failure, option=orjson.OPT_APPEND_NEWLINE)


def _said(line: bytes, *, keys: list[str]) -> dict[str, Any] | None:
    if not line.endswith(b"}\n"):
        return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict) or not has_keys(said, keys):
        return None
    row = said["row"]
    return said if type(row) is int and row >= 0 else None


def _result(record: Record) -> dict[str, Any]:
    reply, answer = record.outcome, record.answer
    assert not isinstance(reply, Failure)
    said = {
        "row": record.row,
        "meta_id": record.id,
        "raw": reply.text,
        "labels": answer.labels if answer else None,
        "label_error": answer.error if answer else None,
        "finish_reason": reply.finish_reason,
        "truncated": record.truncated,
        "attempt": record.attempts,
        "max_tokens_used": record.max_tokens_used,
        "latency_s": round(reply.latency_s, 3),
        "model": reply.model,
        "usage": _usage(record.usage),
        "cost_usd": record.cost_usd,
        "frames": [_frame(note) for note in record.media],
        "degraded": list(record.degraded) or None,
        "request_id": reply.request_id,
    }
    if record.shares is not None:
        said[SHARED] = FROM_CACHE if record.shares.row is None else record.shares.row
    return said


def _failure(record: Record, failure: Failure) -> dict[str, Any]:
    return {
        "row": record.row,
        "meta_id": record.id,
        "kind": str(failure.kind),
        "status": failure.status,
        "message": failure.message[:MAX_MESSAGE_CHARS],
        "attempt": record.attempts,
        "usage": _usage(record.usage),
    }


def _usage(usage: Usage | None) -> dict[str, int] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _frame(note: MediaNote) -> dict[str, Any]:
    return {
        "index": note.index,
        "time_s": note.time_s,
        "digest": note.digest,
        "width": note.width,
        "height": note.height,
        "tokens": note.tokens,
    }


def _replaced(value: Any) -> Any:
    """The value with what JSON cannot hold replaced: lone surrogates, integers beyond 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replaced(str(key)): _replaced(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item) for item in value]
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        return float(value) if abs(value) < 1 << 1000 else None
    return value
