"""How to score, as told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import ConfigError

F1, R2 = "f1", "r2"
CD_MAP = "yes=1,no=0,cannot_determine=0.5"
MAX_REPLICATES = 1_000_000
SCORED_LABELS = ("yes", "no", "cannot_determine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What decides what a metric is."""

    stance_thresh: float = 0.3
    """Above it a number is positive, below its opposite negative; of numbers whose range is even around 0."""
    eps: float = 1e-6
    """Numbers that differ by no more are equal."""
    yn_metric: str = F1
    """`f1`, or `r2`: yes and no as numbers."""
    yn_thresh: float | None = None
    """From here on a number says yes; None takes no numbers for yes-or-no questions."""
    cd_map: Mapping[str, float] = field(default_factory=lambda: parsed_cd_map(CD_MAP))
    """What number a label stands for under `r2`."""
    min_text_len: int = 0
    """Rows whose users say less, headings not counted, are left out."""

    def __post_init__(self) -> None:
        if self.yn_metric not in (F1, R2):
            raise ConfigError(f"--yn-metric {self.yn_metric}: take {F1} or {R2}")
        if self.yn_thresh is not None and not 0 <= self.yn_thresh <= 1:
            raise ConfigError(f"--yn-thresh {self.yn_thresh:g} must be from 0 to 1")
        for flag, value in (("--stance-thresh", self.stance_thresh), ("--eps", self.eps)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{flag} {value:g} must not be below 0")
        if self.min_text_len < 0:
            raise ConfigError("--min-text-len must not be below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How intervals are found."""

    n: int = 1000
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_REPLICATES:
            raise ConfigError(f"--ci-n must be from 1 to {MAX_REPLICATES:,}")
        if not 0 < self.alpha < 1:
            raise ConfigError("--ci-alpha must be between 0 and 1")
        if self.seed < 0:
            raise ConfigError("--ci-seed must not be below 0")


def parsed_cd_map(text: str) -> dict[str, float]:
    """`yes=1,no=0,cannot_determine=0.5` as label to number.

    Raises:
        ConfigError: it is not written so, or a number is not from 0 to 1.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        label, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or label not in SCORED_LABELS or not 0 <= value <= 1:
            raise ConfigError(f"--cd-map {text}: write it as {CD_MAP}, each number from 0 to 1")
        found[label] = value
    return found
