"""A simulated provider of fine-tuning: files and jobs in OpenAI's form, or in Together's. Nothing is trained.

    python -m bench.finetuning --port 0 --scenario scenario.json

It stands apart from `simulate`, which is one protocol without threads or disk, made to answer thousands of chats a
second: an upload of gigabytes must be read to a file, and would hold all of them up. This has a thread a connection and
no speed to speak of. docs/finetune.md says what it can be told.

    POST /v1/files    POST /v1/files/upload    GET /v1/files    GET /v1/files/ID
    POST JOBS    GET JOBS    GET JOBS/ID    GET JOBS/ID/events    POST JOBS/ID/cancel
    GET /ledger    POST /scenario

JOBS is /v1/fine_tuning/jobs, or /v1/fine-tunes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, urlsplit

import orjson

from bench.finetuning_form import Body, read_form
from bench.finetuning_jobs import Blow, RefusedError, Scenario, Store, scenario_from
from engine.errors import ConfigError

JOBS = {"openai": "/v1/fine_tuning/jobs", "together": "/v1/fine-tunes"}
UPLOADS = {"openai": "/v1/files", "together": "/v1/files/upload"}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FinetuningServer

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing: the ledger counts."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self._body = Body(cast("BinaryIO", self.rfile), int(self.headers.get("Content-Length") or 0))
        path, server = url.path.rstrip("/"), self.server
        blow = None if path in {"/ledger", "/scenario"} else server.counted(f"{self.command} {path}")
        if blow is not None and blow.kind == "reset":
            self._reset()
            return
        if not self._is_allowed(path):
            self._send(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
            return
        if blow is not None and blow.kind == "status":
            wait = {} if blow.retry_after_s is None else {"Retry-After": f"{blow.retry_after_s:g}"}
            self._send(blow.status, {"error": {"message": blow.message}}, wait)
            return
        try:
            said = self._answer(path, {name: values[-1] for name, values in parse_qs(url.query).items()})
        except RefusedError as error:
            self._send(400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except KeyError:
            self._send(404, {"error": {"message": f"no such address: {path}"}})
        else:
            if blow is not None:
                self._reset()
            else:
                self._send(200, said)

    def _answer(self, path: str, query: Mapping[str, str]) -> Any:
        scenario = self.server.store.scenario
        jobs = JOBS[scenario.api]
        if self.command == "POST" and path == UPLOADS[scenario.api]:
            return self._upload()
        body = self._body.rest()
        with self.server.lock:
            if path == jobs or path.startswith(jobs + "/"):
                return self._answer_of_jobs(path.removeprefix(jobs).split("/")[1:], body, query)
            return self._answer_of_files(path, body)

    def _answer_of_jobs(self, rest: list[str], body: bytes, query: Mapping[str, str]) -> Any:
        store = self.server.store
        openai = store.scenario.api == "openai"
        match self.command, rest:
            case "POST", []:
                return store.create(_object(body))
            case "GET", []:
                return _list([store.job(job_id) for job_id in reversed(store.jobs)], query, paged=openai)
            case "GET", [job_id]:
                return store.job(job_id)
            case "POST", [job_id, "cancel"]:
                return store.cancel(job_id)
            case "GET", [job_id, "events"]:
                events = store.events(job_id)
                return _list(events[::-1] if openai else events, query, paged=openai)
        raise KeyError(rest)

    def _answer_of_files(self, path: str, body: bytes) -> Any:
        store = self.server.store
        match self.command, path.split("/"):
            case "GET", ["", "v1", "files"]:
                return {"data": [store.file(file_id) for file_id in store.files]}
            case "GET", ["", "v1", "files", file_id]:
                return store.file(file_id)
            case "GET", ["", "ledger"]:
                return self.server.ledger()
            case "POST", ["", "scenario"]:
                return self.server.replace(body)
        raise KeyError(path)

    def _upload(self) -> Any:
        with tempfile.TemporaryFile() as file:
            fields = read_form(self._body, str(self.headers.get("Content-Type")), file)
            if fields.get("purpose") != "fine-tune":
                raise RefusedError("purpose must be fine-tune")
            if self.server.store.scenario.api == "together" and fields.get("file_name") != fields["file"]:
                raise RefusedError("file_name is required")
            with self.server.lock:
                return self.server.store.keep_file(file, fields["file"])

    def _is_allowed(self, path: str) -> bool:
        key = self.server.store.scenario.key
        return not key or path in {"/ledger", "/scenario"} or self.headers.get("Authorization") == f"Bearer {key}"

    def _send(self, status: int, said: Any, headers: Mapping[str, str] | None = None) -> None:
        if status != HTTPStatus.OK:
            # Closed over a body that nobody has read, the connection would end with a reset, and the refusal be lost.
            while self._body.read():
                pass
        body = orjson.dumps(said)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _reset(self) -> None:
        """End the connection without an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


class FinetuningServer(ThreadingHTTPServer):
    """The state behind all connections."""

    daemon_threads = True

    def __init__(self, scenario: Scenario, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.store = Store(scenario=scenario)
        self.lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._since: Counter[str] = Counter()
        """Calls since the scenario took effect."""
        self._struck: Counter[Blow] = Counter()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is no news; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # socketserver's own types

    def counted(self, call: str) -> Blow | None:
        """What goes wrong with this call, if anything."""
        with self.lock:
            self._calls[call] += 1
            self._since[call] += 1
            for blow in self.store.scenario.blows:
                meant = blow.call == call and self._since[call] > blow.after
                if meant and self._struck[blow] < blow.times:
                    self._struck[blow] += 1
                    return blow
        return None

    def ledger(self) -> dict[str, Any]:
        """What was asked, and what there is."""
        return {
            "calls": dict(self._calls),
            "files": [{"id": file.id, "name": file.name, "bytes": file.size, "sha256": file.sha256,
                       "examples": file.examples} for file in self.store.files.values()],
            "jobs": [{"id": job.id, **job.told} for job in self.store.jobs.values()],
            "peak_bytes": _peak_bytes(),
        }  # fmt: skip

    def replace(self, body: bytes) -> dict[str, Any]:
        try:
            self.store.scenario = scenario_from(_object(body))
        except ConfigError as error:
            raise RefusedError(str(error)) from error
        self._struck.clear()
        self._since.clear()
        return {"status": "ok"}


def _list(items: list[dict[str, Any]], query: Mapping[str, str], *, paged: bool) -> dict[str, Any]:
    if not paged:
        return {"data": items}
    ids = [item["id"] for item in items]
    first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    last = first + int(query.get("limit", "20"))
    return {"object": "list", "data": items[first:last], "has_more": last < len(items)}


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise RefusedError("the body is no JSON object")
    return said


def _peak_bytes() -> int:
    status = Path(f"/proc/{os.getpid()}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    """Serve on loopback until killed; the address is printed."""
    told = argparse.ArgumentParser(description="A simulated provider of fine-tuning; nothing is trained.")
    told.add_argument("--port", type=int, default=0)
    told.add_argument("--scenario", type=Path)
    flags = told.parse_args()
    scenario = Scenario() if flags.scenario is None else scenario_from(json.loads(flags.scenario.read_text()))
    with FinetuningServer(scenario, port=flags.port) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
