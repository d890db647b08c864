"""A codebook for a person to read, and what in it is worth a second look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labels.codebook import ALWAYS_THERE, Codebook, Condition, Dimension, digest_of, spelled

BYTES_PER_TOKEN = 4
LONG_PROMPT_TOKENS = 4000
"""At a million rows every thousand tokens of prompt are a billion to pay for."""


def as_json(book: Codebook) -> dict[str, Any]:
    """All of it as JSON values."""
    return {
        "name": book.name,
        "title": book.title,
        "role": book.role,
        "vision_context": book.vision_context,
        "dimensions": [_dimension(dimension) for dimension in book.dimensions],
        "implications": [
            {"when": _condition(implication.when), "then": _condition(implication.then)}
            for implication in book.implications
        ],
        "groups": {mode: dict(members) for mode, members in book.groups.items()},
        "digest": book.digest,
        "prompt_digest": digest_of(book.system_prompt()),
        "schema_digest": book.schema_digest(),
        "prompt_tokens": prompt_tokens(book),
    }


def as_text(book: Codebook) -> str:
    """All of it but the definitions, which the prompt has."""
    return "\n".join(_lines(book))


def warnings_of(book: Codebook) -> list[str]:
    """What is no mistake, and may be one."""
    found = []
    for dimension in book.dimensions:
        if dimension.unsure is None:
            found.append(
                f"{dimension.key} has no value for lacking evidence, such as cannot_determine: a model has to guess"
            )
        for value in dimension.values:
            twins = [other for other in dimension.values if other != value and spelled(other) == spelled(value)]
            if twins and dimension.values.index(value) < dimension.values.index(twins[0]):
                found.append(
                    f"{dimension.key}: {value!r} and {twins[0]!r} differ in case alone; other spellings are refused"
                )
    if (tokens := prompt_tokens(book)) > LONG_PROMPT_TOKENS:
        found.append(f"the prompt takes about {tokens:,} tokens, and every row pays for them")
    return found


def prompt_tokens(book: Codebook) -> int:
    """About so many tokens the prompt takes, without the vision context."""
    return len(book.system_prompt().encode()) // BYTES_PER_TOKEN


def _lines(book: Codebook) -> Iterator[str]:
    yield f"{book.name}: {book.title}"
    yield f"digest {book.digest}, prompt {digest_of(book.system_prompt())}, schema {book.schema_digest()}"
    yield f"the prompt takes about {prompt_tokens(book):,} tokens"
    yield ""
    width = max(len(dimension.key) for dimension in book.dimensions)
    for dimension in book.dimensions:
        yield f"{dimension.key:<{width}}  {dimension.kind:<11}  {_takes(dimension)}"
        yield f"{'':<{width}}  {'':<11}  gold: {', '.join(dimension.gold)}"
    if book.implications:
        yield ""
    for implication in book.implications:
        yield f"if {_said(implication.when)} then {_said(implication.then)}"
    for mode, members in book.groups.items():
        if mode in ALWAYS_THERE:
            continue
        yield ""
        yield f"groups of {mode}"
        inner = max(map(len, members))
        for group, keys in members.items():
            yield f"  {group:<{inner}}  {', '.join(keys)}"


def _takes(dimension: Dimension) -> str:
    if dimension.kind == "number":
        return f"{dimension.minimum:g} to {dimension.maximum:g}"
    values = (", " if dimension.kind == "list" else " | ").join(dimension.values)
    return f'{values} | "" unless {_said(dimension.when)}' if dimension.when else values


def _said(condition: Condition) -> str:
    return f"{condition.key} = {condition.equals}"


def _condition(condition: Condition) -> dict[str, str]:
    return {"key": condition.key, "equals": condition.equals}


def _dimension(dimension: Dimension) -> dict[str, Any]:
    bounds = {"minimum": dimension.minimum, "maximum": dimension.maximum}
    return {
        "key": dimension.key,
        "title": dimension.title,
        "kind": dimension.kind,
        "definition": dimension.definition,
        "evidence": dimension.evidence,
        **(bounds if dimension.kind == "number" else {"values": dimension.values}),
        "when": None if dimension.when is None else _condition(dimension.when),
        "gold": dimension.gold,
        "spellings": dict(dimension.synonyms),
        "aliases": dimension.aliases,
        "unsure": dimension.unsure,
    }
