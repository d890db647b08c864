"""What the simulated provider says: completions, cut where the allowance ends, and refusals in each provider's form."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import responses as REASONS  # noqa: N812 - a table of constants under a plain name
from typing import Any

import orjson

from bench.conversation import Conversation
from bench.scenario import Fault, Scenario, made_answer

CHARS_PER_TOKEN = 4
PLAIN_ANSWER = "This is a simulated answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A response that is no completion."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One completion."""

    content: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    takes_s: float

    def response(self, seq: int) -> bytes:
        """The whole HTTP response."""
        return http_response(200, orjson.dumps(self.body(seq)), {"x-request-id": f"sim-{seq}"})

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

    def distorted(self, fault: Fault, seq: int) -> bytes:
        """The response as a fault spoils it."""
        body = self.body(seq)
        message = body["choices"][0]["message"]
        match fault.kind:
            case "error_inside":
                body = {"error": {"code": fault.status, "message": fault.message}}
            case "no_choices":
                body["choices"] = []
            case "null_content":
                message["content"] = None
            case "fenced":
                message["content"] = f"Here you are:\n```json\n{self.content}\n```"
            case "cut_json":
                message["content"] = self.content[: len(self.content) // 2]
            case "no_usage":
                del body["usage"]
            case "absurd_usage":
                body["usage"] = {"prompt_tokens": -1, "completion_tokens": 10**18}
            case "finish":
                body["choices"][0]["finish_reason"] = fault.finish_reason
        data = b"certainly no JSON" if fault.kind == "not_json" else orjson.dumps(body)
        return http_response(200, data, {"x-request-id": f"sim-{seq}"})


def http_response(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 response."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: application/json\r\nx-simulated: true\r\n"
        f"{lines}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def answer(scenario: Scenario, asked: Conversation, *, prompt_tokens: int) -> Answered:
    """The completion of a request: what it says follows from its messages alone.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: no answer can be made under its schema.
    """
    rng = random.Random(asked.mark ^ scenario.seed)
    schema = _schema(asked.said, scenario.answer_schema)
    content = PLAIN_ANSWER if schema is None else orjson.dumps(made_answer(schema, rng)).decode()
    tokens = max(math.ceil(len(content) / CHARS_PER_TOKEN), int(scenario.answer_tokens.draw(rng)))
    finish_reason = "stop"
    if tokens > asked.max_tokens:
        content = content[: len(content) * asked.max_tokens // tokens]
        tokens, finish_reason = asked.max_tokens, "length"
    return Answered(
        content=content,
        finish_reason=finish_reason,
        model=str(asked.said.get("model", "simulated")),
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        takes_s=scenario.latency.draw(rng) + tokens * scenario.s_per_output_token,
    )


def refusal(
    scenario: Scenario,
    status: int,
    message: str,
    *,
    code: str | None = None,
    retry_after: str = "",
    wait_s: float | None = None,
) -> Refused:
    """An error in the form of the scenario's provider; `wait_s` is told through that provider's headers."""
    headers = {"retry-after": retry_after} if retry_after else {}
    if wait_s is not None:
        headers |= _limit_headers(scenario, wait_s)
    return Refused(status=status, body=_error_body(scenario.profile, status, message, code), headers=headers)


def _error_body(profile: str, status: int, message: str, code: str | None) -> dict[str, Any]:
    kind = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}.get(status, "api_error")
    match profile:
        case "vllm":
            return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
        case "openrouter":
            return {"error": {"code": status, "message": message, "metadata": {"provider_name": "simulated"}}}
        case "together":
            return {
                "id": "sim",
                "error": {"message": message, "type": kind, "param": None, "code": code},
                "error_type": code,
            }
        case _:
            return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _limit_headers(scenario: Scenario, wait_s: float) -> dict[str, str]:
    """How each provider says when to come back."""
    per_min = int(scenario.requests_per_min)
    match scenario.profile:
        case "together":
            return {
                "x-ratelimit-limit": f"{per_min / 60:g}",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": f"{wait_s:.2f}",
            }
        case "openai":
            return {
                "x-ratelimit-limit-requests": f"{per_min:,}",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": f"{math.ceil(wait_s * 1000)}ms",
                "retry-after-ms": f"{math.ceil(wait_s * 1000)}",
                "retry-after": f"{math.ceil(wait_s)}",
            }
        case "azure":
            return {
                "retry-after-ms": f"{math.ceil(wait_s * 1000)}",
                "retry-after": f"{math.ceil(wait_s)}",
                "x-ratelimit-remaining-requests": "0",
            }
        case "fireworks":
            return {
                "x-ratelimit-limit-requests": str(per_min),
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-over-limit": "yes",
                "retry-after": f"{math.ceil(wait_s)}",
            }
        case "groq":
            return {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14000",
                "x-ratelimit-reset-tokens": f"{wait_s:.2f}s",
                "retry-after": f"{math.ceil(wait_s)}",
            }
        case "openrouter":
            return {"retry-after": f"{math.ceil(wait_s)}"}
        case _:
            return {}


def _schema(said: Mapping[str, Any], known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The schema a request brings along; if it asks for what the scenario knows, the scenario's, which says more."""
    asked = said.get("response_format")
    if not isinstance(asked, dict) or asked.get("type") != "json_schema":
        return known
    schema = asked.get("json_schema", {}).get("schema")
    if not isinstance(schema, dict):
        return known
    alike = known and all(known.get(key) == schema.get(key) for key in ("type", "required"))
    if known and alike and known.get("properties", {}).keys() == schema.get("properties", {}).keys():
        return known
    return schema
