"""What is wrong with one chat of a file, in words; nothing is raised, for an audit goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pybase64

from encoders.messages import GROUP_MARK
from encoders.refs import SCHEME, parsed_ref
from labels.build.lines import SINGLE
from labels.codebook import Codebook, load_codebook
from labels.messages import ROLES, Chat
from labels.reading import CodebookReader

KNOWN_KEYS = frozenset({"meta_id", "messages", "group_id", "original_meta_id"})
SHIPPED_FIRST = ("comprehensive", "numeric-comprehensive", "standard", "numeric")
"""Tried in this order where nobody says which codebook a file was built with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the answer of a chat says under the codebook."""

    labels: Mapping[str, Any] | None
    faults: tuple[str, ...]


def chat_faults(chat: Chat) -> Iterator[str]:
    """What is wrong with the roles, the contents and the ids."""
    yield from _role_faults(chat.messages)
    for number, message in enumerate(chat.messages, 1):
        extra = sorted(set(message) - {"role", "content"})
        if extra:
            yield f"message {number} has the extra key {extra[0]!r}"
        for fault in _content_faults(message.get("content")):
            yield f"message {number}: {fault}"
    if chat.group_id is not None and chat.original_meta_id is not None:
        named = f"{chat.original_meta_id}{GROUP_MARK}{chat.group_id}"
        if chat.meta_id != named:
            yield f"the meta_id is {chat.meta_id!r}, by its group it should be {named!r}"


def _role_faults(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    roles = [message.get("role") for message in messages]
    for role in roles:
        if role not in ROLES:
            yield f"the role {role!r} is none of {', '.join(ROLES)}"
            return
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != [("user", "assistant")[at % 2] for at in range(len(turns))] or not turns:
        yield f"the roles are {', '.join(map(str, roles)) or 'none'}; a system message first, then user and assistant"


def _content_faults(content: object) -> Iterator[str]:
    if isinstance(content, str):
        if not content.strip():
            yield "the content is empty"
        return
    if not isinstance(content, list) or not content:
        yield "the content is neither a text nor a list of parts"
        return
    for part in content:
        match part:
            case {"type": "text", "text": str() as text}:
                if not text.strip():
                    yield "a text part is empty"
            case {"type": "image_url", "image_url": {"url": str() as url}}:
                if fault := url_fault(url):
                    yield fault
            case _:
                yield "a part is neither a text nor an image_url"


def url_fault(url: str) -> str | None:
    """What is wrong with the address of a picture."""
    if url.startswith("data:"):
        return None if data_url_bytes(url) is not None else "a data URL holds no picture in base64"
    if url.startswith(SCHEME):
        return None if parsed_ref(url) else f"{url[:80]!r} names no frame"
    return None if url.startswith(("https://", "http://")) else f"{url[:80]!r} is no address of a picture"


def data_url_bytes(url: str) -> int | None:
    """How many bytes the picture in a data URL has; None if there is none."""
    kind, comma, data = url.partition(",")
    if not comma or not kind.startswith("data:image/") or not kind.endswith(";base64") or not data:
        return None
    try:
        return len(pybase64.b64decode_as_bytearray(data, validate=True))
    except (ValueError, UnicodeError):
        return None


class Answers:
    """Reads the answers of a file under one codebook, the one that is told or the one they fit."""

    def __init__(self, codebook: Codebook | None) -> None:
        self.codebook = codebook
        self._readers: dict[tuple[str, str] | None, CodebookReader] = {}

    def read(self, chat: Chat, said: object) -> Answered:
        """The labels of a chat, given its answer as JSON, or why there are none."""
        if not isinstance(said, dict):
            return Answered(labels=None, faults=("the answer is no JSON object",))
        if self.codebook is None:
            self.codebook = _fitting(set(said), chat)
        if self.codebook is None:
            return Answered(labels=None, faults=("the answer has the keys of no codebook; name one with --codebook",))
        found = _group(self.codebook, set(said), chat)
        if found == NOWHERE:
            fault = f"no group {chat.group_id!r} of {self.codebook.name} asks for {', '.join(said) or 'nothing'}"
            return Answered(labels=None, faults=(fault,))
        reader = self._readers.setdefault(found, CodebookReader(codebook=self.codebook, group=found))
        reading = reader.read_fully(chat.answer or "")
        if reading.labels is None:
            return Answered(labels=None, faults=(f"the answer is wrong: {reading.error}",))
        faults = tuple(f"the answer is right only after a repair: {repair}" for repair in reading.repairs)
        return Answered(labels=None if faults else reading.labels, faults=faults)


NOWHERE = ("", "")
"""In the place of a group that the codebook does not have."""


def _group(codebook: Codebook, keys: set[str], chat: Chat) -> tuple[str, str] | None:
    """The group that a chat asks for; None if it asks for all, `NOWHERE` if nobody can tell."""
    group, bare = chat.group_id, chat.meta_id is None
    if group is None and (not bare or keys == {dimension.key for dimension in codebook.dimensions}):
        return None
    # Lines that hold nothing but messages do not say their group; the keys do.
    found = [
        ((mode, name), set(asked) == keys)
        for mode, members in codebook.groups.items()
        for name, asked in members.items()
        if mode != SINGLE and (name == group or (bare and group is None and set(asked) == keys))
    ]
    return next((place for place, fits in found if fits), found[0][0] if found else NOWHERE)


def _fitting(keys: set[str], chat: Chat) -> Codebook | None:
    for name in SHIPPED_FIRST:
        codebook = load_codebook(name)
        known = {dimension.key for dimension in codebook.dimensions}
        if keys == known or ((chat.group_id is not None or chat.meta_id is None) and keys and keys < known):
            return codebook
    return None
