"""A model server of the user's own, as `--serve` starts one: a script that answers after a while, and may misbehave.

    python local_server.py --port N [--slow SECONDS] [--dies-after REQUESTS] [--stubborn] [--forks] [--strays] ...

It appends its process ids to the file that `--pids` names.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
LABELS = json.dumps({"china_stance_score": 0.0, "china_sensitive": "no", "collective_action": "no"})


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class Handler(BaseHTTPRequestHandler):
    """Answers as a server of one model."""

    protocol_version = "HTTP/1.1"
    told: ClassVar[argparse.Namespace]
    ready_s: ClassVar[float]
    asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        ready = time.monotonic() >= self.ready_s
        if self.path == "/health" and self.told.no_health:
            self._answer(404, {})
        elif self.path == "/health":
            self._answer(200 if ready else 503, {})
        else:
            model = {"id": "tiny/first", "max_model_len": 2048}
            self._answer(200 if ready else 503, {"data": [model, {"id": "tiny/second"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.asked += 1
        say(f"call {Handler.asked}, authorization {self.headers['Authorization']}")
        if 0 < self.told.dies_after < Handler.asked:
            say("CUDA out of memory, says the fake")
            os._exit(3)
        time.sleep(self.told.latency)
        message = {"role": "assistant", "content": LABELS}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self._answer(200, {"id": "c", "model": "tiny/first", "choices": [choice], "usage": usage})

    def _answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pids", type=Path, required=True)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--dies-after", type=int, default=0)
    parser.add_argument("--dies-at-once", action="store_true")
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--forks", action="store_true")
    parser.add_argument("--strays", action="store_true")
    parser.add_argument("--no-health", action="store_true")
    parser.add_argument("--talks-bytes", type=int, default=0)
    told = parser.parse_args()
    pids = [os.getpid()]
    if told.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if told.forks:
        pids.append(subprocess.Popen([sys.executable, "-c", SLEEPER]).pid)
    if told.strays:
        pids.append(subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True).pid)
    with told.pids.open("a") as file:
        file.writelines(f"{pid}\n" for pid in pids)
    say("loading the model")
    for _ in range(told.talks_bytes // 100):
        say("x" * 99)
    if told.dies_at_once:
        say("no such model, says the fake")
        sys.exit(7)
    Handler.told, Handler.ready_s = told, time.monotonic() + told.slow
    ThreadingHTTPServer(("127.0.0.1", told.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
