"""The text of a codebook file to a codebook, or the line and the key that are wrong."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.chat import VISION_CONTEXT
from engine.errors import ConfigError
from labels.codebook import (
    ALWAYS_THERE,
    KINDS,
    Codebook,
    Condition,
    Dimension,
    Implication,
    digest_of,
    plain_key,
    spelled,
)
from labels.toml_lines import Place, line_of, lines_of

_TOP_KEYS = {"name", "title", "role", "vision", "dimensions", "implications", "groups"}
_DIMENSION_KEYS = {
    *("key", "title", "kind", "definition", "evidence", "values", "minimum", "maximum", "gold", "when", "synonyms"),
    "aliases",
}
_NOT_IN_KEYS = frozenset("\"'`:,{}[]\\")
"""Characters that would make a key hard to find in an answer."""


def checked(path: Path, text: str) -> Codebook:
    """The codebook that a file holds.

    Args:
        path: where it stands, for messages.
        text: what it says.

    Raises:
        ConfigError: it is wrong; names file, line and key.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return _Checker(path, text).codebook(said)


class _Checker:
    """Goes through a parsed file; `at` is always the place in it that a message is about."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = lines_of(text)

    def codebook(self, said: dict[str, Any]) -> Codebook:
        self._known(said, _TOP_KEYS, "the codebook", at=())
        raw = said.get("dimensions")
        if not isinstance(raw, list) or not raw:
            raise self._error("a codebook needs at least one [[dimensions]]", at=("dimensions",))
        dimensions = tuple(self._dimension(item, at=("dimensions", at)) for at, item in enumerate(raw))
        self._check_keys(dimensions)
        by_key = {dimension.key: dimension for dimension in dimensions}
        for at, dimension in enumerate(dimensions):
            if dimension.when is not None:
                self._check_condition(dimension.when, by_key, at=("dimensions", at, "when"))
        self._check_circles(dimensions, by_key)
        return Codebook(
            name=self._text(said, "name", at=()),
            title=self._text(said, "title", at=()),
            role=self._text(said, "role", at=()),
            dimensions=dimensions,
            implications=self._implications(said.get("implications", []), by_key),
            groups=self._groups(said.get("groups", {}), by_key),
            vision_context=self._text(said, "vision", at=()) if "vision" in said else VISION_CONTEXT,
            digest=digest_of(json.dumps(said, sort_keys=True)),
        )

    def _dimension(self, said: Any, *, at: Place) -> Dimension:
        if not isinstance(said, dict) or not isinstance(said.get("key"), str) or not said["key"]:
            raise self._error("every dimension needs a key", at=at)
        key = said["key"]
        if not key.isprintable() or not _NOT_IN_KEYS.isdisjoint(key) or not plain_key(key):
            raise self._error(f"dimension {key!r}: a key has no quotes, colons, commas or brackets", at=(*at, "key"))
        self._known(said, _DIMENSION_KEYS, f"dimension {key}", at=at)
        kind = said.get("kind")
        if kind not in KINDS:
            raise self._error(f"dimension {key}: kind must be one of {', '.join(KINDS)}", at=(*at, "kind"))
        values = self._values(said, at=at)
        minimum, maximum = self._range(said, at=at)
        return Dimension(
            key=key,
            title=self._text(said, "title", at=at),
            kind=kind,
            definition=self._text(said, "definition", at=at),
            evidence=self._text(said, "evidence", at=at),
            values=values,
            minimum=minimum,
            maximum=maximum,
            gold=self._texts(said, "gold", at=at) or (key,),
            when=self._when(said, at=at),
            synonyms=self._spellings(said, values, at=at),
            aliases=self._texts(said, "aliases", at=at),
        )

    def _range(self, said: dict[str, Any], *, at: Place) -> tuple[float, float]:
        key = said["key"]
        if said["kind"] != "number":
            for name in ("minimum", "maximum"):
                if name in said:
                    raise self._error(f"dimension {key}: {name} is for numbers alone", at=(*at, name))
            return 0.0, 0.0
        low: Any = said.get("minimum")
        high: Any = said.get("maximum")
        if not (_is_finite(low) and _is_finite(high) and low < high):
            raise self._error(f"dimension {key}: a number needs minimum below maximum", at=(*at, "minimum"))
        return float(low), float(high)

    def _values(self, said: dict[str, Any], *, at: Place) -> tuple[str, ...]:
        key, kind = said["key"], said["kind"]
        values = self._texts(said, "values", at=at)
        if (kind != "number") != bool(values) or len(set(values)) < len(values):
            raise self._error(
                f"dimension {key}: values must be a list of different texts, and not for a number", at=(*at, "values")
            )
        return values

    def _spellings(self, said: dict[str, Any], values: Sequence[str], *, at: Place) -> dict[str, str]:
        """Every spelling that means one value. Two values that differ in case alone are told apart to the letter."""
        place: Place = (*at, "synonyms")
        meant: dict[str, set[str]] = {}
        for value in values:
            meant.setdefault(spelled(value), set()).add(value)
        synonyms = said.get("synonyms", {})
        if not isinstance(synonyms, dict):
            raise self._error(f"dimension {said['key']}: synonyms is a table of lists of texts", at=place)
        for value in synonyms:
            if value not in values:
                raise self._error(
                    f"dimension {said['key']}: synonyms of {value!r}, which is no value", at=(*place, value)
                )
            for other in self._texts(synonyms, value, at=place):
                if meant.setdefault(spelled(other), {value}) != {value}:
                    raise self._error(
                        f"dimension {said['key']}: the synonym {other!r} of {value!r} means another value already",
                        at=(*place, value),
                    )
        return {spelling: next(iter(found)) for spelling, found in meant.items() if len(found) == 1}

    def _when(self, said: dict[str, Any], *, at: Place) -> Condition | None:
        if "when" not in said:
            return None
        if said["kind"] != "categorical":
            raise self._error(
                f'dimension {said["key"]}: only categorical ones have a condition, as "" is no number and no list',
                at=(*at, "when"),
            )
        return self._condition(said["when"], at=(*at, "when"))

    def _check_keys(self, dimensions: Sequence[Dimension]) -> None:
        """No spelling of a key may mean two dimensions."""
        owners: dict[str, str] = {}
        for at, dimension in enumerate(dimensions):
            twin = owners.get(plain_key(dimension.key))
            if twin is not None:
                same = "stands twice" if twin == dimension.key else f"cannot be told from {twin!r}"
                raise self._error(f"the key {dimension.key!r} {same}", at=("dimensions", at, "key"))
            owners[plain_key(dimension.key)] = dimension.key
        for at, dimension in enumerate(dimensions):
            for alias in dimension.aliases:
                owner = owners.setdefault(plain_key(alias), dimension.key)
                if owner != dimension.key:
                    raise self._error(
                        f"dimension {dimension.key}: the alias {alias!r} means {owner} already",
                        at=("dimensions", at, "aliases"),
                    )

    def _check_circles(self, dimensions: Sequence[Dimension], by_key: Mapping[str, Dimension]) -> None:
        for at, dimension in enumerate(dimensions):
            passed, when = {dimension.key}, dimension.when
            while when is not None:
                if when.key in passed:
                    raise self._error(
                        f"dimension {dimension.key}: its condition leads back to itself", at=("dimensions", at, "when")
                    )
                passed.add(when.key)
                when = by_key[when.key].when

    def _groups(self, said: Any, by_key: Mapping[str, Dimension]) -> dict[str, dict[str, tuple[str, ...]]]:
        if not isinstance(said, dict):
            raise self._error("groups are written [groups.MODE]", at=("groups",))
        groups: dict[str, dict[str, tuple[str, ...]]] = {}
        for mode, members in said.items():
            if mode in ALWAYS_THERE or not isinstance(members, dict) or not members:
                raise self._error(
                    f"groups of {mode!r}: a mode holds at least one list of keys, and {' and '.join(ALWAYS_THERE)} "
                    "are there always",
                    at=("groups", mode),
                )
            groups[mode] = {group: self._group(members, group, by_key, at=("groups", mode)) for group in members}
        groups["single"] = {"all": tuple(by_key)}
        groups["per-item"] = {key: (key,) for key in by_key}
        return groups

    def _group(
        self, members: dict[str, Any], group: str, by_key: Mapping[str, Dimension], *, at: Place
    ) -> tuple[str, ...]:
        keys = self._texts(members, group, at=at)
        if not keys or len(set(keys)) < len(keys):
            raise self._error(f"group {group} of {at[-1]} must name different keys", at=(*at, group))
        for key in keys:
            if key not in by_key:
                raise self._error(f"group {group} of {at[-1]} names {key!r}, which is no dimension", at=(*at, group))
        return keys

    def _implications(self, said: Any, by_key: Mapping[str, Dimension]) -> tuple[Implication, ...]:
        if not isinstance(said, list):
            raise self._error("implications are written [[implications]]", at=("implications",))
        return tuple(self._implication(item, by_key, at=("implications", at)) for at, item in enumerate(said))

    def _implication(self, said: Any, by_key: Mapping[str, Dimension], *, at: Place) -> Implication:
        if not isinstance(said, dict):
            raise self._error("an implication has a when and a then", at=at)
        self._known(said, {"when", "then"}, "the implication", at=at)
        sides = {name: self._condition(said.get(name), at=(*at, name)) for name in ("when", "then")}
        for name, condition in sides.items():
            self._check_condition(condition, by_key, at=(*at, name))
        return Implication(when=sides["when"], then=sides["then"])

    def _condition(self, said: Any, *, at: Place) -> Condition:
        if (
            not isinstance(said, dict)
            or set(said) != {"key", "equals"}
            or not all(isinstance(part, str) for part in said.values())
        ):
            raise self._error('a condition is written { key = "...", equals = "..." }', at=at)
        return Condition(key=said["key"], equals=said["equals"])

    def _check_condition(self, condition: Condition, by_key: Mapping[str, Dimension], *, at: Place) -> None:
        dimension = by_key.get(condition.key)
        if dimension is None or dimension.kind != "categorical" or condition.equals not in dimension.values:
            raise self._error(f"no dimension {condition.key!r} has a value {condition.equals!r}", at=at)

    def _text(self, said: dict[str, Any], name: str, *, at: Place) -> str:
        value = said.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self._error(f"{_of(said)}{name} is missing or no text", at=(*at, name))
        return value

    def _texts(self, said: dict[str, Any], name: str, *, at: Place) -> tuple[str, ...]:
        values = said.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            raise self._error(f"{_of(said)}{name} must be a list of texts", at=(*at, name))
        return tuple(values)

    def _known(self, said: dict[str, Any], known: set[str], what: str, *, at: Place) -> None:
        for name in said:
            if name not in known:
                raise self._error(f"{what} has an unknown key {name!r}", at=(*at, name))

    def _error(self, message: str, *, at: Place) -> ConfigError:
        return ConfigError(f"{self._path}, line {line_of(self._lines, at)}: {message}")


def _of(said: Mapping[str, Any]) -> str:
    return f"dimension {said['key']}: " if isinstance(said.get("key"), str) else ""


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
