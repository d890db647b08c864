"""vLLM as a user would start it: on this machine, on its processor, with a tiny model."""

from __future__ import annotations

import json
import re
import shlex
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.commands import ROOT

ENVIRONMENT = ROOT / ".venv-vllm"
NAME = "tiny-vlm"
CONTEXT_TOKENS = 8192
START_S = 900.0
"""A minute on an idle machine, many on a busy one."""
VARIABLES = (
    "HF_HUB_OFFLINE=1",
    "TRANSFORMERS_OFFLINE=1",
    "VLLM_NO_USAGE_STATS=1",
    "DO_NOT_TRACK=1",
    "VLLM_CPU_KVCACHE_SPACE=1",
)
"""Nothing leaves this machine; and 1 GiB for the cache is plenty for such a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """A server that answers."""

    base_url: str
    log: Path

    def ask(self, content: object, **more: object) -> dict[str, Any]:
        """One chat completion, as the server gave it."""
        said = {"model": NAME, "messages": [{"role": "user", "content": content}], "temperature": 0} | more
        request = urllib.request.Request(
            f"{self.base_url}/chat/completions",
            data=json.dumps(said).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return dict(json.load(response))


def serve_command(model: Path, port: int) -> str:
    """A line for `--serve`."""
    words = [
        *("env", *VARIABLES, str(ENVIRONMENT / "bin" / "vllm"), "serve", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME),
        *("--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", "32", "--dtype", "bfloat16", "--enforce-eager"),
        *("--limit-mm-per-prompt", '{"image": 16}'),
        # Between two words of an answer JSON allows any number of spaces, and a model that knows nothing uses it.
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    ]
    return shlex.join(words)


def processes_in(log: Path) -> list[int]:
    """The processes that have spoken in a log; they rename themselves, so no list of processes shows whose they are."""
    return sorted({int(pid) for pid in re.findall(r"pid=(\d+)", log.read_text(errors="replace"))})
