"""An estimate for a person at a terminal of eighty columns, and as JSON values for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from labels.costs import Bill, Range
from labels.estimate import Estimate
from labels.forecast import SILENT

COLUMNS = 80
CENTS_BELOW_USD = 100.0
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NO_PRICE = "unknown: no price; set --price-in and --price-out"


def as_text(found: Estimate, *, sent: bool) -> str:
    """For a person.

    Args:
        found: the estimate.
        sent: whether two calls were made for it.
    """
    bill, rows = found.bill, found.survey
    lines = [
        "Nothing was written; two small calls were made." if sent else SILENT,
        f"rows      {rows.rows:,} to send · {rows.done:,} done · {rows.unreadable:,} cannot be read",
        *_sample(found),
        f"to        {found.model}",
        f"          {found.address}",
        f"choice    --fit {bill.choice.fit} --max-frames {bill.choice.max_frames}: {bill.frames:.1f} frames a row",
        "",
        f"{'':8}{'a row':>12}{'tokens together':>22}{'dollars':>12}",
        *_parts(found),
        "",
        *_closing(found),
        *_table("image tokens", found, lambda other: _short(other.image_tokens)),
    ]
    if bill.usd is not None:
        lines += _table("dollars, all in", found, lambda other: dollars(other.usd.middle if other.usd else None))
    return "\n".join(lines)


def as_json(found: Estimate) -> dict[str, Any]:
    """For a program: tokens and dollars are those of all rows together."""
    rows = found.survey
    return {
        "model": found.model,
        "base_url": found.address,
        "rows": {
            "to_send": rows.rows,
            "sendable": rows.sendable,
            "done": rows.done,
            "unreadable": rows.unreadable,
            "looked_at": 0 if rows.described else len(rows.looked_at),
            "unsendable": rows.unsendable,
            "encoded": rows.encoded,
        },
        "body_bytes_per_row": rows.body_bytes,
        "answer_tokens_per_row": found.answers.tokens.as_json() | {"basis": found.answers.basis},
        **_bill_json(found.bill),
        "time": None if found.time is None else {"hours": found.time[0], "limit": found.time[1]},
        "others": [_bill_json(other) for other in found.others],
        "notes": list(found.notes),
    }


def _bill_json(bill: Bill) -> dict[str, Any]:
    return {
        "fit": bill.choice.fit,
        "max_frames": bill.choice.max_frames,
        "frames_per_row": bill.frames,
        "text_tokens": bill.text_tokens,
        "image_tokens": bill.image_tokens,
        "prompt_tokens": bill.prompt_tokens.as_json(),
        "answer_tokens": bill.answer_tokens.as_json(),
        "image_usd": bill.image_usd,
        "text_usd": bill.text_usd,
        "answer_usd": bill.answer_usd,
        "usd": None if bill.usd is None else bill.usd.as_json(),
    }


def _sample(found: Estimate) -> list[str]:
    rows = found.survey
    if rows.described:
        return ["sample    none: all rows are taken to be as described"]
    lines = [f"sample    {len(rows.looked_at):,} rows looked at, {rows.encoded} of them encoded"]
    if rows.unsendable:
        lines.append(f"          {rows.unsendable} more could not be encoded: {rows.why_unsendable}")
    if rows.body_bytes is not None:
        together = _short(rows.body_bytes * rows.sendable)
        lines.append(f"bytes     {_short(rows.body_bytes)}B a row, {together}B together")
    return lines


def _parts(found: Estimate) -> list[str]:
    bill, rows = found.bill, found.survey.sendable or 1.0
    parts = (
        ("text", bill.text_tokens, bill.text_usd),
        ("images", bill.image_tokens, bill.image_usd),
        ("answers", bill.answer_tokens.middle, bill.answer_usd),
    )
    return [f"{name:8}{tokens / rows:>12,.0f}{tokens:>22,.0f}{dollars(usd):>12}" for name, tokens, usd in parts]


def _closing(found: Estimate) -> list[str]:
    bill, each = found.bill, found.answers.tokens
    cost = NO_PRICE if bill.usd is None else f"{dollars(bill.usd.middle)}, {_bounds(bill.usd)}"
    lines = [
        f"answers   {each.low:,.0f} to {each.high:,.0f} tokens each, {found.answers.basis}",
        f"cost      {cost}",
    ]
    if found.time is None:
        lines.append("time      unknown: --rate, --rpm or --tpm say how fast")
    else:
        lines.append(f"time      {_duration(found.time[0])} at {found.time[1]}")
    for note in found.notes:
        lines += textwrap.wrap(note, COLUMNS, initial_indent="note      ", subsequent_indent=" " * 10)
    return lines


def _bounds(usd: Range) -> str:
    return f"between {dollars(usd.low)} and {dollars(usd.high)}; each row asked once"


def _table(title: str, found: Estimate, cell: Callable[[Bill], str]) -> list[str]:
    """Choices of `--fit` down, of `--max-frames` across; the one that was made has an asterisk."""
    if not found.others:
        return []
    counts = list(dict.fromkeys(other.choice.max_frames for other in found.others))
    lines = [
        "",
        f"{title}, by --fit and --max-frames (* as above)",
        f"{'':12}" + "".join(f"{count:>11}" for count in counts),
    ]
    mine = found.bill.choice
    for fit in dict.fromkeys(other.choice.fit for other in found.others):
        cells = [cell(other) for other in found.others if other.choice.fit == fit]
        lines.append(f"{fit + (' *' if fit == mine.fit else ''):12}" + "".join(f"{said:>11}" for said in cells))
    return lines


def dollars(usd: float | None) -> str:
    if usd is None:
        return "?"
    return f"${usd:,.0f}" if usd >= CENTS_BELOW_USD else f"${usd:,.2f}"


def _short(amount: float) -> str:
    for size, unit in UNITS:
        if amount >= size:
            return f"{amount / size:,.4g} {unit}"
    return f"{amount:,.0f} "


def _duration(hours: float) -> str:
    for unit, size in (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:,.1f} {unit}"
    return f"{hours * 3600:,.0f} seconds"
