"""Which frames of a video to take: arithmetic alone, no file and no decoder.

A frame is its index in presentation order, from 0. Times are whole ticks of any clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from encoders.locate import thinned
from engine.errors import ConfigError

ALL_FRAMES = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which frames of every video the user wants."""

    num_frames: int = 8
    """-1 takes every frame, or every keyframe."""
    sampling: Literal["uniform", "neva", "keyframes"] = "uniform"
    """`uniform`: the frames shown at the midpoints of equal parts of the running time, each once. `neva`: by index as
    Video NeVA counts, first and last included, the last repeated in a video that is too short. `keyframes`: those that
    decode alone, evenly by number; there may be fewer."""
    splice: Literal["first", "middle", "last"] | None = None
    """This one frame instead."""
    max_frames: int | None = None
    """At most so many, whatever the sampling asks for; None means no bound. A second, smaller try sets it."""

    def __post_init__(self) -> None:
        if self.num_frames != ALL_FRAMES and self.num_frames < 1:
            raise ConfigError(f"{self.num_frames} frames of a video: give a number from 1, or -1 for all")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"at most {self.max_frames} frames of a video: give a number from 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When the frames of one video are shown."""

    times: Sequence[int]
    """Of each frame, in presentation order, at least one."""
    end: int
    """When the last frame goes."""
    keyframes: Sequence[int]
    """Indices of frames that decode without any other."""


def chosen(choice: Choice, timeline: Timeline) -> list[int]:
    """Indices of the frames to send, in order. Only `neva` repeats any."""
    length = len(timeline.times)
    if choice.splice is not None:
        return [splice_index(length, choice.splice)]
    match choice.sampling:
        case "neva":
            found = neva_indices(length, choice.num_frames)
        case "keyframes":
            found = list(timeline.keyframes)
            if choice.num_frames != ALL_FRAMES:
                found = [found[at] for at in thinned(len(found), choice.num_frames)]
        case "uniform":
            if choice.num_frames == ALL_FRAMES:
                found = list(range(length))
            else:
                fewer = min(choice.num_frames, choice.max_frames or choice.num_frames)
                found = uniform_indices(timeline, fewer)
    if choice.max_frames is None:
        return found
    return [found[at] for at in thinned(len(found), choice.max_frames)]


def uniform_moments(duration: int, num_frames: int) -> list[int]:
    """The middle of each of `num_frames` equal parts of a duration, rounded down.

    Formula: t_i = (i + 0.5) * duration / n.
    """
    return [(2 * i + 1) * duration // (2 * num_frames) for i in range(num_frames)]


def uniform_indices(timeline: Timeline, num_frames: int) -> list[int]:
    """The frames on show at those moments; one that is on show at several is taken once."""
    start = timeline.times[0]
    moments = uniform_moments(timeline.end - start, num_frames)
    shown = (bisect_right(timeline.times, start + moment) - 1 for moment in moments)
    return list(dict.fromkeys(shown))


def neva_indices(length: int, num_frames: int) -> list[int]:
    """The indices Video NeVA takes from a video of `length` frames.

    Formula: of m = min(length, num_frames) frames the i-th is floor(i * s), s = (length - 1) / (m - 1) in double
    precision, and the last is length - 1; with m = 1 it is frame 0. Then the last is repeated up to `num_frames`.
    A whole-number division differs by one frame in rare cases, from num_frames = 15 on.

    Args:
        length: Frames of the video.
        num_frames: Frames wanted; -1 for every one.

    Raises:
        ValueError: the video has no frame.
    """
    if length < 1:
        raise ValueError("a video without frames has none to choose from")
    if num_frames == ALL_FRAMES:
        return list(range(length))
    taken = min(length, num_frames)
    if taken == 1:
        return [0] * num_frames
    step = (length - 1) / (taken - 1)
    found = [int(i * step) for i in range(taken - 1)] + [length - 1]
    return found + [length - 1] * (num_frames - taken)


def splice_index(length: int, which: Literal["first", "middle", "last"]) -> int:
    """The one frame Video NeVA takes for `splice_single_frame`; the middle of 8 is 4."""
    return {"first": 0, "middle": length // 2, "last": length - 1}[which]
