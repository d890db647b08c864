"""How many tokens a first call asks for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lengths import ENOUGH, FIRST_TOKENS, LEAST_TOKENS, MEMORY, Lengths


def after(lengths: list[int]) -> Lengths:
    learnt = Lengths()
    for tokens in lengths:
        learnt.add(tokens)
    return learnt


def test_before_enough_is_known_it_asks_for_the_first_guess() -> None:
    assert after([50] * (ENOUGH - 1)).start(4096) == FIRST_TOKENS


def test_it_starts_a_little_above_what_ninety_nine_answers_in_a_hundred_take() -> None:
    rng = random.Random(1)
    lengths = [int(rng.lognormvariate(5.0, 0.5)) for _ in range(5000)]
    start = after(lengths).start(4096)
    percentile = sorted(lengths)[4950]
    assert percentile * 1.1 <= start <= percentile * 1.22


def test_it_never_asks_for_more_than_the_cap() -> None:
    assert after([3000] * 1000).start(800) == 800
    assert after([]).start(100) == 100


def test_what_was_learnt_outlives_the_process() -> None:
    first = after([100] * 500 + [900] * 4)
    assert Lengths(first.learnt()).start(4096) == first.start(4096)


def test_it_follows_answers_that_grow_longer() -> None:
    learnt = after([100] * MEMORY)
    for _ in range(MEMORY // 10):
        learnt.add(400)
    assert learnt.start(4096) >= 400


@given(st.lists(st.integers(0, 10**6), max_size=400), st.integers(1, 10**5))
def test_any_lengths_give_a_start_within_the_cap(lengths: list[int], cap: int) -> None:
    start = after(lengths).start(cap)
    assert 1 <= start <= cap


@pytest.mark.parametrize("tokens", [1, 2])
def test_tiny_answers_still_ask_for_what_servers_accept(tokens: int) -> None:
    assert after([tokens] * 500).start(4096) == LEAST_TOKENS
