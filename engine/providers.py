"""Facts per provider, as data: what their errors mean, which headers carry their limits, what they charge.

No logic lives here. Each block says when it was checked and from which page; providers change them monthly.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto

from engine.types import Fix


class Verdict(Enum):
    """What an error means for the call, the row and the lane."""

    RATE = auto()
    """Slow down."""
    CAPACITY = auto()
    """The provider's trouble; the same body may pass later."""
    TOO_LARGE = auto()
    """A smaller body of the same row may pass."""
    BLOCKED = auto()
    """A content filter refuses this row."""
    REFUSED = auto()
    """This body will never pass."""
    LANE = auto()
    """No body will pass with this key, account, model or address."""
    LANE_DOUBTFUL = auto()
    """The same, unless it is this row after all."""
    BAD_REPLY = auto()
    """The model ran and produced nothing usable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the table of verdicts. With neither text nor code the status alone decides, else either must fit."""

    verdict: Verdict
    statuses: Container[int]
    text: str | None = None
    """Regular expression found in the message, in any case."""
    code: str | None = None
    """Regular expression that is the whole of a code, type or limit source, in any case."""
    fix: Fix | None = None
    """For TOO_LARGE."""
    paid: bool = False
    """Whether the model may have run, and been charged for."""


_OF_BODY = frozenset({400, 403, 413, 422})
"""Statuses by which one provider or another speaks of this body and not of the lane."""
_FAILED_GENERATION = r"json_validate_failed|tool_use_failed|output_parse_failed"
_TPM = r"request too large.{0,200}tokens per (?:min|day)|tokens must be reduced"
_CONTEXT = (
    r"context[ _]length|context window|maximum model length|max_model_len|max_new_tokens`? must be"
    r"|prompt is too long|input is too long|too many (?:input |prompt )?tokens|reduce the length of"
    r"|must have less than [\d,]+ tokens"
    r"|exceeds? the (?:model's |model |maximum ){1,2}.{0,30}tokens"
)
_IMAGES = (
    r"(?:at most|up to) [\d,]+ (?:image|picture|video)|too many (?:images|pictures|pixels)|number of images"
    r"|encoder cache|megapixel|pixels? (?:exceed|limit)|max(?:imum)?(?: allowed)?(?: number of)? pixels"
    r"|image (?:dimensions?|resolution|size)s? .{0,40}(?:exceed|too|larger)|image .{0,30}(?:is|are) too (?:large|big)"
)
_BLOCKED = (
    r"content[ _-](?:filter|management policy|policy|moderation)|moderation|(?:was|were|been|is) flagged|guardrail"
    r"|safety system|usage polic"
)
_SIZE = r"(?:payload|body|base64|request (?:entity|size)).{0,60}(?:too large|exceed|larger than)"
_OUT_OF_CREDIT = (
    r"exceeded your current quota|plan and billing|credit balance|out of credits|insufficient (?:credits|quota|balance)"
    r"|spend(?:ing)? limit|billing (?:hard )?limit"
)

