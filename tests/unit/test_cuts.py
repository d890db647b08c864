"""What a cut answer calls for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cuts import Cut, cut_of, loops
from engine.types import Answer, Reply, Usage


def made(text: str = "x", *, finish_reason: str | None = "length", tokens: int | None = 512) -> Reply:
    usage = None if tokens is None else Usage(prompt_tokens=10, completion_tokens=tokens)
    return Reply(text=text, finish_reason=finish_reason, usage=usage, model="m", request_id=None, latency_s=1.0)


def judged(reply: Reply, *, cut: bool = False) -> Cut:
    return cut_of(reply, Answer(labels=None, cut=cut), max_tokens=512)


def test_a_whole_answer_calls_for_nothing() -> None:
    assert judged(made(finish_reason="stop")) is Cut.NONE


@pytest.mark.parametrize("tokens", [512, 502, None])
def test_an_allowance_used_up_calls_for_more(tokens: int | None) -> None:
    assert judged(made(tokens=tokens)) is Cut.GROW


def test_length_with_fewer_tokens_than_asked_means_a_full_context() -> None:
    assert judged(made(tokens=400)) is Cut.SHRINK


@pytest.mark.parametrize("finish_reason", ["stop", "eos", None, "whatever"])
def test_an_answer_that_breaks_off_calls_for_more_whatever_the_server_says(finish_reason: str | None) -> None:
    assert judged(made(finish_reason=finish_reason, tokens=40), cut=True) is Cut.GROW


@pytest.mark.parametrize(
    "text", ['{"a":' + "\n" * 300, "no, " * 300, '{"a": "' + "ha" * 400, "x" * 600, "1 2 3 4 5 6 7 8 9 10 " * 40]
)
def test_a_loop_is_not_fed_more_tokens(text: str) -> None:
    assert judged(made(text), cut=True) is Cut.CALM


def test_a_long_text_without_a_loop_is_none() -> None:
    assert not loops("".join(f"{number} " for number in range(2000)))
    assert not loops("short short")


@given(st.text(max_size=2000))
def test_any_text_can_be_judged(text: str) -> None:
    assert judged(made(text)) in {Cut.GROW, Cut.CALM}


@given(st.text(min_size=1, max_size=64))
def test_any_short_piece_repeated_for_long_is_a_loop(piece: str) -> None:
    assert loops(piece * (700 // len(piece) + 1))
