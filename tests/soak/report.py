"""What the last soak measured: kept as JSON beside this file, and written as tables into `docs/durability.md`.

`python -m tests.soak.report` writes the tables anew from what is kept.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from tests.fakes.commands import ROOT

KEPT = Path(__file__).with_name("last.json")
PAGE = ROOT / "docs" / "durability.md"
BEGIN, END = "<!-- soak:begin -->", "<!-- soak:end -->"
COMMAND = "make soak"


def note(part: str, seconds: float, **measured: Any) -> None:
    """Keep what one part of a soak measured, in place of what it measured before."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[part] = measured | {
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}",
    }
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def tables() -> str:
    """The block between the markers."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    mutants = kept.pop("mutants", None)
    parts = [f"Written by `{COMMAND}`, each line by the newest soak of its part. One row lost or doubled fails a part."]
    rows = [_row(name, measured) for name, measured in kept.items()]
    header = "| What was done | Tried | Rows lost | Rows doubled | More | Took | When and where |\n" + "|---" * 7 + "|"
    parts.append("\n".join([header, *rows]))
    if mutants is not None:
        killed = [f"| {name} | `{check}` |" for name, check in mutants["killed"].items()]
        said = f"{len(killed)} of {mutants['tried']} mutants are killed ({mutants['date']}):"
        parts.append("\n".join([said, "", "| A store in which | fails the check |", "|---|---|", *killed]))
    return "\n\n".join(parts)


def _row(name: str, measured: dict[str, Any]) -> str:
    known = {"tried", "lost", "doubled", "seconds", "date", "machine"}
    more = ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in measured.items() if key not in known)
    where = f"{measured['date']}, {measured['machine']}"
    figures = f"{_said(measured['tried'])} | {measured['lost']} | {measured['doubled']}"
    return f"| {name} | {figures} | {more} | {measured['seconds']:,.0f} s | {where} |"


def _said(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def write_page() -> None:
    """Put the tables into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_page()