# Checked 2026-11. From: OpenAI "Error codes" and "Rate limits"; Azure OpenAI "Quotas and limits" and "Content filter";
# Together "Error codes" and "Rate limits"; Groq "Error codes", "Structured outputs" and "Vision"; Fireworks "Error
# codes" and "Rate limits"; OpenRouter "Errors" and "Limits"; NVIDIA API catalog; the sources of vLLM, SGLang and TGI.
VERDICTS: tuple[Rule, ...] = (
    # Fair use of credit that is there: too much of it is reserved by calls in flight.
    Rule(verdict=Verdict.RATE, statuses={402}, code=r"openrouter_in_flight_budget"),
    Rule(verdict=Verdict.RATE, statuses={429}, code=r"slow_down"),
    Rule(
        verdict=Verdict.LANE,
        statuses={429},
        code=r"insufficient_quota|credit_balance_exhausted|\w*spend_limit_exceeded|organization_usage_limit_exceeded"
        r"|billing_hard_limit_reached|billing_not_active",
    ),
    # No wait helps a request that is larger than a whole minute's allowance.
    Rule(verdict=Verdict.TOO_LARGE, statuses={429}, text=_TPM, fix=Fix.CONTEXT),
    # Whoever names a time means a rate, even if the words before it speak of quota.
    Rule(verdict=Verdict.RATE, statuses={429}, text=r"(?:try again|retry) (?:in|after) \d"),
    Rule(verdict=Verdict.LANE, statuses={429}, text=_OUT_OF_CREDIT),
    Rule(verdict=Verdict.RATE, statuses={429}),
    Rule(
        verdict=Verdict.BAD_REPLY,
        statuses={400, 422},
        text=r"hallucinat|failed to (?:call a function|generate json|validate json)",
        code=_FAILED_GENERATION,
        paid=True,
    ),
    Rule(
        verdict=Verdict.LANE,
        statuses={400, 403},
        text=r"model .{0,100}has been decommissioned",
        code=r"model_decommissioned|model_not_found|model_terms_required|blocked_api_access",
    ),
    Rule(
        verdict=Verdict.BLOCKED,
        statuses={400, 403, 422, 451},
        text=_BLOCKED,
        code=r"content_filter\w*|content_policy_violation|responsibleaipolicyviolation|moderation\w*|\w*safety\w*",
    ),
    # Pictures before context: vLLM counts them in tokens, too.
    Rule(verdict=Verdict.TOO_LARGE, statuses=_OF_BODY, text=_IMAGES, code=r"image_too_large", fix=Fix.IMAGES),
    Rule(
        verdict=Verdict.TOO_LARGE,
        statuses=_OF_BODY,
        text=_CONTEXT,
        code=r"context_length_exceeded|context_window_exceeded|token_limit_exceeded",
        fix=Fix.CONTEXT,
    ),
    Rule(verdict=Verdict.TOO_LARGE, statuses={413}, text=r"\btokens?\b|\btpm\b", fix=Fix.CONTEXT),
    Rule(verdict=Verdict.TOO_LARGE, statuses={413}, fix=Fix.SIZE),
    Rule(verdict=Verdict.TOO_LARGE, statuses={400}, text=_SIZE, fix=Fix.SIZE),
    Rule(verdict=Verdict.LANE_DOUBTFUL, statuses={403}),
    # 410 is what NVIDIA's catalog answers for a model that was taken down, 412 what Fireworks does for an account.
    Rule(verdict=Verdict.LANE, statuses={401, 402, 404, 405, 407, 410, 412, 415, 501}),
    Rule(verdict=Verdict.LANE, statuses=range(300, 400)),
    Rule(verdict=Verdict.CAPACITY, statuses={408, 409, 424, 425, 498, 499}),
    # A gateway that stopped waiting; the machine behind it may have finished.
    Rule(verdict=Verdict.CAPACITY, statuses={504, 524}, paid=True),
    Rule(verdict=Verdict.CAPACITY, statuses=range(500, 1000)),
    # Accepted and not answered, as NVIDIA's 202 that wants to be polled.
    Rule(verdict=Verdict.BAD_REPLY, statuses=range(201, 300), paid=True),
)
"""The first rule that fits wins. What none fits is REFUSED."""

