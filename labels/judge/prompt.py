"""What a judge reads: a line about its task, then context, question, both answers and the rule, block by block.

The layout is that of the LLaVA-Bench reviews, so that judges see what they saw before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM_LINE = "You are a helpful and precise assistant. Your task is to check the quality of answers."
DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the answers of one category are judged."""

    category: str
    """Under which name its reviews are counted."""
    role: str
    """What the answers are called."""
    prompt: str


def user_text(*, question: str, answers: tuple[str, str], rule: Rule, context: str | None) -> str:
    """The user's message; without a context the block of that name is left out.

    Args:
        question: what both were asked.
        answers: in the order in which the judge sees them.
        rule: how they are judged.
        context: what is known of the picture or video.
    """
    blocks = [] if context is None else [f"[Context]\n{context}"]
    blocks.append(f"[Question]\n{question}")
    for number, answer in enumerate(answers, 1):
        blocks += [f"[{rule.role} {number}]\n{answer}", f"[End of {rule.role} {number}]"]
    blocks.append(f"[System]\n{rule.prompt}")
    return "".join(f"{block}\n\n" for block in blocks)


def messages(text: str, frames: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The chat: pictures before the text where there are any.

    Args:
        text: of `user_text`.
        frames: addresses of pictures.
    """
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in frames]
    content: Any = [*shown, {"type": "text", "text": text}] if shown else text
    return [{"role": "system", "content": SYSTEM_LINE}, {"role": "user", "content": content}]


def digest_of(*parts: object) -> str:
    """A short name of everything that decides a review; JSON values."""
    # Not orjson: answers may hold halves of characters.
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGEST_CHARS]
