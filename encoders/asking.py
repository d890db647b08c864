"""The encoder of `generate`: one prompt about one video or image, as a line of JSON, to one chat completion request.

What a line asks about is a file below one place, and is never opened elsewhere. Prompts about one medium usually stand
together, so the last few media of a worker are kept as they are sent: each is decoded once for all prompts of a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pybase64

from encoders.body import TAIL, closing, json_text, shortened
from encoders.chat import BYTES_PER_TOKEN, MESSAGE_TOKENS, SHORTER_TEXT, UNKNOWN_IMAGE_TOKENS, ChatEncoder
from encoders.faults import VideoFault
from encoders.image import BrokenImageError, prepare
from encoders.lines import LINE, object_of
from encoders.locate import MAX_FRAME_BYTES
from encoders.media import NO_FILE, SMALLER_FRAMES, Found, Shown
from engine.errors import RowError
from engine.types import FailureKind, Reduction, Request, Row

PROMPT_KEYS = ("prompt", "text", "question")
"""Where the words stand, the first one that has any."""
KEPT_MEDIA = 4
"""Eight frames of a phone's video are half a megabyte."""
OPENING = b'{"messages":[{"role":"user","content":'

Kind = Literal["image", "video"]
MEDIA_KEYS: tuple[Kind, Kind] = ("video", "image")
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What one line asks."""

    kind: Kind
    medium: str
    """Its file, relative to the place of media."""
    before: str
    """The words before the medium."""
    after: str
    text: str
    """All the words, with a token where the medium stands, if the line or the user has put one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How lines are read."""

    media_type: Kind = "video"
    """What a line is about that names both."""
    insert: Side | None = None
    """Where the medium stands; None leaves it to a token in the words, and without one puts it before them."""

    def read(self, said: Mapping[str, Any]) -> Prompt:
        """What a line asks.

        Raises:
            RowError: it names no medium, or has no words.
        """
        kind = self._kind(said)
        text = _text(said)
        token = f"<{kind}>"
        if self.insert is None:
            before, found, after = text.partition(token)
            if not found:
                before, after = "", text
        else:
            # The flag places the medium, wherever the line would have it.
            text = text.replace(token, "").strip()
            before, after = (text, "") if self.insert == "right" else ("", text)
            text = f"{text}{token}" if self.insert == "right" else f"{token}{text}"
        if not (before + after).strip():
            raise _bad(f"the prompt has no words but {token}")
        return Prompt(kind=kind, medium=said[kind], before=before, after=after, text=text)

    def _kind(self, said: Mapping[str, Any]) -> Kind:
        """By the key that names the medium, never by what the words say."""
        for kind in MEDIA_KEYS:
            if not isinstance(said.get(kind), str | None):
                raise _bad(f'"{kind}" is no text; it names one file below the place of media')
        named = [kind for kind in MEDIA_KEYS if said.get(kind)]
        if not named:
            raise _bad('the line names no medium; it needs "video" or "image", a file below the place of media')
        return self.media_type if self.media_type in named else named[0]


@dataclass(frozen=True, kw_only=True)
class AskingEncoder:
    """Prompt to request. Every worker has its own copy."""

    chat: ChatEncoder
    """Where media are, which frames are taken, how they are sized and counted, and which further fields a body has."""
    asking: Asking
    kept: OrderedDict[tuple[Kind, str, Reduction], Found] = field(default_factory=OrderedDict, compare=False)
    """The last media, as they are sent."""

    def encode(self, row: Row) -> Request:
        """Build the request of one prompt.

        Raises:
            RowError: it is no prompt, or its medium is missing, broken, elsewhere or cannot be reached.
        """
        prompt = self.asking.read(object_of(row.fields[LINE]))
        prompt, cut_chars = _cut(prompt, row.reduction.max_text_chars)
        found = self._fitting(row, prompt)
        media = tuple(map(self.chat.note, found.pictures))
        return Request(
            row=row.row,
            id=row.id,
            head=b"".join((OPENING, _content(prompt, found), closing(self.chat.extra))),
            tail=TAIL,
            est_tokens=_text_tokens(prompt) + sum(note.tokens or UNKNOWN_IMAGE_TOKENS for note in media),
            n_frames=len(media),
            media=media,
            degraded=(*found.degraded, f"{SHORTER_TEXT}:{cut_chars}") if cut_chars else found.degraded,
        )

    def _fitting(self, row: Row, prompt: Prompt) -> Found:
        """The pictures of a prompt, or as many as the context has room for."""
        found, budget = self._found(row, prompt), self.chat.budget
        if not found.pictures:
            raise _without(prompt, found)
        if budget is None:
            return found
        sizes = ((shown.picture.width, shown.picture.height) for shown in found.pictures)
        costs = [tokens for size in sizes if (tokens := self.chat.image_tokens(*size)) is not None]
        text_tokens = _text_tokens(prompt)
        if budget.fits(costs, text_tokens=text_tokens):
            return found
        most = budget.most_frames(max(costs), text_tokens=text_tokens) if costs else None
        if not most or not budget.auto_frames:
            raise RowError(FailureKind.TOO_LARGE, budget.overflow(costs, text_tokens=text_tokens))
        return self._found(replace(row, reduction=row.reduction & Reduction(max_frames=most)), prompt)

    def _found(self, row: Row, prompt: Prompt) -> Found:
        """The pictures of a medium, decoded once while it is among the last ones."""
        held = replace(row.reduction, max_text_chars=None)
        key = (prompt.kind, prompt.medium, held)
        found = self.kept.pop(key, None)
        if found is None:
            found = self._of_image(row, prompt) if prompt.kind == "image" else self._of_video(row, prompt)
        self.kept[key] = found
        while len(self.kept) > KEPT_MEDIA:
            self.kept.popitem(last=False)
        return found

    def _of_video(self, row: Row, prompt: Prompt) -> Found:
        return self.chat.media.of(replace(row, fields={"video": prompt.medium}))

    def _of_image(self, row: Row, prompt: Prompt) -> Found:
        media = self.chat.media
        assert media.videos is not None
        with media.videos.open(row.id, prompt.medium) as file:
            if file is None:
                return Found(missing=NO_FILE)
            data = file.read(MAX_FRAME_BYTES + 1)
        side_px = row.reduction.max_side_px
        try:
            if len(data) > MAX_FRAME_BYTES:
                return Found(missing=VideoFault.MEDIA_LIMIT)
            picture = prepare(data, replace(media.fit, max_side_px=side_px))
        except BrokenImageError as error:
            return Found(missing=f"broken_image: {error}")
        smaller = () if side_px is None else (f"{SMALLER_FRAMES}:{side_px}",)
        return Found(pictures=(Shown(index=0, time_s=None, picture=picture),), degraded=smaller)


def _content(prompt: Prompt, found: Found) -> bytes:
    """The parts of the message: words before the medium, its pictures in order, words after it."""
    parts = [_text_part(prompt.before)] if prompt.before.strip() else []
    for shown in found.pictures:
        mime, data = shown.picture.mime.encode(), pybase64.b64encode(shown.picture.data)
        parts.append(b'{"type":"image_url","image_url":{"url":"data:%b;base64,%b"}}' % (mime, data))
    parts += [_text_part(prompt.after)] if prompt.after.strip() else []
    return b"[%b]" % b",".join(parts)


def _text_part(text: str) -> bytes:
    return b'{"type":"text","text":%b}' % json_text(text)


def _text(said: Mapping[str, Any]) -> str:
    for key in PROMPT_KEYS:
        text = said.get(key)
        if isinstance(text, str) and text.strip():
            return text
    raise _bad(f"the line asks nothing: none of {', '.join(PROMPT_KEYS)} has any words")


def _cut(prompt: Prompt, most: int | None) -> tuple[Prompt, int]:
    """The prompt with the middle of its words left out, and how many characters that took."""
    if most is None:
        return prompt, 0
    names = ("transcript", "description")
    texts, cut = shortened(dict(zip(names, (prompt.before, prompt.after), strict=True)), most)
    return (replace(prompt, before=texts[names[0]], after=texts[names[1]]), cut) if cut else (prompt, 0)


def _text_tokens(prompt: Prompt) -> int:
    return MESSAGE_TOKENS + len((prompt.before + prompt.after).encode(errors="replace")) // BYTES_PER_TOKEN


def _without(prompt: Prompt, found: Found) -> RowError:
    """How a prompt ends whose medium is not to be had: it is never asked without."""
    if found.missing == NO_FILE:
        return RowError(FailureKind.BAD_MEDIA, f"there is no {prompt.kind} {prompt.medium!r} below the place of media")
    if found.missing == VideoFault.MEDIA_LIMIT:
        return RowError(FailureKind.MEDIA_LIMIT, f"the {prompt.kind} {prompt.medium!r} is larger than allowed")
    return RowError(FailureKind.BAD_MEDIA, f"the {prompt.kind} {prompt.medium!r} cannot be shown: {found.missing}")


def _bad(message: str) -> RowError:
    return RowError(FailureKind.BAD_ROW, message)
