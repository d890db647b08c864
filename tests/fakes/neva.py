"""The settings with which NeVA's inference is shown to be run on videos, as they stand in its documentation."""

from __future__ import annotations

AS_WRITTEN = (
    *("tensor_model_parallel_size=4", "pipeline_model_parallel_size=1", "neva_model_file=/path/to/checkpoint"),
    *("base_model_file=/path/to/base", "trainer.devices=4", "trainer.precision=bf16", "inference.media_type=video"),
    *("inference.temperature=0.2", "inference.top_k=0", "inference.top_p=0.9", "inference.greedy=False"),
    *("inference.add_BOS=False", "inference.all_probs=False", "inference.repetition_penalty=1.2"),
    *("inference.insert_media_token=right", "inference.tokens_to_generate=256"),
    *("quantization.algorithm=awq", "quantization.enable=False"),
)
