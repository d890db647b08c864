"""Which frames of a video are taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.sample import (
    Choice,
    Timeline,
    chosen,
    neva_indices,
    splice_index,
    uniform_indices,
    uniform_moments,
)
from engine.errors import ConfigError


def even(length: int, *, tick: int = 10, keyframes: tuple[int, ...] = (0,)) -> Timeline:
    return Timeline(times=range(0, length * tick, tick), end=length * tick, keyframes=keyframes)


@pytest.mark.parametrize(
    ("length", "num_frames", "wanted"),
    [
        (100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
        (300, 8, [0, 42, 85, 128, 170, 213, 256, 299]),
        (30, 8, [0, 4, 8, 12, 16, 20, 24, 29]),
        (9, 8, [0, 1, 2, 3, 4, 5, 6, 8]),
        (10, 4, [0, 3, 6, 9]),
        (250, 4, [0, 83, 166, 249]),
        (5, 8, [0, 1, 2, 3, 4, 4, 4, 4]),
        (1, 8, [0] * 8),
        (3600, 8, [0, 514, 1028, 1542, 2056, 2570, 3084, 3599]),
        (7, 1, [0]),
        (4, -1, [0, 1, 2, 3]),
    ],
)
def test_neva_takes_the_indices_it_has_always_taken(length: int, num_frames: int, wanted: list[int]) -> None:
    assert neva_indices(length, num_frames) == wanted


@given(st.integers(1, 3999), st.integers(1, 64))
def test_neva_agrees_with_linspace_cut_to_whole_numbers(length: int, num_frames: int) -> None:
    spaced = np.linspace(0, length - 1, min(length, num_frames)).astype(int).tolist()
    assert neva_indices(length, num_frames) == spaced + [length - 1] * (num_frames - len(spaced))


def test_neva_counts_in_doubles_where_whole_numbers_would_differ() -> None:
    differing = [
        (length, n)
        for n in range(2, 65)
        for length in range(n, 1200)
        if neva_indices(length, n) != [i * (length - 1) // (n - 1) for i in range(n)]
    ]
    assert differing
    assert min(n for _, n in differing) == 15
    for length, n in differing:
        assert neva_indices(length, n) == np.linspace(0, length - 1, n).astype(int).tolist()


@pytest.mark.parametrize("num_frames", [-1, 1, 8])
def test_a_video_without_frames_is_an_error_of_its_own(num_frames: int) -> None:
    with pytest.raises(ValueError, match="without frames"):
        neva_indices(0, num_frames)


def test_splices_are_the_first_the_middle_and_the_last() -> None:
    assert [splice_index(8, which) for which in ("first", "middle", "last")] == [0, 4, 7]
    assert [splice_index(1, which) for which in ("first", "middle", "last")] == [0, 0, 0]
    assert chosen(Choice(splice="middle", sampling="neva"), even(9)) == [4]


def test_uniform_moments_are_the_middles_of_equal_parts() -> None:
    assert uniform_moments(80, 4) == [10, 30, 50, 70]
    assert uniform_moments(10, 3) == [1, 5, 8]


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=60, unique=True),
    st.integers(1, 40),
    st.integers(1, 1000),
)
def test_uniform_takes_what_is_on_show_at_each_middle_and_each_frame_once(
    times: list[int], num_frames: int, last: int
) -> None:
    times.sort()
    end = times[-1] + last
    found = uniform_indices(Timeline(times=times, end=end, keyframes=(0,)), num_frames)
    assert all(earlier < later for earlier, later in pairwise(found))
    shown = set()
    for i in range(num_frames):
        middle = times[0] + (i + 0.5) * (end - times[0]) / num_frames
        shown.add(max(index for index, time in enumerate(times) if time <= middle + 1e-6))
    assert set(found) == shown


def test_a_video_shorter_than_the_frames_wanted_is_sent_once_over() -> None:
    assert chosen(Choice(), even(5)) == [0, 1, 2, 3, 4]
    assert chosen(Choice(sampling="neva"), even(5)) == [0, 1, 2, 3, 4, 4, 4, 4]


def test_keyframes_are_taken_evenly_by_number() -> None:
    timeline = even(100, keyframes=(0, 5, 10, 50, 90))
    assert chosen(Choice(sampling="keyframes"), timeline) == [0, 5, 10, 50, 90]
    assert chosen(Choice(sampling="keyframes", num_frames=3), timeline) == [0, 10, 90]
    assert chosen(Choice(sampling="keyframes", num_frames=-1), timeline) == [0, 5, 10, 50, 90]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(max_frames=2), [25, 75]),
        (Choice(num_frames=-1, max_frames=3), [0, 49, 99]),
        (Choice(sampling="neva", max_frames=2), [0, 99]),
        (Choice(sampling="keyframes", max_frames=1), [0]),
        (Choice(num_frames=2, max_frames=50), [25, 75]),
        (Choice(splice="last", max_frames=1), [99]),
    ],
)
def test_a_smaller_try_asks_for_fewer(choice: Choice, wanted: list[int]) -> None:
    assert chosen(choice, even(100, keyframes=(0, 50))) == wanted


@pytest.mark.parametrize(("num_frames", "max_frames"), [(0, None), (-2, None), (8, 0)])
def test_a_number_of_frames_that_means_nothing_is_refused(num_frames: int, max_frames: int | None) -> None:
    with pytest.raises(ConfigError, match="frames of a video"):
        Choice(num_frames=num_frames, max_frames=max_frames)
