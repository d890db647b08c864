"""Values made up under a JSON schema: valid ones, and ones that are slightly wrong."""

from __future__ import annotations

import math
import random
import typing
from collections.abc import Mapping
from typing import Any

OUTSIDE = "none of these values"


def made_answer(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value valid under a schema.

    Knows objects, arrays, enums, constants, numbers, texts, booleans, null, their bounds, `anyOf`, `oneOf`, references
    within the schema, and `if`/`then`/`else` over constants in `allOf`; other keywords are not looked at.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: nothing fits it, or it is no schema.
    """
    return _made(schema, rng, schema)


def damaged(made: Any, schema: Mapping[str, Any], rng: random.Random) -> Any:
    """An answer made under a schema, with one thing wrong: a value that is not listed, or a key that is not there."""
    if not isinstance(made, dict) or not made:
        return OUTSIDE
    spoiled, parts = dict(made), schema.get("properties", {})
    listed = [key for key in made if "enum" in parts.get(key, {}) or "enum" in parts.get(key, {}).get("items", {})]
    if listed and rng.random() < 0.5:  # noqa: PLR2004 - a coin
        key = rng.choice(listed)
        spoiled[key] = [*made[key], OUTSIDE] if isinstance(made[key], list) else OUTSIDE
    else:
        del spoiled[rng.choice(list(made))]
    return spoiled


def _made(schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any]) -> Any:
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "$ref" in schema:
        return _made(_referred(root, schema["$ref"]), rng, root)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _made(rng.choice(choices), rng, root)
    return _made_by_type(schema, rng, root)


def _made_by_type(schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match rng.choice(kind) if isinstance(kind, list) else kind:
        case "object":
            return _made_object(schema, rng, root)
        case "array":
            return _made_list(schema, rng, root)
        case "integer":
            return _made_integer(schema, rng)
        case "number":
            return _made_number(schema, rng)
        case "boolean":
            return rng.random() < 0.5  # noqa: PLR2004 - a coin
        case "null":
            return None
        case _:
            return "simulated".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _referred(root: Mapping[str, Any], address: str) -> Mapping[str, Any]:
    found: Any = root
    for name in address.removeprefix("#").split("/")[1:]:
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return typing.cast("Mapping[str, Any]", found)


def _made_object(schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: _made(part, rng, root) for key, part in schema.get("properties", {}).items()}
    for rule in schema.get("allOf", ()):
        branch = rule.get("then" if _holds(rule["if"]["properties"], made) else "else")
        if branch is not None:
            for key, part in branch.get("properties", {}).items():
                made[key] = _made(part, rng, root)
    return made


def _holds(asked: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    for key, part in asked.items():  # noqa: SIM110 - asked for every answer, and a generator takes twice as long
        if made.get(key) != part["const"]:
            return False
    return True


def _made_list(schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any]) -> list[Any]:
    items = schema.get("items", {})
    values, least = items.get("enum"), schema.get("minItems", 0)
    most = schema.get("maxItems", max(least, 3 if values is None else len(values)))
    if values is None:
        made = [_made(items, rng, root) for _ in range(rng.randint(least, most))]
        if not schema.get("uniqueItems"):
            return made
        single = [value for at, value in enumerate(made) if value not in made[:at]]
        if len(single) < least:
            raise ValueError("too few different items")
        return single
    count = rng.randint(max(least, min(1, most, len(values))), max(least, min(most, len(values))))
    if count > len(values) and not schema.get("uniqueItems"):
        return rng.choices(values, k=count)
    return rng.sample(values, count)


def _made_integer(schema: Mapping[str, Any], rng: random.Random) -> int:
    low = math.ceil(schema["minimum"]) if "minimum" in schema else None
    high = math.floor(schema["maximum"]) if "maximum" in schema else None
    if "exclusiveMinimum" in schema:
        low = math.floor(schema["exclusiveMinimum"]) + 1
    if "exclusiveMaximum" in schema:
        high = math.ceil(schema["exclusiveMaximum"]) - 1
    if low is None:
        low = 0 if high is None else min(0, high)
    return rng.randint(low, max(100, low + 100) if high is None else high)


def _made_number(schema: Mapping[str, Any], rng: random.Random) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0.0 if high is None else min(0.0, high - 1.0)
    if high is None:
        high = max(1.0, low + 1.0)
    if low > high:
        raise ValueError("no number lies between these bounds")
    exact = float(low + (high - low) * rng.uniform(0.01, 0.99))
    rounded = round(exact, 2)
    return rounded if low < rounded < high else exact
