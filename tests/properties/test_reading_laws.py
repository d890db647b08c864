"""Whatever a model writes: no exception, and no label that the codebook does not know."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from bench.scenario import made_answer
from labels.codebook import SHIPPED, load_codebook
from labels.reading import CodebookReader

BOOKS = [load_codebook(path.stem) for path in sorted(SHIPPED.glob("*.toml"))]


def assert_sound(reader: CodebookReader, text: str) -> None:
    reading = reader.read_fully(text)
    assert (reading.labels is None) != (reading.error is None)
    if reading.labels is None:
        return
    assert list(reading.labels) == [dimension.key for dimension in reader.codebook.dimensions]
    for dimension in reader.codebook.dimensions:
        assert dimension.accepts(reading.labels[dimension.key])
    assert reader.read_fully(json.dumps(reading.labels)).repairs == (), "a mended answer needs no mending"


@given(st.sampled_from(BOOKS), st.text())
def test_any_text_is_read_or_refused(book: object, text: str) -> None:
    assert_sound(CodebookReader(codebook=book), text)  # type: ignore[arg-type]  # hypothesis draws it


@given(st.sampled_from(BOOKS), st.integers(0, 10**6), st.data())
def test_a_right_answer_with_anything_changed_is_read_or_refused(book: object, seed: int, data: st.DataObject) -> None:
    reader = CodebookReader(codebook=book)  # type: ignore[arg-type]  # as above
    text = json.dumps(made_answer(reader.codebook.json_schema(), random.Random(seed)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    assert_sound(reader, text[:start] + data.draw(st.text(max_size=8)) + text[end:])


@given(
    st.sampled_from(BOOKS),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.integers(0, 10**6),
)
def test_any_value_for_any_key_is_read_or_refused(book: object, value: object, seed: int) -> None:
    reader = CodebookReader(codebook=book)  # type: ignore[arg-type]  # as above
    rng = random.Random(seed)
    made = made_answer(reader.codebook.json_schema(), rng)
    made[rng.choice(list(made))] = value
    assert_sound(reader, json.dumps(made))
