"""Why a video gives no frame; apart from the decoder, which not every run loads."""

from __future__ import annotations

from enum import StrEnum


class VideoFault(StrEnum):
    """Why no frame can be had from a file."""

    UNSUPPORTED_CONTAINER = "unsupported_container"
    """Neither MP4, MOV, WebM nor Matroska."""
    UNSUPPORTED_CODEC = "unsupported_codec"
    """None of H.264, HEVC, VP8, VP9, AV1 and MPEG-4."""
    NO_VIDEO = "no_video"
    """A sound file, or one whose only picture is its cover."""
    BROKEN_VIDEO = "broken_video"
    """Damaged, cut off before the first frame, or empty."""
    MEDIA_LIMIT = "media_limit"
    """Larger in some way than a decoder is allowed to open."""


class BrokenVideoError(Exception):
    """This file gives no frame that can be sent."""

    def __init__(self, reason: VideoFault, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message
