"""An answer without the frame of its conversation, by exact prefixes and suffixes: no letter of the answer is one.

Some servers give back the whole conversation, prompt and marks included. What the model said stands after the last
header of its turn, and before the marks that end it. A text without these is the answer as it stands.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Template = Literal["none", "nvgpt", "nv_steerlm", "nv_dpo", "llama_2", "llama_3", "mistral", "yi_34b", "v1"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
_LABELS = re.compile(r"<extra_id_2>quality:[0-9]+(?:,[a-z_]+:[0-9]+)*(?:\n|$)")
"""The line of labels that nvgpt and nv_steerlm put before an answer."""
_HEADERS: dict[Template, str] = {
    "nv_dpo": "<extra_id_1>Assistant\n",
    "llama_2": "[/INST]",
    "llama_3": "<|start_header_id|>assistant<|end_header_id|>",
    "mistral": "[/INST]",
    "yi_34b": "<|im_start|>assistant",
    "v1": "ASSISTANT: ",
}
_ENDS: dict[Template, tuple[str, ...]] = {
    "nvgpt": ("<extra_id_1>", "<extra_id_7>"),
    "nv_steerlm": ("<extra_id_1>", "<extra_id_7>"),
    "nv_dpo": ("<extra_id_1>", "<extra_id_7>"),
    "llama_2": ("</s>",),
    "llama_3": ("<|eot_id|>", "<|end_of_text|>"),
    "mistral": ("</s>",),
    "yi_34b": ("<|im_end|>", "<|endoftext|>"),
    "v1": ("</s>",),
}


def clean(text: str, template: Template) -> str:
    """What the model said, without white space around it."""
    said = _after_header(text, template).strip()
    ends = _ENDS.get(template, ())
    while (end := next((end for end in ends if said.endswith(end)), None)) is not None:
        said = said.removesuffix(end).rstrip()
    return said


def _after_header(text: str, template: Template) -> str:
    if template in {"nvgpt", "nv_steerlm"}:
        *_, last = (0, *(found.end() for found in _LABELS.finditer(text)))
        return text[last:]
    header = _HEADERS.get(template)
    return text if header is None else text.rpartition(header)[2]
