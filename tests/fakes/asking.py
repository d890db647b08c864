"""Plain requests to the simulated provider, over real sockets and with the standard library alone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.commands import Simulated


@contextmanager
def told(provider: Simulated, **scenario: object) -> Iterator[Simulated]:
    """The provider under another scenario, and as it was afterwards."""
    provider.tell(scenario)
    try:
        yield provider
    finally:
        provider.tell({})


def body_of(text: str = "row 1", *, images: int = 0, **more: object) -> dict[str, Any]:
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,AAA{at % 10}"}} for at in range(images)
    ]
    content = [*pictures, {"type": "text", "text": text}] if images else text
    return {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": content}]} | more


class Replied:
    """One response, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.pairs = [(name.lower(), value) for name, value in response.getheaders()]
        self.headers = dict(self.pairs)
        self.data = response.read()

    @property
    def said(self) -> Any:
        return json.loads(self.data)

    @property
    def choice(self) -> Any:
        return self.said["choices"][0]

    @property
    def content(self) -> Any:
        return self.choice["message"]["content"]


def connect(provider: Simulated, timeout_s: float = 10.0) -> http.client.HTTPConnection:
    where = urlsplit(provider.url)
    assert where.hostname is not None
    return http.client.HTTPConnection(where.hostname, where.port, timeout=timeout_s)


def ask(provider: Simulated, body: object = None, *, path: str = "/v1/chat/completions", **headers: str) -> Replied:
    connection = connect(provider)
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, data, headers)
        return Replied(connection.getresponse())
    finally:
        connection.close()
