"""What the scripts of all peers have in common: their flags, their rows, their answers.

They run in foreign environments: the standard library and nothing of ours but this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "simulated/vision"
MAX_TOKENS = 1000
"""More than any answer takes: some peers count a cut answer as a failure."""
KEY = "any"

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a script is told."""

    base_url: str
    """Up to and with /v1."""
    rows: Path
    """A request body a line."""
    out: Path
    """One line for each answered row."""
    concurrency: int
    """Calls in flight."""


def told(parser: argparse.ArgumentParser | None = None) -> tuple[Told, argparse.Namespace]:
    """The flags all scripts have, and those of the given parser."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    said = parser.parse_args()
    return Told(base_url=said.base_url, rows=said.rows, out=said.out, concurrency=said.concurrency), said


def read(path: Path) -> Iterator[tuple[int, Messages]]:
    """Each row's ordinal and messages."""
    with path.open("rb") as file:
        for row, line in enumerate(file):
            yield row, json.loads(line)["messages"]


def line(row: int, answer: str | None) -> str:
    """What is written of an answered row."""
    return json.dumps({"row": row, "answer": answer}) + "\n"


async def ask_all(told: Told, ask: Callable[[Messages], Awaitable[str | None]]) -> None:
    """Ask so many rows at once and write each answer as it comes: the loop a user of a client library writes."""
    rows = read(told.rows)
    with told.out.open("w", encoding="utf-8") as out:

        async def slot() -> None:
            for row, messages in rows:
                out.write(line(row, await ask(messages)))

        async with asyncio.TaskGroup() as group:
            for _ in range(told.concurrency):
                group.create_task(slot())
