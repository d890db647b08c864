"""Whatever a model writes: no exception, no label that the codebook does not know, and never another than it said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.codebook import Codebook, Dimension, spelled
from labels.reading import CodebookReader
from tests.fakes.codebooks import all_codebooks, all_groups, perfect_answer

READERS = [CodebookReader(codebook=book, group=group) for book in all_codebooks() for group in all_groups(book)]
WHOLE = [reader for reader in READERS if reader.group is None]
EXAMPLES = 40
"""Of each mutation."""
SEEDS = st.integers(0, 10**6)
Pairs = list[tuple[str, Any]]


def answer_to(reader: CodebookReader, rng: random.Random) -> dict[str, Any]:
    return perfect_answer(reader.codebook.system_prompt(reader.group), rng)


def asked_by(reader: CodebookReader) -> tuple[Dimension, ...]:
    return reader.codebook.asked(reader.group)


def assert_sound(reader: CodebookReader, text: str) -> None:
    reading = reader.read_fully(text)
    assert (reading.labels is None) != (reading.error is None)
    assert reading.cut == (reading.error == "truncated")
    if reading.labels is None:
        return
    assert list(reading.labels) == [dimension.key for dimension in asked_by(reader)]
    for dimension in asked_by(reader):
        assert dimension.accepts(reading.labels[dimension.key])
    assert reader.read_fully(json.dumps(reading.labels)).repairs == (), "a mended answer needs no mending"


@given(st.sampled_from(READERS), st.text())
def test_any_text_is_read_or_refused(reader: CodebookReader, text: str) -> None:
    assert_sound(reader, text)


@given(st.sampled_from(READERS), st.text(alphabet="{}[]\"':,“”‘’，： \n`\\yesno0.5-+_", max_size=60))  # noqa: RUF001
def test_any_heap_of_what_answers_are_made_of_is_read_or_refused(reader: CodebookReader, text: str) -> None:
    assert_sound(reader, text)


@given(st.sampled_from(WHOLE), SEEDS, st.data())
def test_a_right_answer_with_anything_changed_is_read_or_refused(
    reader: CodebookReader, seed: int, data: st.DataObject
) -> None:
    text = json.dumps(answer_to(reader, random.Random(seed)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    assert_sound(reader, text[:start] + data.draw(st.text(max_size=8)) + text[end:])


@given(
    st.sampled_from(WHOLE),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    SEEDS,
)
def test_any_value_for_any_key_is_read_or_refused(reader: CodebookReader, value: object, seed: int) -> None:
    rng = random.Random(seed)
    made = answer_to(reader, rng)
    made[rng.choice(list(made))] = value
    assert_sound(reader, json.dumps(made))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: f"{reader.codebook.name}-{reader.group}")
def test_an_answer_that_follows_the_prompt_is_right_to_the_letter(reader: CodebookReader) -> None:
    rng = random.Random(11)
    for _ in range(40):
        made = answer_to(reader, rng)
        for text in (json.dumps(made), json.dumps(made, ensure_ascii=False, separators=(",", ":"))):
            reading = reader.read_fully(text)
            assert (reading.labels, reading.error, reading.repairs) == (made, None, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A right answer about to be damaged."""

    reader: CodebookReader
    made: dict[str, Any]
    rng: random.Random

    @property
    def text(self) -> str:
        return json.dumps(self.made, ensure_ascii=False)

    def some(self, *kinds: str) -> Dimension | None:
        """A dimension of one of these kinds whose label is not blank."""
        fitting = [each for each in asked_by(self.reader) if each.kind in kinds and self.made[each.key] != ""]
        return self.rng.choice(fitting) if fitting else None

    def with_value(self, dimension: Dimension, value: Any) -> str:
        return json.dumps(self.made | {dimension.key: value}, ensure_ascii=False)

    def from_pairs(self, change: Callable[[Pairs], Pairs]) -> str:
        pairs = change(list(self.made.items()))
        return "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"


def _cased(case: Case) -> str | None:
    dimension = case.some("categorical")
    if dimension is None:
        return None
    said = str(case.made[dimension.key]).title() + " "
    return case.with_value(dimension, said) if spelled(said) in dimension.synonyms else None


def _synonym(case: Case) -> str | None:
    dimension = case.some("categorical")
    if dimension is None:
        return None
    same = [other for other, value in dimension.synonyms.items() if value == case.made[dimension.key]]
    return case.with_value(dimension, case.rng.choice(same).upper()) if same else None


def _alias(case: Case) -> str | None:
    dimension = case.some("categorical", "number", "list")
    if dimension is None or not dimension.aliases:
        return None
    name = case.rng.choice(dimension.aliases)
    return case.from_pairs(lambda pairs: [(name if key == dimension.key else key, value) for key, value in pairs])


def _number_as_text(case: Case) -> str | None:
    dimension = case.some("number")
    return None if dimension is None else case.with_value(dimension, f" {case.made[dimension.key]:.3f}")


