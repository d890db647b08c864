"""The values that travel through a run. All frozen; none knows of video, labels or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """Why a row ended without a result. The value is what `failures/` and `--only` call it."""

    BAD_ROW = "bad_row"
    """The input line is ragged, too long, not UTF-8, or has no id."""
    INVALID_ID = "invalid_id"
    """The id cannot name a folder inside the media root."""
    MEDIA_LIMIT = "media_limit"
    """A picture or video is larger than a decoder is allowed to open."""
    MEDIA_UNREADABLE = "media_unreadable"
    """The row's media may be there, but its disk, archive or storage did not let it be read."""
    BAD_MEDIA = "bad_media"
    """There is no text, and no picture can be had from the frames or the video."""
    POISON_MEDIA = "poison_media"
    """Encoding this row killed or hung a worker process twice."""
    ENCODE = "encode"
    """Encoding this row failed in an unforeseen way."""
    RATE = "rate"
    """The provider kept asking for a lower rate until the row's deadline."""
    SERVER = "server"
    """The provider kept failing (408, 409, 5xx)."""
    NETWORK = "network"
    """No whole reply came back."""
    TIMEOUT = "timeout"
    """The call took longer than allowed."""
    REFUSED = "refused"
    """The provider will never accept this body (4xx)."""
    BLOCKED = "blocked"
    """A content filter refused the row."""
    LANE = "lane"
    """The provider refuses key, account, model or address. Ends a run, never burns a row."""
    BAD_REPLY = "bad_reply"
    """The reply was not a chat completion."""
    TOO_LARGE = "too_large"
    """The model cannot take this row, even after everything that may be reduced was."""
    POISON_REQUEST = "poison_request"
    """The provider fails on this row, time after time, while it answers others."""
    TRUNCATED = "truncated"
    """The answer was cut off and has been withdrawn from the results, to be asked for again."""


class Fix(StrEnum):
    """What a smaller request would have to be smaller in. The value stands in messages."""

    CONTEXT = "context"
    """Tokens: the prompt, or the prompt and the tokens asked for."""
    IMAGES = "images"
    """How many pictures, or how large one is."""
    SIZE = "size"
    """Bytes of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What a row's request may hold at most. None is no bound."""

    max_frames: int | None = None
    """Frames, evenly thinned."""
    max_side_px: int | None = None
    """The longer side of a frame, in pixels."""
    max_text_chars: int | None = None
    """Characters of the row's text, the middle of its parts left out."""

    def __and__(self, other: Reduction) -> Reduction:
        """The bounds of both."""
        return Reduction(
            max_frames=_lower(self.max_frames, other.max_frames),
            max_side_px=_lower(self.max_side_px, other.max_side_px),
            max_text_chars=_lower(self.max_text_chars, other.max_text_chars),
        )


def _lower(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


WHOLE = Reduction()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One input row."""

    row: int
    """Ordinal among the input's data rows, from 0. The identity of the row in a run."""
    id: str
    """What the user calls it. Data: kept to the letter, never trusted as a path."""
    fields: Mapping[str, str]
    """`transcript`, `description`, `embedded_text`, `video`, as far as the input has them."""
    reduction: Reduction = WHOLE
    """What its request may hold; smaller after a provider could not take it whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaNote:
    """What was sent of one frame. Never the pixels."""

    index: int
    """The n of `frame_<n>`, or the frame's index in its video."""
    time_s: float | None
    """Presentation time in the video; None for a frame that came as a file."""
    digest: str
    """First 16 hex digits of the SHA-256 of the bytes sent."""
    width: int
    """Pixels, as sent."""
    height: int
    """Pixels, as sent."""
    tokens: int | None
    """What the provider's formula counts for this frame; None if the model is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call, ready to send. The body is `head`, max_tokens in digits, what the lane adds, `tail`."""

    row: int
    id: str
    head: bytes
    tail: bytes
    est_tokens: int
    """Prompt tokens, estimated before sending."""
    n_frames: int
    media: tuple[MediaNote, ...] = ()
    degraded: tuple[str, ...] = ()
    """What this row lost on the way, as codes for the result line."""
    made_of: Row | None = None
    """The row itself, for making the request again, smaller; None where that cannot be."""
    key: bytes = b""
    """The same for requests that are the same to the byte; empty for one that is sent whatever others are."""

    @property
    def n_bytes(self) -> int:
        return len(self.head) + len(self.tail)

    def pieces(self, max_tokens: int, fields: bytes = b"") -> tuple[bytes, bytes, bytes]:
        """The body as it is sent, uncopied.

        Args:
            max_tokens: what the answer may take.
            fields: further members of the object, each begun by a comma, such as `,"model":"m"`.
        """
        return self.head, b"%d%b" % (max_tokens, fields), self.tail

    def body(self, max_tokens: int, fields: bytes = b"") -> bytes:
        """The pieces in one."""
        return b"".join(self.pieces(max_tokens, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens the provider says it counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """The part of `prompt_tokens` served from a cache."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateHint:
    """What a response's headers say of the provider's limits. Advice, often wrong: None where it says nothing."""

    requests_per_s: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One chat completion."""

    text: str
    finish_reason: str | None
    usage: Usage | None
    """None when the server did not say, or said something impossible."""
    model: str
    request_id: str | None
    latency_s: float
    hint: RateHint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a row has no reply."""

    kind: FailureKind
    message: str
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reply's text says under the questions asked."""

    labels: Mapping[str, Any] | None
    error: str | None = None
    """Reason code when `labels` is None; both None when no labels were asked for."""
    cut: bool = False
    """Whether the text stops in the middle, whatever the finish reason claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A whole answer that a request with the same key got before."""

    row: int | None
    """The row of this run that got it; None if it was another run."""
    reply: Reply
    max_tokens_used: int
    cost_usd: float | None
    """What it cost then; None if that is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Whose answer a row has that no call was made for."""

    row: int | None
    """A row of this run; None if the answer is from the cache."""
    spared_usd: float | None
    """What a call of its own would have cost, by what that answer did; None if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How a row ended."""

    row: int
    id: str
    outcome: Reply | Failure
    answer: Answer | None = None
    order: int | None = None
    """How many rows had been sent before this one in this life of the run; None if it never was."""
    attempts: int = 0
    """Calls made for this row, failed ones included."""
    max_tokens_used: int = 0
    truncated: bool = False
    usage: Usage | None = None
    """Sum over all attempts that reported any."""
    cost_usd: float | None = None
    """Sum over all attempts; None if the price, or any attempt's usage, is unknown."""
    unknown_calls: int = 0
    """Attempts that may have been charged and reported no usage."""
    media: tuple[MediaNote, ...] = ()
    degraded: tuple[str, ...] = ()
    key: bytes = b""
    """The key of the request that was answered, if the answer is whole; empty if it is not to be given to others."""
    shares: Shares | None = None
    """Whose answer it is, if it is another row's."""
