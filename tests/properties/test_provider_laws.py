"""Whatever a server sends, it is one reply or one error of ours, and every number in it is one."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.errors import ApiError, RequestTooLarge
from engine.hints import LONGEST_HINT_S, forbids_retry, rate_hint, wait_hint_s
from engine.prices import price_of
from engine.providers import CONTEXT_COUNTS, CONTEXT_LIMITS, GENERIC, IMAGE_LIMITS, RATE_HEADERS, VERDICTS, RateNames
from engine.replies import Response, reply_from
from engine.secret import Secret
from engine.types import Reply
from engine.verdicts import MAX_MESSAGE_CHARS, MAX_NAME_CHARS, MAX_TOKENS_SAID, Said, error_for, one_line, said_in

KEY = Secret("sk-0123456789abcdef")
KNOWN_WORDS = st.sampled_from(
    [
        "error message detail msg code type param metadata raw headers usage choices content refusal object",
        "context_length_exceeded insufficient_quota content_filter json_validate_failed slow_down 429 503 402 length",
    ]
).flatmap(lambda words: st.sampled_from(words.split()))
TEXT = st.text(max_size=60) | KNOWN_WORDS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN_WORDS | st.text(max_size=6), inner, max_size=5),
    max_leaves=14,
)
CHAT = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {
                    "message": st.fixed_dictionaries(
                        {},
                        optional={
                            "content": TEXT | JSON,
                            "refusal": JSON,
                            "tool_calls": JSON,
                        },
                    ),
                    "finish_reason": st.sampled_from(["stop", "length", "content_filter", "error", "abort"]) | JSON,
                },
                optional={"error": JSON},
            ),
            min_size=1,
            max_size=2,
        )
    },
    optional={"usage": JSON, "error": JSON, "model": JSON, "id": JSON},
)
PAYLOADS = st.binary(max_size=300) | (JSON | CHAT).map(lambda value: json.dumps(value).encode())
NAMES = sorted(
    {name for names in RATE_HEADERS for name, _ in (*names.requests, *names.tokens, *names.resets_when_spent)}
    | {"retry-after", "retry-after-ms", "x-ratelimit-reset", "date", "x-should-retry", "content-encoding"}
)
VALUES = (
    st.text(max_size=80)
    | st.floats().map(str)
    | st.integers().map(str)
    | st.sampled_from(
        ["-1", "0", "", "nan", "1,000", "6m0s", "1795507230000", "Tue, 24 Nov 2026 08:00:00 GMT", "false"]
    )
)
HEADERS: st.SearchStrategy[Any] = st.lists(
    st.tuples(st.sampled_from(NAMES) | st.text(max_size=10), VALUES), max_size=8
).map(CIMultiDict)
WHOSE: st.SearchStrategy[RateNames] = st.sampled_from([*RATE_HEADERS, GENERIC])


def outcome(response: Response, names: RateNames) -> Reply | ApiError:
    """Any other exception passes, and fails the test."""
    try:
        return reply_from(response, key=KEY, names=names)
    except ApiError as error:
        return error


def check_error(error: ApiError) -> None:
    assert str(error).encode()
    assert len(str(error)) <= MAX_MESSAGE_CHARS
    assert error.retry_after_s is None or 0 <= error.retry_after_s <= LONGEST_HINT_S
    assert error.__cause__ is None
    if isinstance(error, RequestTooLarge):
        assert error.limit is None or 0 < error.limit < MAX_TOKENS_SAID
        assert error.counted is None or 0 < error.counted < MAX_TOKENS_SAID
    if error.usage is not None:
        assert not error.paid, "what is known is not unknown"


@given(status=st.integers(100, 999), headers=HEADERS, payload=PAYLOADS, names=WHOSE, reason=st.text(max_size=20))
@example(status=200, headers={}, payload=b"[" * 100_000, names=GENERIC, reason="")
@example(status=500, headers={}, payload=b'{"error":' * 900 + b"1" + b"}" * 900, names=GENERIC, reason="")
@example(status=200, headers={}, payload=b'{"error":' + b"[" * 1000 + b"]" * 1000 + b"}", names=GENERIC, reason="")
@example(status=400, headers={}, payload=b"context length is " + b"9" * 1500, names=GENERIC, reason="")
def test_any_response_is_a_reply_or_exactly_one_error_of_ours(
    status: int, headers: Any, payload: bytes, names: RateNames, reason: str
) -> None:
    response = Response(status=status, headers=headers, payload=payload, reason=reason)
    found = outcome(response, names)
    if isinstance(found, Reply):
        assert status == 200
        assert found.hint == rate_hint(headers, names)
    else:
        check_error(found)


@given(payload=PAYLOADS)
def test_any_bytes_say_something_short_that_can_be_written(payload: bytes) -> None:
    said = said_in(payload)
    assert len(said.message) <= MAX_MESSAGE_CHARS
    for text in (said.message, said.code, said.kind, said.param, said.limit_source, *said.headers.values()):
        assert text.isprintable()
        text.encode()
    assert all(len(text) <= MAX_NAME_CHARS for text in (said.code, said.param, said.limit_source))
    assert said.status is None or 400 <= said.status < 600


@given(
    status=st.integers(100, 999),
    said=st.builds(Said, message=st.text(max_size=200), code=TEXT, kind=TEXT, limit_source=TEXT),
    wait_s=st.none() | st.floats(0, LONGEST_HINT_S),
    final=st.booleans(),
)
def test_any_words_under_any_status_are_one_error(status: int, said: Said, wait_s: float | None, final: bool) -> None:  # noqa: FBT001 - a parameter of tests
    check_error(error_for(status, said, retry_after_s=wait_s, final=final))


@given(headers=HEADERS, inner=HEADERS, names=WHOSE, message=st.text(max_size=80))
def test_any_headers_give_a_wait_and_a_rate_in_range_or_nothing(
    headers: Any, inner: Any, names: RateNames, message: str
) -> None:
    wait_s = wait_hint_s(headers, message, names=names, inner=inner)
    assert wait_s is None or 0 <= wait_s <= LONGEST_HINT_S
    hint = rate_hint(headers, names)
    for rate in () if hint is None else (hint.requests_per_s, hint.tokens_per_s):
        assert rate is None or (rate > 0 and math.isfinite(rate))
    assert forbids_retry(headers) in {True, False}


@given(
    before=st.integers(0, 30), cut=st.sampled_from([200, 300, 2000, 4000]), place=st.sampled_from(["message", "code"])
)
def test_no_part_of_a_key_passes_any_cut(before: int, cut: int, place: str) -> None:
    text = "x" * (cut - before) + KEY.reveal()
    for payload in (text.encode(), json.dumps({"error": {place: text}}).encode()):
        said = said_in(payload, show=lambda words: one_line(words, KEY))
        assert "sk-0" not in repr(said)


@given(text=st.sampled_from(["image ", "context length ", "prompt ", "too many images ", "tokens ", "1,", "(", "a"]))
def test_no_text_keeps_a_rule_busy(text: str) -> None:
    """Every repetition in a pattern is bounded; one that was not would hang here."""
    words = (text * MAX_MESSAGE_CHARS)[:MAX_MESSAGE_CHARS]
    for status in (400, 403, 413, 422, 429):
        check_error(error_for(status, Said(message=words)))


@given(st.sampled_from([*CONTEXT_LIMITS, *CONTEXT_COUNTS, *IMAGE_LIMITS]))
def test_every_pattern_of_a_number_has_one(pattern: str) -> None:
    assert r"([\d,]+)" in pattern


def test_the_table_ends_with_every_status_of_a_failing_server() -> None:
    for status in range(500, 1000):
        assert any(status in rule.statuses for rule in VERDICTS)


@given(host=st.sampled_from(["api.openai.com", "localhost", "x.y"]), model=st.text(max_size=60))
def test_any_model_has_a_price_or_none(host: str, model: str) -> None:
    price = price_of(f"https://{host}/v1", model)
    assert price is None or price.input_usd_per_m > 0
