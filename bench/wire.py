"""HTTP/1.1 responses as bytes."""

from __future__ import annotations

from http.client import responses as REASONS  # noqa: N812 - a table of constants under a plain name

Headers = tuple[tuple[str, str], ...]
"""Pairs and no mapping: a name may come twice."""

JSON = "application/json"


def http_response(status: int, body: bytes, headers: Headers = (), *, kind: str = JSON) -> bytes:
    """A whole response."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: {kind}\r\nx-simulated: true\r\n"
        f"{lines}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
