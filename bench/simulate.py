"""`simulate`: a provider to try things on, without a key, a network or a cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import orjson

from bench.provider import serve
from bench.scenario import Scenario, scenario_from_dict
from engine.errors import ConfigError
from labels.codebook import load_codebook
from labels.loop import on_loop
from labels.terminal import read_text, say


def simulate(
    *, port: int = 8000, codebook: str = "comprehensive", scenario: Path | None = None, ledger: Path | None = None
) -> int:
    """The simulated provider, on loopback: made-up answers in the form of a real one's. Ends on Ctrl-C.

    Args:
        port: where to listen; 0 takes a free port.
        codebook: what to answer under when a request brings no schema; its labels are valid, and made up.
        scenario: a JSON file with latency, limits and faults; docs/simulate.md describes it.
        ledger: append a JSON line per received request to this file.
    """
    told = _scenario(scenario, codebook=codebook)
    try:
        on_loop(serve(told, port=port, ready=_announce, ledger_path=ledger))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror}") from error
    return 0


def _scenario(path: Path | None, *, codebook: str) -> Scenario:
    try:
        told = Scenario() if path is None else scenario_from_dict(orjson.loads(read_text(path, "--scenario")))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"--scenario {path}: {error}") from error
    if told.answer_schema is not None:
        return told
    return dataclasses.replace(told, answer_schema=load_codebook(codebook).json_schema())


def _announce(port: int) -> None:
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    say("Simulated provider: its answers are made up. Any key and any model will do. Ctrl-C ends it.")
