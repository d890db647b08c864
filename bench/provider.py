"""The simulated provider: a real HTTP server that speaks the OpenAI chat completions format.

Its answers are made up, and say so (`"simulated": true`, header `x-simulated`). They are valid under the schema asked
for, and follow from the messages alone: the same row gets the same labels whenever it is asked. It is one asyncio
Protocol without tasks: a request is parsed once, its answer is one `call_later` away.

    POST /v1/chat/completions    GET /v1/models    GET /health
    GET /ledger    GET /ledger/rows?after=N    POST /scenario

docs/simulate.md describes them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs

import httptools
import orjson

from bench.answers import Answered, Refused, answer, http_response, refusal
from bench.conversation import UNUSABLE, Conversation, read_conversation
from bench.ledger import Entry, Ledger, image_digest, row_in
from bench.scenario import Fault, RateLimits, Scenario, scenario_from_dict
from engine.errors import ConfigError

MAX_BODY_BYTES = 64 << 20
HUGE_BYTES = 32 << 20
DELIVERED = frozenset({"fenced", "cut_json", "no_usage", "absurd_usage", "finish"})
"""Faults whose answer arrives as a whole completion all the same."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request."""

    method: str
    url: bytes
    headers: Mapping[bytes, bytes]
    body: bytes | None
    """None if it was too large to be kept."""
    keep_alive: bool


