"""The engine with real workers and a sink in memory, when its parts fail."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from engine.config import LimitConfig
from engine.encode import EncodeConfig, EncoderPool
from engine.errors import EncoderBroken, EngineError, InputError, SinkBroken
from engine.ports import Client, Encoder, Sink
from engine.run import Parts, Run
from engine.source import SourceConfig
from engine.stats import Snapshot
from engine.types import Failure, FailureKind, Record, Reply
from sinks.memory import MemorySink
from tests.fakes.calls import PlainReader, make_config, make_reply
from tests.fakes.encoders import Misbehaving, Unloadable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


class Answering:
    """Answers every body after a while; remembers how many it has and how many at once."""

    def __init__(self, latency_s: float = 0.01) -> None:
        self._latency_s = latency_s
        self.calls = 0
        self.in_flight = 0

    async def attempt(self, *body: bytes) -> Reply:
        self.calls += 1
        self.in_flight += 1
        try:
            await anyio.sleep(self._latency_s)
        finally:
            self.in_flight -= 1
        return make_reply(b"".join(body).decode(errors="replace")[:40])


def run(
    table: Path,
    *,
    encoder: Encoder,
    sink: Sink,
    client: Client | None = None,
    configured: Callable[[EncodeConfig], EncodeConfig] = lambda config: config,
) -> Snapshot:
    config = make_config(limits=LimitConfig(concurrency=16))
    object.__setattr__(config, "source", SourceConfig(path=table))
    encode = configured(EncodeConfig(workers=2, row_timeout_s=20.0, batch_rows=4))

    async def main() -> Snapshot:
        async with EncoderPool(encoder, encode) as pool:
            parts = Parts(
                pool=pool, clients=[client or Answering()], reader=PlainReader(), sink=sink, rng=random.Random(1)
            )
            return await Run(config, parts).main()

    return asyncio.run(main())


def write(path: Path, ids: list[str]) -> Path:
    path.write_text("id,description\n" + "".join(f"{identity},text\n" for identity in ids))
    return path


def test_one_dead_worker_in_ten_rows_costs_no_good_row(tmp_path: Path) -> None:
    deeds = ("kill", "segv", "exit")
    ids = [f"{deeds[row // 10 % 3]}-{row}" if row % 10 == 5 else f"good-{row}" for row in range(200)]
    sink = MemorySink()
    last = run(write(tmp_path / "t.csv", ids), encoder=Misbehaving(), sink=sink)
    assert {record.id for record in sink.results.values()} == {identity for identity in ids if "good" in identity}
    assert sorted(sink.failures) == [row for row in range(200) if row % 10 == 5]
    for record in sink.failures.values():
        assert isinstance(record.outcome, Failure)
        assert record.outcome.kind is FailureKind.POISON_MEDIA
    assert last.encode.crashes >= 40


def test_an_input_that_breaks_off_ends_the_run_after_what_came_before_it_is_answered(tmp_path: Path) -> None:
    text = b"id,description\n" + b"".join(b"good-%d,%d\n" % (row, row * 7919) for row in range(3000))
    whole = gzip.compress(text)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    sink, client = MemorySink(), Answering()
    with pytest.raises(InputError, match="cannot be read past line"):
        run(path, encoder=Misbehaving(), sink=sink, client=client)
    assert len(sink.results) == client.calls


def test_workers_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    sink = MemorySink()
    with pytest.raises(EncoderBroken, match="no encoder process can be started"):
        run(write(tmp_path / "t.csv", ["a", "b"]), encoder=Unloadable(), sink=sink)
    assert not sink.results


class FullSink(MemorySink):
    """Fails at the third commit that has something to write."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 2

    def commit(self) -> int:
        if self.statistics().pending:
            if not self._left:
                raise SinkBroken("the disk is full; what was counted is safe")
            self._left -= 1
        return super().commit()


def test_a_broken_disk_ends_the_run_with_that_error_alone(tmp_path: Path) -> None:
    sink = FullSink()
    with pytest.raises(EngineError, match="the disk is full") as raised:
        run(
            write(tmp_path / "t.csv", [f"good-{row}" for row in range(2000)]),
            encoder=Misbehaving(),
            sink=sink,
            client=Answering(0.05),
        )
    assert type(raised.value) is SinkBroken
    assert sink.results


class SlowSink(MemorySink):
    """Takes its time, and says that much is pending."""

    def __init__(self, client: Answering) -> None:
        super().__init__()
        self._client = client
        self.most_ahead = 0

    def put(self, record: Record) -> None:
        super().put(record)
        self.most_ahead = max(self.most_ahead, self._client.calls - len(self.results) - self.statistics().pending)


def test_calls_run_ahead_of_the_sink_by_no_more_than_the_streams_hold(tmp_path: Path) -> None:
    client = Answering(0.0)
    sink = SlowSink(client)
    run(
        write(tmp_path / "t.csv", [f"good-{row}" for row in range(3000)]),
        encoder=Misbehaving(),
        sink=sink,
        client=client,
    )
    assert len(sink.results) == 3000
    assert sink.most_ahead <= 256 + 16 + 1


class StoppedWhileReading(MemorySink):
    """Has the run stopped from inside the reading thread, which then goes on reading for a while."""

    def is_done(self, row: int) -> bool:
        if row == 300:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
        return super().is_done(row)


def test_a_batch_that_comes_after_the_stop_is_left_for_the_next_life(tmp_path: Path) -> None:
    sink = StoppedWhileReading()
    client = Answering()
    last = run(
        write(tmp_path / "t.csv", [f"good-{row}" for row in range(2000)]),
        encoder=Misbehaving(),
        sink=sink,
        client=client,
    )
    assert last.stopping == "SIGTERM"
    assert len(sink.results) == client.calls < 2000
