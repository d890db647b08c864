"""What a run would cost before it is begun, by a sample of its rows, and what other choices would.

Nothing is written, and nothing sent unless `--probe-tokens` asks for two small calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import orjson

from encoders.chat import UNKNOWN_IMAGE_TOKENS, ChatEncoder
from encoders.fit import parse_size
from encoders.tokens import Size
from engine.errors import ConfigError
from engine.lengths import FIRST_TOKENS, LEAST_TOKENS, STEP
from labels.costs import Answers, Bill, Choice, Holds, Range, Terms, bill, choices, hours_needed, mean_range
from labels.flags import NOT_GIVEN, EstimateFlags
from labels.job import Job
from labels.reading import CodebookReader
from labels.survey import Survey, alike, survey, with_measured
from sinks.summary import read_checkpoint

BYTES_A_TOKEN = (4.0, 2.5)
"""Of a JSON object of short words: prose has four bytes a token, quotes and keys fewer."""
NUMBERS = ("0", "-0.85")
"""The shortest and the longest number an answer gives as a rule."""
ENOUGH_ANSWERS = 50
"""Lengths that a run has seen are gone by from so many on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What was found; `labels/estimate_text.py` shows it."""

    model: str
    address: str
    survey: Survey
    answers: Answers
    bill: Bill
    """Under the choice that was made."""
    others: tuple[Bill, ...]
    """Under every other, fits in order, for each the frames in order; none where no row has frames."""
    time: tuple[float, str] | None
    """Hours, and what makes it so long; None where nothing was said of the speed."""
    notes: tuple[str, ...]


async def estimate(job: Job, flags: EstimateFlags) -> Estimate:
    """Look at a sample of the input, or take the numbers that were given in its place.

    Raises:
        ConfigError: a flag is wrong, or there is neither an input nor numbers.
        InputError: the input cannot be read.
    """
    size = _checked(flags)
    job, notes = await with_measured(job)
    encoder = job.encoder
    sends_frames = flags.frames > 0 or encoder.media.is_wanted
    if flags.input == NOT_GIVEN:
        sizes = (size,) * flags.frames if size else ()
        found = alike(encoder, rows=flags.rows, text_tokens=flags.text_tokens, sizes=sizes)
    else:
        found = await survey(job, flags.sample)
    sample = found.looked_at or (Holds(text_tokens=0, sizes=()),)
    lane = job.settings.lanes[0]
    terms = Terms(
        rows=found.sendable,
        model=lane.model,
        tokens=lambda width, height: encoder.image_tokens(width, height) or UNKNOWN_IMAGE_TOKENS,
        answers=_answers(job),
        price=lane.price,
    )
    chosen = Choice(fit=flags.fit, max_frames=flags.max_frames)
    most_frames = max(len(row.sizes) for row in sample)
    others = [Choice(fit=fit, max_frames=count) for fit, count in product(*choices(chosen, most_frames))]
    mine = bill(terms, sample, chosen)
    return Estimate(
        model=lane.model,
        address=lane.base_url,
        survey=found,
        answers=terms.answers,
        bill=mine,
        others=tuple(bill(terms, sample, other) for other in others) if most_frames else (),
        time=hours_needed(
            terms.rows,
            mine.prompt_tokens.middle + mine.answer_tokens.middle,
            {"--rate": flags.rate, "--rpm": flags.rpm, "--tpm": flags.tpm},
        ),
        notes=notes or _notes(encoder, sends_frames=sends_frames),
    )


def _checked(flags: EstimateFlags) -> Size | None:
    """The size of a frame that was given."""
    if flags.sample < 1:
        raise ConfigError("--sample must be at least 1")
    if flags.rate is not None and not 0 < flags.rate < math.inf:
        raise ConfigError(f"--rate must be above 0 rows a second, not {flags.rate}")
    if flags.resume and NOT_GIVEN in {flags.input, flags.out}:
        raise ConfigError("--resume leaves out the rows that are done, and needs the run's --input and --out")
    if flags.input != NOT_GIVEN:
        if flags.rows or flags.frames or flags.frame_size or flags.text_tokens:
            raise ConfigError("--rows, --frames, --frame-size and --text-tokens take the place of --input")
        return None
    if flags.rows < 1:
        raise ConfigError("--input is missing; without one give --rows, and --frames with --frame-size")
    if min(flags.frames, flags.text_tokens) < 0 or (flags.frames > 0) is not bool(flags.frame_size):
        raise ConfigError("--frames and --frame-size go together: how many a row has, and how large they are")
    if not flags.frame_size:
        return None
    size = parse_size(flags.frame_size)
    if size is None:
        raise ConfigError(f"--frame-size {flags.frame_size!r}: give a size in pixels such as 720x1280")
    return size


def _notes(encoder: ChatEncoder, *, sends_frames: bool) -> tuple[str, ...]:
    if not sends_frames or encoder.image_tokens(1, 1) is not None:
        return ()
    unknown = f"What {encoder.model} counts for a picture is not known; {UNKNOWN_IMAGE_TOKENS:,} tokens a frame are "
    return (f"{unknown}reckoned with. --probe-tokens measures it by two small calls",)


def _answers(job: Job) -> Answers:
    """How long an answer is: as the run in the folder has seen it, else as the codebook lets it be."""
    retry = job.settings.retry
    cap = min(retry.max_tokens or retry.max_tokens_cap, retry.max_tokens_cap)
    if job.resume and (seen := _lengths_seen(job)):
        return Answers(tokens=mean_range(seen), basis=f"by {len(seen):,} answers of this run")
    if any(name == "reasoning" for name, _ in job.encoder.extra):
        bounds, basis = (LEAST_TOKENS, cap), "reasoning may take whatever is allowed"
    elif isinstance(job.reader, CodebookReader):
        bounds, basis = _object_tokens(job.reader.codebook.json_schema()), "by the labels of the codebook"
    else:
        bounds, basis = (LEAST_TOKENS, FIRST_TOKENS), "a guess: nobody knows how long a free answer is"
    low, high = (min(bound, cap) for bound in bounds)
    return Answers(tokens=Range(low=low, middle=(low + high) / 2, high=high), basis=basis)


def _lengths_seen(job: Job) -> list[float]:
    """Of answers, in tokens, by what the lanes of the run have learnt."""
    lanes: Mapping[str, Any] = read_checkpoint(job.out)[0].learnt.get("lanes", {})
    seen = [
        math.exp(int(bucket) * STEP)
        for lane in lanes.values()
        for bucket, count in lane.get("lengths", {}).items()
        for _ in range(count)
    ]
    return seen if len(seen) >= ENOUGH_ANSWERS else []


def _object_tokens(schema: Mapping[str, Any]) -> tuple[int, int]:
    """Of the shortest and the longest answer under a schema of labels."""
    shortest, longest = ({name: _values(said)[at] for name, said in schema["properties"].items()} for at in (0, 1))
    sizes = [len(orjson.dumps(answer)) for answer in (shortest, longest)]
    return math.ceil(sizes[0] / BYTES_A_TOKEN[0]), math.ceil(sizes[1] / BYTES_A_TOKEN[1])


def _values(said: Mapping[str, Any]) -> tuple[Any, Any]:
    """The shortest and the longest value of one label."""
    if "enum" in said:
        words = sorted(said["enum"], key=lambda word: len(str(word)))
        return words[0], words[-1]
    if said.get("type") == "array":
        short, long = _values(said["items"])
        return [short], [long, long]
    return float(NUMBERS[0]), float(NUMBERS[1])
