"""Two states of the program on the same rows and the same server, round by round in turns: is one cheaper?

python -m bench.compare HEAD~1 . --rounds 5

A state is anything git knows as a revision, which is taken out into a temporary folder, or a folder that holds
`cli.py`, such as `.`. Both run under this Python and its libraries. The ratios are of pairs of one round: on a shared
machine those met the same weather.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.bodies import BODIES
from bench.suite import Told, in_turns
from bench.suite_engine import KINDS, Requests
from bench.tables import markdown, middle
from bench.throughput import CLI, BenchError

FIGURES = {
    "main_cpu_s_per_1000": 3,
    "main_cpu_s_per_1000_whole": 3,
    "workers_cpu_s_per_1000": 3,
    "rows_per_s": 0,
    "main_peak_rss_mb": 0,
    "tree_peak_rss_mb": 0,
}
"""What is shown, and with how many digits."""


def main() -> None:
    """Entry of `python -m bench.compare`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", help="a revision, or a folder that holds cli.py")
    parser.add_argument("b", help="another")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", nargs="+", choices=KINDS, default=["2 KB"], help="what requests hold")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--long", action="store_true", help="as many rows as the suite `engine`, not as with --quick")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelbatch-compare-") as name, ExitStack() as opened:
        folder = Path(name)
        try:
            trees = [tree_of(said.a, folder / "a"), tree_of(said.b, folder / "b")]
            for tree in trees:
                check_own(tree)
            told = Told(folder=folder, opened=opened, rounds=said.rounds, quick=not said.long)
            for case in said.case:
                requests = Requests(told, BODIES[case], KINDS[case], at_once=said.concurrency)
                cases = [requests.case(who, partial(requests.run, tree)) for who, tree in zip("AB", trees, strict=True)]
                a, b = in_turns(cases, rounds=said.rounds, say=print)
                print(f"\n{case}, {said.concurrency} in flight, {said.rounds} rounds; A is {said.a}, B is {said.b}:\n")
                print("\n".join(table(a, b)) + "\n")
        except BenchError as error:
            raise SystemExit(str(error)) from error


def table(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Medians of both, and the ratios of pairs of one round."""
    rows = []
    for figure, digits in FIGURES.items():
        pairs = zip(a["figures"][figure], b["figures"][figure], strict=True)
        ratios = {"figures": {figure: [after / before for before, after in pairs if before]}}
        rows.append(
            [
                figure.replace("_", " "),
                *(middle(each, figure, digits=digits) for each in (a, b)),
                middle(ratios, figure, digits=3),
            ]
        )
    return markdown(["", "A", "B", "B / A"], rows)


def tree_of(state: str, target: Path) -> Path:
    """The folder of a state of the program; a revision is taken out of git into `target`.

    Raises:
        BenchError: it is neither a folder of the program nor a revision.
    """
    if (Path(state) / CLI.name).exists():
        return Path(state).resolve()
    # An archive, since a second worktree would have to be signed off again in the repository, however this ends.
    command = ["git", "-C", str(CLI.parent), "archive", "--format=tar", state]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        raise BenchError(f"{state} is no folder with {CLI.name}, and git says: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(target, filter="data")
    return target.resolve()


def check_own(tree: Path) -> None:
    """See that a program started in this folder is the one that stands there, its workers too.

    Raises:
        BenchError: it takes its parts from elsewhere.
    """
    script = "import json, engine.worker, cli; print(json.dumps([engine.worker.__file__, cli.__file__]))"
    said = subprocess.run([sys.executable, "-c", script], cwd=tree, capture_output=True, check=False, text=True)
    if said.returncode or not all(Path(name).is_relative_to(tree) for name in json.loads(said.stdout)):
        raise BenchError(f"a program in {tree} does not run its own code: {said.stdout}{said.stderr}")


if __name__ == "__main__":
    main()
