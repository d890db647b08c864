"""A scripted client, a plain reader, and short ways to make the values that travel through a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio

from engine.config import ApiConfig, LimitConfig, PriceConfig, RetryConfig, RunConfig
from engine.encode import EncodeConfig
from engine.errors import ApiError
from engine.source import SourceConfig
from engine.types import Answer, Reply, Request, Usage

Script = Callable[[int, int, int], Reply | ApiError]
"""Takes row, attempt (from 1) and max_tokens; gives what the provider does."""


def make_reply(text: str = "yes", *, finish_reason: str = "stop", completion_tokens: int = 3) -> Reply:
    return Reply(
        text=text,
        finish_reason=finish_reason,
        usage=Usage(prompt_tokens=100, completion_tokens=completion_tokens),
        model="m",
        request_id=None,
        latency_s=1.0,
    )


def make_request(row: int, *, n_bytes: int = 100) -> Request:
    return Request(
        row=row, id=f"id-{row}", head=b"%d:" % row + b"x" * (n_bytes - 12), tail=b"}", est_tokens=100, n_frames=0
    )


def make_config(
    *, retry: RetryConfig | None = None, limits: LimitConfig | None = None, price: PriceConfig | None = None
) -> RunConfig:
    return RunConfig(
        source=SourceConfig(path=Path("in.csv")),
        encode=EncodeConfig(workers=1),
        api=ApiConfig(base_url="http://127.0.0.1:9/v1", model="m"),
        recipe={},
        retry=retry or RetryConfig(),
        limits=limits or LimitConfig(concurrency=8),
        price=price or PriceConfig(input_usd_per_m=1.0, output_usd_per_m=2.0),
    )


class ScriptedClient:
    """Answers after a fixed time with what the script says; keeps what it was sent and how many at once."""

    def __init__(self, script: Script, *, latency_s: float = 1.0) -> None:
        self._script = script
        self._latency_s = latency_s
        self.sent: list[tuple[float, int, int]] = []
        """(time, row, max_tokens) of each attempt."""
        self.now_in_flight = 0
        self.most_in_flight = 0

    async def attempt(self, body: bytes) -> Reply:
        row, _, rest = body.partition(b":")
        max_tokens = int(rest.strip(b"x}"))
        self.sent.append((anyio.current_time(), int(row), max_tokens))
        attempt = sum(1 for _, sent_row, _ in self.sent if sent_row == int(row))
        self.now_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.now_in_flight)
        try:
            await anyio.sleep(self._latency_s)
        finally:
            self.now_in_flight -= 1
        outcome = self._script(int(row), attempt, max_tokens)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome


class PlainReader:
    """Takes any text as the answer; a text that ends in `{` counts as cut."""

    def read(self, text: str) -> Answer:
        return Answer(labels=None, cut=text.endswith("{"))
