"""What a request gives up when the provider cannot take it whole: fewer frames, then smaller ones, then a shorter text.

Refusals for size cost nothing but a round trip, so the ladder goes down in halves, and straight to the right step where
the server said by how much it was too large. Every step is strictly smaller than the one before, so it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.errors import RequestTooLarge
from engine.types import Fix, Reduction, Request

LEAST_SIDE_PX = 112
"""Half of the smallest size vision models were trained on; below it a frame shows nothing."""
LEAST_TEXT_CHARS = 200
TEXT_MARGIN = 0.9
"""Characters are no tokens: cut a tenth more than the average says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What can be given up of a request."""

    frames: int
    side_px: int
    """The longest side of its frames."""
    text_chars: int


def load_of(request: Request) -> Load:
    """What a request carries."""
    row = request.made_of
    text = sum(map(len, row.fields.values())) if row else 0
    held = row.reduction.max_text_chars if row else None
    return Load(
        frames=request.n_frames,
        side_px=max((max(note.width, note.height) for note in request.media), default=0),
        text_chars=text if held is None else min(text, held),
    )


def smaller(request: Request, error: RequestTooLarge, *, answer_tokens: int) -> Reduction | None:
    """The next step down, or None where there is none left, or where the row itself is not known.

    Args:
        request: what was refused.
        error: how.
        answer_tokens: room the answer needs in the context.
    """
    if request.made_of is None:
        return None
    load, held = load_of(request), request.made_of.reduction
    if error.fix is Fix.IMAGES:
        if error.limit == 0:
            return None
        if error.limit is not None and error.limit < load.frames:
            return replace(held, max_frames=error.limit)
        return _fewer(load, held) or _smaller_frames(load, held)
    spared = _tokens_too_many(error, answer_tokens)
    step = None if spared is None else _by_numbers(request, load, held, spared=spared, counted=error.counted)
    # Where no part alone is enough, everything becomes less in turn, by halves.
    return step or _fewer(load, held) or _smaller_frames(load, held) or _shorter(load, held, keep=0.5)


def _by_numbers(request: Request, load: Load, held: Reduction, *, spared: int, counted: int | None) -> Reduction | None:
    """As little as the server's numbers ask for. Once for each part: where that did not do, they are no guide."""
    frame_tokens = sum(note.tokens or 0 for note in request.media)
    if load.frames > 1 and spared < frame_tokens and held.max_frames is None:
        most = math.floor(load.frames * (1 - spared / frame_tokens))
        return replace(held, max_frames=min(load.frames - 1, max(1, most)))
    if load.frames == 1 and spared < frame_tokens and (step := _smaller_frames(load, held)):
        return step
    text_tokens = max(1, (counted or request.est_tokens) - frame_tokens)
    if spared >= text_tokens or held.max_text_chars is not None:
        return None
    return _shorter(load, held, keep=TEXT_MARGIN * (1 - spared / text_tokens))


def _tokens_too_many(error: RequestTooLarge, answer_tokens: int) -> int | None:
    """By how many tokens the prompt and its answer pass the context, if the server gave both numbers."""
    if error.fix is not Fix.CONTEXT or error.limit is None or error.counted is None:
        return None
    over = error.counted + answer_tokens - error.limit
    return over if over > 0 else None


def _fewer(load: Load, held: Reduction) -> Reduction | None:
    return replace(held, max_frames=load.frames // 2) if load.frames > 1 else None


def _smaller_frames(load: Load, held: Reduction) -> Reduction | None:
    side_px = load.side_px // 2
    return replace(held, max_side_px=side_px) if load.frames and side_px >= LEAST_SIDE_PX else None


def _shorter(load: Load, held: Reduction, *, keep: float) -> Reduction | None:
    chars = min(int(load.text_chars * keep), load.text_chars - 1)
    if load.text_chars <= LEAST_TEXT_CHARS:
        return None
    return replace(held, max_text_chars=max(LEAST_TEXT_CHARS, chars))
