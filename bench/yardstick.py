"""The yardstick: the least a client can do. Bodies as they stand from JSONL in, texts of the answers as JSONL out.

It has no limits, retries, checks, commits or progress, and begins from bodies that somebody has made.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import aiohttp
import orjson

from labels.loop import on_loop

HEADERS = {"Content-Type": "application/json"}
READ_BYTES = 1 << 20


async def ask_all(url: str, rows: Path, out: Path, concurrency: int) -> None:
    """Ask each line of `rows`, so many at once."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS)
    with rows.open("rb", buffering=READ_BYTES) as bodies, out.open("wb") as answers:

        async def ask() -> None:
            for body in bodies:
                async with session.post(f"{url}/chat/completions", data=body, raise_for_status=True) as response:
                    reply = orjson.loads(await response.read())
                text = reply["choices"][0]["message"]["content"]
                answers.write(orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE))

        async with session, asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(ask())


def main() -> None:
    """Entry of `python -m bench.yardstick`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--rows", type=Path, required=True, help="a request body a line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    told = parser.parse_args()
    on_loop(ask_all(told.base_url, told.rows, told.out, told.concurrency))


if __name__ == "__main__":
    main()
