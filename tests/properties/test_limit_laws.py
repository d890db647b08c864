"""Whatever happens, the ceilings hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.config import LimitConfig
from engine.hints import LONGEST_HINT_S, parse_span_s, wait_hint_s
from engine.limits import Limits

steps = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2000), st.booleans()), max_size=200)


@given(steps, st.integers(1, 20), st.integers(6, 6000), st.integers(60, 600_000))
def test_in_flight_requests_and_tokens_never_pass_their_ceilings(
    plan: list[tuple[float, int, bool]], window: int, rpm: int, tpm: int
) -> None:
    limits = Limits(LimitConfig(concurrency=window, requests_per_min=rpm, tokens_per_min=tpm), now=0.0)
    now, in_flight, admitted = 0.0, 0, []
    for gap_s, tokens, ends in plan:
        now += gap_s
        if ends and in_flight:
            limits.release(now, reserved_tokens=0, used_tokens=0)
            in_flight -= 1
        if limits.try_admit(now, tokens) == 0.0:
            in_flight += 1
            admitted.append((now, tokens))
        assert in_flight <= window
    for start, _ in admitted:
        minute = [tokens for at, tokens in admitted if start <= at < start + 60]
        assert len(minute) <= rpm + max(1, rpm / 60) + 1
        assert sum(minute) <= tpm + max(1, tpm / 60) + max(minute)


@given(st.text() | st.none(), st.text() | st.none())
def test_any_header_gives_a_span_in_range_or_nothing(value: str | None, date: str | None) -> None:
    seconds = parse_span_s(value, date=date)
    assert seconds is None or 0 <= seconds <= LONGEST_HINT_S


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "date"]), st.text()))
def test_any_headers_give_a_wait_in_range_or_nothing(headers: dict[str, str]) -> None:
    seconds = wait_hint_s(headers, "try again in 1e9s")
    assert seconds is None or 0 <= seconds <= LONGEST_HINT_S
