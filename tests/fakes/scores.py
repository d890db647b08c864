"""Gold and predictions as files, and what they score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labels.score.gold import read_truth
from labels.score.options import Options, Resampling
from labels.score.predictions import model_names, read_predictions
from labels.score.report import Report, report
from labels.score.slots import Slot

Labels = Mapping[str, Any]
STANDARD = ("china_stance_score", "china_sensitive", "collective_action")
GOLD = [
    dict(zip(STANDARD, said, strict=True))
    for said in (
        (0.5, "yes", "no"),
        (-0.5, "no", "no"),
        (0, "cannot_determine", "yes"),
        (0.8, "yes", "yes"),
        (-0.9, "no", "no"),
    )
]
SAID: list[Labels | None] = [
    None if said is None else dict(zip(STANDARD, said, strict=True))
    for said in ((0.4, "yes", "no"), (-0.2, "yes", "no"), (0.1, "no", "yes"), None, (-0.7, "no", "no"))
]
"""Five rows with known scores, one of them not answered."""


def chat(meta_id: str | None, gold: object, *, user: object = "TRANSCRIPT:\nthey walk") -> dict[str, Any]:
    """One line of a gold file; gold of None ends it with the user."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "judge"}, {"role": "user", "content": user}]
    if gold is not None:
        messages.append({"role": "assistant", "content": gold if isinstance(gold, str) else json.dumps(gold)})
    return ({} if meta_id is None else {"meta_id": meta_id}) | {"messages": messages}


def answer(index: int, labels: object, *, meta_id: str | None = None) -> dict[str, Any]:
    """One line as `parse` writes it; labels of None could not be read."""
    name = f"v{index}" if meta_id is None else meta_id
    about = {"idx": index, "meta_id": name, "original_meta_id": name}
    return about | {"parsed": labels is not None, "raw": "...", "json": labels, "reason": None, "repairs": []}


def write_lines(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def gold_file(path: Path, golds: Sequence[object]) -> Path:
    """Rows v0, v1, ..."""
    return write_lines(path, [chat(f"v{at}", gold) for at, gold in enumerate(golds)])


def said_file(path: Path, answers: Sequence[object]) -> Path:
    """Answers to rows v0, v1, ..."""
    return write_lines(path, [answer(at, labels) for at, labels in enumerate(answers)])


def scored(
    gold: Path,
    *said: Path,
    codebook: str | None = None,
    options: Options | None = None,
    resampling: Resampling | None = None,
) -> Report:
    """What the command would show."""
    options = options or Options()
    truth = read_truth(gold, codebook=codebook, id_column=None, options=options)
    names = model_names(said)
    models = [read_predictions(path, name, truth, options) for path, name in zip(said, names, strict=True)]
    return report(truth, models, options=options, resampling=resampling)


def headlines_of(found: Report, at: int = 0) -> dict[str, float]:
    """The metrics of the first table by name."""
    return {metric.name: found.models[at].of(metric).value for metric in found.headlines}


def figure(found: Report, key: str, *slot: str, at: int = 0) -> float:
    """One figure: of a dimension, by reading, measure and label."""
    return found.models[at].estimates[key, Slot(*slot)].value