# Checked 2026-11, from the sources named above.
CONTEXT_LIMITS: tuple[str, ...] = (
    r"context length(?: is| of|:)? \(?([\d,]+)",
    r"context window(?: is| of|:)? \(?([\d,]+)",
    r"maximum model length(?: is| of|:)? \(?([\d,]+)",
    r"must be <= ([\d,]+)",
    r"must have less than ([\d,]+) tokens",
    r"\blimit:? ([\d,]+)",
)
"""Where a text says how many tokens the model takes."""
CONTEXT_COUNTS: tuple[str, ...] = (
    r"resulted in ([\d,]+) tokens",
    r"requested (?:about )?([\d,]+) tokens \(.{0,120}?(?P<output>[\d,]+) in the (?:completion|output)",
    r"input \(([\d,]+) tokens\)",
    r"prompt \(length ([\d,]+)\)",
    r"given: ([\d,]+)(?: `inputs` tokens|$)",
    r"contains (?:at least )?([\d,]+) input tokens",
    r"([\d,]+) tokens from the input",
    r"prompt is too long: ([\d,]+)",
    r"input length \(?([\d,]+)",
)
"""Where it says how many the prompt has; `output` is a part of that number which is no prompt."""
IMAGE_LIMITS: tuple[str, ...] = (
    r"(?:at most|up to) ([\d,]+) (?:image|picture)",
    r"too many images.{0,60}?max(?:imum)?(?: is| of|:) ([\d,]+)",
    r"number of images.{0,60}?(?:exceed|max|limit)\D{0,40}([\d,]+)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateNames:
    """Which headers of a provider speak of its limits."""

    hosts: tuple[str, ...]
    """The provider's domain; its subdomains count."""
    requests: tuple[tuple[str, float], ...] = ()
    """Header, and the seconds its number is for. The first that can be read counts."""
    tokens: tuple[tuple[str, float], ...] = ()
    resets: tuple[str, ...] = ("x-ratelimit-reset",)
    """Headers that say when to come back, whatever else they say."""
    resets_when_spent: tuple[tuple[str, str], ...] = ()
    """Header of a reset, and of what is left: it counts only where nothing is."""
    checked: str = "2026-11"


_SECOND, _MINUTE = 1.0, 60.0
_RESETS_OF_TWO = (
    ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"),
    ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
)
_TOKENS_PER_MINUTE = (("x-ratelimit-limit-tokens", _MINUTE),)

GENERIC = RateNames(
    hosts=(),
    requests=(("x-ratelimit-limit-requests", _MINUTE),),
    tokens=_TOKENS_PER_MINUTE,
    resets_when_spent=_RESETS_OF_TWO,
)
"""For a host of no provider below: OpenAI's names, which most others took over."""

RATE_HEADERS: tuple[RateNames, ...] = (
    # Together, "Rate limits": measured and said per second; the dynamic ones are what holds now.
    RateNames(
        hosts=("together.ai", "together.xyz"),
        requests=(("x-ratelimit-limit-dynamic", _SECOND), ("x-ratelimit-limit", _SECOND)),
        tokens=(("x-tokenlimit-limit-dynamic", _SECOND), ("x-tokenlimit-limit", _SECOND)),
    ),
    # OpenAI, "Rate limits", section on headers.
    RateNames(
        hosts=("openai.com",),
        requests=(("x-ratelimit-limit-requests", _MINUTE),),
        tokens=(*_TOKENS_PER_MINUTE, ("x-ratelimit-limit-project-tokens", _MINUTE)),
        resets_when_spent=(
            *_RESETS_OF_TWO,
            ("x-ratelimit-reset-project-tokens", "x-ratelimit-remaining-project-tokens"),
        ),
    ),
    # Azure OpenAI, "Manage quota": plain seconds in the resets.
    RateNames(
        hosts=("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
        requests=(("x-ratelimit-limit-requests", _MINUTE),),
        tokens=_TOKENS_PER_MINUTE,
        resets_when_spent=_RESETS_OF_TWO,
    ),
    # Fireworks, "Rate limits": its token headers are documented per second and were seen per minute, so not read.
    RateNames(hosts=("fireworks.ai",), requests=(("x-ratelimit-limit-requests", _MINUTE),)),
    # Groq, "Rate limits": its request headers are of the day, which says nothing of a second.
    RateNames(hosts=("groq.com",), tokens=_TOKENS_PER_MINUTE, resets_when_spent=_RESETS_OF_TWO),
    # OpenRouter, "Limits": no limits in headers, a reset in epoch milliseconds.
    RateNames(hosts=("openrouter.ai",)),
    # NVIDIA API catalog: promises none.
    RateNames(hosts=("nvidia.com",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens, without discounts for batches or caches."""

    input_usd_per_m: float
    output_usd_per_m: float
    checked: str
    """Month in which it stood in the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """What one provider charges."""

    hosts: tuple[str, ...]
    """Exactly these: other regions have other prices."""
    checked: str
    """Month in which the source was read."""
    source: str
    as_of: str
    """Month the source speaks of; it may be older."""
    prices: tuple[tuple[str, float, float], ...]
    """The model's whole name as a regular expression, in any case; dollars per million tokens in, and out."""


PRICES: tuple[PriceList, ...] = (
    PriceList(
        hosts=("api.openai.com",),
        checked="2026-11",
        source="OpenAI's pricing page, as two public surveys of 2026-03 and 2026-04 quote it",
        as_of="2026-04",
        prices=(
            (r"gpt-4o(-2024-(08-06|11-20))?", 2.50, 10.00),
            (r"gpt-4o-mini(-2024-07-18)?", 0.15, 0.60),
            (r"gpt-4\.1(-2025-04-14)?", 2.00, 8.00),
            (r"gpt-4\.1-mini(-2025-04-14)?", 0.40, 1.60),
            (r"gpt-4\.1-nano(-2025-04-14)?", 0.10, 0.40),
            (r"gpt-5(-2025-08-07)?", 1.25, 10.00),
            (r"gpt-5-mini(-2025-08-07)?", 0.25, 2.00),
            (r"gpt-5-nano(-2025-08-07)?", 0.05, 0.40),
            (r"gpt-5\.1(-2025-11-13)?", 1.25, 10.00),
            (r"o3(-2025-04-16)?", 2.00, 8.00),
            (r"o4-mini(-2025-04-16)?", 1.10, 4.40),
        ),
    ),
    PriceList(
        hosts=("api.openai.com",),
        checked="2026-11",
        source="GitHub's documentation, which quotes OpenAI's prices; prompts up to 272k tokens",
        as_of="2026-08",
        prices=(
            (r"gpt-5\.2(-2025-12-11)?", 1.75, 14.00),
            (r"gpt-5\.4(-\d{4}-\d\d-\d\d)?", 2.50, 15.00),
            (r"gpt-5\.4-mini(-\d{4}-\d\d-\d\d)?", 0.75, 4.50),
            (r"gpt-5\.4-nano(-\d{4}-\d\d-\d\d)?", 0.20, 1.25),
            (r"gpt-5\.5(-\d{4}-\d\d-\d\d)?", 5.00, 30.00),
        ),
    ),
    PriceList(
        hosts=("api.together.ai", "api.together.xyz"),
        checked="2026-11",
        source="Together's pricing page, as two public catalogs quote it",
        as_of="2025-11",
        prices=(
            (r"meta-llama/llama-4-scout-17b-16e-instruct", 0.18, 0.59),
            (r"meta-llama/llama-4-maverick-17b-128e-instruct-fp8", 0.27, 0.85),
            (r"qwen/qwen2\.5-vl-72b-instruct", 1.95, 8.00),
        ),
    ),
    PriceList(
        hosts=("api.groq.com",),
        checked="2026-11",
        source="Groq's pricing page, as public price tables without a date quote it; gpt-oss is in them",
        as_of="2025-08",
        prices=(
            (r"meta-llama/llama-4-scout-17b-16e-instruct", 0.11, 0.34),
            (r"meta-llama/llama-4-maverick-17b-128e-instruct", 0.20, 0.60),
        ),
    ),
)
"""OpenRouter's prices depend on who answers, those of a machine of one's own on its power: neither is here. Fireworks'
could not be confirmed for a vision model it still serves."""
