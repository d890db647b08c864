"""What a response's headers ask for: seconds to wait. Tolerant of every form providers are known to send."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_HINT_S = 6 * 3600.0
EPOCH_S, EPOCH_MS = 1e9, 1e12
"""Numbers above these are points in time, not spans."""

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_IN_TEXT = re.compile(r"(?:try again in|retry after) (\d+(?:\.\d+)?) ?(ms|s|m|h)?", re.IGNORECASE)


def wait_hint_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """Seconds the server asks to wait, between 0 and six hours, or None if it does not say.

    The order follows the clients providers publish: `retry-after-ms`, `retry-after`, the provider's own reset
    header, then words in the error message.
    """
    date = headers.get("date")
    if (ms := parse_span_s(headers.get("retry-after-ms"), date=date)) is not None:
        return ms / 1000
    for name in ("retry-after", "x-ratelimit-reset"):
        if (seconds := parse_span_s(headers.get(name), date=date)) is not None:
            return seconds
    if found := _IN_TEXT.search(message):
        return _clamped(float(found[1]) * _UNIT_S[(found[2] or "s").lower()])
    return None


def parse_span_s(value: str | None, *, date: str | None = None) -> float | None:
    """Seconds meant by one header value, or None if it means nothing.

    Takes `1`, `0.25`, `1,000`, `120ms`, `6m0s`, `1h2m3.5s`, epoch seconds and milliseconds, and an HTTP date. Points
    in time are compared with the response's own `date`, because the two clocks need not agree; without one they mean
    nothing. Negative numbers, NaN and garbage mean nothing.
    """
    text = (value or "").strip().lower()
    if not text or len(text) > 64:  # noqa: PLR2004 - the longest real form is an HTTP date of 29
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
