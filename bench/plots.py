"""Pictures of what `python cli.py bench` measured, as SVG.

python -m bench.plots --out docs/plots

Needs matplotlib, which nothing else does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.suite import Spread, spread
from bench.targets import Cases
from bench.throughput import RESULTS

SIZE_INCHES = (6.4, 3.6)
STYLE = {"svg.hashsalt": "reelbatch", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
"""With the salt the same figures give the same bytes."""
OURS_COLOUR, OTHER_COLOUR = "#1f5fa8", "#9aa5b1"


def main() -> None:
    """Entry of `python -m bench.plots`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON files are")
    parser.add_argument("--out", type=Path, default=Path("docs/plots"), help="where the pictures go")
    told = parser.parse_args()
    for path in drawn(told.results, told.out):
        print(path)


def drawn(results: Path, out: Path) -> list[Path]:
    """Draw a picture of each kind whose suite has been measured.

    Args:
        results: where the JSON files are.
        out: where the pictures go; made if it is missing.

    Returns:
        The pictures.
    """
    # Half a second to import, and only this needs it.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    made = []
    # The same figures give the same bytes.
    with rc_context(
        {"svg.hashsalt": "reelbatch", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        for name, (suite, draw) in PICTURES.items():
            source = results / f"{suite}.json"
            if source.exists():
                said = json.loads(source.read_text(encoding="utf-8"))
                figure = Figure(figsize=SIZE_INCHES, layout="constrained")
                axes = figure.subplots()
                draw(axes, said["cases"])
                axes.set_title(f"{said['date']}, {said['machine']}", loc="right", fontsize=6, color="grey")
                made.append(out / f"{name}.svg")
                figure.savefig(made[-1], metadata={"Date": None})
    return made


def costs(cases: Cases) -> list[tuple[str, Spread]]:
    """CPU-seconds per 1,000 rows at 512 in flight, or what else there is: who, with what, and how much."""
    most = max(case["concurrency"] for case in cases if case["concurrency"] <= 512)  # noqa: PLR2004 - the usual window
    return [
        (f"{case['who']}, {case['body']}", spread(case["figures"]["main_cpu_s_per_1000"]))
        for case in cases
        if case["concurrency"] == most
    ]


def peer_costs(cases: Cases) -> list[tuple[str, Spread]]:
    """The same of all clients at the smallest requests, all their processes together, the cheapest first."""
    measured = [case for case in cases if case["figures"]]
    most = max(case["concurrency"] for case in measured)
    first = measured[0]["size"]
    found = [
        (str(case["subject"]), spread(case["figures"]["cpu_s_per_1000"]))
        for case in measured
        if case["concurrency"] == most and case["size"] == first
    ]
    return sorted(found, key=lambda pair: pair[1].median)


def rates(cases: Cases) -> dict[str, list[tuple[int, Spread]]]:
    """Who and with what, to the rows a second at each concurrency."""
    found: dict[str, list[tuple[int, Spread]]] = {}
    for case in cases:
        pair = (case["concurrency"], spread(case["figures"]["rows_per_s"]))
        found.setdefault(f"{case['who']}, {case['body']}", []).append(pair)
    return {name: sorted(pairs, key=lambda pair: pair[0]) for name, pairs in found.items() if len(pairs) > 1}


def _bars(axes: Any, found: Sequence[tuple[str, Spread]]) -> None:
    names = [name for name, _ in found]
    values = [each.median for _, each in found]
    errors = [[each.median - each.least for _, each in found], [each.most - each.median for _, each in found]]
    colours = [OURS_COLOUR if name.startswith("Reelbatch") else OTHER_COLOUR for name in names]
    axes.barh(names, values, xerr=errors, color=colours, error_kw={"elinewidth": 0.8})
    axes.invert_yaxis()
    axes.set_xlabel("CPU-seconds per 1,000 rows")
    for at, value in enumerate(values):
        axes.annotate(f" {value:.2f}", (value, at), va="bottom", fontsize=7)


def _cost(axes: Any, cases: Cases) -> None:
    _bars(axes, costs(cases))


def _peer_cost(axes: Any, cases: Cases) -> None:
    _bars(axes, peer_costs(cases))
    axes.set_xscale("log")


def _memory(axes: Any, cases: Cases) -> None:
    for case in cases:
        points = case["last"]["curve"]
        rows = [point[0] for point in points]
        axes.plot(rows, [point[1] for point in points], label=f"{case['rows']:,} rows, main process")
    points = max(cases, key=lambda case: int(case["rows"]))["last"]["curve"]
    axes.plot([point[0] for point in points], [point[2] for point in points], color=OTHER_COLOUR, label="all processes")
    axes.set(xlabel="rows done", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend(frameon=False)


def _rate(axes: Any, cases: Cases) -> None:
    for name, pairs in rates(cases).items():
        line = "-o" if name.startswith("Reelbatch") else "--s"
        axes.plot([at_once for at_once, _ in pairs], [each.median for _, each in pairs], line, label=name, markersize=4)
    axes.set(xlabel="requests in flight, at most", ylabel="rows/s", xscale="log", ylim=(0, None))
    ticks = sorted({case["concurrency"] for case in cases})
    axes.set_xticks(ticks, [f"{at_once:,}" for at_once in ticks], minor=False)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=7)


PICTURES: Mapping[str, tuple[str, Callable[[Any, Cases], None]]] = {
    "cost": ("engine", _cost),
    "rate": ("engine", _rate),
    "memory": ("memory", _memory),
    "peers": ("peers", _peer_cost),
}
"""The name of each, the suite it shows, and how it is drawn."""


if __name__ == "__main__":
    main()
