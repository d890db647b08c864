"""Every form in which a provider says how long to wait."""

from __future__ import annotations

import pytest

from engine.hints import parse_span_s, wait_hint_s

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
