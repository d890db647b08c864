"""Chats in a JSONL file: what `build` writes, what `infer`, `score` and `finetune` read.

One object a line: `messages`, a list of `{"role", "content"}`, and often `meta_id`, `group_id`, `original_meta_id`. A
content is a string, or a list of parts of type `text` and `image_url`. A last message of the assistant is the answer
that is wanted, and no part of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, InputError

ROLES = ("system", "user", "assistant")
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One line of the file."""

    line: int
    """From 1."""
    index: int
    """Among the lines that are not blank, from 0."""
    meta_id: str | None
    """As text, to the letter; None where the line has none."""
    group_id: str | None
    original_meta_id: str | None
    messages: Sequence[Message]
    keys: tuple[str, ...]
    """The keys of the object, in their order."""

    @property
    def name(self) -> str:
        """The id, or else the position."""
        return str(self.index) if self.meta_id is None else self.meta_id

    @property
    def prompt(self) -> Sequence[Message]:
        """What is asked: all messages but a last one of the assistant."""
        return self.messages[:-1] if self.answer is not None else self.messages

    @property
    def answer(self) -> str | None:
        """The text of a last message of the assistant, the answer that is wanted."""
        last = self.messages[-1] if self.messages else {}
        return text_of(last.get("content")) if last.get("role") == "assistant" else None

    @property
    def user_text(self) -> str:
        """All that users say in it, without pictures."""
        return "\n\n".join(
            text_of(message.get("content")) for message in self.messages if message.get("role") == "user"
        )


def read_chats(path: Path, *, flag: str) -> Iterator[Chat]:
    """The chats of a file, lazily; blank lines are passed over.

    Args:
        path: a .jsonl file.
        flag: which flag named it, for messages.

    Raises:
        ConfigError: there is no such file.
        InputError: a line is no chat; it is named.
    """
    try:
        with path.open("rb") as file:
            index = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield chat_of(line, where=f"{path} line {number}", number=number, index=index)
                    index += 1
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error


def text_of(content: object) -> str:
    """The text of a message's content: itself, or its text parts; pictures have none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
        return "\n\n".join(text for text in texts if isinstance(text, str))
    return ""


def pictures_of(content: object) -> list[str]:
    """The addresses of the pictures in a message's content, in order."""
    if not isinstance(content, list):
        return []
    shown = (part.get("image_url") for part in content if isinstance(part, dict) and part.get("type") == "image_url")
    urls = (picture.get("url") if isinstance(picture, dict) else picture for picture in shown)
    return [url for url in urls if isinstance(url, str)]


def chat_of(line: bytes, *, where: str, number: int, index: int) -> Chat:
    """One line as a chat.

    Args:
        line: its bytes.
        where: what messages call it.
        number: of the line, from 1.
        index: among the lines that are not blank, from 0.

    Raises:
        InputError: it is none.
    """
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: no JSON: {error}") from error
    messages = said.get("messages") if isinstance(said, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InputError(f'{where}: no chat; a line is an object with a list "messages"')
    return Chat(
        line=number,
        index=index,
        meta_id=_text(said.get("meta_id")),
        group_id=_text(said.get("group_id")),
        original_meta_id=_text(said.get("original_meta_id")),
        messages=messages,
        keys=tuple(said),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
