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
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import orjson

from bench.answers import Answered, Refused, answer, refusal
from bench.connection import Asked, Connection
from bench.conversation import UNUSABLE, Conversation, read_conversation
from bench.ledger import Entry, Ledger, image_digest, row_in
from bench.scenario import Fault, RateLimits, Scenario, scenario_from_dict
from engine.errors import ConfigError

DELIVERED = frozenset({"fenced", "cut_json", "no_usage", "absurd_usage", "finish"})
"""Faults whose answer arrives as a whole completion all the same."""


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
        self._server = await self._loop.create_server(
            lambda: Connection(self.handle, self.connections), host, port, backlog=4096
        )
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
        if asked.path is None:
            to.send(400, refusal(self.scenario, 400, "no address").body)
            return
        path = asked.path.removeprefix("/v1").rstrip("/") or "/"
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
                self._show_entries(asked.query, to)
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
