"""`bench`: the suites of measurements, one after the other, each into a file of figures and a table."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bench.suite import Case, Taken, Told, in_turns
from bench.tables import table_of
from bench.throughput import RESULTS, BenchError, publish
from engine.errors import ConfigError
from labels.flags import Switch
from labels.terminal import EXIT_RESUMABLE, say

SUITES = {
    "engine": "bench.suite_engine",
    "stages": "bench.suite_stages",
    "memory": "bench.suite_memory",
    "resume": "bench.resume",
    "processes": "bench.suite_processes",
    "limits": "bench.limits",
    "peers": "bench.peers.suite",
}
"""Where the cases of each stand, imported when they are asked for."""
ROUNDS, QUICK_ROUNDS = 3, 1
TRIAL = Path("out/bench")
"""Where figures go that are not to be published: those of rounds that others were to follow, too."""
EXIT_NOT_MEASURED = 1


def bench(
    *suite: str,
    rounds: int | None = None,
    quick: Annotated[bool, Switch] = False,
    case: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    out: Path | None = None,
) -> int:
    """Measure: whole runs beside the least a client can do, each stage alone, memory, start-up, limits, peers.

    Each suite leaves a JSON file of all its figures, with the command, the day and the machine, and prints its table.
    Cases are measured in turns, so that what else the machine does meets all of them.

    Args:
        suite: engine, stages, memory, resume, processes, limits, peers; all if none is named.
        rounds: how often each case is measured; otherwise 3, or 1 with --quick.
        quick: few rows and cases, to see that all works; its figures are rough.
        case: measure only cases whose name holds these words; may be given several times.
        out: where the files go; otherwise bench/results, or out/bench with --quick or --case.
    """
    unknown = [name for name in suite if name not in SUITES]
    if unknown:
        raise ConfigError(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    if rounds is not None and rounds < 1:
        raise ConfigError("--rounds must be at least 1")
    folder = out or (TRIAL if quick or case else RESULTS)
    wanted = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    missing = []
    # However it is stopped, the servers and runs it has started end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in dict.fromkeys(suite or SUITES):
            say(f"{name}:")
            try:
                command, taken = _measured(name, rounds=wanted, quick=quick, chosen=case)
            except BenchError as error:
                say(f"{name} was not measured: {error}")
                missing.append(name)
                continue
            publish(name, command, taken, folder=folder)
            print(f"{table_of(name, folder)}\n", flush=True)
    except KeyboardInterrupt:
        say(
            f"Stopped. Suites that had ended are in {folder}, of {name} those rounds that had, if any, in {TRIAL}. "
            "Name the others to measure them."
        )
        return EXIT_RESUMABLE
    say(f"The figures are in {folder}. `python -m bench.tables --write` puts those of bench/results into the pages.")
    return EXIT_NOT_MEASURED if missing else 0


def _measured(name: str, *, rounds: int, quick: bool, chosen: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that measures a suite in this way, and what its file says but for that, day and machine.

    Raises:
        BenchError: it is not there, or something in it did not work.
        ConfigError: no case is called so.
    """
    try:
        module = importlib.import_module(SUITES[name])
    except ModuleNotFoundError as error:
        raise BenchError(f"{error.name} is missing") from error
    cases: Callable[[Told], Sequence[Case]] = module.cases
    with tempfile.TemporaryDirectory(prefix="reelbatch-bench-") as place, ExitStack() as opened:
        told = Told(folder=Path(place), opened=opened, rounds=rounds, quick=quick)
        found = cases(told)
        taken = [case for case in found if not chosen or any(words in case.name for words in chosen)]
        if not taken:
            raise ConfigError(f"{name} has no case called {chosen[0]!r}; there are: {'; '.join(c.name for c in found)}")
        load = os.getloadavg()[0]

        def said_of(ended: int, figures: Taken) -> tuple[str, dict[str, Any]]:
            command = _command(name, rounds=ended, quick=quick, chosen=chosen)
            return command, {"quick": quick, "rounds": ended, "load_before": load, "cases": figures}

        def keep(ended: int, figures: Taken) -> None:
            if ended < rounds:
                publish(name, *said_of(ended, figures), folder=TRIAL)

        return said_of(rounds, in_turns(taken, rounds=rounds, say=say, keep=keep))


def _command(name: str, *, rounds: int, quick: bool, chosen: Sequence[str]) -> str:
    words = ["python", "cli.py", "bench", name, "--rounds", str(rounds), *(["--quick"] if quick else [])]
    return shlex.join([*words, *(word for each in chosen for word in ("--case", each))])
