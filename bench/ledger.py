"""What the simulated provider received: totals always, entries if asked for. Tests take it as the truth about money.

An entry is written before its answer is sent, so that no client holds an answer the ledger's file does not know.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson


@dataclass(slots=True, kw_only=True)
class Entry:
    """One received request."""

    seq: int
    received_s: float
    """Since the provider started."""
    row: str | None
    """What the scenario's `row_pattern` found."""
    digest: str
    """Of the messages: the same for every attempt of a row."""
    images: int
    image_digests: list[str]
    """First 16 hex digits of the SHA-256 of each image's bytes; empty unless the scenario asks for them."""
    body_bytes: int
    max_tokens: int
    model: str = ""
    structured: str | None = None
    """Type of the `response_format` it carried; None if it carried none."""
    key: str = ""
    """First 6 hex digits of the SHA-256 of its key, which itself is kept nowhere; empty without a key."""
    status: int = 0
    answered_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    delivered: bool = False
    """Whether a whole completion was written to a connection that was still open; a refusal is none."""


class Ledger:
    """Counts requests; a context manager if it writes a file."""

    def __init__(self, *, keep: int, path: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._file = path.open("ab", buffering=0) if path else None
        self.requests = 0
        self.malformed = 0
        """Requests for a completion that were none; they have no entry."""
        self.by_status: Counter[int] = Counter()
        self.by_model: Counter[str] = Counter()
        self.delivered = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.images = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.body_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def keep_at_least(self, entries: int) -> None:
        """Keep more entries from now on; those held stay."""
        if entries > (self._entries.maxlen or 0):
            self._entries = deque(self._entries, maxlen=entries)

    def opened(self, entry: Entry) -> None:
        """A request has arrived whole."""
        self.requests += 1
        self.by_model[entry.model] += 1
        self.images += entry.images
        self.body_bytes += entry.body_bytes
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def closed(self, entry: Entry) -> None:
        """A request has got its answer, or never will."""
        self.in_flight -= 1
        self.by_status[entry.status] += 1
        self.delivered += entry.delivered
        self.prompt_tokens += entry.prompt_tokens
        self.completion_tokens += entry.completion_tokens
        self._entries.append(entry)
        if self._file:
            self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def totals(self) -> dict[str, Any]:
        return {
            "simulated": True,
            "requests": self.requests,
            "malformed": self.malformed,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "by_model": dict(sorted(self.by_model.items())),
            "delivered": self.delivered,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "images": self.images,
            "body_bytes": self.body_bytes,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
        }

    def entries(self, *, after: int = 0) -> list[Entry]:
        """The kept entries whose `seq` is above `after`."""
        return [entry for entry in self._entries if entry.seq > after]


def key_mark(key: bytes) -> str:
    """What tells keys apart without being one."""
    return hashlib.sha256(key).hexdigest()[:6] if key else ""


def image_digest(url: str) -> str:
    """Of the bytes inside a data URL, or of the URL itself if it is none.

    Raises:
        ValueError: the data is no base64.
    """
    head, comma, data = url.partition(";base64,")
    raw = base64.b64decode(data, validate=True) if comma and head.startswith("data:") else url.encode()
    return hashlib.sha256(raw).hexdigest()[:16]


def row_in(pattern: re.Pattern[str] | None, text: str) -> str | None:
    found = pattern.search(text) if pattern else None
    return found[1] if found else None