def _truth(case: Case) -> str | None:
    dimension = case.some("categorical")
    means = {"yes": True, "no": False}
    if dimension is None or "true" not in dimension.synonyms or case.made[dimension.key] not in means:
        return None
    return case.with_value(dimension, means[case.made[dimension.key]])


def _bare(case: Case) -> str | None:
    dimension = case.some("categorical")
    if dimension is None or not str(case.made[dimension.key]).isidentifier():
        return None
    value = case.made[dimension.key]
    return case.with_value(dimension, "HERE").replace('"HERE"', value)


def _cut(case: Case) -> str:
    data = case.text.encode()
    return data[: case.rng.randrange(len(data))].decode(errors="replace")


def _cut_in_prose(case: Case) -> str:
    return "Well: " + _cut(case)


def _bad_number(case: Case) -> str | None:
    dimension = case.some("number")
    bad = case.rng.choice(
        ["1e400", "NaN", "-Infinity", "0.5.0", "1_0", "0x1", "50%", "null", '"one"', "11", "-11", "[0]"]
    )
    return None if dimension is None else case.with_value(dimension, "HERE").replace('"HERE"', bad)


def _bad_value(case: Case) -> str | None:
    dimension = case.some("categorical")
    bad: Any = case.rng.choice(["perhaps", "", " ", None, 0.5, 1, [], ["yes"], {}, {"yes": 1}, "yes, no", "yes or no"])
    if dimension is None or (dimension.when is not None and bad == ""):
        return None
    return case.with_value(dimension, bad)


def _bad_list(case: Case) -> str | None:
    dimension = case.some("list")
    if dimension is None:
        return None
    value = dimension.values[0]
    return case.with_value(dimension, case.rng.choice([value, [value, value], [[value]], None, {value: 1}, [1], ["?"]]))


def _without_one(case: Case) -> str:
    gone = case.rng.choice(list(case.made))
    return case.from_pairs(lambda pairs: [pair for pair in pairs if pair[0] != gone])


def _with_one_more(case: Case) -> str:
    more: list[tuple[str, Any]] = [("reason", "because"), ("note", {"a": 1}), ("", 1), ("x" * 200, None)]
    return case.from_pairs(lambda pairs: [*pairs, case.rng.choice(more)])


def _with_one_twice(case: Case) -> str:
    return case.from_pairs(lambda pairs: [*pairs, case.rng.choice(pairs)])


def _with_one_twice_in_another_spelling(case: Case) -> str:
    key, value = case.rng.choice(list(case.made.items()))
    return case.from_pairs(lambda pairs: [*pairs, (f"{key.upper()} ", value)])


def _renamed(case: Case) -> str:
    gone = case.rng.choice(list(case.made))
    return case.from_pairs(lambda pairs: [("label_" + key if key == gone else key, value) for key, value in pairs])


def _quoted_by(opening: str, closing: str) -> Callable[[Case], str | None]:
    def quoted(case: Case) -> str | None:
        text = json.dumps(case.made, ensure_ascii=False)
        if any(mark in part for part in _texts(case.made) for mark in "'\"\\“”‘’"):  # noqa: RUF001
            return None
        parts = text.split('"')
        return "".join(part + (opening if at % 2 == 0 else closing) for at, part in enumerate(parts[:-1])) + parts[-1]

    return quoted


def _texts(made: dict[str, Any]) -> Iterable[str]:
    for key, value in made.items():
        yield key
        yield from value if isinstance(value, list) else [str(value)]


def _wide(case: Case) -> str | None:
    if any(mark in part for part in _texts(case.made) for mark in ":,"):
        return None
    return json.dumps(case.made, ensure_ascii=False).replace(":", "：").replace(",", "，")  # noqa: RUF001


def _all_reordered(case: Case) -> str:
    return case.from_pairs(lambda pairs: case.rng.sample(pairs, len(pairs)))


def _wrongly_drafted(case: Case) -> str:
    return f'I first thought {{"a": 1}} or {json.dumps(case.made)[:-1]}, "x": 1}}, but: {case.text}'


