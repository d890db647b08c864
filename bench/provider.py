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

from bench.admission import at_the_door, before_the_model, key_of
from bench.answers import Answered, answer
from bench.buckets import RateLimits
from bench.connection import Asked, Connection
from bench.conversation import UNUSABLE, Conversation, read_conversation
from bench.faults import WHOLE, WIRE, Fault
from bench.ledger import Entry, Ledger, image_digest, key_mark, row_in
from bench.limit_headers import SILENT, Tally, limit_headers, nonsense
from bench.refusals import Trouble, refusal
from bench.scenario import Scenario, scenario_from_dict
from bench.wire import Headers
from bench.wording import body_too_large, too_fast
from engine.errors import ConfigError


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
        self._outages: list[asyncio.TimerHandle] = []
        self._set(scenario)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port in use."""
        self._server = await self._loop.create_server(
            lambda: Connection(self.handle, self.connections, self.is_out), host, port, backlog=4096
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

    def is_out(self) -> bool:
        """Whether connections are reset now."""
        return bool(self.scenario.outage) and self.scenario.is_out(self._since_s())

    def limit_headers(self, seq: int, *, waits: str = "", wait_s: float = 0.0) -> Headers:
        """What the profile tells of the limits as they stand; `waits` is the one that refuses this request."""
        if not (waits or self._tells_limits):
            return ()
        scenario = self.scenario
        requests, tokens = self._limits.standing(self._since_s())
        tally = Tally(requests=requests, tokens=tokens, waits=waits, wait_s=wait_s)
        if scenario.header_nonsense:
            return nonsense(scenario.profile, tally, seq)
        return limit_headers(scenario.profile, tally)

    def handle(self, asked: Asked, to: Connection) -> None:
        """Answer one request on its connection, now or later."""
        if asked.path is None:
            self._send(to, Trouble(status=400, message="no address"))
            return
        path = asked.path.removeprefix("/v1").rstrip("/") or "/"
        if asked.body is None:
            self._send(to, body_too_large(self.scenario.profile))
            return
        match asked.method, path:
            case "POST", "/chat/completions":
                self._chat(asked.headers, asked.body, to)
            case "GET", "/models":
                models = self.scenario.known_models or ("simulated",)
                to.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]})
            case "GET", "/health":
                to.send(200, {"status": "ok", "simulated": True})
            case "GET", "/ledger":
                to.send(200, self.ledger.totals())
            case "GET", "/ledger/rows":
                self._show_entries(asked.query, to)
            case "POST", "/scenario":
                self._replace_scenario(asked.body, to)
            case _, "/chat/completions" | "/models" | "/health" | "/ledger" | "/ledger/rows" | "/scenario":
                self._send(to, Trouble(status=405, message="method not allowed"))
            case _:
                self._send(to, Trouble(status=404, message=f"no such address: {path}"))

    def _since_s(self) -> float:
        """Since the scenario took effect."""
        return self.elapsed_s() - self._set_at_s

    def _send(self, to: Connection, trouble: Trouble) -> None:
        to.send_raw(refusal(self.scenario.profile, trouble).response())

    def _set(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._set_at_s = self.elapsed_s()
        self._attempts: Counter[int] | None = Counter() if any(f.first_attempts for f in scenario.faults) else None
        self._rng = random.Random(scenario.seed)
        self._rows = re.compile(scenario.row_pattern) if scenario.row_pattern else None
        self._limits = RateLimits(scenario)
        tellable = scenario.requests_per_min or scenario.tokens_per_min or scenario.header_nonsense
        self._tells_limits = bool(tellable) and scenario.profile not in SILENT
        self.ledger.keep_at_least(scenario.ledger_rows)
        for planned in self._outages:
            planned.cancel()
        self._outages = [self._loop.call_later(from_s, self._cut_off) for from_s, _ in scenario.outage]

    def _cut_off(self) -> None:
        """An outage begins: whoever waits for an answer gets none."""
        for connection in tuple(self.connections):
            if connection.owes_an_answer:
                connection.abort()

    def _show_entries(self, query: str, to: Connection) -> None:
        try:
            after = int(parse_qs(query).get("after", ["0"])[0])
        except ValueError:
            self._send(to, Trouble(status=400, message="after must be a whole number"))
        else:
            to.send(200, {"rows": self.ledger.entries(after=after)})

    def _replace_scenario(self, body: bytes, to: Connection) -> None:
        try:
            told = scenario_from_dict(orjson.loads(body))
        except (ConfigError, orjson.JSONDecodeError) as error:
            self._send(to, Trouble(status=400, message=str(error)))
            return
        if told.answer_schema is None:
            told = dataclasses.replace(told, answer_schema=self.scenario.answer_schema)
        self._set(told)
        to.send(200, {"status": "ok"})

    def _chat(self, headers: Mapping[bytes, bytes], body: bytes, to: Connection) -> None:
        key = key_of(headers)
        try:
            asked = read_conversation(body)
            entry = self._entry(asked, key=key, body_bytes=len(body))
        except UNUSABLE as error:
            self.ledger.malformed += 1
            why = f"the body is no chat completion request: {type(error).__name__}: {error}"
            self._send(to, Trouble(status=400, message=why))
            return
        self.ledger.opened(entry)
        job, scenario = _Job(self, entry, to), self.scenario
        since_s = entry.received_s - self._set_at_s
        fault = self._fault(asked, since_s) if scenario.faults else None
        if (trouble := at_the_door(scenario, asked, key=key, body_bytes=entry.body_bytes)) is not None:
            job.refuse(trouble)
        elif (met := self._limits.take(tokens=entry.prompt_tokens + entry.max_tokens, since_s=since_s)) is not None:
            self._refuse_for_now(job, *met)
        elif fault is not None and fault.kind == "status":
            said = Trouble(status=fault.status, message=fault.message, code=fault.code, type=fault.error_type)
            job.refuse(said, fault.told_headers())
        elif (trouble := before_the_model(scenario, asked, prompt_tokens=entry.prompt_tokens)) is not None:
            job.refuse(trouble)
        else:
            self._work(job, asked, fault, since_s)

    def _entry(self, asked: Conversation, *, key: bytes, body_bytes: int) -> Entry:
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
            model=asked.model,
            structured=asked.structured,
            key=key_mark(key),
            prompt_tokens=asked.prompt_tokens(tokens_per_image=scenario.tokens_per_image),
        )

    def _fault(self, asked: Conversation, since_s: float) -> Fault | None:
        """What strikes this request, counted as one more attempt at its messages."""
        attempt = 1
        if self._attempts is not None:
            self._attempts[asked.mark] += 1
            attempt = self._attempts[asked.mark]
        text = "\n".join(asked.texts)
        return self.scenario.fault_for(elapsed_s=since_s, text=text, attempt=attempt, rng=self._rng)

    def _refuse_for_now(self, job: _Job, limit: str, wait_s: float) -> None:
        scenario = self.scenario
        per_min = scenario.requests_per_min if limit == "request" else scenario.tokens_per_min
        per_min *= scenario.limit_factor(self._since_s())
        trouble = too_fast(scenario.profile, model=job.entry.model, limit=limit, per_min=per_min, wait_s=wait_s)
        job.refuse(trouble, self.limit_headers(job.entry.seq, waits=limit, wait_s=wait_s))

    def _work(self, job: _Job, asked: Conversation, fault: Fault | None, since_s: float) -> None:
        scenario = self.scenario
        try:
            answered = answer(scenario, asked, prompt_tokens=job.entry.prompt_tokens, since_s=since_s, fault=fault)
        except UNUSABLE:
            said = "no answer can be made up under this response_format"
            job.refuse(Trouble(status=400, message=said, param="response_format"))
            return
        slots = scenario.slots_at(since_s)
        if not slots and answered.takes_s <= 0:
            job.deliver(answered, fault)
        elif not slots or self._busy < slots:
            self._begin(job, answered, fault)
        elif scenario.queue and len(self._queue) >= scenario.queue:
            job.refuse(Trouble(status=503, message="the model is out of capacity", code="capacity_exceeded"))
        else:
            self._queue.append((job, answered, fault))

    def _begin(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy += 1
        self._loop.call_later(answered.takes_s, self._end, job, answered, fault)

    def _end(self, job: _Job, answered: Answered, fault: Fault | None) -> None:
        self._busy -= 1
        job.deliver(answered, fault)
        slots = self.scenario.slots_at(self._since_s())
        while self._queue and (not slots or self._busy < slots):
            self._begin(*self._queue.popleft())


class _Job:
    """One request on its way to an answer."""

    __slots__ = ("entry", "provider", "to")

    def __init__(self, provider: Provider, entry: Entry, to: Connection) -> None:
        self.provider, self.entry, self.to = provider, entry, to

    def refuse(self, trouble: Trouble, headers: Headers = ()) -> None:
        self.entry.prompt_tokens = 0
        self._close(trouble.status, delivered=False)
        self.to.send_raw(refusal(self.provider.scenario.profile, trouble, headers).response())

    def deliver(self, answered: Answered, fault: Fault | None) -> None:
        seq, headers = self.entry.seq, self.provider.limit_headers(self.entry.seq)
        self.entry.completion_tokens = answered.completion_tokens
        if fault is None or fault.kind in WIRE:
            whole = answered.response(seq, headers)
        else:
            whole = answered.distorted(fault, seq, profile=self.provider.scenario.profile, headers=headers)
        if fault is not None and fault.kind == "drip":
            self.to.drip(whole, max(1, fault.after_bytes), lambda arrived: self._close(200, delivered=arrived))
            return
        self._close(200, delivered=not self.to.closed and (fault is None or fault.kind in WHOLE))
        if fault is None:
            self.to.send_raw(whole)
        else:
            self.to.misbehave(fault, whole)

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
