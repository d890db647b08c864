"""A set of row ordinals as a bitmap: one bit a row, 12.5 MB for a hundred million."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

STEP_BYTES = 1 << 16


class RowSet:
    """Grows with its highest member."""

    __slots__ = ("_bits", "count")

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits)
        self.count = int.from_bytes(bits, "little").bit_count()

    def __contains__(self, row: int) -> bool:
        at = row >> 3
        return at < len(self._bits) and bool(self._bits[at] & (1 << (row & 7)))

    def add(self, row: int) -> bool:
        """Add a row; whether it is new."""
        at, bit = row >> 3, 1 << (row & 7)
        if at >= len(self._bits):
            self._bits.extend(bytes(at - len(self._bits) + STEP_BYTES))
        elif self._bits[at] & bit:
            return False
        self._bits[at] |= bit
        self.count += 1
        return True

    def discard(self, row: int) -> None:
        if row in self:
            self._bits[row >> 3] &= ~(1 << (row & 7))
            self.count -= 1

    def update(self, other: RowSet) -> None:
        """Add every row of `other`."""
        self._become(self._number() | other._number())

    def without(self, other: RowSet) -> RowSet:
        """The rows that are not in `other`."""
        left = RowSet()
        left._become(self._number() & ~other._number())
        return left

    def _number(self) -> int:
        return int.from_bytes(self._bits, "little")

    def _become(self, number: int) -> None:
        self._bits = bytearray(number.to_bytes((number.bit_length() + 7) // 8, "little"))
        self.count = number.bit_count()

    def copy(self) -> RowSet:
        return RowSet(bytes(self._bits))

    def packed(self) -> bytes:
        """Compressed, without the empty end."""
        return zlib.compress(bytes(self._bits).rstrip(b"\0"), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> RowSet:
        return cls(zlib.decompress(data))


@dataclass(slots=True, kw_only=True)
class DoneRows:
    """Which rows a life has no work to do on."""

    results: RowSet = field(default_factory=RowSet)
    failures: RowSet = field(default_factory=RowSet)
    again: RowSet = field(default_factory=RowSet)
    """Failed rows that may end anew."""
    only_again: bool = False
    """Whether this life works on those rows alone."""

    def has(self, row: int) -> bool:
        if row in self.again:
            return False
        return self.only_again or row in self.results or row in self.failures

    def copy(self) -> DoneRows:
        """As of this moment."""
        return DoneRows(
            results=self.results.copy(),
            failures=self.failures.copy(),
            again=self.again.copy(),
            only_again=self.only_again,
        )
