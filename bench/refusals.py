"""Responses that are no completion, in the shape each provider gives its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from bench.wire import JSON, Headers, http_response

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
_VLLM_TYPES = {404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError", 503: "ServiceUnavailableError"}
_TGI_TYPES = {400: "validation", 413: "validation", 422: "validation", 429: "overloaded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a request gets no completion."""

    status: int
    message: str
    code: str | None = None
    type: str = ""
    """If empty, the one that goes with the status."""
    param: str | None = None
    page: str = ""
    """Media type of a message that comes as it is, and not inside JSON: from a proxy, or before any API was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A response that is no completion."""

    status: int
    body: bytes
    headers: Headers = ()
    kind: str = JSON

    def response(self) -> bytes:
        return http_response(self.status, self.body, self.headers, kind=self.kind)


def refusal(profile: str, trouble: Trouble, headers: Headers = ()) -> Refused:
    """A trouble in a provider's form."""
    if trouble.page:
        body = trouble.message.encode()
        return Refused(status=trouble.status, body=body, headers=headers, kind=trouble.page)
    return Refused(status=trouble.status, body=orjson.dumps(_error_body(profile, trouble)), headers=headers)


def _error_body(profile: str, trouble: Trouble) -> dict[str, Any]:
    status, message, code = trouble.status, trouble.message, trouble.code
    kind = trouble.type or _TYPES.get(status, "api_error")
    match profile:
        case "vllm":
            if status == 401:  # noqa: PLR2004 - answered by its middleware, before there is any error object
                return {"error": "Unauthorized"}
            kind = trouble.type or _VLLM_TYPES.get(status, "BadRequestError")
            return {"object": "error", "message": message, "type": kind, "param": trouble.param, "code": status}
        case "tgi":
            return {"error": message, "error_type": trouble.type or _TGI_TYPES.get(status, "generation")}
        case "openrouter":
            metadata = {"provider_name": "simulated"} | ({"error_type": trouble.type} if trouble.type else {})
            return {"error": {"code": status, "message": message, "metadata": metadata}}
        case "together":
            inner = {"message": message, "type": kind, "param": trouble.param, "code": code}
            return {"id": "sim", "error": inner, "error_type": trouble.type or code}
        case "fireworks":
            return {"error": {"object": "error", "type": kind, "code": code or kind, "message": message}}
        case _:
            return {"error": {"message": message, "type": kind, "param": trouble.param, "code": code}}
