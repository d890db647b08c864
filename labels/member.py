"""The program of one engine process of a labelling job: opens what stands behind the seams, and runs its share."""

from __future__ import annotations

import os
import random
import socket
import sys
from contextlib import AsyncExitStack, suppress

from engine.errors import EngineError
from engine.member import CarriedColumns, MemberLink, RelaySink, settings_in
from engine.port import Opening, Port, PortClosedError
from engine.run import Parts, Run
from engine.worker import end_with
from labels.crew import Kit
from labels.earlier import answers_of_others
from labels.loop import on_loop
from labels.parts import open_clients, open_pool
from labels.terminal import EXIT_RESUMABLE, say, without_traceback
from sinks.files import room_in


def main() -> int:
    """Entry of the process; arguments: socket fd, parent pid."""
    link_fd, parent = map(int, sys.argv[1:3])
    end_with(parent)
    with Port(socket.socket(fileno=link_fd)) as port, suppress(PortClosedError):
        try:
            on_loop(_serve(port))
        except EngineError as error:
            say(str(error))
            return EXIT_RESUMABLE
    return 0


async def _serve(port: Port) -> None:
    opening: Opening = await port.receive()
    kit: Kit = opening.kit
    settings = settings_in(opening)
    relay = RelaySink(port, opening, is_done=kit.done.has, free_bytes=lambda: room_in(kit.out))
    carried = tuple(name for name, _ in settings.source.carried)
    with answers_of_others(settings, out=kit.out, shards=kit.shards, cache=kit.cache) as answers:

        def renew() -> None:
            for place in answers:
                place.renew()

        link = MemberLink(port, renew=renew, lost=_end_at_once)
        async with AsyncExitStack() as opened:
            parts = Parts(
                pool=await open_pool(opened, settings, kit.worker),
                clients=await open_clients(opened, settings, kit.encoder, audits=kit.audits, say=link.note),
                reader=kit.reader,
                sink=relay,
                watchers=[link],
                rng=random.Random(),
                answers=answers,
                observer=CarriedColumns(relay, carried) if carried else None,
                input_identity=opening.identity,
            )
            await link.work(Run(settings, parts), relay)


def _end_at_once() -> None:
    """The run is gone, and whatever this process still does is paid for and kept by nobody."""
    os._exit(1)


if __name__ == "__main__":
    sys.exit(without_traceback(main))
