"""Flags to frozen settings: addresses, keys and prices, what is asked and how, every limit and brake."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from encoders.budget import Budget
from encoders.chat import VISION_CONTEXT, ChatEncoder, recipe_of
from engine.clouds import notice_config
from engine.config import (
    ApiConfig,
    BrakeConfig,
    FormatConfig,
    LimitConfig,
    PriceConfig,
    RetryConfig,
    RunConfig,
    WriteConfig,
)
from engine.encode import EncodeConfig
from engine.errors import ConfigError
from engine.lengths import FIRST_TOKENS
from engine.prices import price_of
from engine.secret import Secret
from engine.source import SourceConfig
from labels.flags import RunFlags
from labels.job import Job, Questions, ask_by_codebook, ask_by_prompt
from labels.keys import DEFAULT_URL, address, key_for
from labels.media import media_of, prepared, worker_variables
from labels.quality import Quality, gold_of

ENDPOINT_KEYS = ("model", "key-env", "key-file", "weight", "price-in", "price-out", "rpm", "tpm")
UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A job, and what its user should know before it begins."""

    job: Job
    notes: tuple[str, ...]


def job_of(flags: RunFlags, *, key_needed: bool = True) -> Told:
    """The job these flags ask for.

    Args:
        flags: what was typed.
        key_needed: whether calls will be made.

    Raises:
        ConfigError: a flag, or a file it names, is wrong.
    """
    if flags.shards < 1:
        raise ConfigError("--shards must be at least 1")
    if flags.retry_failed and not flags.resume:
        raise ConfigError("--retry-failed goes with --resume")
    if flags.extend and not flags.resume:
        raise ConfigError("--extend goes with --resume")
    if flags.only and not flags.resume:
        raise ConfigError("--only goes with --resume")
    if flags.cache is not None and not flags.share:
        raise ConfigError("--cache gives rows the answers of others, --no-share forbids it: leave one of them out")
    questions = ask_by_prompt(flags.system_prompt) if flags.system_prompt else ask_by_codebook(flags.codebook)
    lanes, notes = _lanes(flags, key_needed=key_needed)
    encoder = _encoder(flags, questions, model=lanes[0].model)
    notes += prepared(encoder.media)
    gold = gold_of(flags, questions.codebook)
    if gold is not None:
        notes += (
            f"Gold labels are in {len(gold.columns)} columns: agreement with them is shown; --gold none hides it.",
        )
    recipe = {**recipe_of(encoder), **questions.recipe, "response_format": flags.response_format}
    job = Job(
        settings=_settings(
            flags, lanes, recipe=recipe, response_format=_format(flags, questions), carried=gold.carried if gold else ()
        ),
        encoder=encoder,
        reader=questions.reader,
        out=flags.out,
        shards=flags.shards,
        resume=flags.resume,
        retry_failed=flags.retry_failed,
        extend=flags.extend,
        cache=flags.cache,
        only=frozenset(flags.only) or None,
        probe_tokens=flags.probe_tokens,
        observer=Quality(questions.codebook, gold=gold) if questions.codebook else None,
    )
    cloud = job.settings.notices.cloud
    if cloud is not None and not flags.dry_run:
        notes += (f"Watching for spot notices of {cloud.full_name}.",)
    return Told(job=job, notes=notes)


def _encoder(flags: RunFlags, questions: Questions, *, model: str) -> ChatEncoder:
    extra: dict[str, object] = {"temperature": flags.temperature}
    if flags.top_p is not None:
        extra["top_p"] = flags.top_p
    if flags.seed is not None:
        extra["seed"] = flags.seed
    if flags.effort is not None:
        extra["reasoning"] = {"effort": flags.effort}
    return ChatEncoder(
        model=model,
        system_prompt=questions.system_prompt,
        vision_context=questions.codebook.vision_context if questions.codebook else VISION_CONTEXT,
        media=media_of(flags, model=model),
        extra=tuple(extra.items()),
        budget=_budget(flags),
    )


def _budget(flags: RunFlags) -> Budget | None:
    if flags.image_token_len is None and flags.context_tokens is None and not flags.auto_frames:
        return None
    first = FIRST_TOKENS if flags.max_tokens == "auto" else flags.max_tokens
    return Budget(
        answer_tokens=min(first, flags.max_tokens_cap),
        context_tokens=flags.context_tokens,
        image_token_len=flags.image_token_len,
        auto_frames=flags.auto_frames,
    )


def _format(flags: RunFlags, questions: Questions) -> FormatConfig:
    match flags.response_format:
        case "json_object":
            return FormatConfig(value={"type": "json_object"})
        case "json_schema" if questions.codebook is None:
            raise ConfigError("--response-format json_schema needs a codebook, not --system-prompt")
        case "json_schema" | "auto" if questions.codebook is not None:
            return FormatConfig(value=questions.codebook.response_format(), optional=flags.response_format == "auto")
    return FormatConfig()


