"""What `infer` tells of its chats while they end: videos without frames, and a model that takes no pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.ports import Findings
from engine.types import Failure, FailureKind, Record, Row

NAMED = 5
"""Videos that are named; of the others only the number is said."""
TEXT_ONLY = "text_only:"
BLIND = (
    "The model seems not to support images: the provider says so of chats with pictures. "
    "Use a vision-capable model, or leave the pictures out"
)
_BLIND = re.compile(
    r"(?:image|vision|multi-?modal|picture).{0,80}(?:not|n't|unsupported|invalid|only)"
    r"|(?:not|n't|unsupported|only).{0,80}(?:image|vision|multi-?modal|picture)",
    re.IGNORECASE,
)
"""How a server says that a model takes no pictures."""
_REFUSALS = frozenset({FailureKind.REFUSED, FailureKind.TOO_LARGE})


class Sight:
    """An observer."""

    def __init__(self) -> None:
        self._without: list[str] = []
        self._count = 0
        self._blind = 0

    def read(self, batch: Sequence[Row | Record]) -> None:
        pass

    def ended(self, record: Record) -> None:
        """Look at what a chat was sent without, or refused for."""
        if any(code.startswith(TEXT_ONLY) for code in record.degraded):
            self._count += 1
            if len(self._without) < NAMED:
                self._without.append(record.id)
        outcome = record.outcome
        if isinstance(outcome, Failure) and outcome.kind in _REFUSALS and _BLIND.search(outcome.message):
            self._blind += 1

    def findings(self) -> Findings:
        lines: tuple[tuple[str, str], ...] = ()
        if self._count:
            more = f" and {self._count - len(self._without):,} more" if self._count > len(self._without) else ""
            words = f"No frames found for video {', '.join(self._without)}{more}: sent as text alone"
            lines = (("frames", words),)
        alarms: tuple[str, ...] = ()
        if self._blind:
            alarms = (BLIND,)
        return Findings(lines=lines, alarms=alarms, values={"without_frames": self._count, "blind": self._blind})
