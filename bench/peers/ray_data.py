"""Ray Data LLM: the HTTP request processor of `ray.data.llm` over a data set of lines."""

from __future__ import annotations

import json
import os
from typing import Any

from bench.peers.rows import KEY, MAX_TOKENS, MODEL, Told, line, told

ACTORS = 1
BATCH_ROWS = 8
"""An actor sends the rows of a batch one after the other, on connections of the batch's own."""
TOLD = told()[0]
# Read at import. No usage report, and as many batches at once as calls are to be in flight; its default is four.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY"] = str(TOLD.concurrency // ACTORS)

import ray  # noqa: E402 - after what it reads
from ray.data.llm import HttpRequestProcessorConfig, build_processor  # noqa: E402


def request(row: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(row["text"])
    return {
        "row": int(body["meta_id"]),
        "payload": {"model": MODEL, "messages": body["messages"], "max_tokens": MAX_TOKENS},
    }


def answer(row: dict[str, Any]) -> dict[str, Any]:
    return {"row": row["row"], "answer": row["http_response"]["choices"][0]["message"]["content"]}


def run(told: Told) -> None:
    ray.init(include_dashboard=False, log_to_driver=False)
    config = HttpRequestProcessorConfig(
        url=f"{told.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {KEY}"},
        batch_size=BATCH_ROWS,
        concurrency=(ACTORS, ACTORS),
    )
    processor = build_processor(config, preprocess=request, postprocess=answer)
    # Batches are at work at once within a block alone.
    rows = ray.data.read_text(str(told.rows), override_num_blocks=ACTORS)
    with told.out.open("w", encoding="utf-8") as out:
        for found in processor(rows).iter_rows():
            out.write(line(found["row"], found["answer"]))
    ray.shutdown()


if __name__ == "__main__":
    run(TOLD)
