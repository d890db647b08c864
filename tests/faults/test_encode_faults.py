"""The encoder pool with workers that die, hang, lie and leak. Real processes."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio
import orjson
import pytest

from engine.encode import EncodeConfig, EncoderPool, EncodeStatistics
from engine.errors import EncoderBroken
from engine.link import Link
from engine.ports import Encoder
from engine.types import Failure, FailureKind, Record, Request, Row
from tests.fakes.encoders import Lying, Misbehaving, Unloadable

pytestmark = pytest.mark.slow


def rows_of(*ids: str) -> list[Row]:
    return [Row(row=at, id=identity, fields={}) for at, identity in enumerate(ids)]


def framed(header: bytes) -> bytes:
    return struct.pack("<II", len(header), 0) + header


def request_item(head: bytes) -> bytes:
    return b'{"cpu_s":0,"items":[{"row":1,%b,"tail":0,"tokens":1,"frames":0,"media":[],"degraded":[],"key":""}]}' % head


class Encoded:
    """What came out of one stage."""

    def __init__(self, outcomes: list[Request | Record], statistics: EncodeStatistics) -> None:
        self.requests = {item.row: item for item in outcomes if isinstance(item, Request)}
        self.failures = {
            item.row: item.outcome
            for item in outcomes
            if isinstance(item, Record) and isinstance(item.outcome, Failure)
        }
        self.statistics = statistics
        assert len(outcomes) == len(self.requests) + len(self.failures)


def encode(
    encoder: Encoder, items: Sequence[Row | Record], *, workers: int = 2, timeout_s: float = 20.0, memory_mb: int = 2048
) -> Encoded:
    outcomes: list[Request | Record] = []
    config = EncodeConfig(workers=workers, row_timeout_s=timeout_s, worker_memory_mb=memory_mb, batch_rows=4)

    async def main() -> EncodeStatistics:
        source, sink = Link[list[Row | Record]](2), Link[Request | Record](4)

        async def feed() -> None:
            async with source.producing():
                for at in range(0, len(items), 10):
                    await source.put(list(items[at : at + 10]))

        async with EncoderPool(encoder, config) as pool, anyio.create_task_group() as group:
            group.start_soon(feed)
            group.start_soon(pool.encode_stage, source, sink)
            async with sink.consuming():
                outcomes.extend([item async for item in sink])
        return pool.statistics()

    statistics = anyio.run(main)
    return Encoded(outcomes, statistics)


def test_rows_become_requests_and_records_pass_untouched() -> None:
    early = Record(row=100, id="x", outcome=Failure(kind=FailureKind.BAD_ROW, message="line 7"))
    encoded = encode(Misbehaving(), [*rows_of(*(f"ok-{n}" for n in range(50))), early])
    assert {row: request.head for row, request in encoded.requests.items()} == {
        n: f"ok-{n}".encode() for n in range(50)
    }
    assert encoded.failures == {100: early.outcome}


@pytest.mark.parametrize("size", [10, 60_000, 70_000, 300_000, 3_000_000, 9_000_000])
def test_a_body_of_any_size_arrives_whole(size: int) -> None:
    encoded = encode(Misbehaving(), rows_of(*[f"sized-{size}"] * 5))
    for request in encoded.requests.values():
        assert len(request.head) == size
        assert request.head.rstrip(b".") == str(size).encode()
        assert request.tail == b"}"
    assert len(encoded.requests) == 5


def test_many_large_bodies_pass_through_a_small_arena() -> None:
    encoded = encode(Misbehaving(), rows_of(*(f"sized-{400_000 + n}" for n in range(100))), workers=1)
    assert {row: len(request.head) for row, request in encoded.requests.items()} == {n: 400_000 + n for n in range(100)}


@pytest.mark.parametrize(
    ("deed", "words"), [("kill", "SIGKILL"), ("segv", "SIGSEGV"), ("exit", "code 3"), ("hang", "hung its worker")]
)
def test_a_fatal_row_is_tried_twice_and_costs_no_other_row_anything(deed: str, words: str, tmp_path: Path) -> None:
    pipe = tmp_path / "tries"
    os.mkfifo(pipe)
    begun: Counter[int] = Counter()
    keep_open = os.open(pipe, os.O_RDWR)

    def count() -> None:
        with pipe.open(encoding="utf-8") as file:
            for line in file:
                if line == "end\n":
                    return
                begun[int(line)] += 1

    reader = threading.Thread(target=count)
    reader.start()
    ids = [f"ok-{n}" for n in range(30)]
    ids[7] = f"{deed}-7"
    try:
        encoded = encode(Misbehaving(tries=pipe), rows_of(*ids), timeout_s=1.0 if deed == "hang" else 20.0)
    finally:
        os.write(keep_open, b"end\n")
        reader.join()
        os.close(keep_open)
    assert set(encoded.requests) == set(range(30)) - {7}
    assert encoded.failures[7].kind is FailureKind.POISON_MEDIA
    assert words in encoded.failures[7].message
    assert begun[7] == 2
    assert encoded.statistics.crashes + encoded.statistics.timeouts == 2
    assert encoded.statistics.timeouts == (2 if deed == "hang" else 0)


def test_one_fatal_row_in_ten_leaves_every_good_row_finished() -> None:
    ids = [f"kill-{n}" if n % 10 == 3 else f"ok-{n}" for n in range(200)]
    encoded = encode(Misbehaving(), rows_of(*ids))
    assert set(encoded.requests) == {n for n in range(200) if n % 10 != 3}
    assert {failure.kind for failure in encoded.failures.values()} == {FailureKind.POISON_MEDIA}


def test_an_exception_fails_its_row_and_the_worker_lives_on() -> None:
    encoded = encode(Misbehaving(), rows_of("raise-0", "ok", "refuse-0", "ok"), workers=1)
    assert encoded.failures[0] == Failure(kind=FailureKind.ENCODE, message="ValueError: no such luck")
    assert encoded.failures[2] == Failure(kind=FailureKind.MEDIA_LIMIT, message="too large")
    assert set(encoded.requests) == {1, 3}
    assert encoded.statistics.crashes == 0


def test_a_row_that_wants_too_much_memory_fails_alone() -> None:
    encoded = encode(Misbehaving(), rows_of("ok", "fill-0", "ok"), memory_mb=512)
    assert encoded.failures[1].kind is FailureKind.MEDIA_LIMIT
    assert set(encoded.requests) == {0, 2}
    assert encoded.statistics.crashes == 0


def test_noise_of_a_library_reaches_neither_the_terminal_nor_the_protocol(capfd: pytest.CaptureFixture[str]) -> None:
    encoded = encode(Misbehaving(), rows_of("write-0", "write-1", "ok"))
    assert len(encoded.requests) == 3
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_workers_learn_no_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "canary-4711")
    monkeypatch.setenv("SOME_OTHER_TOKEN", "canary-4711")
    encoded = encode(Misbehaving(), rows_of("environ-0"))
    seen = orjson.loads(encoded.requests[0].head)
    assert "PATH" in seen
    assert "canary-4711" not in str(seen)


def test_workers_are_told_the_variables_that_their_media_need_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "mars-1")
    monkeypatch.setenv("TOGETHER_API_KEY", "canary-4711")

    async def seen_by_a_worker() -> dict[str, str]:
        config = EncodeConfig(workers=1, variables=("AWS_REGION", "AWS_NOT_SET"))
        async with EncoderPool(Misbehaving(), config) as pool:
            made = await pool.encode_again(rows_of("environ-0")[0])
            assert isinstance(made, Request)
            return dict(orjson.loads(made.head))

    seen = anyio.run(seen_by_a_worker)
    assert seen["AWS_REGION"] == "mars-1"
    assert "canary-4711" not in str(seen)
    assert "AWS_NOT_SET" not in seen


def test_the_kernel_ends_a_row_that_takes_a_processor_without_end() -> None:
    endless = "from engine.worker import allow_cpu\nallow_cpu(1)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", endless], check=False, timeout=30)
    assert ended.returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff" * 64,
        framed(b"this is no JSON at all"),
        framed(b'{"items": 1}'),
        framed(b'{"cpu_s":0,"items":[{"row":999,"kind":"rate","message":""}]}'),
        framed(b'{"cpu_s":0,"items":[{"row":1,"kind":"no such kind","message":""}]}'),
        framed(request_item(b'"head":9')),
        framed(request_item(b'"head":9,"at":-5,"ack":1')),
        framed(request_item(b'"head":9,"at":99999999,"ack":1')),
    ],
    ids=["noise", "text", "no_items", "other_row", "other_kind", "beyond_frame", "before_arena", "beyond_arena"],
)
def test_a_lying_worker_is_replaced_and_believed_in_nothing(payload: bytes) -> None:
    encoded = encode(Lying(payload=payload), rows_of("ok", "lie-0", "ok"), workers=1)
    assert set(encoded.requests) == {0, 2}
    assert encoded.failures[1].kind is FailureKind.POISON_MEDIA


def test_workers_that_cannot_start_end_the_run_with_the_reason() -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        encode(Unloadable(), rows_of("ok"))
    broken = raised.value.subgroup(EncoderBroken)
    assert broken is not None
    assert "code 7" in repr(broken)


def shared_memory() -> set[Path]:
    """All there is that has a name; folders are other tests', which may run at this moment."""
    return {path for path in Path("/dev/shm").iterdir() if path.is_file()}


