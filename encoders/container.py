"""A stranger's video file, opened with as little trust as can be.

Its first bytes decide which demuxer may see it, and no other is tried; that demuxer may open nothing but the file it
was given; what it claims of sizes, streams and samples is checked before anything is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import av
import av.container
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from encoders.boxes import CompressedHeaderError, TooManySamplesError, check_claims
from encoders.faults import BrokenVideoError, VideoFault

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
"""What an MP4 or QuickTime file may begin with; the kind stands after four bytes of length."""
EBML = b"\x1a\x45\xdf\xa3"
MP4, MATROSKA = "mov", "matroska"
CODECS = frozenset(("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"))
DECODERS = "h264,hevc,vp8,vp9,av1,libdav1d,mpeg4"
"""The names of their decoders, which alone may run while streams are probed."""
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Streams that accompany a video: its cover, its thumbnails."""
OPENED_STREAMS = 64
"""The demuxer gives up beyond. Over the limit, so that most files that pass it are refused by their number."""
BUFFER_BYTES = 128 << 10
TITLES: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}  # noqa: PLR2004
"""A title that is no UTF-8 is none of our business; PyAV 19 asks no more."""
PROBE_BYTES = 5_000_000
PROBE_US = 5_000_000
"""Both are FFmpeg's defaults, fixed here."""
SAMPLES_PER_PACKET = 4
"""The tables claim samples for all streams; sound has about twice as many as pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """What a file may claim, and be."""

    max_pixels: int = 50_000_000
    """Of one frame, as for pictures."""
    max_streams: int = 8
    max_packets: int = 1_000_000
    """Of the video stream: four hours at 60 frames a second, and some."""
    max_duration_s: float = 4 * 3600
    max_file_bytes: int = 4 << 30
    max_frames: int = 2048
    """To send of one video: more than any request can carry."""


@contextmanager
def opened(file: BinaryIO, limits: VideoLimits) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """The file's demuxer and its video stream, whose decoder runs in this thread alone. The file stays open.

    This is the border to FFmpeg: whatever a stranger's bytes come to inside is a `BrokenVideoError`. Only what reading
    the file itself raises passes as it is, since it says nothing about the video.

    Raises:
        BrokenVideoError: nothing there may, or can, be decoded.
    """
    source = _Source(file)
    try:
        with _container(source, limits) as container:
            yield container, _video(container, limits)
    except Exception as error:
        if source.failure is None:
            raise _broken(error) from error
    if source.failure is not None:
        # A demuxer takes a failed read for the end of the file.
        raise source.failure


def _broken(error: Exception) -> BrokenVideoError:
    match error:
        case BrokenVideoError():
            return error
        case MemoryError():
            return BrokenVideoError(VideoFault.MEDIA_LIMIT, f"over {OPENED_STREAMS} streams, or too much memory")
        case av.FFmpegError():
            return BrokenVideoError(VideoFault.BROKEN_VIDEO, f"damaged or cut off: {error.strerror}")
    return BrokenVideoError(VideoFault.BROKEN_VIDEO, f"{type(error).__name__}: {error}")


def _container(source: _Source, limits: VideoLimits) -> av.container.InputContainer:
    name = _demuxer(source, limits)
    opened_file: av.container.InputContainer = av.open(
        source,
        "r",
        format=name,
        options={
            "max_pixels": str(limits.max_pixels),
            "codec_whitelist": DECODERS,
            "max_streams": str(OPENED_STREAMS),
            "probesize": str(PROBE_BYTES),
            "analyzeduration": str(PROBE_US),
            "protocol_whitelist": "none",
        }
        | ({"enable_drefs": "0"} if name == MP4 else {}),
        buffer_size=BUFFER_BYTES,
        io_open=refuse_open,
        **TITLES,
    )
    return opened_file


def _demuxer(file: _Source, limits: VideoLimits) -> str:
    """The demuxer for this file, by its first bytes, after a look at what it claims."""
    size_bytes = file.seek(0, os.SEEK_END)
    if not size_bytes:
        raise BrokenVideoError(VideoFault.BROKEN_VIDEO, "an empty file")
    if size_bytes > limits.max_file_bytes:
        raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"a file of {size_bytes:,} bytes")
    file.seek(0)
    start = file.read(8)
    name = MATROSKA if start.startswith(EBML) else MP4
    if name == MP4:
        if start[4:] not in MP4_BOXES:
            raise BrokenVideoError(VideoFault.UNSUPPORTED_CONTAINER, "neither MP4, MOV, WebM nor Matroska")
        try:
            check_claims(file, size_bytes, most=SAMPLES_PER_PACKET * limits.max_packets)
        except TooManySamplesError as error:
            raise BrokenVideoError(VideoFault.MEDIA_LIMIT, str(error)) from None
        except CompressedHeaderError:
            raise BrokenVideoError(VideoFault.UNSUPPORTED_CONTAINER, "a compressed QuickTime header") from None
    file.seek(0)
    return name


def _video(container: av.container.InputContainer, limits: VideoLimits) -> VideoStream:
    """The first video stream that is no cover, ready, if its decoder is allowed and its size is sane."""
    if len(container.streams) > limits.max_streams:
        raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"{len(container.streams)} streams")
    stream = next((found for found in container.streams.video if not found.disposition & PICTURES), None)
    if stream is None:
        raise BrokenVideoError(VideoFault.NO_VIDEO, "no video stream")
    decoder = stream.codec_context
    # Without a decoder there is no context, whatever the annotation says.
    codec = getattr(getattr(decoder, "codec", None), "canonical_name", "unknown")
    if codec not in CODECS:
        raise BrokenVideoError(VideoFault.UNSUPPORTED_CODEC, f"the codec {codec}")
    if decoder.width * decoder.height > limits.max_pixels:
        raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"frames of {decoder.width}x{decoder.height}")
    if stream.time_base is None:
        raise BrokenVideoError(VideoFault.BROKEN_VIDEO, "frames without a clock")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    decoder.options = {"max_pixels": str(limits.max_pixels)}
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return stream


def refuse_open(url: str, *_: object) -> NoReturn:
    """What a file may open besides itself: nothing."""
    raise BrokenVideoError(VideoFault.UNSUPPORTED_CONTAINER, f"it asks for another file: {url[:80]!r}")


class _Source:
    """The file without its name, which no demuxer needs, and with the first error of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell
        self.failure: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.failure = self.failure or error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)
