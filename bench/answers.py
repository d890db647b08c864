"""What the simulated provider says: completions, cut where the allowance ends, and spoilt as faults ask."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bench.conversation import Conversation
from bench.faults import RUNAWAY, Fault
from bench.invented import damaged, made_answer
from bench.scenario import Scenario
from bench.wire import Headers, http_response

CHARS_PER_TOKEN = 4
PLAIN_ANSWER = "This is a simulated answer."
LOOP = "the market and then "
THOUGHT = "Let me look at it once more. "
OTHER_MODEL = "simulated/another-model"

_MALFORMED = 0x6D616C
"""Mixed into the seed: which answers are malformed must not change what the others say."""
_REASONING_KEYS = {"together": "reasoning", "groq": "reasoning", "openrouter": "reasoning"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One completion."""

    content: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    takes_s: float

    def response(self, seq: int, headers: Headers = ()) -> bytes:
        """The whole HTTP response."""
        return http_response(200, orjson.dumps(self.body(seq)), (("x-request-id", f"sim-{seq}"), *headers))

    def body(self, seq: int) -> dict[str, Any]:
        return {
            "id": f"sim-{seq}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "simulated": True,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self.content},
                    "finish_reason": self.finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        }

    def distorted(self, fault: Fault, seq: int, *, profile: str, headers: Headers = ()) -> bytes:
        """The response as a fault spoils it."""
        body = self.body(seq)
        match fault.kind:
            case "error_inside":
                body = {"error": {"code": fault.status, "message": fault.message}}
            case "no_choices":
                body["choices"] = []
            case "no_usage":
                del body["usage"]
            case "absurd_usage":
                body["usage"] = {"prompt_tokens": -1, "completion_tokens": 10**18}
            case "wrong_model":
                body["model"] = OTHER_MODEL
            case "reasoning":
                body["usage"]["completion_tokens_details"] = {"reasoning_tokens": self.completion_tokens}
                self._distort(body["choices"][0], fault, profile)
            case _:
                self._distort(body["choices"][0], fault, profile)
        data = b"certainly no JSON" if fault.kind == "not_json" else orjson.dumps(body)
        return http_response(200, data, (("x-request-id", f"sim-{seq}"), *headers))

    def _distort(self, choice: dict[str, Any], fault: Fault, profile: str) -> None:
        message = choice["message"]
        match fault.kind:
            case "null_content":
                message["content"] = None
            case "refusal":
                message |= {"content": None, "refusal": fault.message}
            case "reasoning":
                message |= {"content": None, _REASONING_KEYS.get(profile, "reasoning_content"): self.content}
            case "tool_calls":
                function = {"name": "answer", "arguments": self.content}
                message |= {
                    "content": None,
                    "tool_calls": [{"id": "call_sim", "type": "function", "function": function}],
                }
                choice["finish_reason"] = "tool_calls"
            case "parts":
                half = len(self.content) // 2
                pieces = self.content[:half], self.content[half:]
                message["content"] = [{"type": "text", "text": piece} for piece in pieces]
            case "fenced":
                message["content"] = f"Here you are:\n```json\n{self.content}\n```"
            case "cut_json":
                message["content"] = self.content[: len(self.content) // 2]
            case "finish":
                choice["finish_reason"] = fault.finish_reason


def answer(
    scenario: Scenario, asked: Conversation, *, prompt_tokens: int, since_s: float, fault: Fault | None
) -> Answered:
    """The completion of a request: what it says follows from its messages alone.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: no answer can be made under its schema.
    """
    rng = random.Random(asked.mark ^ scenario.seed)
    content = _content(scenario, asked, rng)
    tokens = max(math.ceil(len(content) / CHARS_PER_TOKEN), int(scenario.answer_tokens.draw(rng)))
    allowed = asked.max_tokens
    if scenario.context_tokens:
        allowed = min(allowed, scenario.context_tokens - prompt_tokens)
    finish_reason = "stop"
    if fault is not None and fault.kind in RUNAWAY:
        content = _running_on(fault.kind, content, allowed * CHARS_PER_TOKEN)
        tokens, finish_reason = allowed, "length"
    elif tokens > allowed:
        content = content[: len(content) * allowed // tokens]
        tokens, finish_reason = allowed, "length"
    takes_s = scenario.latency.draw(rng) + tokens * scenario.s_per_output_token
    if scenario.latency_steps:
        takes_s *= scenario.latency_factor(since_s)
    return Answered(
        content=content,
        finish_reason=finish_reason,
        model=asked.model or "simulated",
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        takes_s=takes_s,
    )


def _content(scenario: Scenario, asked: Conversation, rng: random.Random) -> str:
    schema = _schema(asked.said, scenario.answer_schema) if scenario.structured == "enforced" else None
    held = schema is not None
    if schema is None:
        schema = scenario.answer_schema
    if schema is None:
        return PLAIN_ANSWER
    made = made_answer(schema, rng)
    if scenario.malformed_share and not held and not _asks_to_mend(scenario, asked):
        luck = random.Random(asked.mark ^ scenario.seed ^ _MALFORMED)
        if luck.random() < scenario.malformed_share:
            made = damaged(made, schema, luck)
    return orjson.dumps(made).decode()


def _asks_to_mend(scenario: Scenario, asked: Conversation) -> bool:
    marker = scenario.repair_marker
    return bool(marker) and not asked.images and any(marker in text for text in asked.texts)


def _running_on(kind: str, content: str, chars: int) -> str:
    """A text that never ended by itself, of so many characters."""
    match kind:
        case "newlines":
            return content[: min(len(content), chars) // 2].ljust(chars, "\n")
        case "reasoning":
            return (THOUGHT * (chars // len(THOUGHT) + 1))[:chars]
        case _:
            return (LOOP * (chars // len(LOOP) + 1))[:chars]


def _schema(said: Mapping[str, Any], known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The schema a request brings along; if it asks for what the scenario knows, the scenario's, which says more."""
    asked = said.get("response_format")
    if not isinstance(asked, dict) or asked.get("type") != "json_schema":
        return None
    schema = asked.get("json_schema", {}).get("schema")
    if not isinstance(schema, dict):
        return None
    alike = known and all(known.get(key) == schema.get(key) for key in ("type", "required"))
    if known and alike and known.get("properties", {}).keys() == schema.get("properties", {}).keys():
        return known
    return schema
