"""One row to the lines of a file of chats, or of LLaVA's conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from encoders.body import SECTIONS, json_text, user_text
from encoders.messages import GROUP_MARK
from labels.codebook import Codebook
from labels.gold import NO_GOLD

SINGLE = "single"
IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
"""Where LLaVA and NeVA put what is shown."""
_LINE_BREAKS = {
    "\u0085".encode(): b"\\u0085",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
"""Some readers of lines break at these; JSON may spell them out."""
_LINE_BREAK = re.compile(b"|".join(_LINE_BREAKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one line asks: all of a codebook, or one group of it."""

    group: str | None
    """None for all."""
    keys: tuple[str, ...]
    prompt: bytes
    """The instructions, as a JSON string."""
    framed_prompt: bytes
    """For rows with pictures: the vision context goes before."""

    def named(self, identity: str) -> str:
        """The id of the line of a row."""
        return identity if self.group is None else f"{identity}{GROUP_MARK}{self.group}"


def asked_in(codebook: Codebook, mode: str) -> tuple[Asked, ...]:
    """What the lines of one row ask, in the order of the codebook's groups."""
    groups = [None] if mode == SINGLE else [(mode, group) for group in codebook.groups[mode]]
    found = []
    for group in groups:
        prompt = codebook.system_prompt(group)
        found.append(
            Asked(
                group=group[1] if group else None,
                keys=tuple(dimension.key for dimension in codebook.asked(group)),
                prompt=_json(prompt),
                framed_prompt=_json(f"{codebook.vision_context}\n\n{prompt}"),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said of one row."""

    id: str
    text: str
    """The sections under their headings."""
    pictures: bytes = b""
    """As `PictureEncoder` gives them."""
    n_pictures: int = 0
    video: str = ""
    """What the table calls its video."""


class Form(Protocol):
    """Writes one line."""

    def line(self, told: Told, asked: Asked, answer: str | None) -> bytes:
        """The line with its newline; `answer` is None where no label is wanted."""
        ...


class ChatForm:
    """Chats as OpenAI-compatible providers take them.

    Args:
        bare: lines hold `messages` and nothing else.
    """

    def __init__(self, *, bare: bool) -> None:
        self._bare = bare

    def line(self, told: Told, asked: Asked, answer: str | None) -> bytes:
        prompt = asked.framed_prompt if told.n_pictures else asked.prompt
        messages = [_message(b"system", prompt), _message(b"user", _content(told))]
        if answer is not None:
            messages.append(_message(b"assistant", _json(answer)))
        fields = {"messages": b"[%b]" % b",".join(messages)}
        if not self._bare:
            fields = {"meta_id": _json(asked.named(told.id))} | fields
            if asked.group is not None:
                fields |= {"group_id": _json(asked.group), "original_meta_id": _json(told.id)}
        return _line(fields)


class LlavaForm:
    """Conversations as LLaVA and NeVA train on them: a media token for each picture, the prompt under `system`.

    Args:
        videos: a row without pictures is shown by its video, if the table names one.
    """

    def __init__(self, *, videos: bool) -> None:
        self._videos = videos

    def line(self, told: Told, asked: Asked, answer: str | None) -> bytes:
        fields = {"id": _json(asked.named(told.id))}
        if told.n_pictures:
            fields["image"] = told.pictures if told.n_pictures == 1 else b"[%b]" % told.pictures
        elif video := told.video if self._videos else "":
            fields["video"] = _json(video)
        tokens = [IMAGE_TOKEN] * told.n_pictures or [VIDEO_TOKEN] * ("video" in fields)
        turns = [_turn(b"human", "\n".join([*tokens, told.text] if told.text else tokens))]
        if answer is not None:
            turns.append(_turn(b"gpt", answer))
        fields["system"] = asked.framed_prompt if tokens else asked.prompt
        fields["conversations"] = b"[%b]" % b",".join(turns)
        return _line(fields)


def answer_of(labels: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The answer that is wanted: a minified object with these keys."""
    return orjson.dumps({key: labels[key] for key in keys}).decode()


def said_in(fields: Mapping[str, str]) -> dict[str, str]:
    """The texts of a row; a mark for "no value" in the place of a text is none."""
    texts = {key: fields.get(key, "").strip() for key, _ in SECTIONS}
    return {key: "" if text.casefold() in NO_GOLD else text for key, text in texts.items()}


def told_of(
    identity: str, fields: Mapping[str, str], *, pictures: bytes = b"", n_pictures: int = 0
) -> tuple[Told, int]:
    """What is said of a row, and how many characters of text that is, headings not counted."""
    said = said_in(fields)
    told = Told(
        id=identity, text=user_text(said), pictures=pictures, n_pictures=n_pictures, video=fields.get("video", "")
    )
    return told, sum(map(len, said.values()))


def _content(told: Told) -> bytes:
    if not told.n_pictures:
        return _json(told.text)
    # Providers refuse a part without text.
    words = b',{"type":"text","text":%b}' % _json(told.text) if told.text else b""
    return b"[%b%b]" % (told.pictures, words)


def _message(role: bytes, content: bytes) -> bytes:
    return b'{"role":"%b","content":%b}' % (role, content)


def _turn(who: bytes, value: str) -> bytes:
    return b'{"from":"%b","value":%b}' % (who, _json(value))


def _line(fields: Mapping[str, bytes]) -> bytes:
    return b"{%b}\n" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields.items())


def _json(text: str) -> bytes:
    said = json_text(text)
    return said if text.isascii() else _LINE_BREAK.sub(lambda found: _LINE_BREAKS[found[0]], said)
