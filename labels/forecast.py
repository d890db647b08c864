"""What a run would send, and for how much: rows counted, some of them encoded, nothing sent and nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from anyio import to_thread

from engine.config import PriceConfig
from engine.encode import EncoderPool
from engine.lengths import FIRST_TOKENS, Lengths
from engine.types import Failure, Record, Request
from labels.job import Job
from labels.sampling import draw
from labels.survey import with_measured

SAMPLE_ROWS = 32
SILENT = "Nothing was sent and nothing was written."
SHOWN_CHARS = 200
"""Of a text in the request that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would do."""

    model: str
    address: str
    rows: int
    """To be sent: those done and those that cannot be read are left out."""
    unreadable: int
    done: int
    sample: int
    unsendable: int
    """Of the sample."""
    frames: float
    """A row, on average over the sample; likewise below."""
    prompt_tokens: float
    image_tokens: float
    body_bytes: float
    answer_tokens: int
    """What a first answer may take."""
    price: PriceConfig
    first: str
    """The first request of the sample, pictures shortened."""
    notes: tuple[str, ...] = ()
    """What two calls found out about pictures, if they were asked for."""

    def text(self) -> str:
        """For a person."""
        prompt, answer = self.rows * self.prompt_tokens, self.rows * self.answer_tokens
        known = self.price.cost_usd(prompt, 0)
        most = self.price.cost_usd(prompt, answer)
        cost = "unknown: no price; set --price-in and --price-out"
        if known is not None and most is not None:
            cost = f"${known:,.2f} for the prompts, at most ${most:,.2f} with answers of {self.answer_tokens} tokens"
        lines = [
            "Nothing was written; two small calls were made." if self.notes else SILENT,
            *self.notes,
            f"rows      {self.rows:,} to send · {self.done:,} done · {self.unreadable:,} cannot be read",
            f"sample    {self.sample} rows, {self.unsendable} of them could not be encoded",
            f"to        {self.model} at {self.address}",
            f"a row     {self.frames:.1f} frames · {self.body_bytes / 1000:,.1f} kB",
            f"          {self.prompt_tokens:,.0f} prompt tokens, {self.image_tokens:,.0f} of them for frames",
            f"together  {prompt:,.0f} prompt tokens, at most {answer:,.0f} answer tokens before any retry",
            f"cost      {cost}",
            "",
            "The first request of the sample:",
            self.first,
        ]
        return "\n".join(lines)


async def forecast(job: Job) -> Forecast:
    """Read the whole input, encode a sample of it drawn at random.

    Raises:
        ConfigError, InputError: as a run would.
    """
    job, notes = await with_measured(job)
    sample = await to_thread.run_sync(draw, job, SAMPLE_ROWS)
    async with EncoderPool(job.encoder, job.settings.encode) as pool:
        made = [await pool.encode_again(row) for row in sample.drawn]
    requests = [item for item in made if isinstance(item, Request)]
    count = max(1, len(requests))
    lane = job.settings.lanes[0]
    return Forecast(
        model=lane.model,
        address=lane.base_url,
        rows=sample.rows,
        unreadable=sample.unreadable,
        done=sample.done,
        sample=len(sample.drawn),
        unsendable=len(made) - len(requests),
        frames=sum(request.n_frames for request in requests) / count,
        prompt_tokens=sum(request.est_tokens for request in requests) / count,
        image_tokens=sum(note.tokens or 0 for request in requests for note in request.media) / count,
        body_bytes=sum(request.n_bytes for request in requests) / count,
        answer_tokens=job.settings.retry.max_tokens or _first_tokens(job),
        price=lane.price,
        first=_shown(requests[0], lane.model) if requests else _why(made),
        notes=notes,
    )


def _first_tokens(job: Job) -> int:
    return Lengths().start(job.settings.retry.max_tokens_cap) or FIRST_TOKENS


def _shown(request: Request, model: str) -> str:
    """The body as a person can read it: long texts and pictures by their beginnings."""
    said = orjson.loads(request.body(FIRST_TOKENS))
    short = _shortened({"model": model} | said)
    return orjson.dumps(short, option=orjson.OPT_INDENT_2).decode()


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > SHOWN_CHARS:
        shown = value[: value.find(",") + 1] if value.startswith("data:") else value[:SHOWN_CHARS]
        return f"{shown}... ({len(value):,} characters)"
    return value


def _why(made: list[Request | Record]) -> str:
    reasons = [item.outcome.message for item in made if isinstance(item, Record) and isinstance(item.outcome, Failure)]
    return f"(none: {reasons[0]})" if reasons else "(none: there is no row to send)"
