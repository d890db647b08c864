"""inspect_ai: a task of one `generate()` a sample, on its provider for OpenAI-compatible services."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from inspect_ai import Task, eval  # noqa: A004 - its name
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText
from inspect_ai.solver import generate

from bench.peers.rows import KEY, MAX_TOKENS, MODEL, Messages, Told, line, read, told


def sample(row: int, messages: Messages) -> Any:
    system, user = messages
    content = user["content"]
    if not isinstance(content, str):
        content = [
            ContentText(text=part["text"]) if part["type"] == "text" else ContentImage(image=part["image_url"]["url"])
            for part in content
        ]
    return Sample(id=row, input=[ChatMessageSystem(content=system["content"]), ChatMessageUser(content=content)])


def run(told: Told) -> None:
    os.environ["SIMULATED_API_KEY"] = KEY
    samples = MemoryDataset([sample(row, messages) for row, messages in read(told.rows)])
    with tempfile.TemporaryDirectory() as log_dir:
        (log,) = eval(
            Task(dataset=samples, solver=generate()),
            model=f"openai-api/simulated/{MODEL}",
            model_base_url=told.base_url,
            max_connections=told.concurrency,
            max_samples=told.concurrency,
            max_tokens=MAX_TOKENS,
            log_dir=log_dir,
            display="none",
        )
        # Inside, for samples are read from the log as they are looked at.
        with told.out.open("w", encoding="utf-8") as out:
            for answered in log.samples or ():
                out.write(line(answered.id, answered.output.completion))


if __name__ == "__main__":
    run(told()[0])
