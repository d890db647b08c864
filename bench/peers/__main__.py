"""What could be picked instead of Reelbatch, on the same server and the same rows, in turns.

python -m bench.peers --rounds 3
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.peers.environments import install, peers
from bench.peers.errands import SIZES
from bench.peers.suite import CONCURRENCY, START_SHARE, Wanted, cases
from bench.suite import Told, in_turns
from bench.tables import table_of
from bench.throughput import RESULTS, publish


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="subjects; a beginning of the name will do")
    parser.add_argument("--rows", type=int, help="for all; otherwise so many that one takes 5 to 20 seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--concurrency", nargs="+", type=int, default=list(CONCURRENCY))
    parser.add_argument("--install", action="store_true", help="make the environments that are missing, and end")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where peers.json goes")
    said = parser.parse_args()
    if said.install:
        for peer in peers()[0]:
            install(peer)
        return
    if said.rows is not None and said.rows < START_SHARE:
        parser.error(f"--rows must be at least {START_SHARE}: a fifth of them is asked first, to tell the start apart")
    wanted = Wanted(only=said.only, rows=said.rows, sizes=said.sizes, concurrency=said.concurrency)
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as folder, ExitStack() as opened:
        told = Told(folder=Path(folder), opened=opened, rounds=said.rounds, quick=False)
        found = cases(told, wanted)
        if not found:
            parser.error(f"--only: nobody is called {said.only[0]}")
        taken = in_turns(found, rounds=said.rounds, say=print)
    about = {"suite": "peers", "quick": False, "rounds": said.rounds, "cases": taken}
    publish("peers", shlex.join(["peers", *sys.argv[1:]]), about, folder=said.out)
    print(table_of("peers", said.out))


if __name__ == "__main__":
    main()
