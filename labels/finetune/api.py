"""What two fine-tuning APIs are told and say, as data: OpenAI's, which others speak too, and Together's.

The addresses, the fields of a job and the words for its end differ; all else here is common. Nothing in here sends
anything, and nothing raises on what a server may say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from engine.verdicts import one_line
from labels.finetune.check import Rules

MB = 1 << 20
TOGETHER_HOSTS = ("together.ai", "together.xyz")
OPENAI, TOGETHER = "openai", "together"
Phase = Literal["going", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API."""

    name: str
    upload_path: str
    jobs_path: str
    ends: Mapping[str, Phase]
    """What a status word stands for; any other means that the job goes on."""
    suffix_chars: int
    epochs: int
    """At most."""
    rules: Rules


DIALECTS = {
    OPENAI: Dialect(
        name=OPENAI,
        upload_path="/files",
        jobs_path="/fine_tuning/jobs",
        ends={"succeeded": "done", "failed": "failed", "cancelled": "cancelled"},
        suffix_chars=64,
        epochs=50,
        rules=Rules(
            file_bytes=512 * MB,
            examples=10,
            pictured=50_000,
            pictures=10,
            picture_bytes=10 * MB,
            source="OpenAI, files and vision fine-tuning, 2026-11",
        ),
    ),
    TOGETHER: Dialect(
        name=TOGETHER,
        upload_path="/files/upload",
        jobs_path="/fine-tunes",
        ends={"completed": "done", "error": "failed", "user_error": "failed", "cancelled": "cancelled"},
        suffix_chars=40,
        epochs=20,
        rules=Rules(
            # A data set may be larger, but then Together's own tools send it in parts.
            file_bytes=5 << 30,
            examples=1,
            pictured=None,
            pictures=10,
            picture_bytes=10 * MB,
            source="Together, vision fine-tuning and its Python library, 2026-11",
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, as the provider tells of it."""

    id: str
    status: str
    phase: Phase
    model: str | None
    """The name of the model that was trained."""
    error: str
    training_file: str
    validation_file: str
    suffix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a job."""

    key: str
    """The same whenever the same event is told."""
    at_s: float
    """When, since 1970; 0 if that is not said."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One file at the provider."""

    id: str
    name: str
    size: int | None
    ready: bool
    broken: str
    """Why it cannot be used; empty if it can."""


def dialect_of(base_url: str, told: str) -> Dialect:
    """The API that stands at an address, unless it is told."""
    if told != "auto":
        return DIALECTS[told]
    host = urlsplit(base_url).hostname or ""
    together = any(host == known or host.endswith(f".{known}") for known in TOGETHER_HOSTS)
    return DIALECTS[TOGETHER if together else OPENAI]


def upload_fields(dialect: Dialect, name: str) -> tuple[tuple[str, str], ...]:
    """What stands before the file in an upload."""
    purpose = (("purpose", "fine-tune"),)
    return purpose if dialect.name == OPENAI else (*purpose, ("file_name", name), ("file_type", "jsonl"))


def job_in(said: Mapping[str, Any], dialect: Dialect) -> Job:
    """The job an answer tells of; without an id if it tells of none."""
    status = _text(said.get("status")) or "unknown"
    error = said.get("error")
    error = error.get("message") if isinstance(error, dict) else error
    return Job(
        id=_text(said.get("id")),
        status=status,
        phase=dialect.ends.get(status, "going"),
        model=_first(said, "fine_tuned_model", "model_output_name", "output_name") or None,
        error=_text(error),
        training_file=_text(said.get("training_file")),
        validation_file=_text(said.get("validation_file")),
        suffix=_first(said, "suffix", "user_provided_suffix"),
    )


def events_in(said: Mapping[str, Any], dialect: Dialect) -> list[Event]:
    """The events of a job, the oldest first."""
    found = [_event(item) for item in items_in(said)]
    if len(found) > 1:
        first_s, last_s = found[0].at_s, found[-1].at_s
        # Told newest first, of one second the one told later is the older one; OpenAI tells so.
        if first_s > last_s or (first_s == last_s and dialect.name == OPENAI):
            found.reverse()
    return sorted(found, key=lambda event: event.at_s)


def stored_in(said: Mapping[str, Any]) -> Stored:
    """The file an answer tells of; without an id if it tells of none."""
    status = _text(said.get("status"))
    size = said.get("bytes")
    processed = said.get("Processed", said.get("processed"))
    return Stored(
        id=_text(said.get("id")),
        name=_text(said.get("filename")),
        size=size if type(size) is int else None,
        ready=status in {"", "processed"} and processed is not False,
        broken=(_text(said.get("status_details")) or "it gives no reason") if status == "error" else "",
    )


def items_in(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    data = said.get("data")
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []


def _event(item: Mapping[str, Any]) -> Event:
    kind, level, message = (_text(item.get(name)) for name in ("type", "level", "message"))
    at = item.get("created_at")
    key = _text(item.get("id")) or hashlib.sha256(orjson.dumps([str(at), kind, message, item.get("step")])).hexdigest()
    loud = f"{level.lower()}: " if level.lower() in {"warn", "warning", "error"} else ""
    return Event(key=key, at_s=_moment_s(at), text=loud + (message or kind or "an event without words"))


def _moment_s(at: object) -> float:
    """Seconds since 1970, or ISO 8601."""
    if isinstance(at, int | float) and not isinstance(at, bool):
        return float(at)
    try:
        moment = datetime.fromisoformat(str(at))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _first(said: Mapping[str, Any], *names: str) -> str:
    return next(filter(None, (_text(said.get(name)) for name in names)), "")


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""
