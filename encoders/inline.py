"""The pictures of a chat at their places: those that stand in it, those it names, those at an address elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pybase64

from encoders.fit import Fit, Picture
from encoders.image import BrokenImageError, prepare, size_of
from encoders.locate import FrameStore, thinned
from encoders.media import (
    FEWER_FRAMES,
    NO_FOLDER,
    NO_USABLE_FRAME,
    SKIPPED_FRAMES,
    SMALLER_FRAMES,
    TEXT_ONLY,
    Media,
    Shown,
)
from encoders.refs import parsed_ref
from engine.errors import RowError
from engine.types import FailureKind, Reduction

ELSEWHERE = ("https://", "http://")
INSIDE = "data:image/"
SCHEME_CHARS = 16
"""The beginning of an address that tells what it is; the rest may be megabytes."""
MAX_URL_SHOWN = 60


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """One picture of a chat."""

    content: list[Any]
    """The parts of its message."""
    part: dict[str, Any]
    """Its own."""
    index: int
    """Among the pictures of the chat, from 0; of a frame that was named, the n of `frame_<n>`."""
    picture: Picture | None = None
    """Its bytes, where they are known."""

    @property
    def url(self) -> str:
        said = self.part["image_url"]
        return str(said["url"] if isinstance(said, dict) else said)

    def shown(self) -> Shown | None:
        """The picture, or None where nobody knows what the address holds."""
        return None if self.picture is None else Shown(index=self.index, time_s=None, picture=self.picture)

    def put(self, picture: Picture) -> None:
        """Send this in its place."""
        self.picture = picture
        said = self.part["image_url"]
        url = data_url(picture)
        self.part["image_url"] = said | {"url": url} if isinstance(said, dict) else {"url": url}

    def drop(self) -> None:
        """Send nothing in its place."""
        self.content[:] = [part for part in self.content if part is not self.part]


def slots_of(contents: Sequence[object]) -> list[Slot]:
    """The pictures of a chat, given the contents of its messages, in order; those that stand in it are read."""
    places = [
        (content, part)
        for content in contents
        if isinstance(content, list)
        for part in content
        if part["type"] == "image_url"
    ]
    slots = [Slot(content=content, part=part, index=at) for at, (content, part) in enumerate(places)]
    for slot in slots:
        slot.picture = _read(slot.url)
    return slots


def fault_of(url: str) -> str | None:
    """Why an address is not sent; None for one that is."""
    if url[:SCHEME_CHARS].lower().startswith((*ELSEWHERE, INSIDE)) or parsed_ref(url) is not None:
        return None
    # Whatever else it means, it means it here, and would reach the provider as a text.
    return f"the picture {url[:MAX_URL_SHOWN]!r} is neither at https:, nor {INSIDE}..., nor a frames: reference"


def settle(slots: list[Slot], media: Media, reduction: Reduction, *, beside: int) -> tuple[list[Slot], list[str]]:
    """Bring the pictures of a chat within its reduction, and put the frames it names in the place of their names.

    Args:
        slots: its pictures.
        media: where frames are, and how large they are sent.
        reduction: what the provider takes.
        beside: further pictures that the request has.

    Returns:
        The pictures that are left, and codes for what was lost.

    Raises:
        RowError: a frame is named and nobody said where frames are, an id leads elsewhere, or a place cannot be
            reached.
    """
    slots, codes = _thinned(slots, reduction.max_frames, beside=beside)
    wanted = len(slots)
    missing = NO_FOLDER if _look_up(slots, media, reduction) else NO_USABLE_FRAME
    left = [slot for slot in slots if slot.picture is not None or parsed_ref(slot.url) is None]
    for slot in slots:
        if slot not in left:
            slot.drop()
    if len(left) < wanted:
        codes.append(f"{SKIPPED_FRAMES}:{wanted - len(left)}" if left or beside else f"{TEXT_ONLY}:{missing}")
    if reduction.max_side_px is not None and _made_smaller(left, reduction.max_side_px, model=media.fit.model):
        codes.append(f"{SMALLER_FRAMES}:{reduction.max_side_px}")
    return left, codes


def data_url(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{pybase64.b64encode_as_string(picture.data)}"


def _read(url: str) -> Picture | None:
    """The picture inside an address; None if there is none, or none that can be read: the provider may know better."""
    if not url[:SCHEME_CHARS].lower().startswith(INSIDE):
        return None
    head, comma, data = url.partition(";base64,")
    try:
        raw = pybase64.b64decode(data) if comma else b""
    except ValueError:
        return None
    size = size_of(raw)
    return None if size is None else Picture(data=raw, mime=head[len("data:") :], width=size[0], height=size[1])


def _thinned(slots: list[Slot], most: int | None, *, beside: int) -> tuple[list[Slot], list[str]]:
    count = len(slots) + beside
    if most is None or count <= most or not slots:
        return slots, []
    kept = [slots[at] for at in thinned(len(slots), max(0, most - beside))]
    for slot in slots:
        if slot not in kept:
            slot.drop()
    return kept, [f"{FEWER_FRAMES}:{count}>{len(kept) + beside}"]


def _look_up(slots: list[Slot], media: Media, reduction: Reduction) -> bool:
    """Read the frames that are named; whether any id has none at all."""
    named: dict[str, list[tuple[str, Slot]]] = {}
    for slot in slots:
        if (found := parsed_ref(slot.url)) is not None:
            named.setdefault(found[0], []).append((found[1], slot))
    if named and media.frames is None:
        raise RowError(FailureKind.BAD_ROW, "the chat names frames; say where they are by --frames-dir")
    fit = replace(media.fit, max_side_px=reduction.max_side_px)
    there = [media.frames and _filled(media.frames, identity, wanted, fit) for identity, wanted in named.items()]
    return not all(there)


def _filled(store: FrameStore, identity: str, wanted: list[tuple[str, Slot]], fit: Fit) -> bool:
    """Put the frames of one id in their places, as far as they are good; False if it has none."""
    with store.open(identity) as folder:
        if folder is None:
            return False
        # What is not among the frames of the id is not opened, whatever its name leads to.
        files = {file.name: file for file in folder.files()}
        there = [(files[name], slot) for name, slot in wanted if name in files]
        for (file, slot), data in zip(there, folder.read([file for file, _ in there]), strict=True):
            try:
                slot.put(prepare(data, fit))
                slot.index = file.index
            except BrokenImageError:
                continue
    return True


def _made_smaller(slots: list[Slot], side_px: int, *, model: str) -> bool:
    """Bring the pictures whose bytes are known to this size; whether any was larger, or had been."""
    for slot in _larger(slots, side_px):
        assert slot.picture is not None
        try:
            slot.put(prepare(slot.picture.data, Fit(rule="none", model=model, max_side_px=side_px)))
        except BrokenImageError:
            continue
    return any(slot.picture is not None for slot in slots)


def _larger(slots: list[Slot], side_px: int) -> Iterator[Slot]:
    return (slot for slot in slots if slot.picture and max(slot.picture.width, slot.picture.height) > side_px)
