"""The books."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.money import Books
from engine.types import Usage

TOKENS = Usage(prompt_tokens=100, completion_tokens=10)


def test_a_call_is_let_out_only_if_its_worst_case_stays_below_the_ceiling() -> None:
    books = Books(1.0)
    assert books.reserve(0.6)
    assert not books.reserve(0.6)
    books.charged(0.6, TOKENS, 0.1)
    assert books.reserve(0.6)


def test_an_unknown_call_counts_as_unknown_and_its_worst_case_against_the_ceiling() -> None:
    books = Books(1.0)
    assert books.reserve(0.6)
    books.charged_unknown(0.6)
    assert books.cost_usd == 0.0
    assert books.unknown_calls == 1
    assert not books.reserve(0.5)


def test_a_call_without_a_price_is_not_free() -> None:
    books = Books()
    books.charged(0.0, TOKENS, None)
    assert (books.cost_usd, books.unpriced_calls, books.usage) == (0.0, 1, TOKENS)


def test_money_spent_in_an_earlier_life_counts_in_the_next() -> None:
    books = Books(1.0)
    books.reserve(0.9)
    books.charged(0.9, TOKENS, 0.8)
    later = Books(1.0, books.as_json())
    assert later.cost_usd == 0.8
    assert later.usage == TOKENS
    assert not later.reserve(0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["charged", "unknown", "free"]))))
def test_the_ceiling_is_never_passed_if_no_call_costs_more_than_its_worst_case(
    calls: list[tuple[float, float, str]],
) -> None:
    books = Books(3.0)
    for worst, share, end in calls:
        if not books.reserve(worst):
            continue
        if end == "charged":
            books.charged(worst, TOKENS, worst * share)
        elif end == "unknown":
            books.charged_unknown(worst)
        else:
            books.free(worst)
        assert books.cost_usd + books.unknown_usd + books.reserved_usd <= 3.0 + 1e-9
