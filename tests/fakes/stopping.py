"""Runs that are stopped while something hangs, seen from outside: when they end, how, and what they leave behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.commands import CLI, ROOT, cli, environment, lines_of, run_arguments, simulated, write_table

ROWS = 120
SLOW_SERVER: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.3}}
DETACHED = "-DDD"
"""Has the tracer start as a grandchild in a session of its own, so that the run is our child."""
PATIENCE_S = 60.0
"""After a signal; a run that lasts longer is killed and has failed."""
SHARED_MEMORY = Path("/dev/shm")


class Life:
    """One started run, in a session of its own, so that whatever it leaves behind can be told from everything else."""

    def __init__(self, out: Path, arguments: Sequence[object], *, tracer: Sequence[str] = (), err: Path | int) -> None:
        self.out = out
        self._err = err
        self._tracers: list[subprocess.Popen[bytes]] = []
        command = [*tracer, sys.executable, str(CLI), *map(str, arguments)]
        with err.open("wb") if isinstance(err, Path) else os.fdopen(os.dup(err), "wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._err.read_text() if isinstance(self._err, Path) else ""

    def workers(self) -> list[int]:
        """Processes of the run besides itself."""
        return [pid for pid in session(self.process.pid) if pid != self.process.pid]

    def snapshot(self) -> dict[str, Any]:
        """The newest of `events.jsonl`; empty before the first."""
        with suppress(OSError, ValueError, IndexError):
            return dict(json.loads((self.out / "events.jsonl").read_bytes().splitlines()[-1]))
        return {}

    def until(self, met: Callable[[], bool], *, within_s: float = 40.0) -> None:
        deadline = time.monotonic() + within_s
        while not met():
            assert self.process.poll() is None, f"it ended by itself: {self.said()}"
            assert time.monotonic() < deadline, f"it never came so far: {self.snapshot()} {self.said()}"
            time.sleep(0.01)

    def until_in_flight(self, calls: int = 1) -> None:
        self.until(lambda: self.snapshot().get("in_flight", 0) >= calls)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def trace(self, tracer: Sequence[str]) -> None:
        """Put a tracer between this run, as it stands, and the system."""
        words = [word for word in tracer if word != DETACHED]
        self._tracers.append(subprocess.Popen([*words, "-p", str(self.process.pid)], stderr=subprocess.DEVNULL))

    def wait(self, within_s: float) -> None:
        """Return once it has ended, or after so long. What a tracer still keeps of it is no more than a name."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and _state(self.process.pid) not in "ZX":
            time.sleep(0.005)

    def end(self) -> None:
        """Leave nothing of it, however the test went."""
        for pid in session(self.process.pid):
            _kill(pid)
        # A tracer that delays a call of a thread does not let go of the process either.
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            with suppress(OSError):
                said = next(line for line in path.read_text().splitlines() if line.startswith("TracerPid"))
                if pid := int(said.split()[1]):
                    _kill(pid)
        for tracer in self._tracers:
            tracer.kill()
            tracer.wait()
        self.process.wait()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def session(leader: int) -> list[int]:
    """The living processes of a session; those that are only waiting to be reaped have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, sid = path.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found


@contextmanager
def deaf() -> Iterator[str]:
    """A server that takes no connection: what is sent to it is lost, as behind a firewall that drops."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        callers = []
        # The queue of a listener that never accepts is full after one or two.
        for _ in range(3):
            caller = socket.socket()
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect(address)
            callers.append(caller)
        try:
            yield f"http://127.0.0.1:{address[1]}/v1"
        finally:
            for caller in callers:
                caller.close()


@contextmanager
def nobody() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}/v1"


@contextmanager
def provider(folder: Path, scenario: Mapping[str, object]) -> Iterator[str]:
    with simulated(folder, scenario) as it:
        yield it.url


def hung_server(folder: Path) -> AbstractContextManager[str]:
    """Takes every request and never answers."""
    return provider(folder, {"faults": [{"kind": "stall"}]})


def frozen_workers(life: Life) -> None:
    """Stop the workers from outside, once they work, and while calls are in flight."""
    life.until_in_flight()
    for pid in life.workers():
        os.kill(pid, signal.SIGSTOP)


def full_pipe() -> tuple[int, int]:
    """Both ends of a pipe that takes no more."""
    reader, writer = os.pipe()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    fcntl.fcntl(writer, fcntl.F_SETFL, flags)
    return reader, writer


