"""The run above its engine processes, which here make no calls: real processes, a real folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from engine.config import BrakeConfig, PriceConfig
from engine.crew import Crew, CrewParts
from engine.errors import BudgetSpent, MemberLost
from engine.stats import Snapshot
from sinks.shards import ShardSink
from tests.fakes.calls import make_config
from tests.fakes.member_program import Script

ROWS = 11
pytestmark = pytest.mark.slow


def open_run(out: Path) -> ShardSink:
    return ShardSink.open(out, manifest={}, shards=3, resume=False)


async def worked(
    sink: ShardSink, script: Script, said: list[str], *, processes: int, drain_s: float = 20.0
) -> tuple[Crew, Snapshot]:
    config = make_config()
    priced = replace(config.lanes[0], price=PriceConfig(input_usd_per_m=1.0, output_usd_per_m=1.0))
    config = replace(
        config,
        encode=replace(config.encode, workers=processes),
        lanes=(priced,),
        brake=BrakeConfig(max_cost_usd=1.0),
        write=replace(config.write, drain_s=drain_s),
        processes=processes,
    )
    parts = CrewParts(
        program="tests.fakes.member_program", kit=script, sink=sink, say=said.append, patience_s=drain_s / 2
    )
    crew = Crew(config, parts)
    return crew, await crew.main()


def test_a_receipt_is_given_only_for_what_is_on_the_disk(tmp_path: Path) -> None:
    said: list[str] = []

    async def main() -> None:
        with open_run(tmp_path / "run") as sink:
            crew, last = await worked(sink, Script(out=tmp_path / "run", rows=ROWS), said, processes=3)
            assert (last.ended, last.sink.done, last.rows_total, last.stopping) == (ROWS, ROWS, ROWS, None)
            assert sorted(figures["at"] for figures in crew.figures) == [0, 1, 2]

    anyio.run(main)
    assert said == [
        *("0 missing of those that a receipt was given for", "enough in the log", "not asked to stop"),
    ], "each once, of three"


def test_the_death_of_one_stops_the_others_and_ends_the_run(tmp_path: Path) -> None:
    said: list[str] = []

    async def main() -> None:
        with open_run(tmp_path / "run") as sink:
            with pytest.raises(MemberLost, match=r"an engine process \(pid \d+\) ended with code 0"):
                await worked(sink, Script(out=tmp_path / "run", rows=ROWS, dies_at=0), said, processes=2)
            assert sink.statistics().done == ROWS // 2

    anyio.run(main)
    assert "0 missing of those that a receipt was given for" in said


def test_one_that_has_spent_its_money_lets_the_others_use_theirs(tmp_path: Path) -> None:
    said: list[str] = []

    async def main() -> None:
        with open_run(tmp_path / "run") as sink:
            with pytest.raises(BudgetSpent, match="each process could pass its part of --max-cost 1"):
                await worked(sink, Script(out=tmp_path / "run", rows=ROWS, short_at=0), said, processes=2)
            assert sink.statistics().done == ROWS // 2

    anyio.run(main)
    assert "not asked to stop" in said


def test_one_that_does_not_end_when_it_is_asked_to_holds_up_nobody_for_ever(tmp_path: Path) -> None:
    said: list[str] = []

    async def main() -> None:
        with open_run(tmp_path / "run") as sink:
            script = Script(out=tmp_path / "run", rows=ROWS, dies_at=0, hangs_at=1)
            with pytest.raises(MemberLost, match=r"ended with code 0"), anyio.fail_after(60):
                await worked(sink, script, said, processes=3, drain_s=2.0)
            assert sink.statistics().done == len(range(2, ROWS, 3)), "what the third had delivered"

    anyio.run(main)
    assert "0 missing of those that a receipt was given for" in said
