"""An input that changes between the lives of a run, and while one reads it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.encode import EncodeConfig, EncoderPool
from engine.run import Parts, Run
from engine.source import SourceConfig
from engine.types import Reply
from sinks.memory import MemorySink
from tests.fakes.calls import PlainReader, make_config, make_reply
from tests.fakes.commands import (
    Simulated,
    cli,
    finished,
    lines_of,
    run_arguments,
    simulated,
    start_cli,
    write_table,
)
from tests.fakes.encoders import Misbehaving
from tests.fakes.records import result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROWS = 20


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "videos.csv", ROWS)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Simulated]:
    with simulated(tmp_path) as provider:
        yield provider


def manifest(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))


def test_rows_added_at_the_end_are_labelled_when_asked(tmp_path: Path, table: Path, provider: Simulated) -> None:
    out = tmp_path / "out"
    arguments = run_arguments(table, out, provider.url)
    assert cli(*arguments).code == 0
    first = manifest(out)
    write_table(table, ROWS + 5)

    said = cli(*arguments, "--resume")
    assert said.code == 78
    assert "has grown at its end" in said.err
    assert "--extend" in said.err
    assert manifest(out) == first
    assert provider.ledger()["requests"] == ROWS

    said = cli(*arguments, "--resume", "--extend")
    assert said.code == 0, said.err
    assert sorted(line["row"] for line in lines_of(out)) == list(range(ROWS + 5))
    assert provider.ledger()["requests"] == ROWS + 5
    second = manifest(out)
    assert second["input_before"] == [first["input"]]
    assert second["revision"] == 2
    assert {**second, "input": first["input"]} == {**first, "input_before": [first["input"]], "revision": 2}
    status = json.loads(cli("status", out, "--json").out)
    assert (status["done"], status["left"]) == (ROWS + 5, 0)

    assert cli(*arguments, "--resume").code == 0, "what was taken in belongs to the run from then on"
    assert cli(*arguments, "--resume", "--extend").code == 0, "nothing has grown, and nothing need have"
    assert manifest(out) == second
    assert provider.ledger()["requests"] == ROWS + 5
    assert cli("verify", out).code == 0

    write_table(table, ROWS)
    assert cli(*arguments, "--resume", "--extend").code == 78, "it is shorter now"


def test_an_edited_input_and_other_settings_are_refused_together_whatever_was_asked(
    tmp_path: Path, table: Path, provider: Simulated
) -> None:
    out = tmp_path / "out"
    arguments = run_arguments(table, out, provider.url)
    assert cli(*arguments).code == 0
    before = manifest(out)
    table.write_bytes(table.read_bytes().replace(b"market 3", b"market 9") + b"99,new,row 99\n")
    said = cli(*arguments, "--resume", "--extend", "--temperature", 0.5)
    assert said.code == 78
    assert "input.sha256_per_64_mib" in said.err
    assert "was edited" in said.err
    assert "temperature" in said.err
    assert manifest(out) == before
    assert provider.ledger()["requests"] == ROWS


def test_growing_needs_a_run_to_go_on_with(tmp_path: Path, table: Path) -> None:
    said = cli(*run_arguments(table, tmp_path / "out", "http://127.0.0.1:9/v1", "--extend"))
    assert said.code == 64
    assert "--resume" in said.err


def start_and_wait(arguments: Any, out: Path) -> Any:
    """A run that has answered something."""
    process = start_cli(*arguments)
    while process.poll() is None and not any(out.glob("results/shard-*.jsonl")):
        os.sched_yield()
    return process


def test_an_input_edited_during_the_run_ends_it_in_the_orderly_way(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 40_000), tmp_path / "out"
    before = table.read_bytes()
    with simulated(tmp_path) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 8)
        with start_and_wait(arguments, out) as process:
            table.write_bytes(before.replace(b"market 39999", b"market 00000"))
            said = finished(process)
        assert said.code == 78, said.err
        assert "during the run" in said.err
        rows = [line["row"] for line in lines_of(out)]
        assert len(rows) == len(set(rows)) == provider.ledger()["requests"]
        table.write_bytes(before)
        written = n_bytes(out)
        with start_cli(*arguments, "--resume") as process:
            while process.poll() is None and n_bytes(out) == written:
                os.sched_yield()
            process.send_signal(signal.SIGTERM)
            said = finished(process)
        assert said.code == 75, said.err
    more = [line["row"] for line in lines_of(out)]
    assert len(more) == len(set(more)) > len(rows)


def n_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("results/shard-*.jsonl"))


def test_rows_added_during_the_run_are_left_for_the_next_one(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 3000), tmp_path / "out"
    with simulated(tmp_path) as provider:
        arguments = run_arguments(table, out, provider.url)
        with start_and_wait(arguments, out) as process:
            with table.open("a", encoding="utf-8") as file:
                file.write("99,new,row 3000\n")
            said = finished(process)
        assert said.code == 0, said.err
        assert sorted(line["row"] for line in lines_of(out)) == list(range(3000))
        said = cli(*arguments, "--resume", "--extend")
        assert said.code == 0, said.err
    assert len(lines_of(out)) == 3001


def test_a_resume_enters_the_file_where_work_is_left(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 4200), tmp_path / "out"
    with simulated(tmp_path) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 256)
        assert cli(*arguments).code == 0
        write_table(table, 4210)
        assert cli(*arguments, "--resume", "--extend").code == 0
    snapshot = max((out / "checkpoint").glob("snapshot-*"), key=lambda path: path.stat().st_mtime_ns)
    learnt = json.loads(snapshot.read_bytes().rpartition(b" ")[0])["learnt"]
    assert learnt["first_open"] == learnt["rows_total"] == 4210
    places = learnt["offsets"]["places"]
    lines = table.read_bytes().splitlines(keepends=True)
    assert [place[:2] for place in places] == [[sum(map(len, lines[: row + 1])), row + 1] for row in (0, 4096)]


class Answering:
    async def attempt(self, *body: bytes) -> Reply:
        return make_reply()


def one_life(table: Path, sink: MemorySink) -> None:
    config = dataclasses.replace(make_config(), source=SourceConfig(path=table))

    async def main() -> None:
        async with EncoderPool(Misbehaving(), EncodeConfig(workers=1)) as pool:
            parts = Parts(pool=pool, clients=[Answering()], reader=PlainReader(), sink=sink, rng=random.Random(1))
            await Run(config, parts).main()

    asyncio.run(main())


@pytest.mark.parametrize("told", [0, 3, 5, 50])
def test_what_was_learnt_of_rows_done_is_believed_only_as_far_as_rows_are_done(tmp_path: Path, told: int) -> None:
    table, sink = write_table(tmp_path / "videos.csv", ROWS), MemorySink()
    for row in range(5):
        sink.put(result(row))
    sink.commit()
    sink.learnt["first_open"] = told
    one_life(table, sink)
    assert sorted(sink.results) == list(range(ROWS))
    assert sink.learnt["first_open"] == ROWS
