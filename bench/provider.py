"""The simulated provider: a real HTTP server that speaks the OpenAI chat completions format.

Its answers are made up, and say so (`"simulated": true`, header `x-simulated`). They are valid under the schema asked
for, and follow from the messages alone: the same row gets the same labels whenever it is asked. It is one asyncio
Protocol without tasks: a request is parsed once, its answer is one `call_later` away.

    POST /v1/chat/completions    GET /v1/models    GET /health
    GET /ledger    GET /ledger/rows?after=N    POST /scenario
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import httptools
import orjson

from bench.answers import Answered, Refused, answer, refusal
from bench.ledger import Entry, Ledger, image_digest, row_in
from bench.scenario import Fault, Scenario, TokenBucket, scenario_from_dict
from engine.errors import ConfigError

MAX_BODY_BYTES = 64 << 20
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 16
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
HUGE_BYTES = 32 << 20


class Provider:
    """The state behind all connections."""

    def __init__(self, scenario: Scenario, *, ledger_path: Path | None = None) -> None:
        self.ledger = Ledger(keep=scenario.ledger_rows, path=ledger_path)
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._server: asyncio.Server | None = None
        self._attempts: Counter[int] = Counter()
        self._busy = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._set(scenario)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port in use."""
        self._server = await self._loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
            if hasattr(self._server, "close_clients"):
                self._server.close_clients()
        with self.ledger:
            pass

    def elapsed_s(self) -> float:
        return self._loop.time() - self._started_s

    def handle(self, method: str, url: bytes, headers: Mapping[bytes, bytes], body: bytes, to: Connection) -> None:
        """Answer one request on its connection, now or later."""
        parts = urlsplit(url.decode("latin-1"))
        path = parts.path.removeprefix("/v1").rstrip("/") or "/"
        match method, path:
            case "POST", "/chat/completions":
                self._chat(headers, body, to)
            case "GET", "/models":
                to.send(200, {"object": "list", "data": [{"id": "simulated", "object": "model"}]})
            case "GET", "/health":
                to.send(200, {"status": "ok", "simulated": True})
            case "GET", "/ledger":
                to.send(200, self.ledger.totals())
            case "GET", "/ledger/rows":
                after = int(parse_qs(parts.query).get("after", ["0"])[0])
                to.send(200, {"rows": self.ledger.entries(after=after)})
            case "POST", "/scenario":
                self._replace_scenario(body, to)
            case _, "/chat/completions" | "/models" | "/health" | "/ledger" | "/ledger/rows" | "/scenario":
                to.send(405, refusal(self.scenario, 405, "method not allowed").body)
            case _:
                to.send(404, refusal(self.scenario, 404, f"no such address: {path}").body)

    def _set(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._rng = random.Random(scenario.seed)
        self._rows = re.compile(scenario.row_pattern) if scenario.row_pattern else None
        self._requests, self._tokens = TokenBucket(at_s=self.elapsed_s()), TokenBucket(at_s=self.elapsed_s())

    def _replace_scenario(self, body: bytes, to: Connection) -> None:
        try:
            self._set(scenario_from_dict(orjson.loads(body)))
        except (ConfigError, orjson.JSONDecodeError) as error:
            to.send(400, refusal(self.scenario, 400, str(error)).body)
        else:
            to.send(200, {"status": "ok"})

    def _chat(self, headers: Mapping[bytes, bytes], body: bytes, to: Connection) -> None:
        scenario = self.scenario
        try:
            said = orjson.loads(body)
            messages = said["messages"]
            texts, images = _parts(messages)
            max_tokens = int(said.get("max_tokens") or said.get("max_completion_tokens") or 1024)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            to.send(400, refusal(scenario, 400, "the body is no chat completion request").body)
            return
        mark = _digest(texts, images)
        self._attempts[mark] += 1
        entry = Entry(
            seq=self.ledger.requests + 1,
            received_s=self.elapsed_s(),
            row=row_in(self._rows, texts[-1] if texts else ""),
            digest=f"{mark:016x}",
            images=len(images),
            image_digests=[image_digest(url) for url in images] if scenario.digest_images else [],
            body_bytes=len(body),
            max_tokens=max_tokens,
            prompt_tokens=MESSAGE_TOKENS
            + sum(map(len, texts)) // BYTES_PER_TOKEN
            + len(images) * scenario.tokens_per_image,
        )
        self.ledger.opened(entry)
        job = _Job(self, entry, to)
        if scenario.api_key and headers.get(b"authorization") != b"Bearer " + scenario.api_key.encode():
            job.refuse(refusal(scenario, 401, "invalid API key", code="invalid_api_key"))
            return
        fault = scenario.fault_for(elapsed_s=entry.received_s, text=body, attempt=self._attempts[mark], rng=self._rng)
        if (limited := self._limited(entry)) is not None:
            job.refuse(limited)
        elif fault is not None and fault.kind == "status":
            job.refuse(refusal(scenario, fault.status, fault.message, code=fault.code, retry_after=fault.retry_after))
        else:
            self._work(job, self._answer(said, mark, entry), fault)

    def _answer(self, said: Mapping[str, Any], mark: int, entry: Entry) -> Answered:
        return answer(self.scenario, said, mark, prompt_tokens=entry.prompt_tokens, max_tokens=entry.max_tokens)

    def _limited(self, entry: Entry) -> Refused | None:
        """The 429 this request gets, or None after its share has been taken."""
        scenario, now_s = self.scenario, self.elapsed_s()
        factor = scenario.limit_factor(now_s)
        wait_s = self._requests.take(1, per_min=scenario.requests_per_min * factor, now_s=now_s)
        kind = "request"
        if not wait_s:
            kind = "token"
            amount = entry.prompt_tokens + entry.max_tokens
            wait_s = self._tokens.take(amount, per_min=scenario.tokens_per_min * factor, now_s=now_s)
        if not wait_s:
            return None
        return refusal(scenario, 429, f"{kind} limit reached", code=f"dynamic_{kind}_limited", wait_s=wait_s)

    def _work(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        scenario = self.scenario
        if scenario.slots and self._busy >= scenario.slots:
            if scenario.queue and len(self._queue) >= scenario.queue:
                job.refuse(refusal(scenario, 503, "the model is out of capacity", code="capacity_exceeded"))
                return
            self._queue.append(lambda: self._begin(job, answered, fault))
            return
        self._begin(job, answered, fault)

    def _begin(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy += 1
        if answered.takes_s > 0:
            self._loop.call_later(answered.takes_s, self._end, job, answered, fault)
        else:
            self._end(job, answered, fault)

    def _end(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy -= 1
        job.deliver(answered, fault)
        if self._queue and (not self.scenario.slots or self._busy < self.scenario.slots):
            self._queue.popleft()()


class _Job:
    """One request on its way to an answer."""

    __slots__ = ("entry", "provider", "to")

    def __init__(self, provider: Provider, entry: Entry, to: Connection) -> None:
        self.provider, self.entry, self.to = provider, entry, to

    def refuse(self, refused: Refused) -> None:
        self.entry.prompt_tokens = 0
        self._close(refused.status, delivered=False)
        self.to.send(refused.status, refused.body, refused.headers)

    def deliver(self, answered: Answered, fault: Fault | None) -> None:
        self.entry.completion_tokens = answered.completion_tokens
        whole = fault is None or fault.kind in {"fenced", "cut_json", "no_usage", "absurd_usage", "finish", "drip"}
        self._close(200, delivered=whole and not self.to.closed)
        if fault is None:
            self.to.send_raw(answered.response(self.entry.seq))
        else:
            self.to.misbehave(fault, answered, self.entry.seq)

    def _close(self, status: int, *, delivered: bool) -> None:
        self.entry.status, self.entry.delivered = status, delivered
        self.entry.answered_s = self.provider.elapsed_s()
        self.provider.ledger.closed(self.entry)


class Connection(asyncio.Protocol):
    """One client connection. Requests on it are answered one after the other."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[str, bytes, dict[bytes, bytes], bytes]] = deque()
        self._busy = False
        self._reset()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.closed = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.send(400, {"error": {"message": "no HTTP request"}})
            self.abort()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self.send(413, {"error": {"message": "Request body too large"}})
            self.abort()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._waiting.append((self._parser.get_method().decode(), self._url, self._headers, body))
        self._reset()
        self._next()

    def send(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """A JSON response."""
        self.send_raw(http_response(status, orjson.dumps(body), headers or {}))

    def send_raw(self, response: bytes, *, last: bool = False) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(response)
            if last:
                self._transport.close()
        self._busy = False
        self._next()

    def abort(self) -> None:
        """End the connection with a reset."""
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and not self.closed:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def misbehave(self, fault: Fault, answered: Answered, seq: int) -> None:
        """Answer as the fault says."""
        whole = answered.response(seq)
        match fault.kind:
            case "stall":
                return
            case "reset":
                self.abort()
            case "close":
                self.send_raw(b"", last=True)
            case "cut_body":
                head, _, body = whole.partition(b"\r\n\r\n")
                self.send_raw(head + b"\r\n\r\n" + body[: fault.after_bytes], last=True)
            case "wrong_length":
                self.send_raw(whole.replace(b"content-length: ", b"content-length: 9", 1), last=True)
            case "huge":
                self.send_raw(http_response(200, b" " * HUGE_BYTES, {}))
            case "drip":
                self._drip(whole, max(1, fault.after_bytes))
            case _:
                self.send_raw(answered.distorted(fault, seq))

    def _drip(self, data: bytes, bytes_per_s: int) -> None:
        loop = asyncio.get_running_loop()
        if self._transport is None or self.closed:
            return
        self._transport.write(data[:bytes_per_s])
        if data[bytes_per_s:]:
            loop.call_later(1.0, self._drip, data[bytes_per_s:], bytes_per_s)
        else:
            self.send_raw(b"")

    def _next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            method, url, headers, body = self._waiting.popleft()
            self._provider.handle(method, url, headers, body, self)

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0


def http_response(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 response."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: application/json\r\nx-simulated: true\r\n"
        f"{lines}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


async def serve(
    scenario: Scenario, *, port: int, ready: Callable[[int], None], ledger_path: Path | None = None
) -> None:
    """Run on loopback until cancelled; `ready` is told the port."""
    provider = Provider(scenario, ledger_path=ledger_path)
    try:
        ready(await provider.start(port=port))
        await asyncio.Event().wait()
    finally:
        await provider.stop()


def _parts(messages: Any) -> tuple[list[str], list[str]]:
    """The texts and the image addresses of a conversation, in order."""
    texts: list[str] = []
    images: list[str] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            texts.append(content)
            continue
        for part in content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                images.append(part["image_url"]["url"])
    return texts, images


def _digest(texts: list[str], images: list[str]) -> int:
    """64 bits that follow from the messages alone; two CRCs, since images are large and this is no security."""
    low = high = 0
    for part in (*texts, *images):
        data = part.encode("utf-8", "surrogatepass")
        low = int(google_crc32c.extend(low, data))
        high = int(google_crc32c.extend(high, len(data).to_bytes(4, "little")))
    return (high << 32) | low
