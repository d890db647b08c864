"""One attempt of the real HTTP client, from outside any event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from engine.client import HttpClient
from engine.config import ApiConfig
from engine.errors import ApiError
from engine.secret import Secret
from engine.types import Reply

T = TypeVar("T")

KEY = "sk-canary-7Qz3vXw9LtR5yB2nKd8MhG4pJc6F"
"""Shaped like a key; must be seen nowhere but by the server."""


def api_config(
    base_url: str,
    *,
    connect_timeout_s: float = 10.0,
    call_timeout_s: float = 20.0,
    max_reply_bytes: int = 8 << 20,
    key: str | None = KEY,
) -> ApiConfig:
    return ApiConfig(
        base_url=base_url,
        model="m",
        key=None if key is None else Secret(key),
        connect_timeout_s=connect_timeout_s,
        call_timeout_s=call_timeout_s,
        max_reply_bytes=max_reply_bytes,
    )


def with_client(
    config: ApiConfig, use: Callable[[HttpClient], Awaitable[T]], *, uvloop: bool = False, debug: bool = False
) -> T:
    """What `use` gives, called with an open client on a fresh event loop."""

    async def opened() -> T:
        async with HttpClient(config) as client:
            return await use(client)

    return anyio.run(opened, backend_options={"use_uvloop": uvloop, "debug": debug})


async def outcome_of(client: HttpClient, body: bytes = b"{}") -> Reply | ApiError:
    """The reply, or the error of ours. Any other exception passes, and fails the test."""
    try:
        return await client.attempt(body)
    except ApiError as error:
        return error


def attempt(config: ApiConfig, *, uvloop: bool = False, debug: bool = False) -> Reply | ApiError:
    """One attempt with a client of its own."""
    return with_client(config, outcome_of, uvloop=uvloop, debug=debug)
