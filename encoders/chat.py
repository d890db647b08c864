"""The encoder of `run`: one row to one chat completion request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from encoders.body import TAIL, closing, framed_content, opening, plain_content, shortened, user_text
from encoders.media import Media, Shown
from encoders.tokens import Measured, image_tokens
from engine.types import MediaNote, Request, Row

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

    def image_tokens(self, width: int, height: int) -> int | None:
        """Tokens of a frame of this size, in pixels; None if nobody knows."""
        known = image_tokens(self.model, width, height)
        return self.measured.image_tokens(width, height) if known is None and self.measured else known

    def encode(self, row: Row) -> Request:
        """Build the request of one row.

        Raises:
            RowError: the id leads elsewhere, its media cannot be reached, or there is nothing to send.
        """
        fields, cut_chars = shortened(row.fields, row.reduction.max_text_chars)
        text = user_text(fields)
        found = self.media.of(row)
        if not text and not found.pictures:
            raise found.failure()
        start, end = self._around_framed if found.pictures else self._around_plain
        pictures = [shown.picture for shown in found.pictures]
        content = framed_content(pictures, text) if pictures else [plain_content(text)]
        media = tuple(map(self._note, found.pictures))
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

    @cached_property
    def _around_framed(self) -> tuple[bytes, bytes]:
        return opening(f"{self.vision_context}\n\n{self.system_prompt}"), closing(self.extra)

    @cached_property
    def _around_plain(self) -> tuple[bytes, bytes]:
        return opening(self.system_prompt), closing(self.extra)

    def _note(self, shown: Shown) -> MediaNote:
        picture = shown.picture
        return MediaNote(
            index=shown.index,
            time_s=shown.time_s,
            digest=hashlib.sha256(picture.data).hexdigest()[:DIGEST_CHARS],
            width=picture.width,
            height=picture.height,
            tokens=self.image_tokens(picture.width, picture.height),
        )


def recipe_of(encoder: ChatEncoder) -> Mapping[str, object]:
    """What of an encoder decides the bytes of a request, as JSON values for `run.json`."""
    media, choice = encoder.media, encoder.media.choice
    videos = {"num_frames": choice.num_frames, "sampling": choice.sampling, "splice_single_frame": choice.splice}
    return {
        "system_prompt_sha256": hashlib.sha256(encoder.system_prompt.encode()).hexdigest(),
        "vision_context_sha256": hashlib.sha256(encoder.vision_context.encode()).hexdigest(),
        "frames": media.frames is not None,
        "max_frames": media.max_frames,
        "fit": media.fit.rule,
        "body": dict(encoder.extra),
    } | ({"videos": videos} if media.videos is not None else {})
