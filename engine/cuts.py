"""What an answer that was cut off calls for. Plain functions of the reply."""

from __future__ import annotations

from enum import Enum

from engine.types import Answer, Reply

USED_UP_SHARE = 0.98
"""`length` with fewer tokens than this share of those asked for means that the context is full, not the allowance."""
TAIL_CHARS = 512
LONGEST_PERIOD_CHARS = 64
LOOP_NEWLINES = 40
"""A tail that repeats a piece of at most so many characters, or holds so many newlines, will not come to an end."""


class Cut(Enum):
    """What to do about an answer."""

    NONE = "whole"
    GROW = "more tokens"
    """The allowance is used up."""
    SHRINK = "a shorter prompt"
    """The context is full."""
    CALM = "another sampling"
    """It goes round in circles: more tokens would buy more of the same."""


def cut_of(reply: Reply, answer: Answer, *, max_tokens: int) -> Cut:
    """What this answer calls for, given what it was allowed."""
    if reply.finish_reason != "length":
        # Some servers say `stop` of a text that breaks off; how many tokens it took says nothing then.
        return Cut.GROW if answer.cut else Cut.NONE
    if reply.usage is not None and reply.usage.completion_tokens < USED_UP_SHARE * max_tokens:
        return Cut.SHRINK
    return Cut.CALM if loops(reply.text) else Cut.GROW


def loops(text: str) -> bool:
    """Whether the end of a text repeats itself."""
    tail = text[-TAIL_CHARS:]
    if tail.count("\n") >= LOOP_NEWLINES:
        return True
    if len(tail) < TAIL_CHARS:
        return False
    return any(tail[period:] == tail[:-period] for period in range(1, LONGEST_PERIOD_CHARS + 1))
