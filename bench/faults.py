"""What can go wrong with an answer, and when it does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.settings import refuse_all_but_shares, refuse_negative
from engine.errors import ConfigError

WIRE = frozenset({"stall", "reset", "close", "cut_body", "wrong_length", "drip", "huge"})
"""What happens to the bytes."""
RUNAWAY = frozenset({"repeat", "newlines", "reasoning"})
"""The model goes on until its allowance is spent."""
WHOLE = frozenset(
    {
        *("fenced", "cut_json", "no_usage", "absurd_usage", "finish"),
        *("repeat", "newlines", "reasoning", "parts", "wrong_model"),
    }
)
"""The answer is not as it should be, and arrives as a completion all the same."""
HOLLOW = frozenset(
    {
        *("error_inside", "no_choices", "null_content", "not_json"),
        *("refusal", "tool_calls"),
    }
)
"""Status 200, and nothing in it that could be an answer."""
FAULTS = frozenset({"status"}) | WIRE | WHOLE | HOLLOW
BODILESS = frozenset({204, 205, 304})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
"""Set by the server itself: another value would be another fault than the one asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong, and when."""

    kind: str
    """One of `FAULTS`."""
    share: float = 1.0
    """Of the requests that match otherwise."""
    from_s: float = 0.0
    """Seconds after this scenario took effect."""
    until_s: float = math.inf
    containing: str = ""
    """Only requests whose messages' text holds this."""
    first_attempts: int = 0
    """Only so many times for the same messages under this scenario; 0 is always."""
    status: int = 500
    message: str = "simulated trouble"
    """Of `status`, `error_inside` and `refusal`."""
    code: str | None = None
    error_type: str = ""
    """If empty, the one that goes with the status."""
    retry_after: str = ""
    """The header's value; not sent if empty."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of a `status`, by name."""
    finish_reason: str = "stop"
    after_bytes: int = 40
    """Where `cut_body` cuts, and how many bytes a second `drip` sends."""

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ConfigError(f"kind {self.kind!r} is none of {', '.join(sorted(FAULTS))}")
        refuse_all_but_shares(self, "share")
        if not 200 <= self.status <= 599 or self.status in BODILESS:  # noqa: PLR2004 - what can carry an error body
            raise ConfigError(f"status must be between 200 and 599 and allow a body, not {self.status!r}")
        if not _is_header_value(self.retry_after):
            raise ConfigError(f"retry_after must be printable ASCII, not {self.retry_after!r}")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING:
                raise ConfigError(f"headers: {name!r} is no name of a header that may be set")
            if not _is_header_value(value):
                raise ConfigError(f"headers.{name} must be printable ASCII, not {value!r}")
        refuse_negative(self, "from_s", "until_s", "first_attempts", "after_bytes")

    def told_headers(self) -> tuple[tuple[str, str], ...]:
        """What a `status` sends besides the usual."""
        named = (("retry-after", self.retry_after),) if self.retry_after else ()
        return (*named, *self.headers.items())


def _is_header_value(text: str) -> bool:
    return text.isascii() and (not text or text.isprintable())
