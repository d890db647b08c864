"""What a response's headers ask for: seconds to wait, and a rate. Tolerant of every form providers are known to send.

All of it is advice. A header is parsed or ignored, never divided by, and never trusted beyond its bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import urlsplit

from engine.providers import GENERIC, RATE_HEADERS, RateNames
from engine.types import RateHint

LONGEST_HINT_S = 6 * 3600.0
EPOCH_S, EPOCH_MS = 1e9, 1e12
"""Numbers above these are points in time, not spans."""
HIGHEST_LIMIT = 1e10
"""Requests or tokens in whatever unit a header has; a hundred times the largest allowance anybody publishes."""
LONGEST_VALUE_CHARS = 64
"""The longest real form is an HTTP date of 29."""

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_IN_TEXT = re.compile(
    r"(?:try again|retry) (?:in|after) (?:((?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h))+)\b"
    r"|(\d{1,9}(?:\.\d{1,9})?) ?(milli|ms|min|m\b|h)?)",
    re.IGNORECASE,
)
_WORD_S = {"milli": 0.001, "ms": 0.001, "min": 60.0, "m": 60.0, "h": 3600.0, "": 1.0}
_NOTHING: Mapping[str, str] = MappingProxyType({})


def rate_names(base_url: str) -> RateNames:
    """Which headers the provider at this address speaks of its limits in."""
    host = urlsplit(base_url).hostname or ""
    for names in RATE_HEADERS:
        if any(host == known or host.endswith(f".{known}") for known in names.hosts):
            return names
    return GENERIC


def forbids_retry(headers: Mapping[str, str]) -> bool:
    """Whether the server says that the same request would meet the same answer."""
    return headers.get("x-should-retry", "").strip().lower() == "false"


def wait_hint_s(
    headers: Mapping[str, str],
    message: str = "",
    *,
    names: RateNames = GENERIC,
    inner: Mapping[str, str] = _NOTHING,
) -> float | None:
    """Seconds the server asks to wait, between 0 and six hours, or None if it does not say.

    The order follows the clients providers publish: `retry-after-ms`, `retry-after`, the provider's own reset
    headers, then words in the error message.

    Args:
        headers: of the response, by names in lower case or by a mapping that does not mind the case.
        message: the error's own words.
        names: whose headers these are.
        inner: headers of the provider behind a router, from inside its error; asked after the response's own.
    """
    date = headers.get("date")
    for said in (headers, inner):
        if (ms := _first_span_s(said, "retry-after-ms", date=date)) is not None:
            return ms / 1000
        if (seconds := _first_span_s(said, "retry-after", date=date)) is not None:
            return seconds
        if (seconds := _reset_s(said, names, date=date)) is not None:
            return seconds
    return _in_text_s(message)


def parse_span_s(value: str | None, *, date: str | None = None) -> float | None:
    """Seconds meant by one header value, or None if it means nothing.

    Takes `1`, `0.25`, `1,000`, `120ms`, `6m0s`, `1h2m3.5s`, epoch seconds and milliseconds, and an HTTP date. Points
    in time are compared with the response's own `date`, because the two clocks need not agree; without one they mean
    nothing. Negative numbers, NaN and garbage mean nothing.
    """
    text = (value or "").strip().lower()
    if not text or len(text) > LONGEST_VALUE_CHARS:
        return None
    try:
        number = float(text.replace(",", "") if text[0].isdigit() else text)
    except ValueError:
        return _duration_s(text) if text[0].isdigit() else _until_s(text, date=date)
    if not math.isfinite(number) or number < 0:
        return None
    if number >= EPOCH_S:
        at_s = number / 1000 if number >= EPOCH_MS else number
        now_s = _timestamp(date)
        return None if now_s is None else _clamped(at_s - now_s)
    return _clamped(number)


def rate_hint(headers: Mapping[str, str], names: RateNames = GENERIC) -> RateHint | None:
    """The limits these headers speak of, per second, or None if they speak of none. Cheap where there is none."""
    requests = _limit_per_s(headers, names.requests)
    tokens = _limit_per_s(headers, names.tokens)
    if requests is None and tokens is None:
        return None
    return RateHint(requests_per_s=requests, tokens_per_s=tokens)


def _limit_per_s(headers: Mapping[str, str], named: tuple[tuple[str, float], ...]) -> float | None:
    for name, unit_s in named:
        if name in headers:
            for value in _values(headers, name):
                if (limit := _limit(value)) is not None:
                    return limit / unit_s
    return None


def _limit(value: str) -> float | None:
    """A count above zero; `0` and `-1` are what providers write where they have none."""
    text = value.strip().replace(",", "")
    if len(text) > LONGEST_VALUE_CHARS:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    # From 1 on, so that no unit turns it into a rate of almost nothing; NaN fails both comparisons.
    return number if 1 <= number <= HIGHEST_LIMIT else None


def _values(headers: Mapping[str, str], name: str) -> Iterator[str]:
    """Each value of a header that may be there twice, in the order sent."""
    getall = getattr(headers, "getall", None)
    if getall is not None:
        yield from getall(name, ())
    elif name in headers:
        yield headers[name]


def _first_span_s(headers: Mapping[str, str], name: str, *, date: str | None) -> float | None:
    spans = (parse_span_s(value, date=date) for value in _values(headers, name))
    return next((span for span in spans if span is not None), None)


def _reset_s(headers: Mapping[str, str], names: RateNames, *, date: str | None) -> float | None:
    """When to come back by the provider's own headers: when all that is spent has been given back.

    Where two allowances have a reset each, the one that still has something left is not what the call ran into.
    Without a word of what is left the earlier one counts: to come too early costs one more refusal.
    """
    for name in names.resets:
        if (seconds := _first_span_s(headers, name, date=date)) is not None:
            return seconds
    spent: list[float] = []
    unknown: list[float] = []
    for reset, remaining in names.resets_when_spent:
        seconds = _first_span_s(headers, reset, date=date)
        left = _first_number(headers, remaining)
        if seconds is not None and (left is None or left <= 0):
            (unknown if left is None else spent).append(seconds)
    return max(spent, default=min(unknown, default=None))


def _first_number(headers: Mapping[str, str], name: str) -> float | None:
    for value in _values(headers, name):
        try:
            number = float(value.replace(",", ""))
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return None


def _in_text_s(message: str) -> float | None:
    found = _IN_TEXT.search(message)
    if found is None:
        return None
    if found[1]:
        return _duration_s(found[1].lower())
    return _clamped(float(found[2]) * _WORD_S[(found[3] or "").lower()])


def _duration_s(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return None
    return _clamped(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def _until_s(text: str, *, date: str | None) -> float | None:
    at_s, now_s = _timestamp(text), _timestamp(date)
    return None if at_s is None or now_s is None else _clamped(at_s - now_s)


def _timestamp(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError, TypeError, IndexError, OSError):
        return None


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_HINT_S)
