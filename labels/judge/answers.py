"""Answer files in the form of the scripts: the answers that were joined, and a list of where each file came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from engine.errors import InputError
from labels.judge.inputs import Pair
from labels.judge.reviews import line_of
from labels.new_file import new_file
from labels.terminal import read_text

MANIFEST = "answers.json"


def write_answers(
    folder: Path, pairs: Sequence[Pair], *, sources: tuple[Path, Path], names: tuple[str, str]
) -> tuple[Path, Path]:
    """Write the answers of both models; the paths of their files.

    A file of that name which was made of something else, or not by us, is left alone, and the new one gets a number.

    Args:
        folder: for answers; made if missing.
        pairs: what is judged.
        sources: the files that the answers came from.
        names: of the models.

    Raises:
        SinkBroken: they cannot be written.
        InputError: the list in the folder is none of ours.
    """
    listed = _listed(folder / MANIFEST)
    made: list[Path] = []
    for side, (source, name) in enumerate(zip(sources, names, strict=True)):
        about = {"responses": str(source.resolve()), "model": name}
        path = _free(folder, source, about, {key: said for key, said in listed.items() if folder / key not in made})
        with new_file(path) as put:
            for pair in pairs:
                put(line_of(_answer(pair, side, name)))
        listed[path.name] = about | {"answers": len(pairs)}
        made.append(path)
    with new_file(folder / MANIFEST) as put:
        # Not orjson: a path may hold bytes that are no text.
        put(f"{json.dumps(listed, indent=2)}\n".encode())
    return made[0], made[1]


def _answer(pair: Pair, side: int, name: str) -> dict[str, Any]:
    response = pair.answers[side]
    return {
        "question_id": pair.question.said_id,
        "prompt": pair.question.text,
        "text": response.text,
        "answer_id": response.answer_id,
        "model_id": name,
        "metadata": {},
    }


def _listed(path: Path) -> dict[str, Mapping[str, Any]]:
    if not path.exists():
        return {}
    try:
        said = orjson.loads(read_text(path, "--answers-dir"))
    except orjson.JSONDecodeError as error:
        raise InputError(f"--answers-dir {path}: no JSON: {error}") from error
    if not isinstance(said, dict) or not all(isinstance(about, dict) for about in said.values()):
        raise InputError(f"--answers-dir {path}: no list of answer files; move it away")
    return said


def _free(folder: Path, source: Path, about: Mapping[str, Any], listed: Mapping[str, Mapping[str, Any]]) -> Path:
    """The first name that is free, or that of an earlier file of the same."""
    for name in _names(source):
        ours = {key: listed.get(name, {}).get(key) for key in about} == about
        if ours or not (folder / name).exists():
            return folder / name
    raise AssertionError("numbers do not end")


def _names(source: Path) -> Iterator[str]:
    yield f"{source.stem}_answer{source.suffix}"
    number = 2
    while True:
        yield f"{source.stem}_answer_{number}{source.suffix}"
        number += 1
