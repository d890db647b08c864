"""Markdown tables from the JSON files of `python cli.py bench`, and into the README where it has a place for them.

python -m bench.tables            prints the tables of all suites that have been measured
python -m bench.tables --write    puts them between `<!-- bench:SUITE -->` and `<!-- /bench -->`
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.suite import spread
from bench.targets import Cases, verdicts
from bench.throughput import RESULTS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("speed", "limits", "peers", "processes")))
YARDSTICK = "yardstick"
_PLACE = re.compile(r"<!-- bench:(?P<suite>\w+) -->\n.*?<!-- /bench -->", re.DOTALL)
Row = Sequence[str]


def table_of(suite: str, folder: Path) -> str:
    """The table of a suite, under the command that measures it, and over what it says of what is wanted.

    Args:
        suite: whose.
        folder: where its JSON file is.

    Raises:
        OSError: it was never measured.
    """
    said = json.loads((folder / f"{suite}.json").read_text(encoding="utf-8"))
    cases: Cases = said["cases"]
    head = f"`{said['command']}`, {said['date']}, {said['machine']}{QUICK if said.get('quick') else ''}:"
    parts = [head, "\n".join(TABLES[suite](cases))]
    if judged := verdicts(suite, cases):
        parts.append("\n".join(f"- {line}" for line in judged))
    return "\n\n".join(parts)


QUICK = " (a short measurement, rough)"


def rewritten(page: str, folder: Path) -> str:
    """A page of Markdown with the table of each suite it has a place for, if that has been measured."""

    def place(found: re.Match[str]) -> str:
        suite = found["suite"]
        if not (folder / f"{suite}.json").exists():
            return found[0]
        return f"<!-- bench:{suite} -->\n{table_of(suite, folder)}\n<!-- /bench -->"

    return _PLACE.sub(place, page)


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a table."""
    return [_line(columns), "|" + "---|" * len(columns), *map(_line, rows)]


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


def middle(case: Mapping[str, Any], figure: str, *, digits: int = 0) -> str:
    """The median of a figure, with the range of its rounds where there is more than one; `-` without it."""
    values = case["figures"].get(figure)
    if not values:
        return "-"
    taken = spread(values)
    text = f"{taken.median:,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({taken.least:,.{digits}f} to {taken.most:,.{digits}f})"


def _engine(cases: Cases) -> list[str]:
    columns = ["request", "in flight (seen)", "who", "rows/s", "main, CPU-s per 1,000", "with start-up"]
    columns += ["times the yardstick", "workers, CPU-s per 1,000", "peak RSS, main · all, MB"]
    return markdown(columns, [_engine_row(case, cases) for case in cases])


def _engine_row(case: Mapping[str, Any], cases: Cases) -> Row:
    memory = " · ".join(f"{spread(case['figures'][f'{who}_peak_rss_mb']).median:,.0f}" for who in ("main", "tree"))
    plain = case["who"] == YARDSTICK
    seen = "" if plain else f" ({max(case['figures']['most_in_flight']):,.0f})"
    return (
        *(case["body"], f"{case['concurrency']:,}{seen}", case["who"], middle(case, "rows_per_s")),
        *(middle(case, "main_cpu_s_per_1000", digits=3), middle(case, "main_cpu_s_per_1000_whole", digits=3)),
        "" if plain else ratio(case, cases),
        "" if plain else middle(case, "workers_cpu_s_per_1000", digits=3),
        memory,
    )


def ratio(case: Mapping[str, Any], cases: Cases) -> str:
    """CPU time over that of the yardstick in the same round, at its median; `-` without one."""
    for other in cases:
        same = all(other[key] == case[key] for key in ("body", "concurrency"))
        if same and other["who"] == YARDSTICK:
            ours, plain = (each["figures"]["main_cpu_s_per_1000"] for each in (case, other))
            taken = [mine / least for mine, least in zip(ours, plain, strict=False)]
            return f"{spread(taken).median:.1f}"
    return "-"


def _stages(cases: Cases) -> list[str]:
    columns = ("stage", "of", "CPU-s per 1,000", "rows/s", "workers, CPU-s per 1,000")
    return markdown(
        columns,
        [
            (
                *(case["stage"], case["what"], middle(case, "cpu_s_per_1000", digits=3)),
                *(middle(case, "rows_per_s"), middle(case, "workers_cpu_s_per_1000", digits=3)),
            )
            for case in cases
        ],
    )


