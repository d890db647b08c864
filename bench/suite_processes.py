"""The suite `processes`: the same run in one engine process and in several, where the server is not what limits it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.bodies import BODIES
from bench.suite import Case, Figures, Told
from bench.suite_engine import Kind, Requests
from bench.throughput import CLI

BODY = BODIES["2 KB"]
"""The smallest requests fill an event loop first."""
AT_ONCE = 512
KIND = Kind(offered_per_s=20_000, rows=40_000, quick_rows=12_000, at_once=(AT_ONCE,), quick_at_once=(AT_ONCE,))
"""The server would serve four times what one process asks for."""
PROCESSES: Sequence[int] = (1, 2, 3)


def cases(told: Told) -> list[Case]:
    """A case for each number of processes."""
    asked = Requests(told, BODY, KIND, at_once=AT_ONCE)

    def once(processes: int, _: int) -> Figures:
        return asked.run(CLI.parent, "--processes", processes)

    return [
        Case(
            name=f"{processes} processes" if processes > 1 else "1 process",
            about={"processes": processes, "body": BODY.name, "concurrency": AT_ONCE},
            once=partial(once, processes),
        )
        for processes in PROCESSES
    ]
