"""What each provider says when it refuses a request, in its own words as far as they are public.

Where a profile has no line of its own, the words are ours; docs/simulate.md lists which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.refusals import Trouble

_NGINX_413 = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    "<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_OPENAI_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_SUSPENDED = (
    "Account sim is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """A request that passes the context."""

    context: int
    prompt: int
    asked: int
    """`max_tokens`."""

    @property
    def total(self) -> int:
        return self.prompt + self.asked


def too_many_images(profile: str, *, images: int, most: int) -> Trouble:
    match profile:
        case "vllm":
            said = f"At most {most} image(s) may be provided in one request."
        case "openai" | "azure":
            said = f"Too many images in request. Max is {most}."
        case "groq":
            said = f"Too many images provided. This model supports up to {most} images"
        case "tgi":
            return Trouble(
                status=422, message=f"Input validation error: at most {most} image(s) are taken, not {images}"
            )
        case _:
            said = (
                f"Too many images in request: {images} images provided, but the model supports at most {most} images."
            )
    return Trouble(status=400, message=said)


def body_too_large(profile: str) -> Trouble:
    match profile:
        case "groq":
            return Trouble(
                status=413,
                message="Request Entity Too Large",
                code="request_too_large",
                type="invalid_request_error",
            )
        case "vllm":
            return Trouble(status=413, message=_NGINX_413, page="text/html")
        case "tgi":
            said = "Failed to buffer the request body: length limit exceeded"
            return Trouble(status=413, message=said, page="text/plain; charset=utf-8")
        case _:
            return Trouble(status=413, message="Request body too large", type="invalid_request_error")


def prompt_too_long(profile: str, long: Overlong) -> Trouble:
    """The prompt alone leaves no room for an answer."""
    code: str | None = None
    status, param = 400, None
    match profile:
        case "together":
            said = (
                f"The input ({long.prompt} tokens) is longer than the model's context length ({long.context} tokens)."
            )
        case "tgi":
            status = 422
            said = f"Input validation error: `inputs` must have less than {long.context} tokens. Given: {long.prompt}"
        case "vllm":
            said = (
                f"The decoder prompt (length {long.prompt}) is longer than the maximum model length of {long.context}."
            )
        case "fireworks":
            said = f"The prompt is too long: {long.prompt}, model maximum context length: {long.context}"
        case "groq":
            said, code, param = _GROQ_CONTEXT, "context_length_exceeded", "messages"
        case "openrouter":
            said = _openrouter_context(long)
        case _:
            code, param = "context_length_exceeded", "messages"
            said = (
                f"This model's maximum context length is {long.context} tokens. However, your messages resulted in "
                f"{long.prompt} tokens. Please reduce the length of the messages."
            )
    return Trouble(status=status, message=said, code=code, param=param)


_GROQ_CONTEXT = "Please reduce the length of the messages or completion."


def answer_too_long(profile: str, long: Overlong) -> Trouble:
    """The prompt fits, and less than `max_tokens` is left."""
    code: str | None = None
    status, param = 400, None
    match profile:
        case "together" | "tgi":
            status = 422 if profile == "tgi" else 400
            said = (
                f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {long.context}. "
                f"Given: {long.prompt} `inputs` tokens and {long.asked} `max_new_tokens`"
            )
        case "vllm":
            param = "input_tokens"
            said = (
                f"This model's maximum context length is {long.context} tokens. However, you requested {long.asked} "
                f"output tokens and your prompt contains at least {long.prompt} input tokens, for a total of at least "
                f"{long.total} tokens. Please reduce the length of the input prompt or the number of requested output "
                f"tokens. (parameter=input_tokens, value={long.prompt})"
            )
        case "groq":
            said, code, param = _GROQ_CONTEXT, "context_length_exceeded", "messages"
        case "openrouter":
            said = _openrouter_context(long)
        case _:
            code, param = "context_length_exceeded", "messages"
            said = (
                f"This model's maximum context length is {long.context} tokens. However, you requested {long.total} "
                f"tokens ({long.prompt} in the messages, {long.asked} in the completion). Please reduce the length of "
                f"the messages or completion."
            )
    return Trouble(status=status, message=said, code=code, param=param)


def _openrouter_context(long: Overlong) -> str:
    return (
        f"This endpoint's maximum context length is {long.context} tokens. However, you requested about {long.total} "
        f"tokens ({long.prompt} of text input, {long.asked} in the output). Please reduce the length of either one."
    )


def format_not_taken(profile: str, kind: str) -> Trouble:
    match profile:
        case "groq":
            said = f"This model does not support response format `{kind}`."
        case "tgi":
            return Trouble(status=422, message=f"Input validation error: response_format {kind} is not supported")
        case "openai" | "azure":
            said = f"Invalid parameter: 'response_format' of type '{kind}' is not supported with this model."
        case _:
            said = f"response_format of type {kind} is not supported by this model"
    return Trouble(status=400, message=said, param="response_format")


def unknown_model(profile: str, model: str) -> Trouble:
    match profile:
        case "together":
            said = f"Unable to access model {model}. Please visit the list of supported models."
            return Trouble(status=404, message=said, code="model_not_available", type="invalid_request_error")
        case "azure":
            said = "The API deployment for this resource does not exist."
            return Trouble(status=404, message=said, code="DeploymentNotFound", type="invalid_request_error")
        case "fireworks":
            said = "Model not found, inaccessible, and/or not deployed"
            return Trouble(status=404, message=said, code="NOT_FOUND", type="error", param="model")
        case "openrouter":
            return Trouble(status=404, message=f"No endpoints found for {model}.")
        case "vllm":
            return Trouble(status=404, message=f"The model `{model}` does not exist.", param="model")
        case "tgi":
            return Trouble(status=404, message=f"The model `{model}` does not exist.", type="model_not_found")
        case _:
            said = f"The model `{model}` does not exist or you do not have access to it."
            return Trouble(status=404, message=said, code="model_not_found", type="invalid_request_error")


def quota_spent(profile: str) -> Trouble:
    match profile:
        case "openai" | "azure":
            return Trouble(status=429, message=_OPENAI_QUOTA, code="insufficient_quota", type="insufficient_quota")
        case "groq":
            said = "API access has been blocked because the organization's spend limit was reached."
            return Trouble(status=400, message=said, code="blocked_api_access")
        case "fireworks":
            return Trouble(status=412, message=_SUSPENDED, code="PRECONDITION_FAILED", type="invalid_request_error")
        case "openrouter":
            return Trouble(status=402, message="Insufficient credits. Add more to go on.")
        case _:
            said = "Credit limit exceeded. Please navigate to billing to add credit or upgrade your plan."
            return Trouble(status=402, message=said, type="credit_limit")


def too_fast(profile: str, *, model: str, limit: str, per_min: float, wait_s: float) -> Trouble:
    """A limit is met; `limit` is `request` or `token`."""
    short = {"request": "RPM", "token": "TPM"}[limit]
    match profile:
        case "together":
            return Trouble(status=429, message=f"{limit} limit reached", code=f"dynamic_{limit}_limited")
        case "openai" | "groq":
            said = (
                f"Rate limit reached for {model} in organization org-sim on {limit}s per min ({short}): Limit "
                f"{per_min:.0f}. Please try again in {max(0.001, wait_s):.3f}s."
            )
            return Trouble(status=429, message=said, code="rate_limit_exceeded", type=f"{limit}s")
        case "azure":
            said = (
                f"Requests have exceeded the {limit} rate limit of your current pricing tier. "
                f"Please retry after {math.ceil(wait_s)} seconds."
            )
            return Trouble(status=429, message=said, code="429")
        case _:
            return Trouble(status=429, message=f"{limit} limit reached", code="rate_limit_exceeded")
