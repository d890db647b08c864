"""Which keys may have been put in."""

from __future__ import annotations

import hashlib

from sinks.seen import Seen


def keys(first: int, last: int) -> list[bytes]:
    return [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(first, last)]


def test_no_key_that_was_added_is_denied_and_few_others_are_not() -> None:
    seen = Seen()
    assert not any(map(seen.may_hold, keys(0, 1000)))
    for key in keys(0, 200_000):
        seen.add(key)
    assert all(map(seen.may_hold, keys(0, 200_000)))
    wrong = sum(map(seen.may_hold, keys(200_000, 300_000)))
    # (1 - e^(-3n/m))^3 = 0.00004 with n = 200,000 keys in m = 2^24 bits: 4.3 are expected.
    assert wrong <= 15
