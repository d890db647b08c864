"""Plots as inline SVG: every text escaped, every colour from the page, readable as wide as a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from labels.score.matrices import Matrix
from labels.score.report import Estimate
from labels.score.tables import NOT_DEFINED, number

COLOURS = 6
"""Models are told apart by so many; a seventh looks like the first again."""
WIDTH_PX = 312
"""A phone's, less its margins; all texts are drawn for it."""
LABEL_PX, VALUE_PX, BAR_PX, LINE_PX = 104, 40, 10, 14
CELL_PX, CELL_HIGH_PX, HEAD_PX = 42, 30, 74
CHAR_PX = 6.2
FITS_PX = 380
"""So wide a plot is made smaller to fit a phone; a wider one is moved sideways, or its texts would be too small."""
MILLION = 1_000_000
STRONG = 0.55
"""From this share on a cell is so dark that its text takes the other colour."""


def bars(rows: Sequence[tuple[str, Sequence[Estimate]]], *, title: str) -> str:
    """For each label a bar a model, from 0 to 1, with its interval.

    Args:
        rows: a label, and one figure a model.
        title: for those who cannot see it.
    """
    track = WIDTH_PX - LABEL_PX - VALUE_PX
    parts, y = [], 4
    for label, estimates in rows:
        middle = y + LINE_PX * len(estimates) / 2
        parts.append(_text(LABEL_PX - 6, middle + 4, _cut(label, LABEL_PX - 8), anchor="end", whole=label))
        for at, estimate in enumerate(estimates):
            parts.append(_bar(estimate, y, track, at % COLOURS))
            y += LINE_PX
        y += 8
    return _svg(WIDTH_PX, y, "".join([_axis(track, y), *parts]), title)


def _axis(track: float, height: float) -> str:
    places = (LABEL_PX + track * share for share in (0.0, 0.5, 1.0))
    return "".join(f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="0" y2="{height:g}"/>' for x in places)


def _bar(estimate: Estimate, y: float, track: float, colour: int) -> str:
    if math.isnan(estimate.value):
        return _text(LABEL_PX + 4, y + BAR_PX, NOT_DEFINED, kind="dim")
    end = LABEL_PX + track * _share(estimate.value)
    drawn = (
        f'<rect class="m{colour}" x="{LABEL_PX}" y="{y + 1:g}" width="{end - LABEL_PX:.1f}" height="{BAR_PX}" rx="2"/>'
    )
    drawn += _text(WIDTH_PX - VALUE_PX + 6, y + BAR_PX, number(estimate.value))
    if math.isnan(estimate.low):
        return drawn
    low, high = (LABEL_PX + track * _share(bound) for bound in (estimate.low, estimate.high))
    middle = y + 1 + BAR_PX / 2
    path = f"M{low:.1f} {middle - 3:g}v6M{low:.1f} {middle:g}H{high:.1f}M{high:.1f} {middle - 3:g}v6"
    return f'{drawn}<path class="interval" d="{path}"/>'


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def heatmap(matrix: Matrix, *, title: str) -> str:
    """Gold in rows, answers in columns; a cell is the darker the more of its row is in it."""
    width = LABEL_PX + CELL_PX * len(matrix.saids) + 30
    height = HEAD_PX + CELL_HIGH_PX * len(matrix.golds) + 6
    parts = [_turned(LABEL_PX + CELL_PX * (at + 0.45), HEAD_PX - 8, name) for at, name in enumerate(matrix.saids)]
    for row, (name, counts) in enumerate(zip(matrix.golds, matrix.counts, strict=True)):
        y, total = HEAD_PX + CELL_HIGH_PX * row, sum(counts)
        label = _cut(name, LABEL_PX - 8)
        parts.append(_text(LABEL_PX - 6, y + CELL_HIGH_PX / 2 + 4, label, anchor="end", whole=name))
        parts += [
            _cell(LABEL_PX + CELL_PX * at, y, count, count / total if total else 0.0) for at, count in enumerate(counts)
        ]
    return _svg(width, height, "".join(parts), title)


def _cell(x: float, y: float, count: int, share: float) -> str:
    box = f'x="{x + 1:g}" y="{y + 1:g}" width="{CELL_PX - 2}" height="{CELL_HIGH_PX - 2}" rx="3"'
    text = f"{count:,}" if count < MILLION else f"{count / MILLION:.1f}M"
    kind = "on" if share >= STRONG else ""
    told = f"<title>{count:,}, {share:.1%} of this gold</title>"
    return (
        f'<g>{told}<rect class="empty" {box}/><rect class="heat" fill-opacity="{share:.3f}" {box}/>'
        + _text(x + CELL_PX / 2, y + CELL_HIGH_PX / 2 + 4, text, anchor="middle", kind=kind)
        + "</g>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", whole: str = "") -> str:
    """One line of text; what `whole` says is told where it was cut."""
    told = f"<title>{escape(whole)}</title>" if whole and whole != text else ""
    chosen = f' class="{kind}"' if kind else ""
    held = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{held}{chosen}>{told}{escape(text)}</text>'


def _turned(x: float, y: float, text: str) -> str:
    return f'<g transform="translate({x:g} {y:g}) rotate(-38)">{_text(0, 0, _cut(text, HEAD_PX * 1.3), whole=text)}</g>'


def _cut(text: str, width_px: float) -> str:
    most = max(3, int(width_px / CHAR_PX))
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(width: float, height: float, inside: str, title: str) -> str:
    named = escape(title, quote=True)
    fits = ' class="fits"' if width <= FITS_PX else ""
    return (
        f'<svg{fits} viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{named}">{inside}</svg>'
    )
