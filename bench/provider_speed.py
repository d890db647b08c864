"""The simulated provider alone: how many requests it answers per second of its own CPU.

python -m bench.provider_speed

It must be faster than the engine, or a benchmark of the engine would measure the provider.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.throughput import CLI, publish

CONNECTIONS = 64
ROUNDS = 5
BODIES = {2_000: 20_000, 300_000: 2_000}
"""Bytes of a body, and requests a round."""


class Asking(asyncio.Protocol):
    """Sends one request after the other on one connection and looks at nothing but where replies end."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Event) -> None:
        self._request, self._left, self._done = request, left, done
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.rpartition(b"content-length: ")[2]):
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the provider said {head[:40]!r}")
            self._received = b""
            self._ask()

    def _ask(self) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            self._transport.close()
            if self._left[0] == -CONNECTIONS:
                self._done.set()
            return
        self._transport.write(self._request)


async def ask(host: str, port: int, request: bytes, count: int) -> None:
    loop, done, left = asyncio.get_running_loop(), asyncio.Event(), [count]
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Asking(request, left, done), host, port)
    await done.wait()


def request_of(size: int) -> bytes:
    body = json.dumps({"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "x" * size}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    taken: list[dict[str, float]] = []
    command = [sys.executable, str(CLI), "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        where = urlsplit(server.stdout.readline().strip())
        assert where.hostname is not None
        assert where.port is not None
        for size, count in BODIES.items():
            request, costs, rates = request_of(size), [], []
            for _ in range(ROUNDS):
                before, started = cpu_s(server.pid), time.perf_counter()
                uvloop.run(ask(where.hostname, where.port, request, count))
                costs.append((cpu_s(server.pid) - before) / count * 1000)
                rates.append(count / (time.perf_counter() - started))
            taken.append(
                {
                    "body_bytes": size,
                    "cpu_s_per_1000": round(statistics.median(costs), 4),
                    "cpu_s_per_1000_least": round(min(costs), 4),
                    "cpu_s_per_1000_most": round(max(costs), 4),
                    "requests_per_s": round(statistics.median(rates)),
                }
            )
            print(json.dumps(taken[-1]))
        server.terminate()
    publish("provider", "provider_speed", {"sizes": taken})


if __name__ == "__main__":
    main()
