"""The metadata services of three clouds on one real socket, as strict about headers and versions as the real ones."""

from __future__ import annotations

import http.server
import json
import math
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from engine.clouds import AZURE_TAG, Cloud

MACHINE = "reel-vm_3"
DMI_OF: dict[Cloud, dict[str, str]] = {
    Cloud.AWS: {"sys_vendor": "Amazon EC2", "bios_vendor": "Amazon EC2", "product_name": "c7g.xlarge"},
    Cloud.GCP: {"sys_vendor": "Google", "bios_vendor": "Google", "product_name": "Google Compute Engine"},
    Cloud.AZURE: {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}
    | {"chassis_asset_tag": AZURE_TAG},
}
VARIABLE_OF = {
    Cloud.AWS: "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    Cloud.GCP: "GCE_METADATA_HOST",
    Cloud.AZURE: "REELBATCH_AZURE_METADATA_ENDPOINT",
}


def write_dmi(folder: Path, strings: dict[str, str]) -> Path:
    """A folder such as /sys/class/dmi/id."""
    folder.mkdir(exist_ok=True)
    for name, text in strings.items():
        (folder / name).write_text(text + "\n")
    return folder


def event(kind: str, *machines: str) -> dict[str, Any]:
    """One of Azure's scheduled events."""
    return {
        "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(machines),
        "EventStatus": "Scheduled",
        "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT",
    }


class CloudServer:
    """Answers as all three clouds do; `give_notice` is the moment the machine is to go. A context manager."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Method and path of each request."""
        self.refused: list[str] = []
        """Those that a real service would not have answered."""
        self.notice_after = math.inf
        """Gives notice by itself once it has been asked so often."""
        self.action: dict[str, str] | None = None
        self.values = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self.events = [event("Freeze", MACHINE), event("Preempt", "another-vm")]
        self.token = "AQAEAH-1=="
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def give_notice(self) -> None:
        """From now on every cloud says that it takes the machine."""
        self.action = {"action": "terminate", "time": "2026-09-18T08:22:00Z"}
        self.values = {"preempted": "TRUE", "maintenance-event": "NONE"}
        self.events = [event("Preempt", "another-vm", MACHINE)]

    def reply(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
        self.asked.append(f"{method} {urlsplit(target).path}")
        if len(self.asked) > self.notice_after:
            self.give_notice()
        status, text = self._said(method, target, headers)
        if status not in {200, 401, 404}:
            self.refused.append(f"{method} {target}")
        return status, text

    def _said(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        gcp = path.removeprefix("/computeMetadata/v1/instance/")
        match method, path:
            case "PUT", "/latest/api/token":
                ttl = int(headers.get("x-aws-ec2-metadata-token-ttl-seconds", "0"))
                return (200, self.token) if 0 < ttl <= 21600 else (400, "")
            case "GET", "/latest/meta-data/spot/instance-action":
                if headers.get("x-aws-ec2-metadata-token") != self.token:
                    return 401, ""
                return (404, "<html/>") if self.action is None else (200, json.dumps(self.action))
            case "GET", _ if gcp in self.values:
                return (200, self.values[gcp]) if headers.get("metadata-flavor") == "Google" else (403, "")
            case "GET", "/metadata/instance/compute/name":
                good = headers.get("metadata") == "true" and query.get("format") == ["text"] and "api-version" in query
                return (200, MACHINE) if good else (400, "")
            case "GET", "/metadata/scheduledevents":
                good = headers.get("metadata") == "true" and query.get("api-version") == ["2020-07-01"]
                said = {"DocumentIncarnation": 2, "Events": self.events}
                return (200, json.dumps(said)) if good else (400, "")
        return 405, ""

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, text = service.reply(self.command, self.path, headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_PUT(self) -> None:
                self.do_GET()

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """The tests read `asked`."""

        return Handler
