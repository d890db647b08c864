"""What an allowance costs: learnt from the answers, fixed and doubled when it was too small, or as much as may be.

    python -m bench.truncation --rows 20000 --name truncation

The real stage 3 against a client that answers at once. Answers are lognormal with a long tail; a token asked for counts
against a provider's limit when the call begins, a token answered is paid, a cut answer is paid twice.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import orjson

from engine.call import CallStage
from engine.config import ApiConfig, BrakeConfig, LimitConfig, RetryConfig, RunConfig
from engine.encode import EncodeConfig
from engine.gate import Gate, Room
from engine.lanes import Lanes
from engine.link import Link
from engine.money import Books
from engine.sharing import Sharing
from engine.source import SourceConfig
from engine.stop import Stop
from engine.types import Answer, Record, Reply, Request, Row, Usage
from labels.loop import on_loop

MEDIAN_TOKENS, SIGMA = 130, 0.25
TAIL_SHARE, TAIL_TIMES = 0.01, 8
"""A label object of eleven keys, and one answer in a hundred that argues first."""
PROMPT_TOKENS = 3300
RESULTS = Path(__file__).parent / "results"

POLICIES = {
    "learnt (`auto`)": RetryConfig(max_tokens=None),
    "512, doubled when cut": RetryConfig(max_tokens=512),
    "4096 for all": RetryConfig(max_tokens=4096),
}


def length_of(row: int) -> int:
    """Tokens of a row's answer."""
    rng = random.Random(row)
    tokens = MEDIAN_TOKENS * math.exp(rng.gauss(0.0, SIGMA))
    return max(1, round(tokens * (TAIL_TIMES if rng.random() < TAIL_SHARE else 1)))


@dataclass(slots=True)
class Counted:
    """What one policy took."""

    calls: int = 0
    cut: int = 0
    asked: int = 0
    """Tokens counted against a limit when calls begin: the prompt and the allowance."""
    answered: int = 0
    """Completion tokens paid."""
    prompted: int = 0
    """Prompt tokens paid."""


class InstantClient:
    """Answers every row with its own length, cut at the allowance."""

    def __init__(self) -> None:
        self.counted = Counted()

    async def attempt(self, *body: bytes) -> Reply:
        row, max_tokens = map(int, b"".join(body).partition(b",")[0].split(b":"))
        await anyio.lowlevel.checkpoint()
        tokens = min(length_of(row), max_tokens)
        cut = tokens < length_of(row)
        counted = self.counted
        counted.calls += 1
        counted.cut += cut
        counted.asked += PROMPT_TOKENS + max_tokens
        counted.answered += tokens
        counted.prompted += PROMPT_TOKENS
        return Reply(
            text="",
            finish_reason="length" if cut else "stop",
            usage=Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=tokens),
            model="m",
            request_id=None,
            latency_s=0.0,
        )


class NoReader:
    """Any text is an answer."""

    def read(self, text: str) -> Answer:
        del text
        return Answer(labels=None)

    def repair(self, text: str) -> None:
        del text


async def count(retry: RetryConfig, *, rows: int) -> Counted:
    """Send so many rows under one policy."""
    config = RunConfig(
        source=SourceConfig(path=Path("none.csv")),
        encode=EncodeConfig(workers=1),
        lanes=(ApiConfig(base_url="http://127.0.0.1:9/v1", model="m"),),
        recipe={},
        retry=retry,
        limits=LimitConfig(concurrency=64),
    )
    client, stop = InstantClient(), Stop(drain_s=1)
    lanes = Lanes(config, [client], books=Books(), now=anyio.current_time(), learnt={})
    gate = Gate(lanes, room=Room(1 << 30), brake=BrakeConfig(), stop=stop)
    reader = NoReader()
    stage = CallStage(
        config,
        lanes=lanes,
        gate=gate,
        reader=reader,
        encode_again=_never,
        sharing=Sharing((), reader=reader),
        stop=stop,
        rng=random.Random(1),
    )
    source, sink = Link[Request | Record](64), Link[Record](64)
    async with anyio.create_task_group() as group:
        group.start_soon(stage.run, source, sink)
        group.start_soon(_feed, source, rows)
        async with sink.consuming():
            ended = sum([1 async for record in sink if isinstance(record.outcome, Reply)])
    if ended != rows:
        raise RuntimeError(f"{rows - ended} rows have no answer")
    return client.counted


async def _feed(source: Link[Request | Record], rows: int) -> None:
    async with source.producing():
        for row in range(rows):
            head = b"%d:" % row
            await source.put(Request(row=row, id="", head=head, tail=b"", est_tokens=PROMPT_TOKENS, n_frames=0))


async def _never(row: Row) -> Request | Record:
    raise NotImplementedError(row)


def table(measured: dict[str, Counted], *, rows: int) -> str:
    """A Markdown table, a line a policy."""
    lines = [
        "| first allowance | cut a row | calls a row | tokens reserved a row, for the answer | tokens paid out, in |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {each.cut / rows:.4f} | {each.calls / rows:.3f} "
        f"| {each.asked / rows:,.0f}, {(each.asked - each.calls * PROMPT_TOKENS) / rows:,.0f} "
        f"| {each.answered / rows:,.1f}, {each.prompted / rows:,.0f} |"
        for name, each in measured.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry of `python -m bench.truncation`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--name", help="also write bench/results/NAME.json")
    told = parser.parse_args()
    measured = {name: on_loop(count(retry, rows=told.rows)) for name, retry in POLICIES.items()}
    print(table(measured, rows=told.rows))
    if told.name:
        said: dict[str, Any] = {"rows": told.rows, "policies": measured}
        (RESULTS / f"{told.name}.json").write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
