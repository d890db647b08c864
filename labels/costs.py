"""What a run costs, from what a few of its rows hold: arithmetic alone, nothing read and nothing sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from encoders.fit import parse_fit
from encoders.locate import thinned
from encoders.tokens import Size
from engine.config import PriceConfig

Z_95 = 1.96
"""Standard deviations around a mean that hold 95 % of a normal distribution."""
TEXT_BOUNDS = (0.8, 4 / 3)
"""Of the estimate of a text's tokens, four bytes each: European languages come at three to five bytes a token."""
FRAME_CHOICES = (1, 2, 4, 8, 16)
FIT_CHOICES = ("tokens", "560x560", "none")

ImageTokens = Callable[[int, int], int]
"""Width and height in pixels to tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """What one row holds."""

    text_tokens: int
    """Of everything but its frames, the instructions too."""
    sizes: tuple[Size, ...]
    """Of its frames as they lie there, evenly thinned to as many as any choice sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A quantity that is known within bounds."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)

    def as_json(self) -> dict[str, float]:
        return {"low": self.low, "middle": self.middle, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How long an answer is, in tokens."""

    tokens: Range
    basis: str
    """How that is known, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A `--fit` and a `--max-frames`."""

    fit: str
    max_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What all rows take under one choice."""

    choice: Choice
    frames: float
    """A row, on average."""
    text_tokens: float
    image_tokens: float
    """Of all rows together, like `text_tokens`."""
    prompt_tokens: Range
    """Of all rows; the bounds are those of the sample's spread, and of how exactly a text's tokens are known."""
    answer_tokens: Range
    price: PriceConfig

    @property
    def image_usd(self) -> float | None:
        """For the frames alone; None without a price."""
        return self.price.cost_usd(self.image_tokens, 0)

    @property
    def text_usd(self) -> float | None:
        return self.price.cost_usd(self.text_tokens, 0)

    @property
    def answer_usd(self) -> float | None:
        return self.price.cost_usd(0, self.answer_tokens.middle)

    @property
    def usd(self) -> Range | None:
        """For everything, each answer asked for once."""
        prompt, answer = self.prompt_tokens, self.answer_tokens
        bounds = [
            self.price.cost_usd(*pair)
            for pair in ((prompt.low, answer.low), (prompt.middle, answer.middle), (prompt.high, answer.high))
        ]
        low, middle, high = bounds
        return None if low is None or middle is None or high is None else Range(low=low, middle=middle, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is the same under every choice."""

    rows: float
    """All that are sent, each once."""
    model: str
    tokens: ImageTokens
    """What a picture costs."""
    answers: Answers
    price: PriceConfig


def bill(terms: Terms, sample: Sequence[Holds], choice: Choice) -> Bill:
    """What all rows take, by a random sample of them; one as large as the whole leaves nothing uncertain."""
    fit = parse_fit(choice.fit, model=terms.model)
    texts = [row.text_tokens for row in sample]
    kept = [[row.sizes[at] for at in thinned(len(row.sizes), choice.max_frames)] for row in sample]
    images = [sum(terms.tokens(*fit.size(*size)) for size in sizes) for sizes in kept]
    together = [text + image for text, image in zip(texts, images, strict=True)]
    text_tokens, spread = fmean(texts) * terms.rows, mean_range(together, of=terms.rows).times(terms.rows)
    return Bill(
        choice=choice,
        frames=fmean(map(len, kept)),
        text_tokens=text_tokens,
        image_tokens=fmean(images) * terms.rows,
        prompt_tokens=Range(
            low=max(0.0, spread.low - text_tokens * (1 - TEXT_BOUNDS[0])),
            middle=spread.middle,
            high=spread.high + text_tokens * (TEXT_BOUNDS[1] - 1),
        ),
        answer_tokens=terms.answers.tokens.times(terms.rows),
        price=terms.price,
    )


def mean_range(sample: Sequence[float], *, of: float = math.inf) -> Range:
    """The mean of a population and its 95 % interval, by a simple random sample of it.

    Normal approximation with the correction for a finite population (Cochran 1977, 2.6): nothing is uncertain about
    one that was looked at as a whole. One value alone says nothing of the spread.
    """
    mean, count = fmean(sample), len(sample)
    unseen = max(0.0, 1 - count / of) if of else 0.0
    error = Z_95 * stdev(sample) * math.sqrt(unseen / count) if count > 1 else 0.0
    return Range(low=max(0.0, mean - error), middle=mean, high=mean + error)


def choices(chosen: Choice, most_frames: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The `--fit` and `--max-frames` to show, the chosen one among them; no count beyond the first that takes all."""
    fits = tuple(dict.fromkeys((chosen.fit, *FIT_CHOICES)))
    enough = next((count for count in FRAME_CHOICES if count >= most_frames), FRAME_CHOICES[-1])
    counts = {count for count in FRAME_CHOICES if count <= enough} | {min(chosen.max_frames, max(most_frames, 1))}
    return fits, tuple(sorted(counts))


def hours_needed(rows: float, tokens: float, limits: Mapping[str, float | None]) -> tuple[float, str] | None:
    """Hours a run takes, and the limit that makes it so long.

    Args:
        rows: to be sent, each once.
        tokens: prompts and answers.
        limits: rows a second under `--rate`, rows and tokens a minute under `--rpm` and `--tpm`.
    """
    amounts = {"--rate": rows / 3600, "--rpm": rows / 60, "--tpm": tokens / 60}
    hours = [(amounts[name] / limit, f"{name} {limit:,.10g}") for name, limit in limits.items() if limit]
    return max(hours) if hours else None
