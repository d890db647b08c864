"""Texts and times for a person to read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


def printable(text: str) -> str:
    """The text without control characters, which a hostile id or server could use to drive the terminal."""
    return "".join(char if unicodedata.category(char)[0] != "C" else "�" for char in text)


def span(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `5 h 07 min`, `2 d 04 h`."""
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    steps: list[tuple[int, Callable[[], str]]] = [
        (days, lambda: f"{days} d {hours % 24:02d} h"),
        (hours, lambda: f"{hours} h {minutes % 60:02d} min"),
        (minutes, lambda: f"{minutes} min {whole % 60:02d} s"),
    ]
    return next((text() for amount, text in steps if amount), f"{whole} s")
