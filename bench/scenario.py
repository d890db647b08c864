"""What the simulated provider does: a frozen description, and its decisions as plain functions of it and a clock."""

from __future__ import annotations

import dataclasses
import math
import random
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ConfigError

FAULTS = frozenset(
    {
        *("status", "stall", "cut_body", "reset", "close", "wrong_length", "drip", "huge", "error_inside"),
        *("no_choices", "null_content", "not_json", "fenced", "cut_json", "no_usage", "absurd_usage", "finish"),
    }
)
PROFILES = ("together", "openai", "azure", "fireworks", "groq", "openrouter", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution: `fixed` at `median`, or `lognormal` around it."""

    kind: str = "fixed"
    median: float = 0.0
    sigma: float = 0.5
    """Of the logarithm; 0.5 puts one in a hundred above 3.2 medians."""

    def draw(self, rng: random.Random) -> float:
        if self.kind == "lognormal":
            return self.median * math.exp(rng.gauss(0.0, self.sigma))
        return self.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong, and when."""

    kind: str
    """One of `FAULTS`."""
    share: float = 1.0
    """Of the requests that match otherwise."""
    from_s: float = 0.0
    """Seconds after the start."""
    until_s: float = math.inf
    containing: str = ""
    """Only requests whose text holds this."""
    first_attempts: int = 0
    """Only so many times for the same messages; 0 is always."""
    status: int = 500
    message: str = "simulated trouble"
    code: str | None = None
    retry_after: str = ""
    """The header's value; not sent if empty."""
    finish_reason: str = "stop"
    after_bytes: int = 40
    """Where `cut_body` cuts, and how many bytes a second `drip` sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything a simulated provider is told. Times in seconds."""

    seed: int = 1
    latency: Lengths = field(default_factory=Lengths)
    s_per_output_token: float = 0.0
    answer_tokens: Lengths = field(default_factory=Lengths)
    """At least what the answer itself takes."""
    tokens_per_image: int = 1601
    slots: int = 0
    """Requests worked on at once; others queue. 0 is no bound."""
    queue: int = 0
    """Beyond so many waiting, 503. 0 is no bound."""
    requests_per_min: float = 0.0
    """0 is no limit; likewise below."""
    tokens_per_min: float = 0.0
    limit_steps: tuple[tuple[float, float], ...] = ()
    """From so many seconds on, both limits times this."""
    profile: str = "together"
    """Whose headers and error bodies."""
    api_key: str = ""
    """If not empty, every other key gets 401."""
    answer_schema: Mapping[str, Any] | None = None
    """What to answer under when a request brings no schema of its own."""
    row_pattern: str = ""
    """A regular expression whose first group names the row in the user's text, for the ledger."""
    digest_images: bool = False
    """Whether the ledger holds the SHA-256 of each image's bytes; costs CPU."""
    ledger_rows: int = 0
    """Entries kept in memory for `GET /ledger/rows`."""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigError(f"profile {self.profile!r} is none of {', '.join(PROFILES)}")
        for fault in self.faults:
            if fault.kind not in FAULTS:
                raise ConfigError(f"fault {fault.kind!r} is none of {', '.join(sorted(FAULTS))}")

    def limit_factor(self, elapsed_s: float) -> float:
        """What the limits are multiplied by at this time."""
        return next((factor for at, factor in reversed(self.limit_steps) if elapsed_s >= at), 1.0)

    def fault_for(self, *, elapsed_s: float, text: bytes, attempt: int, rng: random.Random) -> Fault | None:
        """The first fault that strikes a request; `attempt` counts the same messages from 1."""
        for fault in self.faults:
            strikes = (
                fault.from_s <= elapsed_s < fault.until_s
                and (not fault.first_attempts or attempt <= fault.first_attempts)
                and (not fault.containing or fault.containing.encode() in text)
            )
            if strikes and rng.random() < fault.share:
                return fault
        return None


@dataclass(slots=True)
class TokenBucket:
    """The provider's side of a rate limit: refills steadily, holds one second's worth."""

    level: float = math.inf
    at_s: float = 0.0

    def take(self, amount: float, *, per_min: float, now_s: float) -> float:
        """Take and return 0, or leave it and return the seconds until it could be taken."""
        if not per_min:
            return 0.0
        per_s = per_min / 60
        full = max(per_s, 1.0)
        self.level = min(full, self.level + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        wanted = min(amount, full)
        if self.level >= wanted:
            self.level -= amount
            return 0.0
        return (wanted - self.level) / per_s


def made_answer(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value valid under a schema.

    Knows objects, enums, constants, numbers, texts, booleans, arrays, and `if`/`then`/`else` over constants in `allOf`.
    """
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return made_answer(rng.choice(schema["anyOf"]), rng)
    match schema.get("type"):
        case "object":
            made = {key: made_answer(part, rng) for key, part in schema.get("properties", {}).items()}
            for rule in schema.get("allOf", ()):
                asked = rule["if"]["properties"].items()
                branch = rule.get("then" if all(made.get(key) == part["const"] for key, part in asked) else "else", {})
                made |= {key: made_answer(part, rng) for key, part in branch.get("properties", {}).items()}
            return made
        case "array":
            values = schema.get("items", {}).get("enum", ())
            return rng.sample(values, rng.randint(min(1, len(values)), len(values)))
        case "integer":
            return rng.randint(math.ceil(schema.get("minimum", 0)), math.floor(schema.get("maximum", 100)))
        case "number":
            low, high = schema.get("minimum", 0.0), schema.get("maximum", 1.0)
            return min(high, max(low, round(rng.uniform(low, high), 2)))
        case "boolean":
            return rng.random() < 0.5  # noqa: PLR2004 - a coin
        case _:
            return "simulated"


def scenario_from_dict(said: Mapping[str, Any]) -> Scenario:
    """A scenario from JSON.

    Raises:
        ConfigError: an unknown key or a value of the wrong kind, by name.
    """
    return typing.cast("Scenario", _built(Scenario, said, "scenario"))


def _built(kind: type[Any], said: Any, where: str) -> Any:
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} must be an object")
    hints = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}
    if unknown := sorted(set(said) - names):
        raise ConfigError(f"{where} has an unknown key {unknown[0]!r}; there are {', '.join(sorted(names))}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in said.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _built(typing.cast("type[Any]", hint), value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, f"{where}[{at}]") for at, item in enumerate(value))
    if origin in (types.UnionType, Mapping) or origin is not None:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {hint.__name__}, not {value!r}")
    return value
