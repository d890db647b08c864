"""A report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from labels.codebook import Dimension
from labels.score.columns import Coder
from labels.score.drawings import COLOURS, bars, heatmap
from labels.score.report import Report
from labels.score.slots import ALL, ANSWERED, F1, Slot, thresholds
from labels.score.tables import (
    Grid,
    brief_rows,
    count_grid,
    detail_rows,
    difference_grid,
    headline_grid,
    names,
    notes,
)

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667080; --paper: #fbfbfa; --card: #ffffff; --line: #dfe3e8;
  --empty: #eef1f5; --heat: #1f5fbf; --on: #ffffff; --c0: #1f5fbf; --c1: #c2571a; --c2: #2e8b57; --c3: #8a4fbf;
  --c4: #b08a00; --c5: #be3a5e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --dim: #95a0b0; --paper: #14171c; --card: #1c2027;
  --line: #333a45; --empty: #262c35; --heat: #7db0ff; --on: #0d1420; --c0: #7db0ff; --c1: #f0a06b; --c2: #74cf9c;
  --c3: #c79bf2; --c4: #e0c158; --c5: #f08aa8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .4rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; overflow-wrap: anywhere; } h4 { font-size: .85rem; margin: .9rem 0 .2rem;
  font-weight: 600; color: var(--dim); overflow-wrap: anywhere; }
p { margin: .3rem 0; } .dim, .note { color: var(--dim); } .note { font-size: .9rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .key { display: inline-block; margin-right: 1rem; overflow-wrap: anywhere; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem; min-width: 0; }
svg { display: block; } svg.fits { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg text.dim { fill: var(--dim); } svg text.on { fill: var(--on); }
.grid { stroke: var(--line); } .interval { stroke: var(--ink); stroke-width: 1.3; fill: none; }
.empty { fill: var(--empty); } .heat { fill: var(--heat); } summary { cursor: pointer; margin-top: 2rem; }
@media (max-width: 40rem) { th, td { white-space: normal; padding-right: .5rem; font-size: .82rem; }
  td:first-child { min-width: 7rem; max-width: 9rem; overflow-wrap: anywhere; position: sticky; left: 0;
    background: var(--paper); } .card td:first-child { min-width: 0; background: var(--card); }
  td:not(:first-child) { min-width: 5.6rem; } }
""" + "".join(f".m{at} {{ fill: var(--c{at}); }} .k{at} {{ background: var(--c{at}); }}\n" for at in range(COLOURS))


def page(report: Report) -> str:
    """The whole page."""
    book, differences = report.truth.codebook, difference_grid(report)
    about = f"{len(report.truth):,} rows of gold from {report.truth.path.name}, codebook {book.name} ({book.digest})"
    parts = [
        f"<h1>Scores: {escape(book.title)}</h1>",
        f'<p class="dim">{escape(about)}</p>',
        _legend(report),
        *(f'<p class="note">{escape(note)}</p>' for note in notes(report)),
        _section(count_grid(report)),
        _section(headline_grid(report)),
        *([_section(differences)] if differences else []),
        "<h2>Each dimension</h2>",
        '<div class="cards">',
        *(_card(report, coder) for coder in report.truth.scored),
        "</div>",
        "<details><summary>Every measure in both readings</summary>",
        *(_details(report, coder.dimension.key) for coder in report.truth.scored),
        "</details>",
    ]
    return _whole(f"Scores: {book.name}", "\n".join(parts))


def _whole(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _legend(report: Report) -> str:
    keys = (
        f'<span class="key"><i class="k{at % COLOURS}"></i>{escape(name)}</span>'
        for at, name in enumerate(names(report))
    )
    return f"<p>{''.join(keys)}</p>"


def _section(grid: Grid) -> str:
    return f"<h2>{escape(grid.title)}</h2>\n{_table(grid)}"


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in grid.head)
    rows = ("".join(f"<td>{_unbroken(text)}</td>" for text in row) for row in grid.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _unbroken(text: str) -> str:
    """A cell that may break before an interval, not inside of it."""
    return escape(text).replace(", ", ",&nbsp;")


def _card(report: Report, coder: Coder) -> str:
    dimension = coder.dimension
    counted = ", ".join(f"{label} {count:,}" for label, count in report.supports[dimension.key].items())
    both = Grid(title="", head=("all / answered", *names(report)), rows=tuple(brief_rows(report, dimension)))
    return "\n".join(
        [
            f'<section class="card"><h3>{escape(dimension.key)}</h3>',
            f'<p class="note">{escape(dimension.title)}. Gold: {escape(counted)}</p>',
            _table(both),
            *_drawn_bars(report, dimension),
            *_drawn_matrices(report, dimension),
            "</section>",
        ]
    )


def _drawn_bars(report: Report, dimension: Dimension) -> Iterator[str]:
    labels = tuple(thresholds(dimension, report.options)) if dimension.kind == "number" else dimension.values
    for reading, words in ((ALL, "missing answers wrong"), (ANSWERED, "answered rows only")):
        slots = [(label, Slot(reading, F1, label)) for label in labels]
        rows = [(label, [scores.estimates[dimension.key, slot] for scores in report.models]) for label, slot in slots]
        if rows:
            title = f"{dimension.key}: F1 of each label, {words}"
            yield f'<h4>F1, {words}</h4><div class="wide">{bars(rows, title=title)}</div>'


def _drawn_matrices(report: Report, dimension: Dimension) -> Iterator[str]:
    for scores in report.models:
        matrix = scores.matrices.get(dimension.key)
        if matrix is not None:
            name = scores.predictions.name
            drawn = heatmap(matrix, title=f"{dimension.key}: gold against the answers of {name}")
            yield f'<h4>Gold in rows, {escape(name)} in columns</h4><div class="wide">{drawn}</div>'


def _details(report: Report, key: str) -> str:
    grid = Grid(title=key, head=("measure", *names(report)), rows=tuple(detail_rows(report, key)))
    return f"<h4>{escape(key)}</h4>{_table(grid)}"
