"""What was answered, record by record: from a raw JSONL of any age, or from a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from engine.errors import ConfigError, InputError
from sinks.folder import FAILURES, RESULTS
from sinks.one_file import raw_record
from sinks.ordered import settled_lines

FAILED_MARK = "<<REQUEST FAILED"
"""How the text begins that stands in the place of an answer which never came."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RawAnswer(NamedTuple):
    """One answer, or the request that got none. A tuple, as there are millions."""

    idx: Any
    """As the record has it; else its position."""
    meta_id: str
    original_meta_id: str | None
    group_id: str | None
    raw: str
    failed: bool
    """The request came to nothing."""


def answers_of_file(path: Path, *, say: Callable[[str], None]) -> Iterator[RawAnswer]:
    """The records of a raw JSONL, lazily; blank lines are passed over, and a torn last line is named and left out.

    Raises:
        ConfigError: there is no such file.
        InputError: a line is no raw record; it is named.
    """
    position = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                said = _said(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line)
                if said is None and not line.endswith(b"\n"):
                    say(f"{path} line {number}: the file breaks off in this line; it was left out")
                    return
                yield _answer(said, position, path, number)
                position += 1
    except OSError as error:
        raise ConfigError(f"--raw {path}: {error.strerror}") from error


def answers_of_run(out: Path) -> Iterator[RawAnswer]:
    """The rows of a run folder in the order of the input, each with its result or, failing that, its last failure.

    Raises:
        SinkBroken: a committed line is damaged or missing.
        FolderInUse: answers are being withdrawn.
    """
    with settled_lines(out) as lines:
        for _ in lines.scan(RESULTS, FAILURES):
            pass
        for row, places in lines.rows():
            # Results are scanned first, so a row's result comes first; of its failures the last one counts.
            failed, line = lines.line(row, places[0])
            if failed and len(places) > 1:
                failed, line = lines.line(row, places[-1])
            yield _answer(raw_record(orjson.loads(line), model=None), row, out, row)


def _said(line: bytes) -> Any:
    """What a line says; None if it is no JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        # Other writers leave NaN in it, or halves of characters, which no text can hold that is written again.
        return json.loads(line.decode(), object_hook=_whole)
    except (ValueError, RecursionError):
        return None


def _whole(said: dict[str, Any]) -> dict[str, Any]:
    return {key: _whole_text(value) if isinstance(value, str) else value for key, value in said.items()}


def _whole_text(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _answer(said: Any, position: int, path: Path, number: int) -> RawAnswer:
    if not isinstance(said, dict):
        raise InputError(f"{path} line {number}: no raw record; a line is a JSON object with a text `raw`")
    raw, status = said.get("raw"), said.get("status")
    failed = status == "error" or (
        isinstance(raw, str) and raw.startswith(FAILED_MARK) and said.get("finish_reason") is None
    )
    if raw is None and failed:
        raw = f"{FAILED_MARK}: {said.get('error') or ''}>>"
    if not isinstance(raw, str):
        raise InputError(f"{path} line {number}: no raw record; a line is a JSON object with a text `raw`")
    idx, meta_id, original = said.get("idx", position), said.get("meta_id"), said.get("original_meta_id")
    group = said.get("group_id")
    return RawAnswer(
        idx=idx,
        meta_id=str(idx if meta_id is None else meta_id),
        original_meta_id=None if original is None else str(original),
        group_id=None if group is None else str(group),
        raw=raw,
        failed=failed,
    )
