"""A real S3 server (moto) in a process of its own, and a proxy before it that counts, refuses, fails and dawdles."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

START_S = 30.0
SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, Signature=0"}
"""The server checks no signature, but lets nobody without one replace or delete."""
REFUSED = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
FAILED = b"<Error><Code>InternalError</Code><Message>oh</Message></Error>"


class Asked(NamedTuple):
    """One request that came."""

    method: str
    path: str
    sent_bytes: int


class Storage:
    """The server as a test sees it."""

    def __init__(self, moto_port: int, url: str) -> None:
        self._port = moto_port
        self.url = url
        self.asked: list[Asked] = []
        self.fault = ""
        """`403`, `500`, `slow`, or nothing."""
        self.only = ""
        """Befalls requests alone whose path holds this."""
        self.most_at_once = 0
        self.now = 0
        self.lock = threading.Lock()

    def variables(self, cache: Path) -> dict[str, str]:
        """What a client's environment needs to find it, and where indices go."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(cache),
        }

    def put_all(self, bucket: str, objects: dict[str, bytes]) -> None:
        self.request("PUT", f"/{bucket}")
        for key, data in objects.items():
            assert self.request("PUT", f"/{bucket}/{quote(key)}", data)[0] == 200

    def request(self, method: str, path: str, data: bytes = b"", headers: dict[str, str] | None = None) -> _Reply:
        """One request to the server itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, data or None, headers or SIGNED)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()


_Reply = tuple[int, list[tuple[str, str]], bytes]


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def _serve(self) -> None:
        storage = self.storage
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        with storage.lock:
            storage.now += 1
            storage.most_at_once = max(storage.most_at_once, storage.now)
        try:
            fault = storage.fault if storage.only in self.path else ""
            if fault == "slow":
                time.sleep(30)
            if fault == "403":
                status, headers, body = 403, [("content-type", "application/xml")], REFUSED
            elif fault == "500":
                status, headers, body = 500, [("content-type", "application/xml")], FAILED
            else:
                passed = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                status, headers, body = storage.request(self.command, self.path, data, passed)
        finally:
            with storage.lock:
                storage.now -= 1
        storage.asked.append(Asked(self.command, self.path, len(body)))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "server", "date"}:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", "0")
        self.send_header("content-length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = _serve  # noqa: N815 - the names http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in http.server
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away while we dawdled is what the test wants."""


@contextmanager
def storage_server() -> Iterator[Storage]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            with _Server(("127.0.0.1", 0), _Proxy) as server:
                storage = Storage(port, f"http://127.0.0.1:{server.server_address[1]}")
                _Proxy.storage = storage
                threading.Thread(target=server.serve_forever, daemon=True).start()
                yield storage
                server.shutdown()
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the storage server did not start")
