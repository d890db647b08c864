"""A scripted client, a plain reader, and short ways to make the values that travel through a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import anyio

from engine.config import ApiConfig, BrakeConfig, FormatConfig, LimitConfig, PriceConfig, RetryConfig, RunConfig
from engine.encode import EncodeConfig
from engine.errors import ApiError
from engine.source import SourceConfig
from engine.types import Answer, Failure, MediaNote, Record, Reply, Request, Row, Usage

_BODY = re.compile(rb"(\d+):x*(\d+)")
PROBE = -1
"""The row a script is asked for when a lane is probed."""
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


def make_request(row: int, *, n_bytes: int = 100, n_frames: int = 0) -> Request:
    return Request(
        row=row,
        id=f"id-{row}",
        head=b"%d:" % row + b"x" * (n_bytes - 12),
        tail=b"}",
        est_tokens=100,
        n_frames=n_frames,
        made_of=Row(row=row, id=f"id-{row}", fields={"transcript": "t" * 4000}),
        media=tuple(
            MediaNote(index=at, time_s=None, digest="0", width=512, height=512, tokens=10) for at in range(n_frames)
        ),
    )


def make_lane(*, model: str = "m", port: int = 9, weight: float = 1.0, price: PriceConfig | None = None) -> ApiConfig:
    return ApiConfig(
        base_url=f"http://127.0.0.1:{port}/v1",
        model=model,
        weight=weight,
        price=price or PriceConfig(input_usd_per_m=1.0, output_usd_per_m=2.0),
    )


def make_config(
    *,
    retry: RetryConfig | None = None,
    limits: LimitConfig | None = None,
    brake: BrakeConfig | None = None,
    form: FormatConfig | None = None,
    lanes: tuple[ApiConfig, ...] = (),
) -> RunConfig:
    return RunConfig(
        source=SourceConfig(path=Path("in.csv")),
        encode=EncodeConfig(workers=1),
        lanes=lanes or (make_lane(),),
        recipe={},
        retry=retry or RetryConfig(),
        limits=limits or LimitConfig(concurrency=8),
        brake=brake or BrakeConfig(),
        format=form or FormatConfig(),
    )


class ScriptedClient:
    """Answers after a fixed time with what the script says; keeps what it was sent and how many at once."""

    def __init__(self, script: Script, *, latency_s: float = 1.0) -> None:
        self._script = script
        self._latency_s = latency_s
        self.sent: list[tuple[float, int, int]] = []
        """(time, row, max_tokens) of each attempt."""
        self.probes: list[float] = []
        """When it was asked whether it is there."""
        self.bodies: list[bytes] = []
        self.see: Callable[[bytes], Reply | ApiError | None] = lambda _: None
        """Asked before the script, with the whole body."""
        self.now_in_flight = 0
        self.most_in_flight = 0

    async def attempt(self, *pieces: bytes) -> Reply:
        body = b"".join(pieces)
        found = _BODY.match(body)
        if found is None:
            return await self._probed(body)
        row, max_tokens = found[1], int(found[2])
        self.sent.append((anyio.current_time(), int(row), max_tokens))
        self.bodies.append(body)
        attempt = sum(1 for _, sent_row, _ in self.sent if sent_row == int(row))
        self.now_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.now_in_flight)
        try:
            await anyio.sleep(self._latency_s)
        finally:
            self.now_in_flight -= 1
        seen = self.see(body)
        outcome = self._script(int(row), attempt, max_tokens) if seen is None else seen
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    async def _probed(self, body: bytes) -> Reply:
        assert b'"ping"' in body
        self.probes.append(anyio.current_time())
        await anyio.sleep(self._latency_s)
        outcome = self._script(PROBE, len(self.probes), 16)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome


class PlainReader:
    """Takes any text as the answer; one that ends in `{` counts as cut, one that says `wrong` is no valid answer."""

    def read(self, text: str) -> Answer:
        return Answer(labels=None, cut=text.endswith("{"), error="bad_value:k" if "wrong" in text else None)

    def repair(self, text: str) -> bytes | None:
        """A row in the nine thousands: the tests tell repairs by it."""
        return b"9000:" if "hopeless" not in text else None


def rows(n: int) -> list[Request]:
    return [make_request(row) for row in range(n)]


def always_yes(row: int, attempt: int, max_tokens: int) -> Reply:
    return make_reply()


def failure_of(record: Record) -> Failure:
    assert isinstance(record.outcome, Failure)
    return record.outcome
