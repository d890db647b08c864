"""litellm: `acompletion` in a loop, over aiohttp, which is its default."""

from __future__ import annotations

import asyncio
import os

from bench.peers.rows import KEY, MAX_TOKENS, MODEL, Messages, Told, ask_all, told

TOLD = told()[0]
# Read at import: its table of prices comes from the network unless it is told to take the one it ships.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Likewise. It opens 500 connections to one host unless told otherwise, and 0 would be the 100 of aiohttp.
os.environ["AIOHTTP_CONNECTOR_LIMIT"] = os.environ["AIOHTTP_CONNECTOR_LIMIT_PER_HOST"] = str(TOLD.concurrency)

import litellm  # noqa: E402 - after what it reads

litellm.telemetry = False


async def run(told: Told) -> None:
    async def ask(messages: Messages) -> str | None:
        reply = await litellm.acompletion(
            model=f"openai/{MODEL}", messages=messages, max_tokens=MAX_TOKENS, api_base=told.base_url, api_key=KEY
        )
        content: str | None = reply.choices[0].message.content
        return content

    await ask_all(told, ask)


if __name__ == "__main__":
    asyncio.run(run(TOLD))
