"""The suite `stages`: what each part of a run takes alone, of this process or of the one it is measured in.

Together they are less than a run: there they wait for each other, and fill and empty the streams between them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from bench.asking import ask
from bench.bodies import BODIES, CODEBOOK, job, make_rows, requests, rows_of
from bench.contenders import by_encoder_pool
from bench.invented import made_answer
from bench.pool import measured
from bench.sized import Sized
from bench.suite import Case, Figures, Told
from bench.throughput import Served, provider
from bench.watching import cpu_s_of
from engine.client import HttpClient
from engine.source import RowReader, SourceConfig
from engine.types import Answer, Record, Reply, Usage
from labels.codebook import load_codebook
from labels.loop import on_loop
from labels.reading import CodebookReader
from sinks.shards import ShardSink

T = TypeVar("T")

CONNECTIONS = 64
COUNTS = {"2 KB": 6000, "300 KB": 800, "1 MB": 300, "4 frames": 60}
"""Requests a round: half a second to two."""
SOURCE_ROWS = 20_000
READ_ANSWERS = 20_000
COMMITTED_ROWS = 20_000
COMMIT_EVERY = 1000
"""Rows: about what is answered in the second between two commits."""
SHARDS = 64


def cases(told: Told) -> list[Case]:
    """In the order in which a row passes through them; the simulated provider last."""
    share = 4 if told.quick else 1
    counts = {name: count // share for name, count in COUNTS.items()}
    for name, count in counts.items():
        rows = max(count, SOURCE_ROWS // share) if name == "2 KB" else count
        make_rows(told.folder / name, BODIES[name], rows=rows)
    book = told.folder / "codebook.toml"
    book.write_text(CODEBOOK, encoding="utf-8")
    server = told.opened.enter_context(provider(told.folder, {"tokens_per_image": 1601}, codebook=book))
    bodies = {name: list(requests(told.folder / name, BODIES[name], count=1)) * count for name, count in counts.items()}
    sent = [name for name in counts if BODIES[name].n_bytes]

    def case(stage: str, what: str, once: Callable[[], Figures]) -> Case:
        return Case(name=f"{stage}, {what}", about={"stage": stage, "what": what}, once=lambda _: once())

    return [
        case("source", "CSV, rows of 2 KB", partial(_source, told.folder / "2 KB", SOURCE_ROWS // share)),
        *(case("encode", name, partial(_encode, told.folder / name, name, counts[name])) for name in counts),
        *(case("hand-off", name, partial(_hand_off, BODIES[name].n_bytes, counts[name])) for name in sent),
        *(case("client", name, partial(_client, told.folder / name, server.url, bodies[name])) for name in sent),
        case("labels", "answers checked against the codebook", partial(_labels, book, READ_ANSWERS // share)),
        case("commit", f"every {COMMIT_EVERY:,} rows", partial(_commit, told.folder, COMMITTED_ROWS // share)),
        *(case("provider", name, partial(_provider, server, bodies[name])) for name in sent),
    ]


def _taken(rows: int, started_s: float, cpu_s: float) -> Figures:
    return {"rows": rows, "rows_per_s": rows / (time.perf_counter() - started_s), "cpu_s_per_1000": cpu_s / rows * 1000}


def _own(rows: int, work: Callable[[], object]) -> Figures:
    started_s, before = time.perf_counter(), time.process_time()
    work()
    return _taken(rows, started_s, time.process_time() - before)


def _each(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do it, and keep nothing of it."""
    for item in items:
        work(item)


def _source(folder: Path, rows: int) -> Figures:
    def read() -> None:
        config = SourceConfig(path=folder / "videos.csv", limit=rows)
        with RowReader(config, is_done=lambda _: False) as reader:
            while reader.next_batch():
                pass

    return _own(rows, read)


def _encode(folder: Path, name: str, count: int) -> Figures:
    encoder, rows = job(folder, BODIES[name]).encoder, rows_of(folder, count=count)
    encoder.encode(rows[0])
    return _own(count, lambda: _each(encoder.encode, rows))


def _hand_off(n_bytes: int, count: int) -> Figures:
    found = measured(by_encoder_pool, Sized(n_bytes=n_bytes), rows=count)
    return {
        "rows": count,
        "rows_per_s": found["rows_per_s"],
        "cpu_s_per_1000": found["parent_cpu_s_per_1000"],
        "workers_cpu_s_per_1000": found["workers_cpu_s_per_1000"],
    }


def _client(folder: Path, url: str, bodies: list[bytes]) -> Figures:
    lane = job(folder, BODIES["2 KB"], url=url).settings.lanes[0]

    async def send() -> Figures:
        async with HttpClient(lane) as client:
            await _at_once(client, bodies[:CONNECTIONS])
            started_s, before = time.perf_counter(), time.process_time()
            await _at_once(client, bodies)
            return _taken(len(bodies), started_s, time.process_time() - before)

    return on_loop(send())


async def _at_once(client: HttpClient, bodies: Sequence[bytes]) -> None:
    left = iter(bodies)

    async def slot() -> None:
        for body in left:
            await client.attempt(body)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(slot())


def _labels(book: Path, count: int) -> Figures:
    reader, rng = CodebookReader(codebook=load_codebook(str(book))), random.Random(1)
    schema = reader.codebook.json_schema()
    texts = [orjson.dumps(made_answer(schema, rng)).decode() for _ in range(count)]
    return _own(count, lambda: _each(reader.read, texts))


def _commit(folder: Path, count: int) -> Figures:
    usage = Usage(prompt_tokens=500, completion_tokens=20)
    reply = Reply(
        text='{"politics":"no","food":"yes","travel":"no"}',
        finish_reason="stop",
        usage=usage,
        model="m",
        request_id="r",
        latency_s=1.25,
    )
    answer = Answer(labels={"politics": "no", "food": "yes", "travel": "no"})
    records = [
        Record(row=row, id=f"{7 * 10**18 + row}", outcome=reply, answer=answer, attempts=1, usage=usage)
        for row in range(count)
    ]

    def write() -> None:
        for at, record in enumerate(records, 1):
            sink.put(record)
            if at % COMMIT_EVERY == 0:
                sink.commit()

    out = folder / f"sink-{time.monotonic_ns()}"
    with ShardSink.open(out, manifest={"input": {}, "settings": {}}, shards=SHARDS, resume=False) as sink:
        return _own(count, write)


def _provider(server: Served, bodies: list[bytes]) -> Figures:
    before, started_s = cpu_s_of(server.pid), time.perf_counter()
    on_loop(ask(server.url, bodies[0], count=len(bodies), connections=CONNECTIONS))
    return _taken(len(bodies), started_s, cpu_s_of(server.pid) - before)
