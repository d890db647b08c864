"""Questions, the answers of two models and the context, joined by id whatever their order.

What has no counterpart is left out and told, never shifted onto another question. Two records of one id are one if they
say the same; if not, nobody can tell which is meant, and the file is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from encoders.locate import VIDEO_SUFFIXES
from engine.errors import InputError
from labels.judge.prompt import digest_of
from labels.judge.records import ID_KEYS, Entry, read_entries

SHOWN_IDS = 5
ANSWER_KEYS = ("pred_answer", "response", "text")
"""Where an answer may stand, the first one that is there: the newer output of NeVA keeps the question under `text`."""

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")

T = TypeVar("T")


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What both models were asked."""

    id: str
    said_id: Any
    """As in the file: reviews name it so."""
    text: str
    category: str | None
    image: str | None
    video: str | None
    place: str
    """File and line."""

    @property
    def media(self) -> str | None:
        """The name of what it is about, relative to the place of media."""
        return self.video if self.video is not None else self.image

    @property
    def is_video(self) -> bool:
        """Whether that is a video, whichever key names it."""
        name = self.media or ""
        return name.rpartition(".")[2].lower() in VIDEO_SUFFIXES or (self.video is not None and not _is_image(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What one model answered."""

    id: str
    """Of the question."""
    text: str | None
    """None where the model gave no answer."""
    answer_id: Any
    """As in the file; where it has none, one that follows from what was asked and answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both answers to one question, and what is known of what it is about."""

    question: Question
    answers: tuple[Response, Response]
    context: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Records that take no part, for one reason."""

    why: str
    """In words, to follow a number."""
    count: int
    ids: tuple[str, ...]
    """The first few."""

    def text(self) -> str:
        more = ", ..." if self.count > len(self.ids) else ""
        return f"{self.count:,} {self.why} ({', '.join(self.ids)}{more})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What can be judged, in the order of the questions, and what cannot."""

    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where the inputs are."""

    questions: Path
    responses: tuple[Path, Path]
    context: Path | None


def joined(files: Files, *, names: tuple[str, str], context_needed: bool) -> Joined:
    """Read all files and join them.

    Args:
        files: where they are.
        names: of the two models, for what is said.
        context_needed: whether a question that the context file does not know is left out.

    Raises:
        ConfigError: a file cannot be read.
        InputError: a file is wrong, or two of its records contradict each other.
    """
    twice: list[LeftOut] = []
    questions = _unique(files.questions, "--question-file", _question, twice)
    sides = tuple(_unique(path, "--responses-list", _response, twice) for path in files.responses)
    first, second = sides
    contexts = {} if files.context is None else _contexts(files.context)
    pairs = [
        Pair(question=question, answers=(first[key], second[key]), context=_context_of(question, contexts))
        for key, question in questions.items()
        if all(_answers(side, key) for side in sides)
    ]
    told = []
    for name, side in zip(names, sides, strict=True):
        told += [
            _told((key for key in questions if not _answers(side, key)), f"questions have no answer of {name}"),
            _told((key for key in side if key not in questions), f"answers of {name} belong to no question"),
        ]
    if files.context is not None and context_needed:
        blind = (pair.question.id for pair in pairs if pair.context is None)
        told.append(_told(blind, "questions are not in the context file"))
        pairs = [pair for pair in pairs if pair.context is not None]
    return Joined(
        pairs=tuple(pairs),
        left_out=tuple(said for said in (*told, *twice) if said.count),
    )


def _answers(side: Mapping[str, Response], key: str) -> bool:
    return key in side and side[key].text is not None


def chunk(pairs: Sequence[Pair], *, chunks: int, index: int) -> Sequence[Pair]:
    """One of so many runs of neighbours, as even as they go; the pairs are the same whatever the chunk."""
    size = -(-len(pairs) // chunks)
    return pairs[index * size : (index + 1) * size]


def _told(ids: Iterable[str], why: str) -> LeftOut:
    found = list(ids)
    return LeftOut(why=why, count=len(found), ids=tuple(islice(found, SHOWN_IDS)))


def _unique(path: Path, flag: str, make: Callable[[Entry], tuple[str, T]], twice: list[LeftOut]) -> dict[str, T]:
    """The records of a file by their ids."""
    found: dict[str, T] = {}
    meanings: dict[str, tuple[Hashable, Entry]] = {}
    again: list[str] = []
    for entry in read_entries(path, flag=flag):
        key, record = make(entry)
        meaning = _meaning(record)
        if key not in found:
            found[key] = record
            meanings[key] = meaning, entry
        elif meanings[key][0] == meaning:
            again.append(key)
        else:
            raise InputError(
                f"{path} lines {meanings[key][1].line} and {entry.line} both have the id {key} and say different "
                "things; take one of them out"
            )
    if not found:
        raise InputError(f"{path} holds no record")
    twice.append(_told(again, f"lines of {path} repeat another to the letter and count once"))
    return found


def _meaning(record: object) -> Hashable:
    """What two records of one id must have in common to be one."""
    if isinstance(record, Question):
        return record.text, record.category, record.media
    assert isinstance(record, Response)
    return record.text


def _question(entry: Entry) -> tuple[str, Question]:
    identity = _id_of(entry)
    text = entry.text("text", "prompt", "question")
    if text is None:
        raise InputError(f"{entry.place}: a question needs its text under text, prompt or question")
    question = Question(
        id=identity,
        said_id=next(entry.said[key] for key in ID_KEYS if entry.said.get(key) is not None),
        text=text,
        category=entry.identity("category"),
        image=entry.text("image"),
        video=entry.text("video"),
        place=entry.place,
    )
    return identity, question


def _response(entry: Entry) -> tuple[str, Response]:
    identity = _id_of(entry)
    key = next((key for key in ANSWER_KEYS if key in entry.said), None)
    if key is None:
        raise InputError(f"{entry.place}: an answer needs its text under {', '.join(ANSWER_KEYS)}")
    text = entry.text(key)
    response = Response(
        id=identity,
        text=text,
        answer_id=_answer_id(entry, identity, text),
    )
    return identity, response


def _answer_id(entry: Entry, identity: str, text: str | None) -> Any:
    said = entry.said.get("answer_id")
    # NeVA writes 0 where there is none.
    return digest_of(identity, text) if said is None or said == 0 else said


def _id_of(entry: Entry) -> str:
    identity = entry.identity(*ID_KEYS)
    if identity is None:
        raise InputError(f"{entry.place}: there is no id under {', '.join(ID_KEYS)}")
    return identity


def _contexts(path: Path) -> dict[tuple[str, str], str]:
    """Captions by what they are about: a question's id, an image or a video."""
    found: dict[tuple[str, str], tuple[str, Entry]] = {}
    for entry in read_entries(path, flag="--context-file"):
        caption = _caption(entry)
        keys = [(kind, value) for kind in ("question_id", "video", "image") if (value := entry.identity(kind))]
        if not keys:
            raise InputError(f"{entry.place}: a context needs image, video or question_id")
        # A line about one question says nothing of others with the same picture.
        for key in keys[:1] if keys[0][0] == "question_id" else keys:
            before = found.setdefault(key, (caption, entry))
            if before[0] != caption:
                raise InputError(
                    f"{path} lines {before[1].line} and {entry.line} both are about {key[0]} {key[1]} and say "
                    "different things; take one of them out"
                )
    return {key: caption for key, (caption, _) in found.items()}


def _caption(entry: Entry) -> str:
    value = entry.said.get("caption")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, str):
        return value
    raise InputError(f"{entry.place}: caption must be text, or a list of texts")


def _context_of(question: Question, contexts: Mapping[tuple[str, str], str]) -> str | None:
    keys = (("question_id", question.id), ("video", question.video), ("image", question.image))
    return next(
        (contexts[kind, value] for kind, value in keys if value is not None and (kind, value) in contexts), None
    )
