"""The encoder of `run`: one row to one chat completion request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from encoders.body import TAIL, closing, framed_content, opening, plain_content, shortened, user_text
from encoders.fit import Fit, Picture
from encoders.image import BrokenImageError, prepare
from encoders.locate import frame_files, frame_folder, read_frame, thinned
from encoders.tokens import image_tokens
from engine.errors import RowError
from engine.types import FailureKind, MediaNote, Request, Row

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

NO_FOLDER = "text_only:no_folder"
NO_USABLE_FRAME = "text_only:no_usable_frame"
SKIPPED_FRAMES = "skipped_frames"
FEWER_FRAMES, SMALLER_FRAMES, SHORTER_TEXT = "fewer_frames", "smaller_frames", "shorter_text"


@dataclass(frozen=True, kw_only=True)
class ChatEncoder:
    """Row to request. Every worker has its own copy; no slots, so that what never changes is made once."""

    model: str
    system_prompt: str
    fit: Fit
    vision_context: str = VISION_CONTEXT
    """Put before the system prompt of rows that have frames."""
    frames_dir: Path | None = None
    """None sends text alone, by choice; nothing counts as reduced then."""
    max_frames: int = 16
    extra: tuple[tuple[str, object], ...] = ()
    """Further fields of the body, such as temperature, as JSON values."""

    def encode(self, row: Row) -> Request:
        """Build the request of one row.

        Raises:
            RowError: the id cannot name a folder, or there is nothing to send.
        """
        fields, cut_chars = shortened(row.fields, row.reduction.max_text_chars)
        text = user_text(fields)
        frames, degraded = self._frames(row) if self.frames_dir is not None else ([], [])
        if cut_chars:
            degraded.append(f"{SHORTER_TEXT}:{cut_chars}")
        if not text and not frames:
            raise RowError(FailureKind.BAD_ROW, "the row has neither text nor a usable frame")
        start, end = self._around_framed if frames else self._around_plain
        pictures = [picture for _, picture in frames]
        content = framed_content(pictures, text) if pictures else [plain_content(text)]
        media = tuple(self._note(index, picture) for index, picture in frames)
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
            degraded=tuple(degraded),
        )

    @cached_property
    def _around_framed(self) -> tuple[bytes, bytes]:
        return opening(f"{self.vision_context}\n\n{self.system_prompt}"), closing(self.extra)

    @cached_property
    def _around_plain(self) -> tuple[bytes, bytes]:
        return opening(self.system_prompt), closing(self.extra)

    def _frames(self, row: Row) -> tuple[list[tuple[int, Picture]], list[str]]:
        """The row's pictures by frame number, and what was lost on the way."""
        assert self.frames_dir is not None
        with frame_folder(self.frames_dir, row.id) as folder_fd:
            if folder_fd is None:
                return [], [NO_FOLDER]
            found = frame_files(folder_fd)
            pictures: list[tuple[int, Picture]] = []
            broken = 0
            wanted = min(len(found), self.max_frames)
            sent = min(wanted, row.reduction.max_frames or wanted)
            fit = replace(self.fit, max_side_px=row.reduction.max_side_px)
            for at in thinned(len(found), sent):
                data = read_frame(folder_fd, found[at])
                try:
                    pictures.append((found[at].index, prepare(data, fit)))
                except BrokenImageError:
                    broken += 1
        degraded = [f"{SKIPPED_FRAMES}:{broken}"] if broken else []
        if not pictures:
            return [], [NO_USABLE_FRAME, *degraded]
        if sent < wanted:
            degraded.append(f"{FEWER_FRAMES}:{wanted}>{sent}")
        if fit.max_side_px is not None:
            degraded.append(f"{SMALLER_FRAMES}:{fit.max_side_px}")
        return pictures, degraded

    def _note(self, index: int, picture: Picture) -> MediaNote:
        return MediaNote(
            index=index,
            time_s=None,
            digest=hashlib.sha256(picture.data).hexdigest()[:DIGEST_CHARS],
            width=picture.width,
            height=picture.height,
            tokens=image_tokens(self.model, picture.width, picture.height),
        )


def recipe_of(encoder: ChatEncoder) -> Mapping[str, object]:
    """What of an encoder decides the bytes of a request, as JSON values for `run.json`."""
    return {
        "system_prompt_sha256": hashlib.sha256(encoder.system_prompt.encode()).hexdigest(),
        "vision_context_sha256": hashlib.sha256(encoder.vision_context.encode()).hexdigest(),
        "frames": encoder.frames_dir is not None,
        "max_frames": encoder.max_frames,
        "fit": encoder.fit.rule,
        "body": dict(encoder.extra),
    }