def _settings(
    flags: RunFlags,
    lanes: tuple[ApiConfig, ...],
    *,
    recipe: Mapping[str, object],
    response_format: FormatConfig,
    carried: tuple[tuple[str, str], ...],
) -> RunConfig:
    share, count = _max_failed(flags.max_failed)
    return RunConfig(
        source=SourceConfig(
            path=flags.input,
            id_column=flags.id_column,
            transcript_column=flags.transcript_column,
            description_column=flags.description_column,
            embedded_text_column=flags.embedded_text_column,
            carried=carried,
            skip=flags.skip,
            limit=flags.limit,
        ),
        encode=EncodeConfig(
            workers=flags.workers if flags.workers is not None else max(_cores(), flags.processes),
            variables=worker_variables(flags),
        ),
        lanes=lanes,
        recipe=recipe,
        limits=LimitConfig(
            concurrency=None if flags.concurrency == "auto" else flags.concurrency,
            requests_per_min=flags.rpm,
            tokens_per_min=flags.tpm,
            max_open_bytes=flags.max_open_mb << 20,
        ),
        retry=RetryConfig(
            attempts=flags.retries,
            row_deadline_s=flags.row_deadline_seconds,
            max_tokens=None if flags.max_tokens == "auto" else flags.max_tokens,
            on_truncation=flags.retry_on_trunc,
            growth=flags.growth,
            max_tokens_cap=flags.max_tokens_cap,
        ),
        brake=BrakeConfig(
            max_failed_share=share,
            max_failed_rows=count,
            max_cost_usd=flags.max_cost,
            max_outage_s=_duration_s(flags.max_outage, flag="--max-outage"),
        ),
        write=WriteConfig(drain_s=flags.drain_seconds),
        format=response_format,
        share=flags.share,
        notices=notice_config(flags.spot_notices, environment=os.environ),
        processes=flags.processes,
    )


def _lanes(flags: RunFlags, *, key_needed: bool) -> tuple[tuple[ApiConfig, ...], tuple[str, ...]]:
    """The lanes, and a note on each price that was looked up."""
    if flags.endpoint and flags.base_url is not None:
        raise ConfigError("--endpoint takes the place of --base-url: name every address by an --endpoint of its own")
    told = [_endpoint(text) for text in flags.endpoint] or [("", {})]
    notes: list[str] = []
    lanes = []
    for named, said in told:
        model = said.get("model") or flags.model
        if not model:
            raise ConfigError("--model is missing: name the model as the provider spells it")
        url = address(named or flags.base_url or DEFAULT_URL)
        lanes.append(
            ApiConfig(
                base_url=url,
                model=model,
                key=_key(flags, url, said) if key_needed else None,
                allow_plaintext=flags.allow_plaintext,
                call_timeout_s=flags.per_call_timeout,
                weight=_number(said, "weight") or 1.0,
                requests_per_min=_number(said, "rpm"),
                tokens_per_min=_number(said, "tpm"),
                price=_price(flags, url, model, said, notes),
            )
        )
    return tuple(lanes), tuple(notes)


def _endpoint(text: str) -> tuple[str, dict[str, str]]:
    """`URL,key=value,...` in its parts."""
    url, *rest = (part.strip() for part in text.split(","))
    said: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if key not in ENDPOINT_KEYS or not equals or not value:
            raise ConfigError(
                f"--endpoint {url}: {part!r} is none of {', '.join(f'{name}=...' for name in ENDPOINT_KEYS)}"
            )
        said[key] = value
    if "://" not in url:
        raise ConfigError(f"--endpoint {url!r} must begin with its address, such as https://api.openai.com/v1")
    return url, said


def _number(said: Mapping[str, str], key: str) -> float | None:
    if key not in said:
        return None
    try:
        return float(said[key])
    except ValueError:
        raise ConfigError(f"--endpoint: {key}={said[key]} is no number") from None


def _price(flags: RunFlags, url: str, model: str, said: Mapping[str, str], notes: list[str]) -> PriceConfig:
    price_in, price_out = _number(said, "price-in"), _number(said, "price-out")
    if price_in is None and price_out is None:
        price_in, price_out = flags.price_in, flags.price_out
    if (price_in is None) is not (price_out is None):
        raise ConfigError("--price-in and --price-out go together: a call has both kinds of tokens")
    if price_in is None and (listed := price_of(url, model)) is not None:
        price_in, price_out = listed.input_usd_per_m, listed.output_usd_per_m
        notes.append(
            f"{model} is reckoned at ${price_in:g} per million tokens in and ${price_out:g} out, the list price of "
            f"{listed.checked}; --price-in and --price-out set others"
        )
    return PriceConfig(input_usd_per_m=price_in, output_usd_per_m=price_out)


def _max_failed(text: str) -> tuple[float | None, int | None]:
    """`5%` as a share, `100` as a count."""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 <= share <= 1:
                return share, None
        elif int(text) >= 0:
            return None, int(text)
    except ValueError:
        pass
    raise ConfigError(f"--max-failed {text!r}: give a number of rows such as 100, or a share such as 5%")


def _duration_s(text: str, *, flag: str) -> float:
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise ConfigError(f"{flag} {text!r}: give a time such as 90s, 30m, 6h or 2d")
    return float(found[1]) * UNIT_S[found[2] or "s"]


def _key(flags: RunFlags, url: str, said: Mapping[str, str]) -> Secret | None:
    """The key, or None where a server on this machine needs none; one that we start is told no other's."""
    file = Path(said["key-file"]) if "key-file" in said else None if "key-env" in said else flags.api_key_file
    variable = said.get("key-env") or flags.api_key_env
    if flags.serve is not None and variable is None and file is None:
        return None
    return key_for(url, variable=variable, file=file)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
