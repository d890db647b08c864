"""Whether a request gets as far as the model: who asks, for which model, how much, in which form."""

from __future__ import annotations

from collections.abc import Mapping

from bench import wording
from bench.conversation import Conversation
from bench.refusals import Trouble
from bench.scenario import Scenario

ALWAYS_CLAMPING = frozenset({"fireworks"})
"""Take any `max_tokens` without a look, and end the answer where the context ends."""


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The key a request brings, empty if none; Azure has a header of its own for it."""
    said = headers.get(b"authorization")
    if said is not None and said.startswith(b"Bearer "):
        return said[len(b"Bearer ") :]
    return headers.get(b"api-key", b"")


def at_the_door(scenario: Scenario, asked: Conversation, *, key: bytes, body_bytes: int) -> Trouble | None:
    """What is refused before anything is counted: a key, a model, a size."""
    if scenario.api_key and key != scenario.api_key.encode():
        return Trouble(status=401, message="invalid API key", code="invalid_api_key")
    if scenario.max_body_bytes and body_bytes > scenario.max_body_bytes:
        return wording.body_too_large(scenario.profile)
    if scenario.keys_spent and key.decode("latin-1") in scenario.keys_spent:
        return wording.quota_spent(scenario.profile)
    if scenario.known_models and asked.model not in scenario.known_models:
        return wording.unknown_model(scenario.profile, asked.model)
    return None


def before_the_model(scenario: Scenario, asked: Conversation, *, prompt_tokens: int) -> Trouble | None:
    """What is refused once it is read: a response format, images, tokens."""
    profile, images = scenario.profile, len(asked.images)
    if scenario.structured == "refused" and asked.structured not in {None, "text"}:
        return wording.format_not_taken(profile, str(asked.structured))
    if scenario.max_images and images > scenario.max_images:
        return wording.too_many_images(profile, images=images, most=scenario.max_images)
    if not scenario.context_tokens:
        return None
    long = wording.Overlong(context=scenario.context_tokens, prompt=prompt_tokens, asked=asked.max_tokens)
    if long.prompt >= long.context:
        return wording.prompt_too_long(profile, long)
    clamps = scenario.context_clamps or not asked.names_max_tokens or profile in ALWAYS_CLAMPING
    return wording.answer_too_long(profile, long) if long.total > long.context and not clamps else None
