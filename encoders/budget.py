"""What a row may hold so that a model's context holds it all: frames, text and answer, reckoned before it is sent.

A server that runs on the user's own machine has a context of its owner's choosing, and a frame costs what the vision
tower makes of it. Both are told by flags; where a frame's cost is not, the model's formula or a measurement stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import ConfigError


def image_token_len(height: int, width: int, patch: int, *, downsample: bool = False) -> int:
    """Tokens of one frame, as NeVA and LLaVA count: one for every whole patch.

    Formula: (height // patch) * (width // patch); with `downsample`, every four neighbours become one, after an odd
    side is made even. So 224 pixels in patches of 14 are 256 tokens, and 336 are 576, or 144.

    Args:
        height: of the frame as the vision tower takes it, in pixels.
        width: likewise.
        patch: side of a patch, in pixels.
        downsample: whether the projector is one that halves each side.
    """
    down, across = height // patch, width // patch
    if not downsample:
        return down * across
    return (down + down % 2) * (across + across % 2) // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one request may take of the context."""

    answer_tokens: int
    """Kept free for the answer."""
    context_tokens: int | None = None
    """Of prompt and answer together; None checks nothing."""
    image_token_len: int | None = None
    """Tokens of a frame, whatever its size; None goes by the model's formula."""
    auto_frames: bool = False
    """Whether a row that holds too much is sent with fewer frames; otherwise it fails."""

    def __post_init__(self) -> None:
        if self.image_token_len is not None and self.image_token_len < 1:
            raise ConfigError(f"--image-token-len must be at least 1, not {self.image_token_len}")
        if self.context_tokens is not None and self.context_tokens <= self.answer_tokens:
            raise ConfigError(
                f"--context-tokens {self.context_tokens:,} leaves no room for a prompt beside the "
                f"{self.answer_tokens:,} tokens of the answer (--max-tokens)"
            )
        if self.auto_frames and self.context_tokens is None:
            raise ConfigError("--auto-frames needs --context-tokens: how much the model's context holds")

    def room_tokens(self, text_tokens: int) -> int | None:
        """What is left for frames beside a text; below 0 if the text alone is too long, None if nothing is checked."""
        return None if self.context_tokens is None else self.context_tokens - self.answer_tokens - text_tokens

    def most_frames(self, frame_tokens: int, *, text_tokens: int) -> int | None:
        """How many frames of such a cost fit beside a text; None if any number does."""
        room = self.room_tokens(text_tokens)
        return None if room is None else max(0, room) // frame_tokens

    def fits(self, frames: Sequence[int], *, text_tokens: int) -> bool:
        """Whether frames of these costs, in tokens, fit beside a text."""
        room = self.room_tokens(text_tokens)
        return room is None or sum(frames) <= room

    def overflow(self, frames: Sequence[int], *, text_tokens: int) -> str:
        """What a row is told that holds too much: every number of the sum."""
        total = sum(frames) + text_tokens + self.answer_tokens
        each = f" of {frames[0]:,}" if len(set(frames)) == 1 else ""
        plural = "s" if len(frames) > 1 else ""
        pictures = f"{len(frames)} frame{plural}{each} ({sum(frames):,} tokens), " if frames else ""
        hint = "" if self.auto_frames or not frames else "; --auto-frames sends fewer"
        return (
            f"{pictures}about {text_tokens:,} tokens of text and {self.answer_tokens:,} for the answer are {total:,}, "
            f"more than the {self.context_tokens:,} of the context (--context-tokens){hint}"
        )