SAME: dict[str, Callable[[Case], str | None]] = {
    "as it is": lambda case: case.text,
    "escaped": lambda case: json.dumps(case.made, ensure_ascii=True),
    "indented": lambda case: json.dumps(case.made, indent=4, ensure_ascii=False),
    "reordered": _all_reordered,
    "fenced": lambda case: f"```json\n{case.text}\n```",
    "fenced, and the brace forgotten": lambda case: f"```json\n{case.text[:-1]}\n```",
    "in prose": lambda case: f"Here you are: {case.text} I hope it's of use, isn't it?",
    "after a draft": _wrongly_drafted,
    "comma at the end": lambda case: case.text[:-1] + ", }",
    "brace missing": lambda case: case.text[:-1] + "\n",
    "brace missing after a comma": lambda case: case.text[:-1] + ",",
    "in another case": _cased,
    "by a synonym": _synonym,
    "by an alias": _alias,
    "number as text": _number_as_text,
    "truth": _truth,
    "bare word": _bare,
    "in single quotes": _quoted_by("'", "'"),
    "in curly quotes": _quoted_by("“", "”"),
    "in single curly quotes": _quoted_by("‘", "’"),  # noqa: RUF001
    "in full width": _wide,
    "in Python": lambda case: str(case.made),
}
"""What must be read as the same labels."""
REFUSED: dict[str, tuple[Callable[[Case], str | None], set[str]]] = {
    "nothing": (lambda _: " \n", {"empty"}),
    "refusal": (lambda _: "I can't help with that.", {"not_json"}),
    "half of it": (_cut, {"truncated", "empty"}),
    "half of it, in prose": (_cut_in_prose, {"truncated", "not_json"}),
    "number out of range or none": (_bad_number, {"bad_value", "not_json"}),
    "value that is none": (_bad_value, {"bad_value", "not_json"}),
    "list that is none": (_bad_list, {"bad_value"}),
    "key missing": (_without_one, {"missing_key"}),
    "key too many": (_with_one_more, {"unknown_key"}),
    "key twice": (_with_one_twice, {"duplicate_key"}),
    "key twice in another spelling": (_with_one_twice_in_another_spelling, {"duplicate_key"}),
    "key unknown": (_renamed, {"unknown_key"}),
    "nested": (lambda case: json.dumps({"labels": case.made}), {"unknown_key"}),
    "nested, and cut": (lambda case: json.dumps({"labels": case.made})[:-1], {"truncated"}),
    "in a list": (lambda case: f"[{case.text}", {"-"}),
    "as a text": (lambda case: json.dumps("yes " + "no " * len(case.made)), {"not_an_object"}),
    "too deep": (lambda case: '{"a":' * 70 + case.text + "}" * 70, {"too_deep"}),
}
"""What must not be read, with the reasons it may have."""


def case_of(reader: CodebookReader, seed: int) -> Case:
    rng = random.Random(seed)
    return Case(reader=reader, made=answer_to(reader, rng), rng=rng)


@pytest.mark.parametrize("name", SAME)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(READERS), SEEDS)
def test_a_mutation_that_changes_nothing_said_gives_the_same_labels(
    name: str, reader: CodebookReader, seed: int
) -> None:
    case = case_of(reader, seed)
    text = SAME[name](case)
    if text is None:
        return
    reading = reader.read_fully(text)
    if name == "in Python" and reading.labels is None and any("'" in part for part in _texts(case.made)):
        return
    assert (reading.labels, reading.error) == (case.made, None), text


@pytest.mark.parametrize("name", REFUSED)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(READERS), SEEDS)
def test_a_mutation_that_leaves_a_doubt_is_refused_with_its_reason(
    name: str, reader: CodebookReader, seed: int
) -> None:
    mutate, reasons = REFUSED[name]
    case = case_of(reader, seed)
    text = mutate(case)
    if text is None:
        return
    reading = reader.read_fully(text)
    if reading.labels is not None:
        # As a cut may take away the brace alone, and a list may hold one answer.
        assert reading.labels == case.made, text
        assert name in {"half of it", "half of it, in prose", "in a list"}
        assert {"truncated_tail", "prose_around"} & set(reading.repairs)
        return
    assert reading.error is not None
    assert reading.error.partition(":")[0] in reasons, (text, reading.error)
    assert len(reading.error) < 80


@pytest.mark.slow
@pytest.mark.parametrize("reader", WHOLE, ids=lambda reader: reader.codebook.name)
def test_no_cut_of_an_answer_gives_other_labels(reader: CodebookReader) -> None:
    for seed in range(2):
        case = case_of(reader, seed)
        for form in ("as it is", "indented", "in Python", "fenced", "in single quotes", "in full width"):
            text = SAME[form](case)
            for end in range(len(text or "")):
                labels = reader.read_fully(text[:end]).labels if text else None
                assert labels in (None, case.made)


def test_every_mutation_is_tried_on_something() -> None:
    untried = set(SAME)
    for seed in range(60):
        for reader in READERS:
            case = case_of(reader, seed)
            untried -= {name for name in untried if SAME[name](case) is not None}
        if not untried:
            return
    raise AssertionError(untried)


def test_the_laws_are_tried_on_every_way_to_ask() -> None:
    modes = {(reader.codebook.name, reader.group[0]) for reader in READERS if reader.group}
    assert {("comprehensive", "by-category"), ("comprehensive", "per-item"), ("odd", "halves")} <= modes
    assert len(WHOLE) == 6


def spellings_of(book: Codebook) -> Iterable[tuple[Dimension, str]]:
    return ((dimension, value) for dimension in book.dimensions for value in dimension.values)


@pytest.mark.parametrize("reader", WHOLE, ids=lambda reader: reader.codebook.name)
def test_no_spelling_of_a_value_means_another(reader: CodebookReader) -> None:
    for dimension, value in spellings_of(reader.codebook):
        assert dimension.synonyms.get(spelled(value), value) == value
