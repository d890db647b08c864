"""A row that is a line of JSON as it stands in its file."""

from __future__ import annotations

import json
from typing import Any

import orjson

LINE = "line"
"""Where a row has its text; the source calls it so."""


def object_of(line: str | bytes) -> dict[str, Any]:
    """What a line says; nothing if it is no JSON object."""
    try:
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            said = json.loads(line)  # NaN and lone surrogates, which other writers write
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {}
