"""A key and a transcript that must turn up nowhere, while everything goes wrong that can."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import (
    KEY,
    children_of,
    environment,
    finished,
    run_arguments,
    simulated,
    start_cli,
    write_table,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TRANSCRIPT = "canary-transcript-81f0c4"
FAULTS: list[dict[str, Any]] = [
    *({"kind": "status", "status": status} for status in (400, 403, 408, 409, 413, 422, 500, 502, 503, 504)),
    {"kind": "status", "status": 429, "first_attempts": 1, "message": "slow down"},
    {"kind": "status", "status": 400, "message": f"your key {KEY} was not made for this"},
    {
        "kind": "status",
        "status": 400,
        "message": "maximum context length is 10 tokens",
        "code": "context_length_exceeded",
    },
    {"kind": "status", "status": 451, "message": "moderation", "headers": {"x-echo": KEY}},
    {"kind": "error_inside", "status": 429, "first_attempts": 1, "message": f"Bearer {KEY}"},
    *(
        {"kind": kind}
        for kind in (
            *("stall", "cut_body", "reset", "close", "wrong_length", "huge", "no_choices", "null_content", "not_json"),
            *("fenced", "cut_json", "no_usage", "absurd_usage", "refusal", "repeat", "newlines", "tool_calls", "parts"),
            *("reasoning", "wrong_model"),
        )
    ),
]


def test_whatever_goes_wrong_key_and_transcript_show_nowhere_but_in_the_request(tmp_path: Path) -> None:
    rows = 100 + len(FAULTS)
    table, out = write_table(tmp_path / "videos.csv", rows, transcript=TRANSCRIPT), tmp_path / "out"
    faults = [fault | {"containing": f"row {100 + at}"} for at, fault in enumerate(FAULTS)]
    scenario = {"api_key": KEY, "faults": faults, "latency": {"median": 0.05}}
    more = ("--retries", 1, "--per-call-timeout", 2, "--max-failed", "100%", "--row-deadline-seconds", 4)
    env = environment(TOGETHER_API_KEY=KEY, REELBATCH_DEBUG="1")
    with simulated(tmp_path, scenario) as provider:
        process = start_cli(*run_arguments(table, out, provider.url, *more), env=env)
        seen, looked_at_worker = b"", False
        while provider.ledger()["requests"] < 20:
            assert process.poll() is None
            seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
            for child in children_of(process.pid):
                words = Path(f"/proc/{child}/cmdline").read_bytes()
                # Between fork and exec a child is still its parent, environment and all.
                if b"engine.worker" in words:
                    seen += words + Path(f"/proc/{child}/environ").read_bytes()
                    looked_at_worker = True
        said = finished(process)
        statuses = provider.ledger()["by_status"]
    assert said.code == 1, said.err
    assert looked_at_worker
    assert {"400", "403", "429", "500", "503"} <= statuses.keys(), "the faults have struck"
    seen += (said.out + said.err).encode()
    seen += b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert TRANSCRIPT.encode() not in seen
    for form in (KEY, urllib.parse.quote(KEY), base64.b64encode(KEY.encode()).decode().rstrip("=")):
        assert form.encode() not in seen
