"""A value that does not show itself."""

from __future__ import annotations

from typing import NoReturn

SHORTEST_SECRET_CHARS = 8
"""Below this it is a word that some local server wants to hear, such as `EMPTY` or `x`. Hiding it would hide nothing
and spoil whatever contains it."""


class Secret:
    """An API key. Prints as `***`, cannot be pickled, is read only where a header is made."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def redact(self, text: str) -> str:
        """The text without the key, should a server or an error echo it."""
        return text.replace(self._value, "***") if len(self._value) >= SHORTEST_SECRET_CHARS else text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
