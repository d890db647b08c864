"""Rows of a run as answers: the prompt's own line, and after it what was asked, answered, and for how much.

Files of this form, and those of older scripts with the answer under `text`, `answer` or `response`, are read for
`judge` by `labels.judge.inputs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from encoders.asking import Asking
from engine.errors import RowError, SinkBroken
from labels.generate.clean import Template, clean
from labels.generate.prompts import Prompts
from sinks.files import OS_FILES, partial_of, reading_lines, writing_new
from sinks.lines import SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRows:
    """How a row of the run becomes an answer."""

    prompts: Prompts
    asking: Asking
    template: Template

    def __call__(self, said: Mapping[str, Any], *, model: str | None) -> dict[str, Any]:
        """The answer of a row.

        Args:
            said: its line, in `results/` or `failures/`.
            model: which was asked, for rows whose provider named none.
        """
        asked = self.prompts.get(said["row"])
        raw = None if "kind" in said else said["raw"]
        row = {
            **asked,
            "question_id": asked.get("question_id", said["row"]),
            "prompt": self._prompt(asked),
            "full_text": raw,
            "pred_answer": None if raw is None else clean(raw, self.template),
            "model_id": said.get("model") or model,
            "answer_id": asked.get("answer_id", 0),
            "metadata": asked.get("metadata", {}),
            "status": "error" if raw is None else "ok",
            "error_kind": said.get("kind"),
            "error": said.get("message"),
            "truncated": said.get("truncated"),
            "usage": said["usage"],
            "cost_usd": said.get("cost_usd"),
            "frames": said.get("frames", []),
            "degraded": said.get("degraded"),
            "request_id": said.get("request_id"),
            **({SHARED: said[SHARED]} if SHARED in said else {}),
        }
        return _sound(row)

    def _prompt(self, asked: Mapping[str, Any]) -> str | None:
        try:
            return self.asking.read(asked).text
        except RowError:
            return None


def write_list(lines: Path, to: Path) -> None:
    """Write a file of lines as one JSON list; what stood there is replaced once the new one is whole.

    Raises:
        SinkBroken: the disk failed.
    """
    partial = partial_of(to)
    try:
        with writing_new(OS_FILES, partial) as put, reading_lines(OS_FILES, lines, lines.stat().st_size) as read:
            before = b"[\n"
            for line in read:
                put(before + line.rstrip(b"\n"))
                before = b",\n"
            put(b"[]\n" if before == b"[\n" else b"\n]\n")
        OS_FILES.rename(partial, to)
        OS_FILES.sync_folder(to.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SinkBroken(f"writing {to} failed: {error.strerror or error}. {lines} holds every answer") from error


def _sound(row: dict[str, Any]) -> dict[str, Any]:
    """The row in what can be written: lone surrogates become U+FFFD, integers beyond 64 bits texts."""
    try:
        orjson.dumps(row)
    except (orjson.JSONEncodeError, TypeError):
        text = json.dumps(row, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return dict(json.loads(text, parse_int=_number))
    return row


def _number(digits: str) -> int | str:
    number = int(digits)
    return number if -(1 << 63) <= number < 1 << 64 else digits
