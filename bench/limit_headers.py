"""How each provider tells its rate limits in headers, on success and on 429, and garbage in the same places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bench.buckets import Standing
from bench.wire import Headers

NONSENSE = (
    *("NaN", "-1", "1e99", "Thu, 01 Jan 1970 00:00:00 GMT", "", "1,2,3", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"),
    *("inf", "9" * 400, "0x10", "-0.0", "1e-320"),
)
DUPLICATED = 3
"""Every so many headers one comes twice."""
DAY_MIN = 24 * 60
SILENT = frozenset({"openrouter", "vllm", "tgi"})
"""Tell nothing of limits that are not met."""


class Tally(NamedTuple):
    """What there is to tell."""

    requests: Standing | None
    tokens: Standing | None
    waits: str = ""
    """The limit a refused request met: `request` or `token`."""
    wait_s: float = 0.0
    """Until that limit would let it in."""


def limit_headers(profile: str, tally: Tally) -> Headers:
    """None for providers that tell nothing."""
    match profile:
        case "together":
            return _together(tally)
        case "openai":
            return _openai(tally)
        case "azure":
            return _azure(tally)
        case "fireworks":
            return _fireworks(tally)
        case "groq":
            return _groq(tally)
        case "openrouter":
            return _retry_after(tally)
        case _:
            return ()


def nonsense(profile: str, tally: Tally, seq: int) -> Headers:
    """The headers of a profile with garbage in every value; another in each place as `seq` goes on."""
    some = Standing(per_min=60.0, here=1.0, missing=0.0)
    told = limit_headers(profile, tally._replace(requests=some, tokens=some))
    made: list[tuple[str, str]] = []
    for at, (name, _) in enumerate(told):
        made.append((name, NONSENSE[(seq + at) % len(NONSENSE)]))
        if at % DUPLICATED == 0:
            made.append((name, NONSENSE[(seq + at + 1) % len(NONSENSE)]))
    return tuple(made)


def _together(tally: Tally) -> Headers:
    """Per second."""
    made: dict[str, str] = {}
    for name, limit in (("rate", tally.requests), ("token", tally.tokens)):
        if limit is not None:
            left = 0 if tally.waits == _LIMIT_OF[name] else math.floor(limit.here)
            made |= {f"x-{name}limit-limit": f"{limit.per_min / 60:g}", f"x-{name}limit-remaining": f"{left}"}
    short_of = 0.0 if tally.requests is None else max(0.0, 1 - tally.requests.here) / (tally.requests.per_min / 60)
    return tuple((made | {"x-ratelimit-reset": f"{tally.wait_s or short_of:.2f}"}).items())


_LIMIT_OF = {"rate": "request", "token": "token", "requests": "request", "tokens": "token"}


def _openai(tally: Tally) -> Headers:
    made: dict[str, str] = {}
    for name, limit in _named(tally):
        left, full_in_s = _left(tally, name, limit)
        made |= {
            f"x-ratelimit-limit-{name}": f"{int(limit.per_min):,}",
            f"x-ratelimit-remaining-{name}": f"{left:,}",
            f"x-ratelimit-reset-{name}": _duration(full_in_s),
        }
    return (*made.items(), *_retry_after_ms(tally), *_retry_after(tally))


def _azure(tally: Tally) -> Headers:
    """Whole seconds."""
    made: dict[str, str] = {}
    for name, limit in _named(tally):
        left, full_in_s = _left(tally, name, limit)
        made |= {
            f"x-ratelimit-limit-{name}": str(int(limit.per_min)),
            f"x-ratelimit-remaining-{name}": str(left),
            f"x-ratelimit-reset-{name}": str(math.ceil(full_in_s)),
        }
    return (*made.items(), *_retry_after_ms(tally), *_retry_after(tally))


def _fireworks(tally: Tally) -> Headers:
    """Three limits of tokens, all of them our one."""
    made: dict[str, str] = {}
    for name, limit in _named(tally):
        left, _ = _left(tally, name, limit)
        kinds = ("-prompt", "-cache-adjusted-prompt", "-generated") if name == "tokens" else ("",)
        for kind in kinds:
            made[f"x-ratelimit-limit-{name}{kind}"] = str(int(limit.per_min))
            made[f"x-ratelimit-remaining-{name}{kind}"] = str(left)
    if tally.waits:
        made["x-ratelimit-over-limit"] = "yes"
    return (*made.items(), *_retry_after(tally))


def _groq(tally: Tally) -> Headers:
    """Requests are counted by the day, tokens by the minute."""
    made: dict[str, str] = {}
    for name, limit in _named(tally):
        scale = DAY_MIN if name == "requests" else 1
        left, full_in_s = _left(tally, name, limit)
        # No request is ever refused for the day's sake: the day is told as so many minutes of this limit.
        over = int(limit.per_min * (scale - 1))
        made |= {
            f"x-ratelimit-limit-{name}": str(int(limit.per_min * scale)),
            f"x-ratelimit-remaining-{name}": str(left + over),
            f"x-ratelimit-reset-{name}": _duration(full_in_s, short=False),
        }
    return (*made.items(), *_retry_after(tally))


def _named(tally: Tally) -> list[tuple[str, Standing]]:
    limits: Mapping[str, Standing | None] = {"requests": tally.requests, "tokens": tally.tokens}
    return [(name, limit) for name, limit in limits.items() if limit is not None]


def _left(tally: Tally, name: str, limit: Standing) -> tuple[int, float]:
    """What is left of a limit, and the seconds until more is."""
    if tally.waits == _LIMIT_OF[name]:
        return 0, tally.wait_s
    return limit.left_of_minute, limit.full_in_s


def _retry_after(tally: Tally) -> Headers:
    return (("retry-after", str(math.ceil(tally.wait_s))),) if tally.waits else ()


def _retry_after_ms(tally: Tally) -> Headers:
    return (("retry-after-ms", str(math.ceil(tally.wait_s * 1000))),) if tally.waits else ()


def _duration(seconds: float, *, short: bool = True) -> str:
    """As Go writes it: `120ms`, `7.66s`, `6m0s`. Not `short`, never in milliseconds."""
    if short and seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 100) / 100, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
