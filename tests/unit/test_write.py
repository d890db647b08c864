"""The write stage with a slow sink, in real time: commits are real threads."""

from __future__ import annotations

import threading
import time

import anyio

from engine.config import BrakeConfig, WriteConfig
from engine.link import Link
from engine.stop import Stop
from engine.types import Record
from engine.write import WriteStage
from sinks.memory import MemorySink
from tests.fakes.records import result

COMMIT_S = 0.15


class SlowSink(MemorySink):
    """Takes its time for a commit, and notices when two are made at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = 0
        self.most_at_once = 0
        self._count = threading.Lock()

    def commit(self) -> int:
        with self._count:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(COMMIT_S)
        done = super().commit()
        with self._count:
            self.at_once -= 1
        return done


def test_the_last_commit_waits_for_the_one_under_way() -> None:
    sink = SlowSink()
    acknowledged: list[int] = []

    async def main() -> None:
        stage = WriteStage(
            sink=sink,
            write=WriteConfig(commit_interval_s=0.02),
            brake=BrakeConfig(),
            stop=Stop(drain_s=1),
            learnt=dict,
            acknowledged=acknowledged.extend,
        )
        link = Link[Record](4)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run, link)
            async with link.producing():
                await link.put(result(0))
                await anyio.sleep(0.02 + COMMIT_S / 2)
                assert sink.at_once == 1
                await link.put(result(1))

    anyio.run(main)
    assert sink.most_at_once == 1
    assert sorted(sink.results) == [0, 1]
    assert acknowledged == [0, 1]
