"""Messages between a run and its engine processes, and the sink at the far end."""

from __future__ import annotations

import socket

import anyio
import pytest
from anyio import to_thread

from engine.member import CarriedColumns, RelaySink
from engine.port import Delivery, Opening, Port, PortClosedError, Receipt
from engine.ports import SinkStatistics
from engine.types import Row
from tests.fakes.records import failure, result

HELD = SinkStatistics(done=4, failed=1, finished=5, pending=0, pending_bytes=0, duplicates=0, salvaged=0, chosen=None)
SPENT = {"cost_usd": 0.1}


def pair() -> tuple[Port, Port]:
    one, other = socket.socketpair()
    return Port(one), Port(other)


def relay_of(port: Port) -> RelaySink:
    opening = Opening(
        settings=None, keys=(), learnt={"offsets": {"rows": 4096, "places": []}}, held=HELD, identity=None, kit=None
    )
    return RelaySink(port, opening, is_done=lambda row: row < 5, free_bytes=lambda: 7)


@pytest.mark.asyncio
async def test_messages_larger_than_the_socket_holds_arrive_whole_and_in_order() -> None:
    ours, theirs = pair()
    sent = [bytes([at]) * (1 << 22) for at in range(3)] + [b""]
    with ours, theirs:
        async with anyio.create_task_group() as group:
            for message in sent:
                group.start_soon(ours.send, message)
            assert [await theirs.receive() for _ in sent] == sent


@pytest.mark.asyncio
async def test_an_end_that_is_gone_is_an_error_at_the_other() -> None:
    ours, theirs = pair()
    with ours:
        theirs.close()
        with pytest.raises(PortClosedError):
            await ours.receive()
        with pytest.raises(PortClosedError):
            await ours.send(b"x" * (1 << 22))


@pytest.mark.asyncio
async def test_a_commit_returns_only_when_the_run_has_sent_its_receipt() -> None:
    ours, theirs = pair()
    with ours, theirs:
        relay = relay_of(theirs)
        relay.learnt["spent"] = SPENT
        records = [result(7), failure(8)]
        for record in records:
            relay.put(record)
        assert relay.statistics().pending == 2
        assert relay.statistics().pending_bytes > len(result(7).outcome.text)  # type: ignore[union-attr]  # it is a reply
        returned: list[int] = []

        async def commit() -> None:
            returned.append(await to_thread.run_sync(relay.commit))

        async with anyio.create_task_group() as group:
            group.start_soon(commit)
            delivery = await ours.receive()
            assert isinstance(delivery, Delivery)
            assert list(delivery.records) == records
            assert delivery.learnt["spent"] == SPENT
            await anyio.sleep(0.05)
            assert returned == []
            assert relay.statistics().pending == 2, "they are not safe yet"
            await ours.send(Receipt())
            assert isinstance(await theirs.receive(), Receipt)
            relay.delivered()
        assert returned == [2]
        assert relay.statistics() == HELD
        assert await to_thread.run_sync(relay.commit) == 0, "there is nothing to deliver, and nobody to wait for"


@pytest.mark.asyncio
async def test_marks_in_the_input_travel_only_when_there_are_more_of_them() -> None:
    ours, theirs = pair()
    with ours, theirs:
        relay = relay_of(theirs)

        async def delivered() -> Delivery:
            async with anyio.create_task_group() as group:
                group.start_soon(to_thread.run_sync, relay.commit)
                delivery = await ours.receive()
                relay.delivered()
            assert isinstance(delivery, Delivery)
            return delivery

        relay.learnt["spent"] = {"cost_usd": 0.1}
        assert "offsets" in (await delivered()).learnt
        relay.learnt["spent"] = {"cost_usd": 0.2}
        assert "offsets" not in (await delivered()).learnt
        relay.learnt["offsets"]["places"].append([0, 0, 0])
        assert (await delivered()).learnt["offsets"]["places"] == [[0, 0, 0]]


def test_columns_for_the_observer_travel_with_the_record_of_their_row() -> None:
    ours, theirs = pair()
    with ours, theirs:
        relay = relay_of(theirs)
        carried = CarriedColumns(relay, ["gold"])
        rows = [Row(row=at, id=str(at), fields={"description": "d", "gold": "yes"}) for at in (5, 6)]
        carried.read([*rows, Row(row=7, id="7", fields={"description": "d"}), failure(8)])
        for record in (result(5), result(7), failure(8)):
            relay.put(record)
            carried.ended(record)
        assert relay._carried == [Row(row=5, id="5", fields={"gold": "yes"})]
        assert not relay.is_done(5)
        assert relay.is_done(4)
        assert relay.free_bytes() == 7
