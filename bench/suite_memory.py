"""The suite `memory`: what the main process and all processes of a run hold, by the number of rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bench.bodies import CODEBOOK, Body, flags, make_rows
from bench.suite import Case, Figures, Told
from bench.throughput import BenchError, asked_once, provider
from bench.watching import Point

BODY = Body(name="rows of 300 bytes", text_bytes=300)
ROWS = (10_000, 100_000, 1_000_000)
QUICK_ROWS = ROWS[:2]
"""The last takes a quarter of an hour or more."""
LONG_ROWS = 100_000
"""From here on one round will do."""
CONCURRENCY = 512
LATENCY_S = 0.3
"""So long that all of those are in flight at the pace of a run on two cores."""
CURVE_POINTS = 60


def cases(told: Told) -> list[Case]:
    """A case for each number of rows."""
    book = told.folder / "codebook.toml"
    book.write_text(CODEBOOK, encoding="utf-8")
    scenario = {"latency": {"kind": "fixed", "median": LATENCY_S}}
    url = told.opened.enter_context(provider(told.folder, scenario, codebook=book)).url

    def case(rows: int) -> Case:
        return Case(
            name=f"{rows:,} rows",
            about={"rows": rows, "concurrency": CONCURRENCY},
            once=lambda _: _once(told, url, rows),
            most_rounds=1 if rows >= LONG_ROWS else None,
        )

    return [case(rows) for rows in (QUICK_ROWS if told.quick else ROWS)]


def _once(told: Told, url: str, rows: int) -> Figures:
    folder = told.folder / str(rows)
    shutil.rmtree(folder, ignore_errors=True)
    make_rows(folder, BODY, rows=rows)
    out = folder / "run"
    words = ("run", *flags(folder, BODY), "--out", out, "--concurrency", CONCURRENCY, "--spot-notices", "off")
    taken = asked_once(folder, *words, run=out, url=url)
    report, seen = taken["report"], taken["watched"]
    if report["ended"] != rows or report["failed"]:
        raise BenchError(f"not every row was answered: see {out / 'report.json'}")
    shutil.rmtree(folder)
    return {
        "main_peak_rss_mb": seen.main_peak_mb,
        "tree_peak_rss_mb": seen.tree_peak_mb,
        "rows_per_s": rows / taken["wall_s"],
        "main_cpu_s_per_1000": report["process"]["main_cpu_s"] / rows * 1000,
        "curve": curve(seen.points),
    }


def curve(points: Sequence[Point]) -> list[tuple[int, float, float]]:
    """Rows done, MB of the main process and of all, at a few moments that lie evenly in time."""
    step = max(1, len(points) // CURVE_POINTS)
    return [(point.rows, round(point.main_mb, 1), round(point.tree_mb, 1)) for point in points[::step]]
