"""The encoder pool beside pebble and concurrent.futures, and the two ways a body takes from worker to parent.

python -m bench.pool

The clocks start once both workers have answered and their memory is warm. Rounds go through all cases in a new order
each time; figures are medians with the range beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import functools
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import anyio

from bench.contenders import HELD_ROWS, POOLS, WORKERS, Drive, Flow, by_encoder_pool
from bench.sized import Sized
from bench.throughput import RESULTS, machine
from engine.types import Request
from engine.worker import ARENA_BYTES, ARENA_FROM_BYTES

T = TypeVar("T")

WARM_BYTES = 2 * WORKERS * ARENA_BYTES
"""Enough to have touched every page of both arenas; but in rows within these bounds:"""
WARM_ROWS = (200, 2000)
BODIES = {2_000: 8000, 300_000: 1200, 1_000_000: 500}
"""Bytes of a body, and rows measured: half a second to two for each pool."""
SWEEP_BYTES = (16 << 10, 32 << 10, 64 << 10, 128 << 10, 300_000, 1_000_000)
SWEEP_BODY_BYTES = 300_000_000
"""Bytes handed over in one run of the sweep, but at most so many rows:"""
SWEEP_ROWS = 8000
RECOVERING = ("Reelbatch EncoderPool", "pebble.ProcessPool", "ProcessPoolExecutor")
CLEARLY = 0.9
"""A difference below a tenth is noise here."""
BUSY_S = 0.01
"""About what four frames that need work take."""
KILL_AFTER_S = (0.05, 0.15)
"""From both workers' first results to the kill, drawn anew each time so that it falls anywhere."""
STALLED_S = 4.0
"""For one trial from start to end, which takes under one second if the pool recovers; then it is taken for stuck."""


class Meter:
    """Measures a number of rows, from the moment both workers are warm."""

    def __init__(self, rows: int, *, warm_rows: int) -> None:
        self._rows = rows
        self._warm_rows = warm_rows
        self._first = 0
        self._wall_s = self._parent_s = 0.0
        self._workers_ns = 0
        self.figures: dict[str, float] = {}

    def __call__(self, flow: Flow, request: Request) -> bool:
        del request
        now = time.perf_counter(), time.process_time(), sum(flow.cpu_ns.values())
        if not self._first:
            if flow.results >= self._warm_rows and len(flow.cpu_ns) == WORKERS:
                self._first = flow.results
                self._wall_s, self._parent_s, self._workers_ns = now
            return False
        if flow.results == self._first + self._rows:
            self.figures = {
                "rows_per_s": self._rows / (now[0] - self._wall_s),
                "parent_cpu_s_per_1000": (now[1] - self._parent_s) / self._rows * 1000,
                "workers_cpu_s_per_1000": (now[2] - self._workers_ns) / 1e9 / self._rows * 1000,
            }
        return bool(self.figures)


