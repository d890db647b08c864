"""Every form in which a provider says how long to wait."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from engine.hints import forbids_retry, parse_span_s, rate_hint, rate_names, wait_hint_s
from engine.providers import RATE_HEADERS
from engine.types import RateHint

DATE = "Tue, 24 Nov 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        ("0.25", 0.25),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("2m59.56s", 179.56),
        ("1,000", 1000.0),
        ("0", 0.0),
        ("Tue, 24 Nov 2026 08:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 07:00:00 GMT", 0.0),
        ("1795507230", 30.0),
        ("1795507230000", 30.0),
        ("999999", 21600.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("5 5", None),
        ("1, 1", None),
    ],
)
def test_a_span_is_read_in_every_known_form(value: str | None, seconds: float | None) -> None:
    assert parse_span_s(value, date=DATE) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_point_in_time_without_the_servers_clock_means_nothing() -> None:
    assert parse_span_s("Tue, 24 Nov 2026 08:00:30 GMT") is None
    assert parse_span_s("1795507230") is None


def test_milliseconds_beat_seconds_beat_the_reset_header_beat_the_message() -> None:
    headers = {"retry-after-ms": "1500", "retry-after": "9", "x-ratelimit-reset": "20"}
    message = "Please try again in 30s."
    assert wait_hint_s(headers, message) == 1.5
    del headers["retry-after-ms"]
    assert wait_hint_s(headers, message) == 9
    del headers["retry-after"]
    assert wait_hint_s(headers, message) == 20
    assert wait_hint_s({}, message) == 30
    assert wait_hint_s({}, "Please retry after 37 seconds") == 37
    assert wait_hint_s({}, "no idea") is None


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 7m12.5s.", 432.5),
        ("try again in 120ms", 0.12),
        ("Please retry after 37 seconds", 37.0),
        ("retry after 500 milliseconds", 0.5),
        ("Please retry in 34.07s.", 34.07),
        ("Try again in 2 minutes", 120.0),
        ("try again in 9 hours", 6 * 3600.0),
        ("try again in 1e9s", 1.0),
        ("please try again later", None),
        ("try again in a while", None),
    ],
)
def test_a_wait_is_found_in_the_words(words: str, seconds: float | None) -> None:
    assert wait_hint_s({}, words) == (seconds if seconds is None else pytest.approx(seconds))


def test_of_a_header_sent_twice_the_first_value_that_can_be_read_counts() -> None:
    headers = CIMultiDict([("Retry-After", "soon"), ("Retry-After", "3"), ("Retry-After", "5")])
    assert wait_hint_s(headers) == 3
    limits = CIMultiDict([("X-RateLimit-Limit", "-1"), ("X-RateLimit-Limit", "7")])
    assert rate_hint(limits, rate_names("https://api.together.xyz/v1")) == RateHint(requests_per_s=7.0)


RESETS = {"x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "100", "x-ratelimit-remaining-tokens": "0"}, 7.66),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "1,000"}, 179.56),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "-1"}, 179.56),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-remaining-tokens": "9"}, None),
        ({"x-ratelimit-remaining-tokens": "soon"}, 7.66),
        ({}, 7.66),
    ],
)
def test_of_two_resets_the_one_of_what_is_spent_counts(left: dict[str, str], seconds: float | None) -> None:
    for host in ("api.groq.com", "api.openai.com", "res.openai.azure.com", "gateway.example.com"):
        assert wait_hint_s(RESETS | left, names=rate_names(f"https://{host}/v1")) == seconds


def test_a_router_tells_the_reset_of_the_provider_behind_it_in_epoch_milliseconds() -> None:
    inner = {"x-ratelimit-reset": "1795507230000"}
    names = rate_names("https://openrouter.ai/api/v1")
    assert wait_hint_s({"date": DATE}, names=names, inner=inner) == pytest.approx(30)
    assert wait_hint_s({"date": DATE, "retry-after": "4"}, names=names, inner=inner) == 4
    assert wait_hint_s({}, "try again in 8s", names=names, inner=inner) == 8, "without a clock the words are left"


@pytest.mark.parametrize(("value", "forbidden"), [("false", True), (" False ", True), ("true", False), ("", False)])
def test_a_server_may_forbid_to_try_again(value: str, forbidden: bool) -> None:  # noqa: FBT001 - a parameter of tests
    assert forbids_retry({"x-should-retry": value}) is forbidden
    assert not forbids_retry({})


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://api.together.xyz/v1", "together.xyz"),
        ("https://api.together.ai/v1", "together.ai"),
        ("https://eu.api.openai.com/v1", "openai.com"),
        ("https://RES.openai.azure.com/openai/v1", "openai.azure.com"),
        ("https://api.fireworks.ai/inference/v1", "fireworks.ai"),
        ("https://api.groq.com/openai/v1", "groq.com"),
        ("https://openrouter.ai/api/v1", "openrouter.ai"),
        ("https://integrate.api.nvidia.com/v1", "nvidia.com"),
        ("https://notopenai.com/v1", None),
        ("https://api.openai.com.example.org/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        ("http://[::1]:8000/v1", None),
    ],
)
def test_a_provider_is_known_by_its_domain(base_url: str, host: str | None) -> None:
    names = rate_names(base_url)
    assert (names in RATE_HEADERS) == (host is not None)
    assert host is None or host in names.hosts


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "-inf", "1e300", "many", "0.5", "1 2", "9" * 100])
def test_a_limit_that_cannot_be_one_is_none(value: str) -> None:
    for base_url in ("https://api.together.xyz/v1", "https://api.openai.com/v1"):
        headers = {"x-ratelimit-limit": value, "x-ratelimit-limit-requests": value, "x-ratelimit-limit-tokens": value}
        assert rate_hint(headers, rate_names(base_url)) is None


def test_a_limit_is_told_per_second_whatever_its_unit() -> None:
    headers = {
        "x-ratelimit-limit": "10",
        "x-tokenlimit-limit": "5,000",
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-limit-tokens": "6,000,000",
    }
    assert rate_hint(headers, rate_names("https://api.together.xyz/v1")) == RateHint(
        requests_per_s=10.0, tokens_per_s=5000.0
    )
    assert rate_hint(headers, rate_names("https://api.openai.com/v1")) == RateHint(
        requests_per_s=10.0, tokens_per_s=100_000.0
    )
    assert rate_hint(headers, rate_names("https://api.groq.com/openai/v1")) == RateHint(tokens_per_s=100_000.0)
    assert rate_hint(headers, rate_names("https://api.fireworks.ai/v1")) == RateHint(requests_per_s=10.0)
    assert rate_hint(headers, rate_names("https://openrouter.ai/api/v1")) is None


def test_what_holds_now_beats_what_was_agreed() -> None:
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-limit-dynamic": "4", "x-tokenlimit-limit-dynamic": "-1"}
    assert rate_hint(headers, rate_names("https://api.together.xyz/v1")) == RateHint(requests_per_s=4.0)
