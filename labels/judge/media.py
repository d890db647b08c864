"""The picture or video of a question: frames for judges that see, and a small picture for the page.

Names come from the question file: each is a path below the place of media, opened step by step and through no link.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from encoders.fit import Fit, Picture
from encoders.image import BrokenImageError, prepare
from encoders.locate import MAX_FRAME_BYTES, VideoStore
from encoders.places import video_store
from encoders.refs import frame_ref
from encoders.sample import Choice
from engine.errors import ConfigError, RowError
from labels.judge.inputs import Question
from labels.judge.plan import Shown
from labels.new_file import new_file

SENT = Fit(rule="none", model="", max_side_px=1536)
"""Of the frames that are kept; what a judge is sent follows from it by `--fit`."""
SMALL = Fit(rule="none", model="", max_side_px=320)
"""Of the pictures in the page."""
MIDDLE = Choice(splice="middle")
SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
DIGEST_CHARS = 32


class NoMediaError(Exception):
    """There is nothing to show; `str()` says why."""


@dataclass(frozen=True, slots=True)
class MediaPlace:
    """Where the pictures and videos of questions are."""

    store: VideoStore

    def pictures(self, question: Question, choice: Choice, fit: Fit) -> list[Picture]:
        """The picture of a question, or frames of its video.

        Raises:
            NoMediaError: there are none to be had.
        """
        name = question.media
        if name is None:
            raise NoMediaError("the question names neither image nor video")
        try:
            with self.store.open("", name) as file:
                if file is None:
                    raise NoMediaError(f"there is no {name}")
                return _frames(file, choice, fit) if question.is_video else [_picture(file, fit)]
        except RowError as error:
            raise NoMediaError(f"{name}: {error}") from error


def media_place(where: Path) -> MediaPlace:
    """The place of media that `--media-base-path` names.

    Raises:
        ConfigError: it is none.
    """
    try:
        store = video_store(str(where))
        store.prepare()
    except ConfigError as error:
        raise ConfigError(f"--media-base-path {error}") from error
    return MediaPlace(store)


def _picture(file: BinaryIO, fit: Fit) -> Picture:
    data = file.read(MAX_FRAME_BYTES + 1)
    if len(data) > MAX_FRAME_BYTES:
        raise NoMediaError(f"the picture is larger than {MAX_FRAME_BYTES >> 20} MB")
    try:
        return prepare(data, fit)
    except BrokenImageError as error:
        raise NoMediaError(f"it is no picture: {error}") from error


def _frames(file: BinaryIO, choice: Choice, fit: Fit) -> list[Picture]:
    # Pictures need no decoder of videos: 35 MB.
    from encoders.faults import BrokenVideoError  # noqa: PLC0415
    from encoders.video import video_frames  # noqa: PLC0415

    try:
        return [frame.picture for frame in video_frames(file, choice, fit)]
    except BrokenVideoError as error:
        raise NoMediaError(f"the video has no frame to show: {error.reason}") from error


def shown_to_judges(
    questions: Iterable[Question], place: MediaPlace, *, choice: Choice, folder: Path
) -> tuple[dict[str, Shown], dict[str, str]]:
    """Decode the media of questions, each once, and keep the frames where chats can name them.

    Args:
        questions: what is asked about.
        place: of media.
        choice: which frames of a video.
        folder: takes the frames.

    Returns:
        What is shown, by the id of the question, and why nothing can be, likewise.
    """
    made: dict[str | None, Shown | str] = {}
    shown: dict[str, Shown] = {}
    missing: dict[str, str] = {}
    for question in questions:
        name = question.media
        if name not in made:
            try:
                made[name] = _kept(place.pictures(question, choice, SENT), folder)
            except NoMediaError as error:
                made[name] = str(error)
        found = made[name]
        if isinstance(found, Shown):
            shown[question.id] = found
        else:
            missing[question.id] = found
    return shown, missing


def _kept(pictures: list[Picture], folder: Path) -> Shown:
    """Write frames that are not there yet, under a name made of what they are."""
    whole = hashlib.sha256()
    for picture in pictures:
        whole.update(hashlib.sha256(picture.data).digest())
    digest = whole.hexdigest()[:DIGEST_CHARS]
    names = [f"frame_{at}.{SUFFIXES[picture.mime]}" for at, picture in enumerate(pictures)]
    for name, picture in zip(names, pictures, strict=True):
        path = folder / digest / name
        if not path.exists():
            with new_file(path) as put:
                put(picture.data)
    return Shown(addresses=tuple(frame_ref(digest, name) for name in names), digest=digest)


def small_pictures(questions: Mapping[str, Question], place: MediaPlace) -> dict[str, Picture]:
    """A small picture for each question that has media; a video is shown by its middle frame."""
    made: dict[str, Picture | None] = {}
    found: dict[str, Picture] = {}
    for identity, question in questions.items():
        name = question.media
        if name is None:
            continue
        if name not in made:
            try:
                made[name] = place.pictures(question, MIDDLE, SMALL)[0]
            except NoMediaError:
                made[name] = None
        picture = made[name]
        if picture is not None:
            found[identity] = picture
    return found
