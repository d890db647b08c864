"""Who is measured: the peers, the yardstick, and Reelbatch's two ways of asking the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.bodies import flags
from bench.peers.environments import Peer, peers
from bench.peers.errands import Answered, Errand
from bench.peers.rows import MODEL
from bench.throughput import CLI

PEER_OUT = "answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whatever sends rows."""

    name: str
    version: str
    licence: str
    rows: Mapping[str, int]
    """By size, so many that one run takes 5 to 20 seconds."""
    command: Callable[[Errand], Sequence[object]]
    answered: Callable[[Path], Answered]
    """Given the folder of the errand."""
    missing: str | None = None
    """Why it cannot be run; None if it can."""


def subjects() -> list[Subject]:
    ours = {"version": version("reelbatch"), "licence": "Apache-2.0"}
    return [
        Subject(
            name="Reelbatch run",
            rows={"2KB": 10_000, "300KB": 3_000},
            command=_run,
            answered=lambda out: _ours(out / "run", sorted(out.glob("run/results/*.jsonl"))),
            **ours,
        ),
        Subject(
            name="Reelbatch infer",
            rows={"2KB": 10_000, "300KB": 3_000},
            command=_infer,
            answered=lambda out: _ours(out / "raw.jsonl.run", [out / "raw.jsonl"]),
            **ours,
        ),
        Subject(
            name="yardstick",
            rows={"2KB": 10_000, "300KB": 3_000},
            command=_yardstick,
            answered=lambda out: Answered(rows=_lines(out / PEER_OUT)),
            **ours,
        ),
        *map(_subject, peers()[0]),
    ]


def _subject(peer: Peer) -> Subject:
    def command(errand: Errand) -> Sequence[object]:
        words = ("--base-url", errand.url, "--rows", errand.inputs.bodies, "--out", errand.out / PEER_OUT)
        more = ("--concurrency", errand.concurrency, *peer.words)
        return (peer.python, "-m", f"bench.peers.{peer.module}", *words, *more)

    return Subject(
        name=peer.name,
        version=peer.version,
        licence=peer.licence,
        rows=peer.rows,
        command=command,
        answered=lambda out: answers(out / PEER_OUT),
        missing=peer.missing,
    )


def answers(path: Path) -> Answered:
    """Of a peer's script: different rows with a text."""
    if not path.exists():
        return Answered(rows=0)
    with path.open("rb") as file:
        found = [json.loads(line) for line in file if line.endswith(b"\n")]
    return Answered(rows=len({line["row"] for line in found if line["answer"]}))


def _run(errand: Errand) -> Sequence[object]:
    words = ("run", *flags(errand.inputs.folder, errand.inputs.body), "--out", errand.out / "run")
    return (sys.executable, CLI, *words, "--spot-notices", "off", *_limits(errand))


def _infer(errand: Errand) -> Sequence[object]:
    words = ("infer", "--val-file", errand.inputs.bodies, "--out", errand.out / "raw.jsonl")
    return (sys.executable, CLI, *words, *_limits(errand))


def _limits(errand: Errand) -> Sequence[object]:
    return ("--model", MODEL, "--base-url", errand.url, "--concurrency", errand.concurrency)


def _yardstick(errand: Errand) -> Sequence[object]:
    words = ("--base-url", errand.url, "--rows", errand.inputs.bodies, "--out", errand.out / PEER_OUT)
    return (sys.executable, "-m", "bench.yardstick", *words, "--concurrency", errand.concurrency)


def _ours(run: Path, results: Sequence[Path]) -> Answered:
    report = run / "report.json"
    if not report.exists():
        return Answered(rows=0)
    main_cpu_s = json.loads(report.read_text(encoding="utf-8"))["process"]["main_cpu_s"]
    return Answered(rows=sum(map(_lines, results)), main_cpu_s=main_cpu_s)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
