"""What a request for a completion holds, read as tolerantly as a provider does and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import orjson

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 16
DEFAULT_MAX_TOKENS = 1024
UNUSABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a stranger's JSON raises when it has another shape than asked for."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request for a completion."""

    said: Mapping[str, Any]
    """The whole body."""
    texts: list[str]
    images: list[str]
    """Their addresses, in order."""
    mark: int
    """Digest of texts and images: the same for every attempt of a row."""
    max_tokens: int
    names_max_tokens: bool
    """Whether the request says `max_tokens` itself."""
    model: str
    """Empty if it names none."""

    @property
    def structured(self) -> str | None:
        """The type of its `response_format`; None if it has none."""
        asked = self.said.get("response_format")
        if asked is None:
            return None
        return str(asked.get("type", "")) if isinstance(asked, dict) else type(asked).__name__

    def prompt_tokens(self, *, tokens_per_image: int) -> int:
        """A plain estimate: characters by four, and a fixed price for an image."""
        return MESSAGE_TOKENS + sum(map(len, self.texts)) // BYTES_PER_TOKEN + len(self.images) * tokens_per_image


def read_conversation(body: bytes) -> Conversation:
    """Read a request's body.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: it is none.
    """
    said = orjson.loads(body)
    if said.get("stream"):
        raise ValueError("the simulated provider does not stream")
    texts, images = _parts(said["messages"])
    asked = said.get("max_tokens", said.get("max_completion_tokens"))
    max_tokens = DEFAULT_MAX_TOKENS if asked is None else int(asked)
    if max_tokens < 1:
        raise ValueError("max_tokens must be at least 1")
    model = said.get("model", "")
    if not isinstance(model, str):
        raise TypeError("model is no text")
    return Conversation(said, texts, images, _digest(texts, images), max_tokens, asked is not None, model)


def _parts(messages: Any) -> tuple[list[str], list[str]]:
    if not messages:
        raise ValueError("no messages")
    texts: list[str] = []
    images: list[str] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            texts.append(content)
            continue
        for part in content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                images.append(part["image_url"]["url"])
    return texts, images


def _digest(texts: list[str], images: list[str]) -> int:
    """64 bits that follow from the messages alone; two CRCs, since images are large and this is no security."""
    low = high = 0
    for part in (*texts, *images):
        data = part.encode()
        low = int(google_crc32c.extend(low, data))
        high = int(google_crc32c.extend(high, len(data).to_bytes(4, "little")))
    return (high << 32) | low
