"""The pictures of a row as they stand in a chat: the bytes themselves in base64, a reference, or a path.

Made in worker processes, as the requests of a run are: what can kill a decoder costs one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import pybase64

from encoders.body import json_text
from encoders.media import Media, Shown
from encoders.refs import frame_ref
from engine.types import Request, Row

INLINE, REFERENCES, PATHS = "inline", "references", "paths"
"""Data URLs; `frames:` addresses; file names below the place of the frames, as LLaVA's loaders want them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureEncoder:
    """Row to its pictures: `Request.head` is JSON, the items of an array without its brackets."""

    media: Media
    form: str
    """`INLINE`, `REFERENCES` or `PATHS`."""

    def encode(self, row: Row) -> Request:
        """The pictures of one row; none is no error here, for nobody knows yet whether it has a text.

        Raises:
            RowError: the id leads elsewhere, or its media cannot be reached.
        """
        found = self.media.of(row)
        items = tuple(self._items(row, found.pictures))
        return Request(
            row=row.row,
            id=row.id,
            head=b",".join(items),
            tail=b"",
            est_tokens=0,
            n_frames=len(items),
            degraded=found.degraded,
        )

    def _items(self, row: Row, pictures: tuple[Shown, ...]) -> Iterable[bytes]:
        if self.form == INLINE:
            return (_image_part(_data_url(shown)) for shown in pictures)
        names = self._names(row) if pictures else {}
        # One that has gone since it was looked at is left out, as one that was never there.
        files = [names[shown.index] for shown in pictures if shown.index in names]
        if self.form == PATHS:
            return (json_text(f"{row.id}/{name}") for name in files)
        return (_image_part(orjson.dumps(frame_ref(row.id, name))) for name in files)

    def _names(self, row: Row) -> dict[int, str]:
        assert self.media.frames is not None
        with self.media.frames.open(row.id) as folder:
            return {} if folder is None else {file.index: file.name for file in folder.files()}


def _data_url(shown: Shown) -> bytes:
    return b'"data:%b;base64,%b"' % (shown.picture.mime.encode(), pybase64.b64encode(shown.picture.data))


def _image_part(url: bytes) -> bytes:
    """The part of a content that shows a picture; `url` is a JSON string."""
    return b'{"type":"image_url","image_url":{"url":%b}}' % url
