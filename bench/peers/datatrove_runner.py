"""datatrove: its inference runner on an endpoint, between its JSONL reader and writer."""

from __future__ import annotations

import tempfile
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from bench.peers.rows import MAX_TOKENS, MODEL, Told, told


def document(_reader: Any, data: dict[str, Any], _path: str, at: int | str) -> dict[str, Any]:
    """Of a line; one without text would be left out."""
    return {"text": "chat", "id": str(at), "metadata": {"messages": data["messages"]}}


def answer(_writer: Any, answered: Any) -> dict[str, Any]:
    """What is written of a document."""
    return {"row": int(answered.id), "answer": answered.metadata["rollout_results"][0].text}


async def ask(document: Document, generate: Any) -> Any:
    return await generate({"messages": document.metadata["messages"], "max_tokens": MAX_TOKENS})


def run(told: Told) -> None:
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=told.base_url.removesuffix("/v1"),
        model_name_or_path=MODEL,
        max_concurrent_generations=told.concurrency,
    )
    writer = JsonlWriter(str(told.out.parent), output_filename=told.out.name, compression=None, adapter=answer)
    reader = JsonlReader(str(told.rows.parent), glob_pattern=told.rows.name, adapter=document)
    with tempfile.TemporaryDirectory() as logs:
        runner = InferenceRunner(rollout_fn=ask, config=config, output_writer=writer)
        LocalPipelineExecutor(pipeline=[reader, runner], tasks=1, logging_dir=logs).run()


if __name__ == "__main__":
    run(told()[0])
