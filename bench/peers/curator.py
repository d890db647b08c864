"""bespokelabs-curator: an `LLM` with the limits of its throttle set out of the way."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from bench.peers.rows import KEY, MAX_TOKENS, MODEL, Messages, Told, line, read, told

# Its token counter fetches a vocabulary; litellm, on which it depends, ships the same.
VOCABULARIES = Path(str(importlib.util.find_spec("litellm").origin)).parent / "litellm_core_utils" / "tokenizers"  # type: ignore[union-attr]
# All read at import.
os.environ |= {
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_CACHE": "true",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "TIKTOKEN_CACHE_DIR": str(VOCABULARIES),
}

from bespokelabs import curator  # noqa: E402 - after what it reads

NO_LIMIT = 10**9


class Labeller(curator.LLM):  # type: ignore[misc] # its types are not there where this is checked
    """Sends a row's messages as they are."""

    def prompt(self, row: dict[str, Any]) -> Messages:
        messages: Messages = json.loads(row["messages"])
        return messages

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"row": row["row"], "answer": response}


def run(told: Told) -> None:
    # As text: its tables cannot hold a content that is a string in one message and a list of parts in the next.
    rows = [{"row": row, "messages": json.dumps(messages)} for row, messages in read(told.rows)]
    with tempfile.TemporaryDirectory() as folder:
        labeller = Labeller(
            model_name=MODEL,
            backend="openai",
            generation_params={"max_tokens": MAX_TOKENS},
            backend_params={
                "base_url": told.base_url,
                "api_key": KEY,
                "max_concurrent_requests": told.concurrency,
                "max_requests_per_minute": NO_LIMIT,
                "max_tokens_per_minute": NO_LIMIT,
            },
        )
        answered = labeller(rows, working_dir=folder).dataset
        with told.out.open("w", encoding="utf-8") as out:
            for found in answered:
                out.write(line(found["row"], found["answer"]))


if __name__ == "__main__":
    run(told()[0])
