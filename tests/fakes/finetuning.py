"""Chats that teach, and the simulated provider of fine-tuning, in this process or in one of its own."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from bench.finetuning import FinetuningServer
from bench.finetuning_jobs import scenario_from
from tests.fakes.commands import ROOT, environment

AT_ONCE: Mapping[str, object] = {"queue_s": 0.0, "run_s": 0.0}
"""A job that has ended when it is looked at."""


def picture(width: int = 90, height: int = 160) -> str:
    """A picture as it stands in a chat; noise, which no compression makes small."""
    out = io.BytesIO()
    Image.effect_noise((width, height), 64).save(out, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def chat(text: str = "they walk", *, pictures: Sequence[str] = (), answer: str = '{"a":"yes"}') -> list[dict[str, Any]]:
    """Messages as `build` writes them."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    content: Any = [*parts, {"type": "text", "text": text}] if parts else text
    return [
        {"role": "system", "content": "You label videos."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": answer},
    ]


def write_chats(path: Path, chats: Sequence[object], **more: object) -> Path:
    """A file of chats; `more` stands beside the messages of each."""
    lines = (json.dumps({**more, "messages": messages}, ensure_ascii=False) for messages in chats)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def twelve(path: Path, word: str = "row") -> Path:
    """Enough examples for any provider."""
    return write_chats(path, [chat(f"{word} {number}") for number in range(12)], meta_id="7")


class Provider:
    """A simulated provider, as a test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(self._root + "/ledger", timeout=10) as response:
            return dict(json.load(response))

    def tell(self, **scenario: object) -> None:
        """Replace the scenario, for jobs that are there as well."""
        request = urllib.request.Request(self._root + "/scenario", data=json.dumps(scenario).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")


@contextmanager
def provider_here(**scenario: object) -> Iterator[Provider]:
    """In a thread of this process."""
    with FinetuningServer(scenario_from({**AT_ONCE, **scenario})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Provider(f"http://127.0.0.1:{server.server_address[1]}/v1")
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def provider_apart(folder: Path, **scenario: object) -> Iterator[Provider]:
    """`python -m bench.finetuning`."""
    told = folder / "finetuning.json"
    told.write_text(json.dumps(scenario))
    with subprocess.Popen(
        [sys.executable, "-m", "bench.finetuning", "--port", "0", "--scenario", str(told)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            yield Provider(process.stdout.readline().strip())
        finally:
            process.terminate()
            process.communicate(timeout=10)
