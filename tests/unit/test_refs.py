"""References to frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.refs import frame_ref, parsed_ref


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_reference_gives_back_what_it_was_made_of(identity: str, name: str) -> None:
    try:
        (identity + name).encode()
    except UnicodeEncodeError:
        assert parsed_ref(frame_ref(identity, name)) is not None
    else:
        assert parsed_ref(frame_ref(identity, name)) == (identity, name)
    assert frame_ref(identity, name).isascii()


@pytest.mark.parametrize(
    "url", ["https://x/y", "frames:", "frames:a", "frames:/b", "frames:a/", "frames:a/b/c", "frames:%ff/b"]
)
def test_what_is_no_reference_is_none(url: str) -> None:
    assert parsed_ref(url) is None
