"""The encoder of `infer`: one chat, as a line of JSON, to one chat completion request.

What a chat says is sent as it stands, but for a last message of the assistant, which is the answer that is wanted, and
for keys of a message other than role and content. Pictures inside it and at https addresses pass untouched; `frames:`
references become the frames they name; where the user asks for it, the frames of the chat's video are put in.

A chat that the provider cannot take whole gives up pictures and text like any row. Of its text only what users say is
shortened, each time by the share that is asked for: most of a line may be base64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from encoders.body import GAP, TAIL, closing, without_middle
from encoders.chat import (
    BYTES_PER_TOKEN,
    MESSAGE_TOKENS,
    SHORTER_TEXT,
    UNKNOWN_IMAGE_TOKENS,
    ChatEncoder,
)
from encoders.inline import data_url, fault_of, settle, slots_of
from encoders.lines import LINE, object_of
from encoders.media import NO_USABLE_FRAME, Found, Shown
from engine.errors import RowError
from engine.types import FailureKind, MediaNote, Request, Row

ROLES = frozenset({"system", "developer", "user", "assistant"})
"""Others stand for calls of tools, which need more than a role and a content."""
LEAST_TEXT_CHARS = 200
"""Of what users say, so much always stays."""
GROUP_MARK = "__group_"
"""Between the id of a video and the group of questions, in the id of a chat about one group."""
ENFORCER = (
    "Answer with one minified JSON object and nothing else: no prose, no explanation, no code fence around it. "
    "Begin with { and end with }."
)

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MessagesEncoder:
    """Chat to request. Every worker has its own copy."""

    chat: ChatEncoder
    """How frames are found, sized and counted, and which further fields a body has; its prompt is not used."""
    attach: bool = False
    """Whether the frames of the chat's video are put before the text of its first message by a user."""
    enforcer: bool = False
    """Whether a last message of the system demands nothing but JSON."""
    formats: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The `response_format` of chats about a group, by the id of the group, and under "" that of all others. None is
    sent where there is none."""

    def encode(self, row: Row) -> Request:
        """Build the request of one chat.

        Raises:
            RowError: it is no chat, one of its pictures is no address that may be sent, or its media cannot be reached.
        """
        line = row.fields[LINE]
        said = object_of(line)
        messages = _prompt(said)
        made = _Made(self.chat, row, messages)
        if self.attach:
            made.attach(video_of(said, row.id))
        made.settle()
        if self.enforcer:
            messages.append({"role": "system", "content": ENFORCER})
        extra = [*self.chat.extra, *self._format(said, row.id)]
        media = tuple(made.notes())
        unknown = made.count - len(media)
        text_bytes = sum(len(text.encode(errors="replace")) for text in _texts(messages))
        return Request(
            row=row.row,
            id=row.id,
            head=_head(messages, extra),
            tail=TAIL,
            est_tokens=MESSAGE_TOKENS
            + text_bytes // BYTES_PER_TOKEN
            + sum(note.tokens or UNKNOWN_IMAGE_TOKENS for note in media)
            + unknown * UNKNOWN_IMAGE_TOKENS,
            n_frames=made.count,
            media=media,
            degraded=tuple(made.degraded),
        )

    def _format(self, said: Mapping[str, Any], identity: str) -> list[tuple[str, object]]:
        found = self.formats.get(group_of(said, identity)) if self.formats else None
        return [] if found is None else [("response_format", found)]


def video_of(said: Mapping[str, Any], identity: str) -> str:
    """The id of the video that a chat is about."""
    original = said.get("original_meta_id")
    return original if isinstance(original, str) and original else split_id(identity)[0]


def group_of(said: Mapping[str, Any], identity: str) -> str:
    """The group of questions that a chat asks; empty if it asks all."""
    group = said.get("group_id")
    return group if isinstance(group, str) and group else split_id(identity)[1]


def split_id(identity: str) -> tuple[str, str]:
    """The id of a video and a group, the latter empty where the id names none."""
    video, mark, group = identity.rpartition(GROUP_MARK)
    return (video, group) if mark and video and group else (identity, "")


class _Made:
    """A chat on its way to a request: its messages, changed in place, and what became of its pictures."""

    def __init__(self, chat: ChatEncoder, row: Row, messages: list[Message]) -> None:
        self._chat = chat
        self._row = row
        self._messages = messages
        self._slots = slots_of([message["content"] for message in messages])
        self._attached: tuple[Shown, ...] = ()
        self.degraded: list[str] = []

    @property
    def count(self) -> int:
        """Pictures that are sent."""
        return len(self._attached) + len(self._slots)

    def attach(self, video: str) -> None:
        """Put the frames of a video before the text of the first message of a user, if that is text alone."""
        message = next((message for message in self._messages if message["role"] == "user"), None)
        if message is None or not isinstance(message["content"], str):
            return
        found = self._chat.media.of(replace(self._row, id=video))
        text = message["content"]
        if not found.pictures and not text.strip():
            raise found.failure()
        self.degraded += found.degraded
        self._attached = found.pictures
        if found.pictures:
            message["content"] = [*map(_image, found.pictures), {"type": "text", "text": text}]
            self._say_that_there_are_frames()

    def _say_that_there_are_frames(self) -> None:
        context, first = self._chat.vision_context, self._messages[0]
        if first["role"] != "system" or not isinstance(first["content"], str):
            self._messages.insert(0, {"role": "system", "content": context})
        elif not first["content"].startswith(context):
            first["content"] = f"{context}\n\n{first['content']}"

    def settle(self) -> None:
        """Look up the frames that the chat names, and bring all within the row's reduction."""
        held = self._row.reduction
        self._slots, codes = settle(self._slots, self._chat.media, held, beside=len(self._attached))
        self.degraded += [code for code in codes if code not in self.degraded]
        for message in self._messages:
            message["content"] = message["content"] or ""
        if codes and not any(message["content"] for message in self._messages if message["role"] == "user"):
            raise Found(missing=NO_USABLE_FRAME).failure()
        # Most of a line may be base64, so what is asked for is taken as a share.
        share = 1.0 if held.max_text_chars is None else held.max_text_chars / len(self._row.fields[LINE])
        if share < 1 and (cut := _shorten(self._messages, share=share)):
            self.degraded.append(f"{SHORTER_TEXT}:{cut}")

    def notes(self) -> Iterator[MediaNote]:
        """What is known of the pictures, those that were attached first; an address says nothing of its picture."""
        inside = (shown for slot in self._slots if (shown := slot.shown()) is not None)
        return map(self._chat.note, (*self._attached, *inside))


