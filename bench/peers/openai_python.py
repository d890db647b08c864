"""openai-python: `AsyncOpenAI` in a loop, over httpx or over aiohttp."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

from bench.peers.rows import KEY, MAX_TOKENS, MODEL, Messages, Told, ask_all, told

TRANSPORTS: dict[str, Any] = {"httpx": DefaultAsyncHttpxClient, "aiohttp": DefaultAioHttpClient}


async def run(told: Told, transport: str) -> None:
    # Its default keeps 100 connections alive: more than that in flight would open a new one for most calls.
    limits = httpx2.Limits(max_connections=told.concurrency, max_keepalive_connections=told.concurrency)
    http_client = TRANSPORTS[transport](limits=limits)
    async with AsyncOpenAI(base_url=told.base_url, api_key=KEY, http_client=http_client) as client:

        async def ask(messages: Messages) -> str | None:
            reply = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=MAX_TOKENS)
            content: str | None = reply.choices[0].message.content
            return content

        await ask_all(told, ask)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=TRANSPORTS, default="httpx")
    flags, more = told(parser)
    asyncio.run(run(flags, more.transport))


if __name__ == "__main__":
    main()
