"""Frozen descriptions from JSON, and the checks they share. What is wrong is named by its key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import ConfigError


def built(kind: type[Any], said: Any, where: str) -> Any:
    """A dataclass from a JSON object, whose keys are its fields.

    Raises:
        ConfigError: an unknown or a missing key, or a value of the wrong kind, by name.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} must be an object")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    names = {item.name for item in fields}
    if unknown := sorted(set(said) - names):
        raise ConfigError(f"{where} has an unknown key {unknown[0]!r}; there are {', '.join(sorted(names))}")
    for item in fields:
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if needed and item.name not in said:
            raise ConfigError(f"{where}.{item.name} is missing")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in said.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def refuse_negative(told: Any, *names: str) -> None:
    for name in names:
        # Written so that NaN is refused too.
        if not getattr(told, name) >= 0:
            raise ConfigError(f"{name} must not be negative")


def refuse_all_but_shares(told: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(told, name) <= 1:
            raise ConfigError(f"{name} must be between 0 and 1, not {getattr(told, name)!r}")


def refuse_disorder(told: Any, *names: str) -> None:
    """Steps are (seconds, factor), and the last one reached counts."""
    for name in names:
        steps = getattr(told, name)
        starts = [at_s for at_s, _ in steps]
        # An infinite factor would be a limit that no number can be taken from.
        if starts != sorted(starts) or not all(at_s >= 0 and 0 < factor < float("inf") for at_s, factor in steps):
            raise ConfigError(f"{name} must be in rising order of seconds from 0 on, with factors above 0")


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return built(typing.cast("type[Any]", hint), value, where)
    if isinstance(hint, types.UnionType):
        inner = typing.get_args(hint)[0]
        return None if value is None else _value(inner, value, where)
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is tuple:
        return tuple(_items(parts, value, where))
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{where} must be {'object' if kind is Mapping else kind.__name__}, not {value!r}")
    if kind is Mapping and parts[1] is not Any:
        return {name: _value(parts[1], item, f"{where}.{name}") for name, item in value.items()}
    return value


def _items(hints: tuple[Any, ...], value: Any, where: str) -> Iterator[Any]:
    """The items of `tuple[X, ...]` or of `tuple[X, Y]`, from a list."""
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list")
    inner = hints[:1] * len(value) if hints[-1] is ... else hints
    if len(inner) != len(value):
        raise ConfigError(f"{where} must be a list of {len(inner)}")
    for at, (hint, item) in enumerate(zip(inner, value, strict=True)):
        yield _value(hint, item, f"{where}[{at}]")
