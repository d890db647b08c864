"""What each field of a line and of `run.json` must be: its type and its range, as docs/formats.md says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.types import FailureKind
from sinks.folder import FORMAT
from sinks.lines import FROM_CACHE, MAX_MESSAGE_CHARS, SHARED

MAX_SHARDS = 1 << 20
"""More files no folder holds with joy; a damaged number may be anything."""
USAGE_KEYS = ["prompt_tokens", "completion_tokens", "cached_tokens"]
FRAME_KEYS = ["index", "time_s", "digest", "width", "height", "tokens"]
DIGEST = re.compile("[0-9a-f]{16}")
KINDS = frozenset(FailureKind)
CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def faults_of(said: Mapping[str, Any], *, failed: bool) -> list[str]:
    """What is wrong with the fields of a line that has the right keys."""
    shape = FAILURE_SHAPE if failed else RESULT_SHAPE
    faults = [f"{key} is not what it must be" for key, fits in shape if not fits(said[key])]
    if SHARED in said and not (_count(said[SHARED]) or said[SHARED] == FROM_CACHE):
        faults.append(f"{SHARED} is not what it must be")
    if not failed and said["labels"] is not None and said["label_error"] is not None:
        faults.append("there are labels and a label_error")
    return faults


def manifest_faults(said: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a `run.json`."""
    form, shards = said.get("format"), said["shards"]
    if type(form) is not int or not 1 <= form <= FORMAT:
        yield f"format {form!r} is not one this version knows"
    if not 1 <= shards <= MAX_SHARDS:
        yield f"{shards} shards cannot be"
    if not CREATED.fullmatch(str(said.get("created"))):
        yield "created is no time"
    for part in ("input", "settings", "operational", "versions"):
        if not isinstance(said.get(part, {}), dict):
            yield f"{part} is no object"


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _amount(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _maybe(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _usage(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == USAGE_KEYS and all(map(_count, value.values()))


def _frames(value: Any) -> bool:
    return isinstance(value, list) and all(map(_frame, value))


def _frame(value: Any) -> bool:
    # Written out: nearly all there is to check in a line is in its frames.
    if not isinstance(value, dict) or list(value) != FRAME_KEYS:
        return False
    index, time_s, digest, width, height, tokens = value.values()
    return (
        type(index) is type(width) is type(height) is int
        and index >= 0
        and width > 0
        and height > 0
        and (time_s is None or type(time_s) in (int, float))
        and isinstance(digest, str)
        and DIGEST.fullmatch(digest) is not None
        and (tokens is None or _count(tokens))
    )


def _degraded(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value))


RESULT_SHAPE: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("row", _count),
    ("meta_id", _text),
    ("raw", _text),
    ("labels", _maybe(lambda value: isinstance(value, dict))),
    ("label_error", _maybe(_text)),
    ("finish_reason", _maybe(_text)),
    ("truncated", lambda value: isinstance(value, bool)),
    ("attempt", _count),
    ("max_tokens_used", _count),
    ("latency_s", _amount),
    ("model", _text),
    ("usage", _maybe(_usage)),
    ("cost_usd", _maybe(_amount)),
    ("frames", _frames),
    ("degraded", _maybe(_degraded)),
    ("request_id", _maybe(_text)),
)
FAILURE_SHAPE: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("row", _count),
    ("meta_id", _text),
    ("kind", lambda value: _text(value) and value in KINDS),
    ("status", _maybe(_count)),
    ("message", lambda value: _text(value) and len(value) <= MAX_MESSAGE_CHARS),
    ("attempt", _count),
    ("usage", _maybe(_usage)),
)
