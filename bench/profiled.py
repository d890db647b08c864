"""Where the main process spends its time: one run under cProfile, by who wrote what is running.

python -m bench.profiled --body "2 KB"

cProfile charges every call of a Python function, so shares of code that calls much are too large: it shows where to
look, not what is gained. What libraries cost is in it too; starting up is left out.
"""

from __future__ import annotations

import argparse
import json
import pstats
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.bodies import BODIES, flags, make_rows
from bench.tables import markdown
from bench.throughput import CLI, machine, provider

ROOM = re.compile(r"/(engine|encoders|sinks|labels)/(\w+)\.py$")
LIBRARY = re.compile(r"site-packages/(\w+)/")
STARTING = re.compile(
    r"importlib|<frozen|cyclopts|rich/|inspect\.py|dataclasses\.py|typing\.py|enum\.py|ast\.py|abc\.py|/re/"
)
STARTING_CALLS = (
    "compile",
    "exec",
    "marshal",
    "__import__",
    "_imp.",
    "__build_class__",
    "set_default_verify",
    "posix.stat",
)
IDLE = ("_feed", "select", "run_until_complete", "run")
"""Under them the profiler keeps what the loop waits, which is in C."""
NETWORK = frozenset({"aiohttp", "yarl", "multidict", "aiosignal", "propcache", "frozenlist"})
SHOWN = 24


def groups(profile: Path) -> Counter[str]:
    """Seconds by where they were spent, without the loop's waits and the start."""
    found: Counter[str] = Counter()
    # The standard library keeps its figures in a field that has a name and no type.
    for (file, _, name), (_, _, own_s, *_) in vars(pstats.Stats(str(profile)))["stats"].items():
        if (name in IDLE and own_s > 1) or STARTING.search(file) or any(call in name for call in STARTING_CALLS):
            continue
        found[_group(file, name)] += own_s
    return found


def _group(file: str, name: str) -> str:
    if room := ROOM.search(file):
        return f"{room[1]}/{room[2]}.py" if room[1] == "engine" else f"{room[1]}/"
    if library := LIBRARY.search(file):
        return "aiohttp and what it stands on" if library[1] in NETWORK else library[1]
    if file == "~":
        return "C: " + re.sub(r"<(built-in method |method )?'?|'|>", "", name).replace("built-in method ", "")
    return "the standard library"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", choices=sorted(BODIES), default="2 KB")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    told = parser.parse_args()
    body = BODIES[told.body]
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as name:
        folder = Path(name)
        make_rows(folder, body, rows=told.rows)
        scenario = {"latency": {"kind": "fixed", "median": 0.02}}
        profile, out = folder / "profile", folder / "run"
        with provider(folder, scenario, codebook=folder / "codebook.toml") as server:
            command = [sys.executable, "-m", "cProfile", "-o", profile, CLI, "run", *flags(folder, body), "--out", out]
            asked = ("--model", "simulated/vision", "--base-url", server.url, "--concurrency", told.concurrency)
            words = [str(word) for word in (*command, *asked, "--spot-notices", "off")]
            subprocess.run(words, check=True, cwd=CLI.parent, stderr=subprocess.DEVNULL)
        found = groups(profile)
        main_s = json.loads((out / "report.json").read_text(encoding="utf-8"))["process"]["main_cpu_s"]
    total = found.total()
    rows = [(who, f"{spent / total:.1%}") for who, spent in found.most_common(SHOWN)]
    print(f"{told.rows:,} rows of {told.body}, {main_s:.1f} CPU-s under the profiler, {machine()}\n")
    print("\n".join(markdown(("where", "share"), rows)))


if __name__ == "__main__":
    main()
