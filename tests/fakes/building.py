"""Tables with gold, and what is built of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from labels.build.plan import Planned, planned
from labels.build.tally import Tally
from labels.build.write import build
from labels.codebook import SHIPPED
from labels.commands.build_flags import BuildFlags

ID = "7531309745475554591"
TEXTS = {"subtitle": "they walk through the market", "meta_desc": "a description"}
GOLD = {
    "china_related": "yes",
    "stance_gov": "pro",
    "stance_culture": "neutral",
    "stance_tech": "anti",
    "sensitive": "no",
    "collective_action": "no",
    "hate_speech": "no",
    "harmful": "no",
    "news": "0.7",
    "inauthentic": "no",
    "derivative": "no",
}
LABELS = {
    "china_related": "yes",
    "china_ccp_government": "pro",
    "china_people_culture": "neutral/unclear",
    "china_technology_development": "anti",
    "china_sensitive": "no",
    "collective_action": "no",
    "hate_speech": "no",
    "harmful_content": "no",
    "news_segments": "yes",
    "inauthentic_content": "no",
    "derivative_content": "no",
}
BOOKS = sorted(path.stem for path in SHIPPED.glob("*.toml"))


def write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
    return path


def row(identity: str = ID, **cells: str) -> dict[str, str]:
    return {"meta_id": identity} | TEXTS | GOLD | cells


def flags(folder: Path, **more: Any) -> BuildFlags:
    told: dict[str, Any] = {"input": folder / "in.csv", "output": folder / "out.jsonl", "comprehensive": True}
    return BuildFlags(**(told | more))


def made(folder: Path, *rows: dict[str, str], **more: Any) -> tuple[list[dict[str, Any]], Tally]:
    """The lines, and the counts."""
    write(folder / "in.csv", *rows)
    told = flags(folder, **more)
    tally = build(planned(told).plan)
    assert told.output is not None
    return lines(told.output), tally


def lines(path: Path) -> list[dict[str, Any]]:
    # Split as the least careful of readers does.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(line: dict[str, Any]) -> dict[str, Any]:
    last = line["messages"][-1]
    assert last["role"] == "assistant"
    assert ": " not in last["content"], "minified"
    return dict(json.loads(last["content"]))


def plan_notes(folder: Path, **more: Any) -> Planned:
    write(folder / "in.csv", row())
    return planned(flags(folder, **more))
