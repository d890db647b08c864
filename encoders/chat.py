"""The encoder of `run`: one row to one chat completion request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from encoders.body import TAIL, closing, framed_content, opening, plain_content, shortened, user_text
from encoders.budget import Budget
from encoders.media import Found, Media, Shown
from encoders.tokens import Measured, image_tokens
from engine.errors import RowError
from engine.types import FailureKind, MediaNote, Reduction, Request, Row

VISION_CONTEXT = (
    "You are analyzing TikTok videos using both visual and textual content. You will be given one or more "
    "representative frames from the video (in chronological order), along with the transcript and description. "
    "Analyze both the visual content across all frames and the text to determine the appropriate labels."
)
BYTES_PER_TOKEN = 4
"""English text under the tokenizers in use; an estimate that the first replies correct."""
MESSAGE_TOKENS = 16
"""Role markers and separators of a two-message chat."""
UNKNOWN_IMAGE_TOKENS = 1601
DIGEST_CHARS = 16

SHORTER_TEXT = "shorter_text"


@dataclass(frozen=True, kw_only=True)
class ChatEncoder:
    """Row to request. Every worker has its own copy; no slots, so that what never changes is made once."""

    model: str
    system_prompt: str
    media: Media
    vision_context: str = VISION_CONTEXT
    """Put before the system prompt of rows that have frames."""
    extra: tuple[tuple[str, object], ...] = ()
    """Further fields of the body, such as temperature, as JSON values."""
    measured: Measured | None = None
    """What the server counts for a picture, where no formula is known for the model."""
    budget: Budget | None = None
    """What a request may take of the context; None checks nothing."""

    def image_tokens(self, width: int, height: int) -> int | None:
        """Tokens of a frame of this size, in pixels; None if nobody knows."""
        if self.budget is not None and self.budget.image_token_len is not None:
            return self.budget.image_token_len
        known = image_tokens(self.model, width, height)
        return self.measured.image_tokens(width, height) if known is None and self.measured else known

    def encode(self, row: Row) -> Request:
        """Build the request of one row.

        Raises:
            RowError: the id leads elsewhere, its media cannot be reached, there is nothing to send, or more than the
                budget allows.
        """
        fields, cut_chars = shortened(row.fields, row.reduction.max_text_chars)
        text = user_text(fields)
        found = self._pictures(row, text)
        if not text and not found.pictures:
            raise found.failure()
        start, end = self._around_framed if found.pictures else self._around_plain
        pictures = [shown.picture for shown in found.pictures]
        content = framed_content(pictures, text) if pictures else [plain_content(text)]
        media = tuple(map(self.note, found.pictures))
        text_bytes = len(start) + sum(map(len, content[-2:]))
        return Request(
            row=row.row,
            id=row.id,
            head=b"".join((start, *content, end)),
            tail=TAIL,
            est_tokens=MESSAGE_TOKENS
            + text_bytes // BYTES_PER_TOKEN
            + sum(note.tokens or UNKNOWN_IMAGE_TOKENS for note in media),
            n_frames=len(media),
            media=media,
            degraded=(*found.degraded, f"{SHORTER_TEXT}:{cut_chars}") if cut_chars else found.degraded,
        )

    def _pictures(self, row: Row, text: str) -> Found:
        """The pictures of a row, or as many of them as its budget has room for."""
        budget = self.budget
        if budget is None or budget.context_tokens is None:
            return self.media.of(row)
        if budget.auto_frames and budget.image_token_len is not None:
            # Spares decoding frames that will not be sent; where not even one fits, the row must say so.
            framed_tokens = self._text_tokens(text, framed=True)
            row = _at_most(row, max(1, budget.most_frames(budget.image_token_len, text_tokens=framed_tokens) or 0))
        while True:
            found = self.media.of(row)
            sizes = ((shown.picture.width, shown.picture.height) for shown in found.pictures)
            # Of a frame whose cost nobody knows only the server can judge.
            costs = [tokens for size in sizes if (tokens := self.image_tokens(*size)) is not None]
            text_tokens = self._text_tokens(text, framed=bool(found.pictures))
            if budget.fits(costs, text_tokens=text_tokens):
                return found
            most = budget.most_frames(max(costs), text_tokens=text_tokens) if costs else None
            if not most or not budget.auto_frames:
                raise RowError(FailureKind.TOO_LARGE, budget.overflow(costs, text_tokens=text_tokens))
            row = _at_most(row, most)

    def _text_tokens(self, text: str, *, framed: bool) -> int:
        start, _ = self._around_framed if framed else self._around_plain
        return MESSAGE_TOKENS + (len(start) + len(text.encode(errors="replace"))) // BYTES_PER_TOKEN

    @cached_property
    def _around_framed(self) -> tuple[bytes, bytes]:
        return opening(f"{self.vision_context}\n\n{self.system_prompt}"), closing(self.extra)

    @cached_property
    def _around_plain(self) -> tuple[bytes, bytes]:
        return opening(self.system_prompt), closing(self.extra)

    def note(self, shown: Shown) -> MediaNote:
        """What is kept of a picture that is sent."""
        picture = shown.picture
        return MediaNote(
            index=shown.index,
            time_s=shown.time_s,
            digest=hashlib.sha256(picture.data).hexdigest()[:DIGEST_CHARS],
            width=picture.width,
            height=picture.height,
            tokens=self.image_tokens(picture.width, picture.height),
        )


def _at_most(row: Row, frames: int) -> Row:
    return replace(row, reduction=row.reduction & Reduction(max_frames=frames))


def recipe_of(encoder: ChatEncoder) -> Mapping[str, object]:
    """What of an encoder decides the bytes of a request, as JSON values for `run.json`."""
    media, choice = encoder.media, encoder.media.choice
    videos = {"num_frames": choice.num_frames, "sampling": choice.sampling, "splice_single_frame": choice.splice}
    return (
        {
            "system_prompt_sha256": hashlib.sha256(encoder.system_prompt.encode()).hexdigest(),
            "vision_context_sha256": hashlib.sha256(encoder.vision_context.encode()).hexdigest(),
            "frames": media.frames is not None,
            "max_frames": media.max_frames,
            "fit": media.fit.rule,
            "body": dict(encoder.extra),
        }
        | ({"videos": videos} if media.videos is not None else {})
        | _budget_recipe(encoder.budget)
    )


def _budget_recipe(budget: Budget | None) -> dict[str, object]:
    """Without the answer's share: a run may go on with another --max-tokens."""
    if budget is None or budget.context_tokens is None:
        return {}
    return {
        "budget": {
            "context_tokens": budget.context_tokens,
            "image_token_len": budget.image_token_len,
            "auto_frames": budget.auto_frames,
        }
    }
