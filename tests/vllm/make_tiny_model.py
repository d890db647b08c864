"""Make a vision model of a few hundred thousand random weights that a real server loads: Qwen2.5-VL, but tiny.

    .venv-vllm/bin/python tests/vllm/make_tiny_model.py FOLDER

Nothing is downloaded. Its tokenizer is trained on a handful of words and has a token for every byte, so that it reads
and writes any text. What it says means nothing; how many tokens a picture takes, how an answer is cut off and what
a grammar allows are the server's doing, and as real as with a model that knows something.
"""

from __future__ import annotations

import sys
from itertools import islice, permutations
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
MARKS = [END_OF_TEXT, START, END, VISION_START, VISION_END, VISION_PAD, IMAGE, VIDEO]
WORDS = (
    "system",
    "user",
    "assistant",
    "video",
    "frame",
    "label",
    "yes",
    "no",
    "neutral",
    "cannot_determine",
    "unclear",
)
VOCABULARY = 640
CONTEXT_TOKENS = 8192
PATCH_PX, MERGED = 14, 2
LEAST_PX, MOST_PX = 56 * 56, 224 * 224
"""Bounds of a picture's area: 4 to 64 tokens of 28 pixels square."""

TEMPLATE = (
    "{%- for said in messages -%}"
    f"{START}{{{{ said['role'] }}}}\n"
    "{%- if said['content'] is string -%}{{ said['content'] }}"
    "{%- else -%}{%- for part in said['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}"
    f"{{%- elif part['type'] == 'video' -%}}{VISION_START}{VIDEO}{VISION_END}"
    f"{{%- else -%}}{VISION_START}{IMAGE}{VISION_END}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    f"{END}\n"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{START}assistant\n{{%- endif -%}}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    bytes_first = Tokenizer(models.BPE())
    bytes_first.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_first.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sentences = (" ".join(words) for words in islice(permutations(WORDS, 6), 0, 200_000, 500))
    bytes_first.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_first,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_TOKENS,
        extra_special_tokens={"image_token": IMAGE, "video_token": VIDEO},
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    number = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(MARKS), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT_TOKENS,
            "tie_word_embeddings": False,
            # Of the 32 pairs of a head: time, height, width.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
            "bos_token_id": number[END_OF_TEXT],
            "eos_token_id": number[END],
            "pad_token_id": number[END_OF_TEXT],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGED,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        image_token_id=number[IMAGE],
        video_token_id=number[VIDEO],
        vision_start_token_id=number[VISION_START],
        vision_end_token_id=number[VISION_END],
    )
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.float32)
    model.generation_config.eos_token_id = number[END]
    model.generation_config.pad_token_id = number[END_OF_TEXT]
    return model


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(7)
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(folder)
    sizes = {
        "patch_size": PATCH_PX,
        "merge_size": MERGED,
        "temporal_patch_size": 2,
        "min_pixels": LEAST_PX,
        "max_pixels": MOST_PX,
    }
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
