"""Files to judge, in the shape of LLaVA-Bench: 24 pictures, 60 questions, three categories, two models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.photos import encoded, phone_photo

PICTURES, QUESTIONS = 24, 60
WEIGHTS = {"complex": 28, "conv": 17, "detail": 15}
CATEGORIES = [category for category, count in WEIGHTS.items() for _ in range(count)]

Worth = Callable[[int], float]
"""What the answer to a question is worth."""


def write_lines(path: Path, said: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in said), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The files, and the flags that name them as the old script's did."""

    folder: Path

    @property
    def questions(self) -> Path:
        return self.folder / "questions.jsonl"

    @property
    def context(self) -> Path:
        return self.folder / "context.jsonl"

    @property
    def first(self) -> Path:
        return self.folder / "answers_gpt4.jsonl"

    @property
    def second(self) -> Path:
        return self.folder / "bard_0718.jsonl"

    @property
    def output(self) -> Path:
        return self.folder / "output.json"

    def reviews(self) -> list[dict[str, Any]]:
        return read_lines(self.output)

    def flags(self, *more: object) -> tuple[object, ...]:
        return (
            *("--model-name-list", "gpt", "bard", "--media-type", "image", "--question-file", self.questions),
            *("--responses-list", self.first, self.second, "--answers-dir", self.folder / "answers"),
            *("--context-file", self.context, "--output", self.output, *more),
        )


def bench(folder: Path, *, first: Worth, second: Worth) -> Bench:
    """Write the files; the second model's answers in another order, and in the other form."""
    made = Bench(folder=folder)
    write_lines(
        made.questions,
        (
            {"question_id": n, "image": f"{n % PICTURES:03d}.jpg", "category": CATEGORIES[n], "text": f"Question {n}?"}
            for n in range(QUESTIONS)
        ),
    )
    write_lines(
        made.context, ({"image": f"{n:03d}.jpg", "caption": [f"Picture {n}.", "It is sharp."]} for n in range(PICTURES))
    )
    write_lines(
        made.first,
        (
            {
                "question_id": n,
                "prompt": f"Question {n}?",
                "answer_id": f"gpt-{n}",
                "model_id": "gpt-4-0314",
                "metadata": {},
                "text": f"Answer {n}, worth {first(n)}.",
            }
            for n in range(QUESTIONS)
        ),
    )
    write_lines(
        made.second,
        ({"response_id": n, "response": f"Reply {n}, worth {second(n)}."} for n in reversed(range(QUESTIONS))),
    )
    return made


def with_pictures(made: Bench) -> Path:
    """Put the pictures there; their folder."""
    folder = made.folder / "images"
    folder.mkdir()
    data = encoded(phone_photo("coffee", (480, 640)))
    for number in range(PICTURES):
        (folder / f"{number:03d}.jpg").write_bytes(data)
    return folder
