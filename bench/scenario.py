"""What the simulated provider does: a frozen description, and its decisions as plain functions of it and a clock."""

from __future__ import annotations

import dataclasses
import math
import random
import re
import types
import typing
from collections.abc import Iterator, Mapping
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
BODILESS = frozenset({204, 205, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution: `fixed` at `median`, or `lognormal` around it."""

    kind: str = "fixed"
    median: float = 0.0
    sigma: float = 0.5
    """Of the logarithm; 0.5 puts one in a hundred above 3.2 medians."""

    def __post_init__(self) -> None:
        if self.kind not in {"fixed", "lognormal"}:
            raise ConfigError(f"kind {self.kind!r} is neither fixed nor lognormal")
        _refuse_negative(self, "median", "sigma")

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
    """Seconds after this scenario took effect."""
    until_s: float = math.inf
    containing: str = ""
    """Only requests whose messages' text holds this."""
    first_attempts: int = 0
    """Only so many times for the same messages under this scenario; 0 is always."""
    status: int = 500
    message: str = "simulated trouble"
    code: str | None = None
    retry_after: str = ""
    """The header's value; not sent if empty."""
    finish_reason: str = "stop"
    after_bytes: int = 40
    """Where `cut_body` cuts, and how many bytes a second `drip` sends."""

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ConfigError(f"kind {self.kind!r} is none of {', '.join(sorted(FAULTS))}")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share must be between 0 and 1, not {self.share!r}")
        if not 200 <= self.status <= 599 or self.status in BODILESS:  # noqa: PLR2004 - what can carry an error body
            raise ConfigError(f"status must be between 200 and 599 and allow a body, not {self.status!r}")
        if not (self.retry_after.isascii() and (not self.retry_after or self.retry_after.isprintable())):
            raise ConfigError(f"retry_after must be printable ASCII, not {self.retry_after!r}")
        _refuse_negative(self, "from_s", "until_s", "first_attempts", "after_bytes")


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
    """From so many seconds on, in rising order, both limits times this."""
    profile: str = "together"
    """Whose headers and error bodies."""
    api_key: str = ""
    """If not empty, every other key gets 401."""
    answer_schema: Mapping[str, Any] | None = None
    """What to answer under when a request brings no schema of its own. A scenario that replaces another and has none
    keeps the other's."""
    row_pattern: str = ""
    """A regular expression whose first group names the row in the user's text, for the ledger."""
    digest_images: bool = False
    """Whether the ledger holds the SHA-256 of each image's bytes; costs CPU."""
    ledger_rows: int = 0
    """Entries kept in memory for `GET /ledger/rows`; a later scenario can raise it, not lower it."""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigError(f"profile {self.profile!r} is none of {', '.join(PROFILES)}")
        _refuse_negative(self, "s_per_output_token", "tokens_per_image", "slots", "queue", "ledger_rows")
        _refuse_negative(self, "requests_per_min", "tokens_per_min")
        starts = [at_s for at_s, _ in self.limit_steps]
        if starts != sorted(starts) or any(factor <= 0 for _, factor in self.limit_steps):
            raise ConfigError("limit_steps must be in rising order of seconds, with factors above 0")
        try:
            groups = re.compile(self.row_pattern).groups
        except re.error as error:
            raise ConfigError(f"row_pattern is no regular expression: {error}") from error
        if self.row_pattern and not groups:
            raise ConfigError(f"row_pattern {self.row_pattern!r} needs a group around what names the row")
        if not self.api_key.isascii():
            raise ConfigError("api_key must be ASCII")

    def limit_factor(self, elapsed_s: float) -> float:
        """What the limits are multiplied by at this time."""
        return next((factor for at, factor in reversed(self.limit_steps) if elapsed_s >= at), 1.0)

    def fault_for(self, *, elapsed_s: float, text: str, attempt: int, rng: random.Random) -> Fault | None:
        """The first fault that strikes a request; `attempt` counts the same messages from 1."""
        for fault in self.faults:
            strikes = (
                fault.from_s <= elapsed_s < fault.until_s
                and (not fault.first_attempts or attempt <= fault.first_attempts)
                and (not fault.containing or fault.containing in text)
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


class RateLimits:
    """Both limits of a scenario. Times are seconds since it took effect."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._requests, self._tokens = TokenBucket(), TokenBucket()

    def take(self, *, tokens: float, since_s: float) -> tuple[str, float] | None:
        """None if a request is let in; else which limit it meets, and the seconds until it would not.

        A request that the token limit refuses has used up its share of the request limit, as with real providers.
        """
        factor = self._scenario.limit_factor(since_s)
        wait_s = self._requests.take(1, per_min=self._scenario.requests_per_min * factor, now_s=since_s)
        if wait_s:
            return "request", wait_s
        wait_s = self._tokens.take(tokens, per_min=self._scenario.tokens_per_min * factor, now_s=since_s)
        return ("token", wait_s) if wait_s else None


def made_answer(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value valid under a schema.

    Knows objects, arrays, enums, constants, numbers, texts, booleans, null, their bounds, `anyOf`, `oneOf`, references
    within the schema, and `if`/`then`/`else` over constants in `allOf`; other keywords are not looked at.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: nothing fits it, or it is no schema.
    """
    return _made(schema, rng, schema)


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
        asked = rule["if"]["properties"].items()
        branch = rule.get("then" if all(made.get(key) == part["const"] for key, part in asked) else "else", {})
        made |= {key: _made(part, rng, root) for key, part in branch.get("properties", {}).items()}
    return made


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
    if kind is Fault and "kind" not in said:
        raise ConfigError(f"{where}.kind is missing")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in said.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _built(typing.cast("type[Any]", hint), value, where)
    if isinstance(hint, types.UnionType):
        inner = typing.get_args(hint)[0]
        return None if value is None else _value(inner, value, where)
    if typing.get_origin(hint) is tuple:
        return tuple(_items(typing.get_args(hint), value, where))
    kind = typing.get_origin(hint) or hint
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{where} must be {'object' if kind is Mapping else kind.__name__}, not {value!r}")
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


def _refuse_negative(told: Any, *names: str) -> None:
    for name in names:
        # Written so that NaN is refused too.
        if not getattr(told, name) >= 0:
            raise ConfigError(f"{name} must not be negative")
