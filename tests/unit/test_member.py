"""The program of an engine process, started as a run starts it."""

from __future__ import annotations

import anyio
import pytest

from engine.members import MemberProcess
from engine.port import Opening, PortClosedError
from labels.crew import PROGRAM
from labels.terminal import EXIT_BUG
from sinks.memory import MemorySink
from tests.fakes.calls import make_config

pytestmark = pytest.mark.slow


def test_a_bug_in_it_is_told_in_words_and_not_by_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    held = MemorySink().statistics()
    wrong = Opening(settings=make_config(), keys=(None,), learnt={}, held=held, identity=None, kit=None)

    async def main() -> int | None:
        with MemberProcess(wrong, program=PROGRAM, variables=()) as member:
            await member.port.send(wrong)
            with pytest.raises(PortClosedError):
                await member.port.receive()
            return await member.leave()

    assert anyio.run(main) == EXIT_BUG
    said = capfd.readouterr().err
    assert said.startswith("This is a bug in Reelbatch: AttributeError: 'NoneType' object has no attribute")
    assert "Traceback" not in said
