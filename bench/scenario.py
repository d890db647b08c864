"""What the simulated provider does: a frozen description, and its decisions as plain functions of it and a clock."""

from __future__ import annotations

import math
import random
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.faults import Fault
from bench.invented import made_answer
from bench.settings import built, refuse_all_but_shares, refuse_disorder, refuse_negative
from engine.errors import ConfigError

__all__ = ["PROFILES", "STRUCTURED", "Lengths", "Scenario", "made_answer", "scenario_from_dict"]

PROFILES = ("together", "openai", "azure", "fireworks", "groq", "openrouter", "vllm", "tgi")
STRUCTURED = ("enforced", "ignored", "refused")


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
        refuse_negative(self, "median", "sigma")

    def draw(self, rng: random.Random) -> float:
        if self.kind == "lognormal":
            return self.median * math.exp(rng.gauss(0.0, self.sigma))
        return self.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything a simulated provider is told. Times in seconds, since it took effect."""

    seed: int = 1
    latency: Lengths = field(default_factory=Lengths)
    s_per_output_token: float = 0.0
    latency_steps: tuple[tuple[float, float], ...] = ()
    """From so many seconds on, in rising order, the time an answer takes times this."""
    answer_tokens: Lengths = field(default_factory=Lengths)
    """At least what the answer itself takes."""
    tokens_per_image: int = 1601
    slots: int = 0
    """Requests worked on at once; others queue. 0 is no bound."""
    slot_steps: tuple[tuple[float, float], ...] = ()
    """Likewise, slots times this, and at least one."""
    queue: int = 0
    """Beyond so many waiting, 503. 0 is no bound."""
    requests_per_min: float = 0.0
    """0 is no limit; likewise below."""
    tokens_per_min: float = 0.0
    limit_steps: tuple[tuple[float, float], ...] = ()
    """From so many seconds on, in rising order, both limits times this."""
    outage: tuple[tuple[float, float], ...] = ()
    """From and until when every connection is reset; the scenario, the ledger and the health stay within reach."""
    profile: str = "together"
    """Whose headers and error bodies."""
    header_nonsense: bool = False
    """Whether the values of all rate limit headers are garbage."""
    api_key: str = ""
    """If not empty, every other key gets 401."""
    keys_spent: tuple[str, ...] = ()
    """Keys whose quota is used up."""
    known_models: tuple[str, ...] = ()
    """If there are any, every other model gets 404."""
    max_images: int = 0
    """In one request. 0 is no limit; likewise below."""
    max_body_bytes: int = 0
    context_tokens: int = 0
    """Of prompt and answer together."""
    context_clamps: bool = False
    """Whether an answer that would pass the context is cut there, instead of refused beforehand."""
    structured: str = "enforced"
    """What becomes of a request's `response_format`: one of `STRUCTURED`."""
    malformed_share: float = 0.0
    """Of the answers that no schema of the request holds to form: slightly wrong ones."""
    repair_marker: str = "REWRITE"
    """A request without images whose text holds this asks to mend an earlier answer, and gets a valid one."""
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
        _refuse_unlisted(self, "profile", PROFILES)
        _refuse_unlisted(self, "structured", STRUCTURED)
        refuse_negative(self, "s_per_output_token", "tokens_per_image", "slots", "queue", "ledger_rows")
        refuse_negative(self, "requests_per_min", "tokens_per_min", "max_images", "max_body_bytes", "context_tokens")
        refuse_all_but_shares(self, "malformed_share")
        refuse_disorder(self, "limit_steps", "slot_steps", "latency_steps")
        if self.slot_steps and not self.slots:
            raise ConfigError("slot_steps needs slots to multiply")
        if self.context_clamps and not self.context_tokens:
            raise ConfigError("context_clamps needs context_tokens")
        if not all(0 <= from_s < until_s for from_s, until_s in self.outage):
            raise ConfigError("outage must be pairs of seconds, each ending after it starts")
        if not all(key.isascii() for key in (self.api_key, *self.keys_spent)):
            raise ConfigError("api_key and keys_spent must be ASCII")
        if "" in self.keys_spent:
            raise ConfigError("keys_spent must not hold an empty key")
        _check_row_pattern(self.row_pattern)

    def limit_factor(self, elapsed_s: float) -> float:
        """What the limits are multiplied by at this time."""
        return _step(self.limit_steps, elapsed_s)

    def latency_factor(self, elapsed_s: float) -> float:
        """What the time an answer takes is multiplied by at this time."""
        return _step(self.latency_steps, elapsed_s)

    def slots_at(self, elapsed_s: float) -> int:
        """Requests worked on at once at this time; 0 is no bound."""
        if not self.slot_steps:
            return self.slots
        return max(1, round(self.slots * _step(self.slot_steps, elapsed_s)))

    def is_out(self, elapsed_s: float) -> bool:
        """Whether connections are reset at this time."""
        return any(from_s <= elapsed_s < until_s for from_s, until_s in self.outage)

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


def scenario_from_dict(said: Mapping[str, Any]) -> Scenario:
    """A scenario from JSON.

    Raises:
        ConfigError: an unknown key or a value of the wrong kind, by name.
    """
    return typing.cast("Scenario", built(Scenario, said, "scenario"))


def _step(steps: Sequence[tuple[float, float]], elapsed_s: float) -> float:
    """The factor of the last step reached."""
    return next((factor for at_s, factor in reversed(steps) if elapsed_s >= at_s), 1.0)


def _refuse_unlisted(told: Scenario, name: str, listed: Sequence[str]) -> None:
    if getattr(told, name) not in listed:
        raise ConfigError(f"{name} {getattr(told, name)!r} is none of {', '.join(listed)}")


def _check_row_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"row_pattern is no regular expression: {error}") from error
    if pattern and not groups:
        raise ConfigError(f"row_pattern {pattern!r} needs a group around what names the row")
