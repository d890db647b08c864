"""The program of an engine process that makes no calls: it delivers what its kit says, and notes what it then finds."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio

from engine.errors import BudgetSpent
from engine.money import Books
from engine.port import Delivery, Ended, Halt, Note, Port, Receipt
from tests.fakes.records import result
from tests.fakes.snapshots import snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The kit of this program. Every member is given the same one; its place decides which rows are its own."""

    out: Path
    rows: int
    dies_at: int | None = None
    """The member at this place ends without a word instead of delivering."""
    short_at: int | None = None
    """The member at this place ends because its money is spent, likewise."""
    hangs_at: int | None = None
    """The member at this place does nothing more, and hears nothing."""


async def serve(port: Port) -> None:
    opening = await port.receive()
    script: Script = opening.kit
    at, of = opening.settings.source.part.at, opening.settings.source.part.of
    if script.dies_at == at:
        return
    if script.hangs_at == at:
        await anyio.sleep_forever()
    last = snapshot(rows_total=script.rows, rows_known=True)
    if script.short_at == at:
        await port.send(Ended(error=BudgetSpent("mine is spent"), snapshot=last, figures={"at": at}))
        return
    records = [result(row) for row in range(script.rows) if row % of == at]
    learnt = {"spent": Books().as_json(), "lanes": {}}
    await port.send(Delivery(records=records, carried=[], learnt=learnt))
    halted = False
    while not isinstance(message := await port.receive(), Receipt):
        halted = halted or isinstance(message, Halt)
    safe = {json.loads(line)["row"] for path in (script.out / "results").iterdir() for line in path.open("rb")}
    logged = json.loads((script.out / "checkpoint" / "commit.log").read_bytes().splitlines()[-1].rpartition(b" ")[0])
    missing = [record.row for record in records if record.row not in safe]
    await port.send(Note(text=f"{len(missing)} missing of those that a receipt was given for"))
    await port.send(Note(text="enough in the log" if logged["done"] >= len(records) else "too few in the log"))
    await port.send(Note(text="asked to stop" if halted else "not asked to stop"))
    while script.dies_at is not None and not halted:
        halted = isinstance(await port.receive(), Halt)
    await port.send(Ended(error=None, snapshot=last, figures={"at": at}))


if __name__ == "__main__":
    with Port(socket.socket(fileno=int(sys.argv[1]))) as link:
        anyio.run(serve, link)
