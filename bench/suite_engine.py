"""The suite `engine`: whole runs with everything on, beside the least a client can do.

A run reads a table, makes each request in its workers, finds the fastest rate that is served, checks every answer
against a codebook, commits once a second and reports. The yardstick is given the same requests ready made. Both ask the
same server, in turns; whatever else the machine does meets both.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.bodies import BODIES, Body, flags, make_rows, requests
from bench.suite import Case, Figures, Told
from bench.throughput import CLI, BenchError, asked_once, delivered, provider
from bench.watching import Watched, watched

OURS, YARDSTICK = "Reelbatch", "yardstick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How requests of a size are measured."""

    offered_per_s: float
    """Rows a second the server would serve, whatever the concurrency: more than a client on two cores asks for."""
    rows: int
    """At least. Half of them are asked before the pace is measured; finding it takes some seconds."""
    quick_rows: int
    at_once: Sequence[int]
    """Requests in flight."""
    quick_at_once: Sequence[int]


KINDS = {
    "2 KB": Kind(
        offered_per_s=5120, rows=20_000, quick_rows=8_000, at_once=(64, 512, 2000), quick_at_once=(64, 512, 2000)
    ),
    "300 KB": Kind(offered_per_s=1280, rows=8_000, quick_rows=2_000, at_once=(64, 512, 2000), quick_at_once=(64, 512)),
    "1 MB": Kind(offered_per_s=480, rows=3_000, quick_rows=800, at_once=(64, 512), quick_at_once=(64,)),
    "4 frames": Kind(offered_per_s=240, rows=1_200, quick_rows=300, at_once=(64,), quick_at_once=(64,)),
}
"""By the body. 2,000 requests of 1 MB at once would be 2 GB; a run lets out 512 MB."""
LEAST_TIMES = 8
"""Rows for each that is in flight, at least: else all have been sent before the last of those measured is answered."""
ALONE = "4 frames"
"""Nobody else decodes and fits frames."""


def cases(told: Told) -> list[Case]:
    """Every body at every concurrency, the run and the yardstick next to each other."""
    found: list[Case] = []
    for name, kind in KINDS.items():
        for at_once in kind.quick_at_once if told.quick else kind.at_once:
            asked = Requests(told, BODIES[name], kind, at_once=at_once)
            found += [asked.case(OURS, asked.run), *([] if name == ALONE else [asked.case(YARDSTICK, asked.plain)])]
    return found


class Requests:
    """Requests of one kind and their server, made when they are first needed."""

    def __init__(self, told: Told, body: Body, kind: Kind, *, at_once: int) -> None:
        self._told, self._body, self._at_once = told, body, at_once
        self._rows = max(kind.quick_rows if told.quick else kind.rows, LEAST_TIMES * at_once)
        self._scenario = {
            "latency": {"kind": "fixed", "median": at_once / kind.offered_per_s},
            "tokens_per_image": 1601,
        }
        self._folder = told.folder / f"{body.name}-{self._rows}-{at_once}".replace(" ", "_")

    def case(self, who: str, once: Callable[[], Figures]) -> Case:
        body, at_once = self._body.name, self._at_once
        return Case(
            name=f"{body}, {at_once:,} at once, {who}",
            about={"who": who, "body": body, "concurrency": at_once, "rows": self._rows},
            once=lambda _: once(),
        )

    @cached_property
    def _url(self) -> str:
        if not self._folder.exists():
            make_rows(self._folder, self._body, rows=self._rows)
        book = self._folder / "codebook.toml"
        return self._told.opened.enter_context(provider(self._folder, self._scenario, codebook=book)).url

    def run(self, tree: Path = CLI.parent, *more: object) -> Figures:
        """One run with everything on, by the program that stands in this folder, with these flags beside its own.

        Raises:
            BenchError: not every row was answered with labels.
        """
        url = self._url
        out = self._folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        words = ("run", *flags(self._folder, self._body), "--out", out, "--concurrency", self._at_once)
        prices = ("--price-in", "0.18", "--price-out", "0.59", "--spot-notices", "off")
        taken = asked_once(self._folder, *words, *prices, *more, run=out, url=url, tree=tree)
        report = taken["report"]
        if report["ended"] != self._rows or report["failed"] or report["unlabelled"]:
            raise BenchError(f"not every row of {self._body.name} has its labels: see {out / 'report.json'}")
        events = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        main_s = report["process"]["main_cpu_s"]
        return self._figures(taken["watched"], main_s) | {
            "most_in_flight": max(json.loads(line)["in_flight"] for line in events),
        }

    def plain(self) -> Figures:
        """The yardstick on the same requests.

        Raises:
            BenchError: not every request was answered.
        """
        url = self._url
        bodies, out = self._folder / "bodies.jsonl", self._folder / "answers.jsonl"
        if not bodies.exists():
            with bodies.open("wb") as file:
                file.writelines(body + b"\n" for body in requests(self._folder, self._body, count=self._rows))
        words = ("--base-url", url, "--rows", bodies, "--out", out, "--concurrency", self._at_once)
        said = self._folder / "said.txt"
        command = (sys.executable, "-m", "bench.yardstick", *words)
        taken = watched(command, said=said, cwd=CLI.parent, progress=lambda: delivered(url))
        if taken.code or out.read_bytes().count(b"\n") != self._rows:
            raise BenchError(f"the yardstick ended with {taken.code}:\n{said.read_text(encoding='utf-8')[-1000:]}")
        return self._figures(taken, taken.cpu_s)

    def _figures(self, taken: Watched, main_cpu_s: float) -> dict[str, float]:
        steady = taken.steady(self._rows)
        if steady is None:
            raise BenchError(f"{self._rows} rows of {self._body.name} were over before their pace could be seen")
        per_1000 = 1000 / self._rows
        return {
            "rows_per_s": steady.rows_per_s,
            "main_cpu_s_per_1000": steady.main_cpu_s_per_1000,
            "workers_cpu_s_per_1000": steady.workers_cpu_s_per_1000,
            "rows_per_s_whole": self._rows / taken.wall_s,
            "main_cpu_s_per_1000_whole": main_cpu_s * per_1000,
            "workers_cpu_s_per_1000_whole": (taken.cpu_s - main_cpu_s) * per_1000,
            "main_peak_rss_mb": taken.main_peak_mb,
            "tree_peak_rss_mb": taken.tree_peak_mb,
        }
