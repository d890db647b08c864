"""What stands behind the seams of a labelling run: its encoders and its clients, opened and closed with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from encoders.chat import ChatEncoder
from engine.client import HttpClient
from engine.config import RunConfig
from engine.encode import EncoderPool
from engine.ports import Client, Encoder
from labels.token_audit import Audit, AuditedClient


async def open_pool(opened: AsyncExitStack, settings: RunConfig, encoder: Encoder) -> EncoderPool:
    """The encoder processes, as long as the stack is open."""
    return await opened.enter_async_context(EncoderPool(encoder, settings.encode))


async def open_clients(
    opened: AsyncExitStack, settings: RunConfig, encoder: ChatEncoder, *, audits: bool, say: Callable[[str], None]
) -> list[Client]:
    """One client a lane, as long as the stack is open.

    Args:
        opened: closes them.
        settings: of the run, keys included.
        encoder: makes its requests.
        audits: whether the first replies may be held against what the encoder reckons with.
        say: takes what that finds.
    """
    audit = Audit(encoder.image_tokens, model=encoder.model, say=say)
    # It reads whole bodies, so it is spared those it could say nothing of.
    audits = audits and encoder.media.is_wanted and encoder.image_tokens(1, 1) is not None
    clients: list[Client] = []
    for lane in settings.lanes:
        client = await opened.enter_async_context(HttpClient(lane))
        clients.append(AuditedClient(client, audit) if audits and lane.model == encoder.model else client)
    return clients
