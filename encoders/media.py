"""The pictures of a row: frames that lie ready, or else frames of its video, at the size they are sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from encoders.faults import BrokenVideoError, VideoFault
from encoders.fit import Fit, Picture
from encoders.image import BrokenImageError, prepare
from encoders.locate import FrameStore, VideoStore, thinned
from encoders.sample import ALL_FRAMES, Choice
from engine.errors import RowError
from engine.types import FailureKind, Row

TEXT_ONLY = "text_only"
NO_FOLDER, NO_FILE, NO_USABLE_FRAME = "no_folder", "no_file", "no_usable_frame"
"""Why a row is sent as text alone, besides what may be wrong with a video."""
SKIPPED_FRAMES, FEWER_FRAMES, SMALLER_FRAMES = "skipped_frames", "fewer_frames", "smaller_frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One picture of a row."""

    index: int
    """The n of `frame_<n>`, or the frame's index in its video."""
    time_s: float | None
    """When its video shows it; None for a frame that came as a file."""
    picture: Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is to see of a row."""

    pictures: tuple[Shown, ...] = ()
    degraded: tuple[str, ...] = ()
    """What was lost on the way, as codes for the result line."""
    missing: str | None = None
    """Why there is no picture; None if there is, or none is wanted."""

    def failure(self) -> RowError:
        """How a row ends that has no text either."""
        if self.missing == VideoFault.MEDIA_LIMIT:
            return RowError(FailureKind.MEDIA_LIMIT, "the row has no text, and its video is larger than allowed")
        if self.missing in {NO_USABLE_FRAME, *VideoFault}:
            return RowError(
                FailureKind.BAD_MEDIA, f"the row has no text, and no picture of it can be had: {self.missing}"
            )
        return RowError(FailureKind.BAD_ROW, "the row has neither text nor pictures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Where the pictures of rows are, which are taken, and how large they are sent."""

    fit: Fit
    frames: FrameStore | None = None
    videos: VideoStore | None = None
    """Looked at for rows that have no usable frame."""
    choice: Choice = field(default_factory=Choice)
    """Which frames of a video."""
    max_frames: int = 16

    @property
    def is_wanted(self) -> bool:
        """Whether pictures are sent at all; if not, by choice, nothing counts as reduced."""
        return self.frames is not None or self.videos is not None

    def of(self, row: Row) -> Found:
        """The pictures of a row within its reduction.

        Raises:
            RowError: its id could lead out of the place, or what it has cannot be reached.
        """
        if not self.is_wanted:
            return Found()
        found = self._of_frames(row)
        if found.pictures or self.videos is None:
            return found
        return self._of_video(row)

    def _of_frames(self, row: Row) -> Found:
        if self.frames is None:
            return Found()
        with self.frames.open(row.id) as folder:
            if folder is None:
                return _none(NO_FOLDER)
            files = folder.files()
            wanted = min(len(files), self.max_frames)
            sent = min(wanted, row.reduction.max_frames or wanted)
            taken = [files[at] for at in thinned(len(files), sent)]
            fit = self._fit(row)
            pictures: list[Shown] = []
            for frame, data in zip(taken, folder.read(taken), strict=True):
                try:
                    pictures.append(Shown(index=frame.index, time_s=None, picture=prepare(data, fit)))
                except BrokenImageError:
                    continue
        lost = [f"{SKIPPED_FRAMES}:{len(taken) - len(pictures)}"] if len(pictures) < len(taken) else []
        if not pictures:
            return _none(NO_USABLE_FRAME, *lost)
        return Found(pictures=tuple(pictures), degraded=(*lost, *_reduced(row, wanted=wanted, sent=sent)))

    def _of_video(self, row: Row) -> Found:
        # Text and frames need no decoder of videos: 35 MB in every worker.
        from encoders.video import video_frames  # noqa: PLC0415

        assert self.videos is not None
        most = min(self.max_frames, row.reduction.max_frames or self.max_frames)
        choice = replace(self.choice, max_frames=most)
        with self.videos.open(row.id, row.fields.get("video", "")) as file:
            if file is None:
                return _none(NO_FILE)
            try:
                frames = video_frames(file, choice, self._fit(row))
            except BrokenVideoError as error:
                return _none(error.reason)
        all_wanted = self.max_frames if choice.num_frames == ALL_FRAMES else min(choice.num_frames, self.max_frames)
        asked = all_wanted if choice.splice is None else 1
        # A video with fewer frames than were asked for has lost none.
        wanted = asked if len(frames) == most else len(frames)
        pictures = (Shown(index=frame.index, time_s=frame.time_s, picture=frame.picture) for frame in frames)
        return Found(pictures=tuple(pictures), degraded=tuple(_reduced(row, wanted=wanted, sent=len(frames))))

    def _fit(self, row: Row) -> Fit:
        return replace(self.fit, max_side_px=row.reduction.max_side_px)


def _none(why: str, *lost: str) -> Found:
    return Found(degraded=(f"{TEXT_ONLY}:{why}", *lost), missing=why)


def _reduced(row: Row, *, wanted: int, sent: int) -> Iterable[str]:
    if sent < wanted:
        yield f"{FEWER_FRAMES}:{wanted}>{sent}"
    if row.reduction.max_side_px is not None:
        yield f"{SMALLER_FRAMES}:{row.reduction.max_side_px}"
