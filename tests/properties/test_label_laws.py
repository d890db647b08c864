"""From the prompt to the score: whoever answers perfectly scores one, whichever codebook asks, in whatever parts."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from labels.codebook import Codebook
from labels.parse import ParseOptions, parse
from labels.score.gold import read_truth
from labels.score.options import Options
from labels.score.predictions import read_predictions
from labels.score.report import report
from tests.fakes.codebooks import ODD, all_codebooks, perfect_answer
from tests.fakes.scores import gold_file

VIDEOS = 60
WAYS = [(book, mode) for book in all_codebooks() for mode in book.groups]


def _named(book: Codebook, folder: Path) -> str:
    """What `--codebook` is told."""
    if book.name != "odd":
        return book.name
    (folder / "odd.toml").write_text(ODD, encoding="utf-8")
    return str(folder / "odd.toml")


@pytest.mark.slow
@pytest.mark.parametrize(("book", "mode"), WAYS, ids=[f"{book.name}-{mode}" for book, mode in WAYS])
def test_perfect_answers_score_one_in_every_codebook_and_group_mode(tmp_path: Path, book: Codebook, mode: str) -> None:
    rng = random.Random(f"{book.name} {mode}")
    golds = [perfect_answer(book.system_prompt(), rng) for _ in range(VIDEOS)]
    asked = [(video, group, keys) for video in range(VIDEOS) for group, keys in book.groups[mode].items()]
    # The groups of a video need not stand together.
    rng.shuffle(asked)
    with (tmp_path / "raw.jsonl").open("w", encoding="utf-8") as file:
        for at, (video, group, keys) in enumerate(asked):
            name = f"v{video}" if mode == "single" else f"v{video}__group_{group}"
            raw = json.dumps({key: golds[video][key] for key in golds[video] if key in keys}, ensure_ascii=False)
            file.write(json.dumps({"idx": at, "meta_id": name, "raw": raw, "finish_reason": "stop"}) + "\n")
    codebook = _named(book, tmp_path)
    told = ParseOptions(
        raw=tmp_path / "raw.jsonl",
        out=tmp_path / "parsed.jsonl",
        codebook=codebook,
        group_mode=mode,
        merge=mode != "single",
    )
    parse(told, say=lambda _: None)
    truth = read_truth(gold_file(tmp_path / "gold.jsonl", golds), codebook=codebook, id_column=None, options=Options())
    models = [read_predictions(told.out, "perfect", truth, Options())]
    found = report(truth, models, options=Options(), resampling=None)
    (scores,) = found.models
    assert scores.exact_match == VIDEOS
    figures = {metric.name: scores.of(metric).value for metric in found.headlines}
    # A class that no gold has gives an F1 of 0 by the rule of the scripts these names come from.
    present = {name: value for name, value in figures.items() if not math.isnan(value) and value}
    assert present, figures
    assert present == pytest.approx(dict.fromkeys(present, 1.0))
