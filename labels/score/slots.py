"""What is measured under each dimension, and what it is called.

A slot is one figure: how missing answers are read, the measure, and the label it is about. Three readings:

- `spec`: the definitions of the scripts this command takes over, to the letter, under their names
- `all`: a missing answer is a wrong one
- `answered`: rows without an answer are left out
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from labels.codebook import Codebook, Dimension
from labels.score.columns import is_yes_no
from labels.score.options import R2, Options

SPEC, ALL, ANSWERED = "spec", "all", "answered"
READINGS = (ALL, ANSWERED)
ACCURACY, KAPPA, MCC, MACRO = "accuracy", "kappa", "MCC", "macro_F1"
PRECISION, RECALL, F1 = "precision", "recall", "F1"
EXACT, COVERAGE = "exact_match", "coverage"
R2_SCORE, MAE, RMSE, PEARSON, SPEARMAN = "R2", "MAE", "RMSE", "pearson", "spearman"
OF_NUMBERS = (R2_SCORE, MAE, RMSE, PEARSON, SPEARMAN)
PER_LABEL = (PRECISION, RECALL, F1)
POSITIVE, NEGATIVE, YES = "positive", "negative", "yes"
STANCES = ("pro", "anti", "neutral/unclear")
WHOLE = ""
"""In the place of a key: the answer as a whole."""

COMPREHENSIVE = {
    "china_stance_score": "stance",
    "china_related": "china_related",
    "china_ccp_government": "stance_gov",
    "china_people_culture": "stance_culture",
    "china_technology_development": "stance_tech",
    "china_sensitive": "sensitive",
    "collective_action": "collective",
    "hate_speech": "hate",
    "harmful_content": "harmful",
    "news_segments": "news",
    "inauthentic_content": "inauthentic",
    "derivative_content": "derivative",
}
STANDARD = {"china_stance_score": "stance", "china_sensitive": "ch_sensitive", "collective_action": "col_action"}
"""How keys are called in the names of metrics; other keys keep their names."""


class Slot(NamedTuple):
    """One figure under a dimension."""

    reading: str
    measure: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure with its name."""

    name: str
    key: str
    """The dimension, or `WHOLE`."""
    slot: Slot


def is_stance(dimension: Dimension) -> bool:
    return dimension.kind == "categorical" and dimension.values == STANCES


def is_even(dimension: Dimension) -> bool:
    """Whether it is a number whose range is even around 0."""
    return dimension.kind == "number" and dimension.minimum == -dimension.maximum


def is_comprehensive(codebook: Codebook) -> bool:
    return any(dimension.key == "china_related" for dimension in codebook.dimensions)


def takes_soft(codebook: Codebook, options: Options) -> bool:
    """Whether yes and no are scored as numbers; the comprehensive codebook never was."""
    return options.yn_metric == R2 and not is_comprehensive(codebook)


def thresholds(dimension: Dimension, options: Options) -> dict[str, tuple[float, float]]:
    """Which numbers are looked at as a class: label to sign and bound; the class is sign * number > bound."""
    if is_even(dimension):
        return {POSITIVE: (1.0, options.stance_thresh), NEGATIVE: (-1.0, options.stance_thresh)}
    return {}


def headlines(codebook: Codebook, options: Options) -> list[Metric]:
    """The metrics of the first table: those of the scripts under their names, and the like for any other codebook."""
    comprehensive = is_comprehensive(codebook)
    short = COMPREHENSIVE if comprehensive else STANDARD
    found: list[Metric] = []
    for dimension in codebook.dimensions:
        key, name = dimension.key, short.get(dimension.key, dimension.key)
        suffix = "F" if key in short and not comprehensive else "F1"
        soft = takes_soft(codebook, options)
        named = _named(dimension, name, suffix, soft=soft)
        found += [Metric(name=full, key=key, slot=slot) for full, slot in named.items()]
    return found


def _named(dimension: Dimension, name: str, suffix: str, *, soft: bool) -> dict[str, Slot]:
    if dimension.kind == "number":
        even = {f"{name}_pos_F1": Slot(SPEC, F1, POSITIVE), f"{name}_neg_F1": Slot(SPEC, F1, NEGATIVE)}
        return {f"{name}_R2": Slot(SPEC, R2_SCORE)} | (even if is_even(dimension) else {})
    if is_yes_no(dimension):
        return {f"{name}_R2": Slot(SPEC, R2_SCORE, YES)} if soft else {f"{name}_{suffix}": Slot(SPEC, F1, YES)}
    if is_stance(dimension):
        each = {f"{name}_f1_{value.split('/')[0]}": Slot(SPEC, F1, value) for value in STANCES}
        return each | {f"{name}_f1_macro": Slot(SPEC, MACRO)}
    each = {f"{name}_F1_{value}": Slot(ALL, F1, value) for value in dimension.values}
    exact = {f"{name}_exact_match": Slot(ALL, EXACT)} if dimension.kind == "list" else {}
    return exact | each | {f"{name}_macro_F1": Slot(ALL, MACRO)}


def ours(dimension: Dimension, options: Options) -> list[Metric]:
    """Every figure of a dimension in both readings, as `KEY.MEASURE[.LABEL].READING`."""
    key = dimension.key
    return [
        Metric(name=".".join(filter(None, (key, slot.measure, slot.label, slot.reading))), key=key, slot=slot)
        for slot in own_slots(dimension, options)
    ]


def own_slots(dimension: Dimension, options: Options) -> list[Slot]:
    found = [Slot(ALL, COVERAGE)]
    for reading in READINGS:
        if dimension.kind == "number":
            found += [Slot(reading, measure) for measure in OF_NUMBERS]
            labels: tuple[str, ...] = tuple(thresholds(dimension, options))
        else:
            over = (EXACT, MACRO) if dimension.kind == "list" else (ACCURACY, MACRO, KAPPA, MCC)
            found += [Slot(reading, measure) for measure in over]
            labels = dimension.values
        found += [Slot(reading, measure, label) for label in labels for measure in PER_LABEL]
    return found


def of_whole() -> list[Metric]:
    """The figures of answers as wholes."""
    return [
        Metric(name="coverage", key=WHOLE, slot=Slot(ALL, COVERAGE)),
        Metric(name="exact_match.all", key=WHOLE, slot=Slot(ALL, EXACT)),
        Metric(name="exact_match.answered", key=WHOLE, slot=Slot(ANSWERED, EXACT)),
    ]