def closed_pipe() -> tuple[int, int]:
    """A pipe that nobody reads any more; the first is a stand-in for the end that is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.open(os.devnull, os.O_RDONLY), writer


def tracing(*rules: str, path: Path | None = None) -> list[str]:
    """A tracer that stands between a run and the system, out of the run's session. Empty if there is none."""
    strace = shutil.which("strace")
    if strace is None:
        return []
    only = ["-P", str(path)] if path else []
    calls = ",".join(rule.partition(":")[0] for rule in rules)
    inject = [word for rule in rules for word in ("-e", f"inject={rule}")]
    return [strace, DETACHED, "-f", "-qq", "-o", os.devnull, *only, "-e", f"trace={calls}", *inject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What hangs, when the signals come, and what is expected."""

    name: str
    serve: Callable[[Path], AbstractContextManager[str]] = lambda folder: provider(folder, SLOW_SERVER)
    moment: Callable[[Life], None] = Life.until_in_flight
    signals: Sequence[tuple[float, signal.Signals]] = ((0.0, signal.SIGTERM),)
    """Seconds after the one before, and which."""
    tracer: Callable[[Path], list[str]] | None = None
    """Given the input's path."""
    err: Callable[[], tuple[int, int]] | None = None
    """Both ends of what is its stderr; None keeps it."""
    more: Sequence[object] = ()
    ends_s: float = 2.0
    """After the first signal, the drain not counted."""
    drains: bool = False
    """Whether it may use the whole drain."""
    rows: int = ROWS
    transcript: str = "they walk through the market"
    codes: frozenset[int] = frozenset({75})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a stopped run ended."""

    code: int
    took_s: float
    """From the first signal on."""
    err: str
    left: list[str]
    """Of processes, shared memory and half files: nothing may be."""
    out: Path


def stop_one(case: Case, folder: Path, *, drain_s: float) -> Ending:
    """Start a run, stop it, and look at what is left."""
    folder.mkdir(exist_ok=True)
    table, out = write_table(folder / "videos.csv", case.rows, transcript=case.transcript), folder / "out"
    before = _shared_memory()
    with case.serve(folder) as url:
        more = ("--drain-seconds", drain_s, "--workers", 2, "--concurrency", 8, "--resume", *case.more)
        reader, writer = case.err() if case.err else (-1, -1)
        life = Life(
            out,
            run_arguments(table, out, url, *more),
            tracer=case.tracer(table) if case.tracer else (),
            err=folder / "stderr" if writer < 0 else writer,
        )
        try:
            case.moment(life)
            began = time.monotonic()
            for after_s, number in case.signals:
                time.sleep(after_s)
                life.send(number)
            life.wait(PATIENCE_S)
            took_s = time.monotonic() - began
            time.sleep(0.05)
            left = [f"process {pid}" for pid in session(life.process.pid)]
        finally:
            life.end()
            for fd in {reader, writer} - {-1}:
                os.close(fd)
    left += [str(path) for path in _shared_memory() - before]
    return Ending(code=life.process.returncode, took_s=took_s, err=life.said(), left=left, out=out)


def _shared_memory() -> set[Path]:
    return set(SHARED_MEMORY.iterdir()) if SHARED_MEMORY.exists() else set()


def complete(ending: Ending, folder: Path, *, rows: int = ROWS) -> str:
    """Go on with a stopped run until it is done; what the new life said. Every row must be there, once."""
    kept = {line["row"]: line["request_id"] for line in _committed(ending.out)}
    with simulated(folder) as healthy:
        said = cli(*run_arguments(folder / "videos.csv", ending.out, healthy.url, "--resume"))
    assert said.code == 0, said.err
    lines = lines_of(ending.out)
    assert sorted(line["row"] for line in lines) == list(range(rows)), "a row is lost or doubled"
    now = {line["row"]: line["request_id"] for line in lines}
    assert all(now[row] == request for row, request in kept.items()), "an answer that was kept was asked for again"
    return said.err


def _committed(out: Path) -> list[dict[str, Any]]:
    """The lines that the commit log speaks of."""
    done = 0
    with suppress(OSError, IndexError):
        done = json.loads((out / "checkpoint" / "commit.log").read_bytes().splitlines()[-1].rpartition(b" ")[0])["done"]
    lines = lines_of(out) if (out / "results").exists() else []
    assert len(lines) >= done, "a row that was counted as done is lost"
    return lines