def _memory(cases: Cases) -> list[str]:
    columns = ("rows", "main process, peak RSS MB", "all processes, peak RSS MB", "rows/s", "main, CPU-s per 1,000")
    return markdown(
        columns,
        [
            (
                *(f"{case['rows']:,}", middle(case, "main_peak_rss_mb"), middle(case, "tree_peak_rss_mb")),
                *(middle(case, "rows_per_s"), middle(case, "main_cpu_s_per_1000", digits=3)),
            )
            for case in cases
        ],
    )


def _resume(cases: Cases) -> list[str]:
    columns = ("", "rows done", "to the first request, s", "to the end, s", "main process, peak RSS MB")
    return markdown(
        columns,
        [
            (
                *(case["what"], _done(case), middle(case, "first_request_s", digits=3)),
                *(middle(case, "whole_s", digits=3), middle(case, "main_peak_rss_mb")),
            )
            for case in cases
        ],
    )


def _processes(cases: Cases) -> list[str]:
    """The rate as a ratio to that of one process in the same round."""
    alone = next(case for case in cases if case["processes"] == 1)["figures"]["rows_per_s"]
    columns = ("processes", "rows/s", "times one", "the run's own, CPU-s per 1,000", "the others, CPU-s per 1,000")
    rows = []
    for case in cases:
        rates = case["figures"]["rows_per_s"]
        times = {"figures": {"times": [rate / one for rate, one in zip(rates, alone, strict=False)]}}
        figures = (middle(case, f"{who}_cpu_s_per_1000", digits=3) for who in ("main", "workers"))
        rows.append((str(case["processes"]), middle(case, "rows_per_s"), middle(times, "times", digits=2), *figures))
    return markdown(columns, rows)


def _done(case: Mapping[str, Any]) -> str:
    if "rows" not in case:
        return "-"
    return f"{case['rows'] if case['what'] == 'resume' else 0:,} of {case['input_rows']:,}"


def _limits(cases: Cases) -> list[str]:
    """A line a trace; of several seeds the lowest goodput and the most refusals."""
    controllers = list(dict.fromkeys(case["controller"] for case in cases))
    found = {
        (case["trace"], case["controller"]): (
            min(case["figures"]["share_of_ideal"]),
            max(case["figures"]["rejected_share"]),
        )
        for case in cases
    }
    rows = [
        [f"{trace} *" if held_out else trace]
        + [f"{goodput:.2f} ({refused:.1%})" for goodput, refused in (found[trace, name] for name in controllers)]
        for trace, held_out in dict.fromkeys((case["trace"], case["held_out"]) for case in cases)
    ]
    for words, at, choose in (("median", 0, statistics.median), ("lowest goodput", 0, min), ("most refused", 1, max)):
        values = [choose([pair[at] for (_, name), pair in found.items() if name == who]) for who in controllers]
        rows.append([f"**{words}**", *(f"{value:.3f}" for value in values)])
    return markdown(["trace", *controllers], rows)


def _peers(cases: Cases) -> list[str]:
    columns = ["request", "in flight", "who", "rows/s", "CPU-s per 1,000, all processes", "with start-up"]
    columns += ["main process alone", "peak RSS, all, MB"]
    rows = [
        [
            *(str(case["size"]), f"{case['concurrency']:,}", f"{case['subject']} {case['version'] or ''}".strip()),
            *(middle(case, "rows_per_s"), middle(case, "cpu_s_per_1000", digits=3)),
            *(middle(case, "cpu_s_per_1000_whole", digits=3), middle(case, "main_cpu_s_per_1000", digits=3)),
            middle(case, "rss_mb"),
        ]
        for case in cases
        if case["figures"]
    ]
    reasons = {case["subject"]: case["last"]["why_not"] for case in cases if "why_not" in case["last"]}
    return [
        *markdown(columns, rows),
        *[""][: len(reasons)],
        *(f"- {who}: not measured: {why}" for who, why in reasons.items()),
    ]


TABLES: Mapping[str, Callable[[Cases], list[str]]] = {
    "engine": _engine,
    "stages": _stages,
    "memory": _memory,
    "resume": _resume,
    "processes": _processes,
    "limits": _limits,
    "peers": _peers,
}
"""By suite."""


def main() -> None:
    """Entry of `python -m bench.tables`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into the pages that have a place for them")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON files are")
    told = parser.parse_args()
    if told.write:
        for page in PAGES:
            page.write_text(rewritten(page.read_text(encoding="utf-8"), told.results), encoding="utf-8")
        return
    for suite in TABLES:
        if (told.results / f"{suite}.json").exists():
            print(f"{table_of(suite, told.results)}\n")


if __name__ == "__main__":
    main()