class Provider:
    """The state behind all connections."""

    def __init__(self, scenario: Scenario, *, ledger_path: Path | None = None) -> None:
        self.ledger = Ledger(keep=scenario.ledger_rows, path=ledger_path)
        self.connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._server: asyncio.Server | None = None
        self._busy = 0
        self._queue: deque[tuple[_Job, Answered, Fault | None]] = deque()
        self._set(scenario)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port in use."""
        self._server = await self._loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
            for connection in tuple(self.connections):
                connection.abort()
            await self._server.wait_closed()
        with self.ledger:
            pass

    def elapsed_s(self) -> float:
        return self._loop.time() - self._started_s

    def handle(self, asked: Asked, to: Connection) -> None:
        """Answer one request on its connection, now or later."""
        try:
            parts = httptools.parse_url(asked.url)
        except httptools.HttpParserInvalidURLError:
            to.send(400, refusal(self.scenario, 400, "no address").body)
            return
        path = (parts.path or b"/").decode("latin-1").removeprefix("/v1").rstrip("/") or "/"
        if asked.body is None:
            to.send(413, refusal(self.scenario, 413, "Request body too large").body)
            return
        match asked.method, path:
            case "POST", "/chat/completions":
                self._chat(asked.headers, asked.body, to)
            case "GET", "/models":
                to.send(200, {"object": "list", "data": [{"id": "simulated", "object": "model"}]})
            case "GET", "/health":
                to.send(200, {"status": "ok", "simulated": True})
            case "GET", "/ledger":
                to.send(200, self.ledger.totals())
            case "GET", "/ledger/rows":
                self._show_entries((parts.query or b"").decode("latin-1"), to)
            case "POST", "/scenario":
                self._replace_scenario(asked.body, to)
            case _, "/chat/completions" | "/models" | "/health" | "/ledger" | "/ledger/rows" | "/scenario":
                to.send(405, refusal(self.scenario, 405, "method not allowed").body)
            case _:
                to.send(404, refusal(self.scenario, 404, f"no such address: {path}").body)

    def _set(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._set_at_s = self.elapsed_s()
        self._attempts: Counter[int] | None = Counter() if any(f.first_attempts for f in scenario.faults) else None
        self._rng = random.Random(scenario.seed)
        self._rows = re.compile(scenario.row_pattern) if scenario.row_pattern else None
        self._limits = RateLimits(scenario)
        self.ledger.keep_at_least(scenario.ledger_rows)

    def _show_entries(self, query: str, to: Connection) -> None:
        try:
            after = int(parse_qs(query).get("after", ["0"])[0])
        except ValueError:
            to.send(400, refusal(self.scenario, 400, "after must be a whole number").body)
        else:
            to.send(200, {"rows": self.ledger.entries(after=after)})

    def _replace_scenario(self, body: bytes, to: Connection) -> None:
        try:
            told = scenario_from_dict(orjson.loads(body))
        except (ConfigError, orjson.JSONDecodeError) as error:
            to.send(400, refusal(self.scenario, 400, str(error)).body)
            return
        if told.answer_schema is None:
            told = dataclasses.replace(told, answer_schema=self.scenario.answer_schema)
        self._set(told)
        to.send(200, {"status": "ok"})

    def _chat(self, headers: Mapping[bytes, bytes], body: bytes, to: Connection) -> None:
        scenario = self.scenario
        try:
            asked = read_conversation(body)
            entry = self._entry(asked, len(body))
        except UNUSABLE as error:
            self.ledger.malformed += 1
            why = f"the body is no chat completion request: {type(error).__name__}: {error}"
            to.send(400, refusal(scenario, 400, why).body)
            return
        self.ledger.opened(entry)
        job = _Job(self, entry, to)
        attempt = 1
        if self._attempts is not None:
            self._attempts[asked.mark] += 1
            attempt = self._attempts[asked.mark]
        if scenario.api_key and headers.get(b"authorization") != b"Bearer " + scenario.api_key.encode():
            job.refuse(refusal(scenario, 401, "invalid API key", code="invalid_api_key"))
            return
        fault = None
        if scenario.faults:
            since_s, text = entry.received_s - self._set_at_s, "\n".join(asked.texts)
            fault = scenario.fault_for(elapsed_s=since_s, text=text, attempt=attempt, rng=self._rng)
        if (limited := self._limited(entry)) is not None:
            job.refuse(limited)
        elif fault is not None and fault.kind == "status":
            job.refuse(refusal(scenario, fault.status, fault.message, code=fault.code, retry_after=fault.retry_after))
        else:
            self._work(job, asked, fault)

    def _entry(self, asked: Conversation, body_bytes: int) -> Entry:
        scenario = self.scenario
        return Entry(
            seq=self.ledger.requests + 1,
            received_s=self.elapsed_s(),
            row=row_in(self._rows, asked.texts[-1] if asked.texts else ""),
            digest=f"{asked.mark:016x}",
            images=len(asked.images),
            image_digests=[image_digest(url) for url in asked.images] if scenario.digest_images else [],
            body_bytes=body_bytes,
            max_tokens=asked.max_tokens,
            prompt_tokens=asked.prompt_tokens(tokens_per_image=scenario.tokens_per_image),
        )

    def _limited(self, entry: Entry) -> Refused | None:
        """The 429 this request gets, or None after its share has been taken."""
        scenario, since_s = self.scenario, entry.received_s - self._set_at_s
        limited = self._limits.take(tokens=entry.prompt_tokens + entry.max_tokens, since_s=since_s)
        if limited is None:
            return None
        kind, wait_s = limited
        return refusal(scenario, 429, f"{kind} limit reached", code=f"dynamic_{kind}_limited", wait_s=wait_s)

    def _work(self, job: _Job, asked: Conversation, fault: Fault | None) -> None:
        scenario = self.scenario
        try:
            answered = answer(scenario, asked, prompt_tokens=job.entry.prompt_tokens)
        except UNUSABLE:
            job.refuse(refusal(scenario, 400, "no answer can be made up under this response_format"))
            return
        if not scenario.slots and answered.takes_s <= 0:
            job.deliver(answered, fault)
        elif not scenario.slots or self._busy < scenario.slots:
            self._begin(job, answered, fault)
        elif scenario.queue and len(self._queue) >= scenario.queue:
            job.refuse(refusal(scenario, 503, "the model is out of capacity", code="capacity_exceeded"))
        else:
            self._queue.append((job, answered, fault))

    def _begin(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy += 1
        self._loop.call_later(answered.takes_s, self._end, job, answered, fault)

    def _end(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy -= 1
        job.deliver(answered, fault)
        while self._queue and (not self.scenario.slots or self._busy < self.scenario.slots):
            self._begin(*self._queue.popleft())


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
        if fault is not None and fault.kind == "drip":
            whole = answered.response(self.entry.seq)
            self.to.drip(whole, max(1, fault.after_bytes), lambda arrived: self._close(200, delivered=arrived))
            return
        self._close(200, delivered=not self.to.closed and (fault is None or fault.kind in DELIVERED))
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
        self._waiting: deque[Asked] = deque()
        self._busy = False
        self._going_on = False
        self._keep_alive = True
        self._reset()

    @property
    def closed(self) -> bool:
        """Whether nothing sent now would arrive."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._provider.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._provider.connections.discard(self)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep_alive = False
            self.send(400, {"error": {"message": "no HTTP/1.1 request"}})

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._body.clear()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            # What follows is in another protocol: `data_received` says that it is not spoken here.
            return
        method = self._parser.get_method().decode()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        # A client that asks for headers alone would take the body of our refusal for the next response.
        keep_alive = self._parser.should_keep_alive() and method != "HEAD"
        fits = self._size <= MAX_BODY_BYTES
        self._waiting.append(Asked(method, self._url, self._headers, body if fits else None, keep_alive))
        self._reset()
        self._next()

    def send(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """A JSON response."""
        self.send_raw(http_response(status, orjson.dumps(body), headers or {}))

    def send_raw(self, response: bytes, *, last: bool = False) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(response)
            if last or not self._keep_alive:
                self._transport.close()
        self._busy = False
        self._next()

    def abort(self) -> None:
        """End the connection with a reset."""
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and not self.closed:
                # Closed with a linger of 0 s, a TCP connection ends with RST instead of FIN.
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
                self.send_raw(head + b"\r\n\r\n" + body[: min(fault.after_bytes, len(body) - 1)], last=True)
            case "wrong_length":
                self.send_raw(whole.replace(b"content-length: ", b"content-length: 9", 1), last=True)
            case "huge":
                self.send_raw(http_response(200, b" " * HUGE_BYTES, {}))
            case _:
                self.send_raw(answered.distorted(fault, seq))

    def drip(self, data: bytes, bytes_per_s: int, done: Callable[[bool], None]) -> None:
        """Send so much a second; `done` is told whether all of it went out."""
        if self._transport is None or self.closed:
            done(False)
            return
        now, later = data[:bytes_per_s], data[bytes_per_s:]
        if later:
            self._transport.write(now)
            asyncio.get_running_loop().call_later(1.0, self.drip, later, bytes_per_s, done)
        else:
            done(True)
            self.send_raw(now)

    def _next(self) -> None:
        if self._going_on:
            # An answer given at once: the loop below, which asked for it, takes the next request. No deep recursion.
            return
        self._going_on = True
        try:
            while self._waiting and not self._busy and not self.closed:
                asked = self._waiting.popleft()
                self._busy, self._keep_alive = True, asked.keep_alive
                self._provider.handle(asked, self)
        finally:
            self._going_on = False

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0


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