def test_nothing_is_left_open_or_behind() -> None:
    encode(Misbehaving(), rows_of("ok"))
    fds, shared = list(Path("/proc/self/fd").iterdir()), shared_memory()
    for _ in range(3):
        encode(Misbehaving(), rows_of("ok", "kill-1", "ok", "sized-400000"))
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(fds)
    assert shared_memory() == shared


def test_a_consumer_that_stops_bounds_what_is_encoded() -> None:
    done = anyio.run(_encode_without_reading)
    # Two workers with two batches of four each, four in the stream, one being put a worker.
    assert done <= 2 * 2 * 4 + 4 + 2


async def _encode_without_reading() -> int:
    source, sink = Link[list[Row | Record]](2), Link[Request | Record](4)
    config = EncodeConfig(workers=2, batch_rows=4)
    async with EncoderPool(Misbehaving(), config) as pool, anyio.create_task_group() as group:
        group.start_soon(pool.encode_stage, source, sink)
        for at in range(3):
            await source.put(list(rows_of(*(f"ok-{at}-{n}" for n in range(100)))))
        before = -1
        while pool.statistics().rows_done != before:
            before = pool.statistics().rows_done
            await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    async with source.consuming(), source.producing(), sink.consuming(), sink.producing():
        return before


def test_a_cancelled_pool_ends_at_once_although_its_workers_hang() -> None:
    started = time.monotonic()
    pids = anyio.run(_cancel_while_hanging)
    assert time.monotonic() - started < 5
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def _cancel_while_hanging() -> tuple[int, ...]:
    source, sink = Link[list[Row | Record]](2), Link[Request | Record](4)
    config = EncodeConfig(workers=2, batch_rows=1)
    async with EncoderPool(Misbehaving(), config) as pool:  # noqa: SIM117 - the pool is left last, as in a run
        async with anyio.create_task_group() as group, source.producing(), sink.consuming():
            group.start_soon(pool.encode_stage, source, sink)
            await source.put(list(rows_of("hang-0", "hang-1")))
            while len(pool.statistics().pids) < 2:  # noqa: ASYNC110 - there is no event for a process that has started
                await anyio.sleep(0.01)
            pids = pool.statistics().pids
            group.cancel_scope.cancel()
    return pids


ORPHANS = """
import anyio, sys
from engine.encode import EncodeConfig, EncoderPool
from engine.link import Link
from tests.fakes.encoders import Misbehaving
from engine.types import Row

async def main():
    source, sink = Link(2), Link(4)
    async with EncoderPool(Misbehaving(), EncodeConfig(workers=2, batch_rows=1)) as pool:
        async with anyio.create_task_group() as group:
            group.start_soon(pool.encode_stage, source, sink)
            await source.put([Row(row=n, id=f"ok-{n}", fields={}) for n in range(2)])
            await sink.get()
            await sink.get()
            await source.put([Row(row=n, id=f"hang-{n}", fields={}) for n in range(2)])
            print(*pool.statistics().pids, flush=True)
            await anyio.sleep(100)

anyio.run(main)
"""


def test_workers_die_with_their_parent_even_when_it_is_killed_and_they_hang() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