class Killer:
    """Kills one worker, once, and waits for the first result of its successor."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._due_s: float | None = None
        self._before: frozenset[int] = frozenset()
        self._killed_s = 0.0
        self.recovery_s: float | None = None

    def __call__(self, flow: Flow, request: Request) -> bool:
        now = time.perf_counter()
        if self._due_s is None:
            if len(flow.cpu_ns) == WORKERS:
                self._due_s = now + self._delay_s
        elif not self._before:
            if now >= self._due_s:
                self._before = frozenset(flow.cpu_ns)
                # Not the one that has just answered: that one is surely between two rows.
                os.kill(next(pid for pid in flow.cpu_ns if pid != request.n_frames), signal.SIGKILL)
                self._killed_s = time.perf_counter()
        elif request.n_frames not in self._before and self.recovery_s is None:
            self.recovery_s = now - self._killed_s
        return self.recovery_s is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """How one kill ended: `recovered`, `stalled`, or the name of the error that ended the pool."""

    end: str
    recovery_s: float | None
    resubmitted: int


def measured(drive: Drive, encoder: Sized, *, rows: int) -> dict[str, float]:
    """The figures of one run of one pool."""
    fewest, most = WARM_ROWS
    meter = Meter(rows, warm_rows=min(most, max(fewest, WARM_BYTES // encoder.n_bytes)))
    _on_loop(functools.partial(drive, encoder, Flow(meter)))
    return meter.figures


def kill_once(drive: Drive, encoder: Sized, *, delay_s: float) -> Kill:
    """What one pool makes of the death of a worker. May never return: then the pool is stuck."""
    killer = Killer(delay_s)
    flow = Flow(killer)
    end = "recovered"
    try:
        _on_loop(functools.partial(drive, encoder, flow))
    except* BrokenProcessPool:
        end = "BrokenProcessPool"
    return Kill(end=end, recovery_s=killer.recovery_s, resubmitted=flow.resubmitted)


def killed(pool: str, encoder: Sized, *, delay_s: float) -> Kill:
    """The same in a process of its own, because a stuck pool cannot be closed."""
    told = json.dumps({"pool": pool, "n_bytes": encoder.n_bytes, "busy_s": encoder.busy_s, "delay_s": delay_s})
    with subprocess.Popen(
        [sys.executable, "-m", "bench.pool", "--kill-once", told],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as trial:
        try:
            said, _ = trial.communicate(timeout=STALLED_S)
        except subprocess.TimeoutExpired:
            # Not SIGKILL: the tracker of Python's semaphores ignores SIGTERM, and so outlives them and cleans up.
            os.killpg(trial.pid, signal.SIGTERM)
            return Kill(end="stalled", recovery_s=None, resubmitted=0)
    if trial.returncode:
        raise SystemExit(f"the trial {told} ended with {trial.returncode}")
    return Kill(**json.loads(said))


def answer_trial(told: str) -> None:
    """The inside of that process."""
    case = json.loads(told)
    encoder = Sized(n_bytes=case["n_bytes"], busy_s=case["busy_s"])
    print(json.dumps(dataclasses.asdict(kill_once(POOLS[case["pool"]], encoder, delay_s=case["delay_s"]))))


def _on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    anyio.run(main, backend_options={"use_uvloop": True})


def shuffled(items: Iterable[T], rng: random.Random) -> list[T]:
    """Another order in each round, so that none always follows the same one."""
    drawn = list(items)
    rng.shuffle(drawn)
    return drawn


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def summary(runs: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def compare(rounds: int, rng: random.Random) -> list[dict[str, Any]]:
    """Every pool at every size."""
    runs: dict[tuple[int, str], list[dict[str, float]]] = {(size, pool): [] for size in BODIES for pool in POOLS}
    for _ in range(rounds):
        for size, pool in shuffled(runs, rng):
            runs[size, pool].append(measured(POOLS[pool], Sized(n_bytes=size), rows=BODIES[size]))
    return [
        {"body_bytes": size, "pool": pool, "rows": BODIES[size], **summary(taken)}
        for (size, pool), taken in runs.items()
    ]


def sweep(rounds: int, rng: random.Random) -> list[dict[str, Any]]:
    """Each size through shared memory and through the socket."""
    ways = {"arena": 0, "socket": sys.maxsize}
    runs: dict[tuple[int, str], list[dict[str, float]]] = {(size, way): [] for size in SWEEP_BYTES for way in ways}
    rows = {size: min(SWEEP_ROWS, SWEEP_BODY_BYTES // size) for size in SWEEP_BYTES}
    for _ in range(rounds):
        for size, way in shuffled(runs, rng):
            encoder = Sized(n_bytes=size, arena_from_bytes=ways[way])
            runs[size, way].append(measured(by_encoder_pool, encoder, rows=rows[size]))
    return [
        {"body_bytes": size, "way": way, "rows": rows[size], **summary(taken)} for (size, way), taken in runs.items()
    ]


def recover(rounds: int, rng: random.Random) -> list[dict[str, Any]]:
    """One worker killed while it encodes, at every size; and at the largest while workers do little but hand over."""
    cases = [*(Sized(n_bytes=size, busy_s=BUSY_S) for size in BODIES), Sized(n_bytes=max(BODIES))]
    kills: dict[tuple[Sized, str], list[Kill]] = {(case, pool): [] for case in cases for pool in RECOVERING}
    for _ in range(rounds):
        for case, pool in shuffled(kills, rng):
            kills[case, pool].append(killed(pool, case, delay_s=rng.uniform(*KILL_AFTER_S)))
    return [
        {
            "body_bytes": case.n_bytes,
            "busy_s": case.busy_s,
            "pool": pool,
            "ends": {end: sum(kill.end == end for kill in ended) for end in sorted({kill.end for kill in ended})},
            "recovery_s": spread(times)
            if (times := [s for kill in ended if (s := kill.recovery_s) is not None])
            else None,
            "rows_given_up": sum(kill.resubmitted for kill in ended),
        }
        for (case, pool), ended in kills.items()
    ]


def arena_from(swept: Sequence[dict[str, Any]]) -> int | None:
    """The smallest size from which on, at every larger size too, the arena is clearly cheaper for the parent."""
    cpu_s = {(line["body_bytes"], line["way"]): line["parent_cpu_s_per_1000"]["median"] for line in swept}
    sizes = itertools.takewhile(lambda n: cpu_s[n, "arena"] < CLEARLY * cpu_s[n, "socket"], reversed(SWEEP_BYTES))
    return min(sizes, default=None)


def table(lines: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """Markdown. A spread is written as its median, with the range in brackets."""

    def cell(value: Any) -> str:
        match value:
            case {"median": median, "min": low, "max": high}:
                return f"{_number(median)} ({_number(low)} to {_number(high)})"
            case dict():
                return ", ".join(f"{count} {name}" for name, count in value.items())
        return "-" if value is None else str(value)

    head = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *("| " + " | ".join(cell(line[name]) for name in columns) + " |" for line in lines)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"  # noqa: PLR2004 - from three digits on, no fraction


COSTS = {
    "rows_per_s": "rows/s",
    "parent_cpu_s_per_1000": "parent CPU s / 1,000 rows",
    "workers_cpu_s_per_1000": "workers' CPU s / 1,000 rows",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-once", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.kill_once:
        answer_trial(told.kill_once)
        return
    load_before, started = os.getloadavg(), time.perf_counter()
    rng = random.Random(told.seed)
    compared, swept = compare(told.rounds, rng), sweep(told.rounds, rng)
    recovered = recover(told.rounds, rng)
    about = {
        "command": " ".join(["python -m bench.pool", *sys.argv[1:]]),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
        "load_before": load_before,
        "load_after": os.getloadavg(),
        "took_s": round(time.perf_counter() - started, 1),
        "rounds": told.rounds,
        "workers": WORKERS,
        "rows_held": HELD_ROWS,
        "pools": compared,
        "arena_or_socket": swept,
        "arena_cheaper_from_bytes": arena_from(swept),
        "arena_from_bytes": ARENA_FROM_BYTES,
        "one_worker_killed": recovered,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pool.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(table(compared, {"body_bytes": "body, bytes", "pool": "pool"} | COSTS), "\n")
    print(table(swept, {"body_bytes": "body, bytes", "way": "through"} | COSTS))
    print(f"\nClearly cheaper for the parent: the arena from {arena_from(swept)} bytes on (now {ARENA_FROM_BYTES}).\n")
    columns = {"body_bytes": "body, bytes", "busy_s": "row takes, s", "pool": "pool", "ends": "after one SIGKILL"}
    columns |= {"recovery_s": "to a fresh worker's result, s", "rows_given_up": "rows given up"}
    print(table(recovered, columns))
    print(f"\n`stalled`: neither a result of a fresh worker nor an error when the trial was ended at {STALLED_S:g} s.")
    print("`BrokenProcessPool`: every row in the pool fails with this error, and it takes no more.")


if __name__ == "__main__":
    main()