def _prompt(said: Mapping[str, Any]) -> list[Message]:
    """What is asked: role and content of each message, a last one of the assistant left out."""
    messages = said.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad('no chat; a line is an object with a list "messages"')
    checked = [_message(number, message) for number, message in enumerate(messages, 1)]
    if checked[-1]["role"] == "assistant":
        del checked[-1]
    if not any(message["content"] for message in checked):
        raise _bad("the chat asks nothing: there is no message but the answer")
    return checked


def _message(number: int, message: object) -> Message:
    if not isinstance(message, dict):
        raise _bad(f"message {number} is no object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _bad(f"message {number} has the role {str(role)[:40]!r}; known are {', '.join(sorted(ROLES))}")
    if isinstance(content, list):
        for part in content:
            _check_part(number, part)
    elif not isinstance(content, str):
        raise _bad(f"message {number} has no content; it is a text or a list of parts")
    return {"role": role, "content": content}


def _check_part(number: int, part: object) -> None:
    match part:
        case {"type": "text", "text": str()}:
            return
        case {"type": "image_url", "image_url": {"url": str() as url}} | {
            "type": "image_url",
            "image_url": str() as url,
        }:
            if (fault := fault_of(url)) is not None:
                raise _bad(f"message {number}: {fault}")
            return
    kind = part.get("type") if isinstance(part, dict) else None
    raise _bad(f"message {number} has a part that is neither a text nor an image_url: {str(kind)[:40]!r}")


def _texts(messages: list[Message]) -> list[str]:
    found: list[str] = []
    for message in messages:
        content = message["content"]
        found += [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    return found


def _shorten(messages: list[Message], *, share: float) -> int:
    """Keep this share of what users say, the middle of the longest texts cut out; how many characters that took."""
    holders = [holder for message in messages if message["role"] == "user" for holder in _holders(message)]
    said = sum(len(within[key]) for within, key in holders)
    left = over = max(0, said - max(LEAST_TEXT_CHARS, int(share * said)))
    for within, key in sorted(holders, key=lambda holder: -len(holder[0][holder[1]])):
        if left <= 0:
            break
        kept, taken = without_middle(within[key], left)
        left -= taken
        within[key] = kept or GAP.strip()
    return over


def _holders(message: Message) -> list[tuple[dict[str, Any], str]]:
    """Where the texts of a message stand."""
    content = message["content"]
    if isinstance(content, str):
        return [(message, "content")]
    return [(part, "text") for part in content if part["type"] == "text"]


def _head(messages: list[Message], extra: list[tuple[str, object]]) -> bytes:
    try:
        said = orjson.dumps(messages)
    except (orjson.JSONEncodeError, TypeError):
        # Lone surrogates, which no JSON reader takes, become U+FFFD.
        text = json.dumps(messages, ensure_ascii=False)
        said = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    # What closes the last message and the list stands in `closing`, too.
    with memoryview(said) as whole:
        return b"".join((b'{"messages":', whole[:-2], closing(extra)))


def _image(shown: Shown) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(shown.picture)}}


def _bad(message: str) -> RowError:
    return RowError(FailureKind.BAD_ROW, message)
