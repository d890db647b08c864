"""A video file to the frames that are sent.

One pass over the packets, which decodes nothing, tells when every frame is shown: 1 to 5 ms for a clip of 15 to 60 s,
and indices, times and the number of frames are exact whatever the header claims. Then the decoder jumps to the keyframe
before each frame wanted, decodes forward to it, and stops there. Frames of H.264 that no other frame needs are not
decoded on the way, which saves a third of the time and changes no pixel.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import BinaryIO

import av
import av.container
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from encoders.container import VideoLimits, opened
from encoders.faults import BrokenVideoError, VideoFault
from encoders.fit import Fit, Picture
from encoders.sample import Choice, Timeline, chosen
from encoders.shown import picture_of

UNLIMITED = VideoLimits()
SHOWN = 0x10
"""The bit of a VP8 frame's first byte that is set if the frame is ever shown. RFC 6386, 9.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFrame:
    """One frame ready to send."""

    index: int
    """In presentation order, from 0."""
    time_s: float
    """When it is shown, after the first one."""
    picture: Picture


def video_frames(file: BinaryIO, choice: Choice, fit: Fit, *, limits: VideoLimits = UNLIMITED) -> list[VideoFrame]:
    """The frames of a video that the user wants, in order.

    A frame that cannot be decoded gives its place to the next one that can, or at the end to the one before; only
    `neva` has a frame twice then. A file that is cut off is taken for as long as it lasts.

    Args:
        file: Read and sought, from wherever it stands, and left open.
        choice: Which frames.
        fit: How large.
        limits: What the file may claim.

    Raises:
        BrokenVideoError: there is no frame to send; its `reason` says why.
        Exception: whatever reading the file raised.
    """
    with opened(file, limits) as (container, stream):
        return _Reader(container, stream, fit, limits).take(choice)


class _Reader:
    """One open video: its packets' times, and what has been decoded of it."""

    def __init__(
        self, container: av.container.InputContainer, stream: VideoStream, fit: Fit, limits: VideoLimits
    ) -> None:
        self._container = container
        self._stream = stream
        self._fit = fit
        self._limits = limits
        self._scaler = VideoReformatter()
        self._decoder = stream.codec_context
        self._skips = self._decoder.name == "h264"
        self._times: list[int] = []
        """When each frame is shown, ticks."""
        self._starts: list[int] = []
        """When the frames are shown that decoding may start at, ascending. The first packet counts, marked or not."""
        self._taken: dict[int, VideoFrame] = {}
        """By index."""

    def take(self, choice: Choice) -> list[VideoFrame]:
        indices = chosen(choice, self._survey())
        if len(indices) > self._limits.max_frames:
            raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"{len(indices):,} frames to send of one video")
        wanted = [self._times[index] for index in indices]
        found: dict[int, VideoFrame] = {}
        for start, times in groupby(dict.fromkeys(wanted), self._start_of):
            found |= self._decoded(start, set(times))
        if not found:
            raise BrokenVideoError(VideoFault.BROKEN_VIDEO, "no frame can be decoded")
        sent = [found[time] if time in found else _nearest(found, time) for time in wanted]
        return sent if choice.sampling == "neva" else list({frame.index: frame for frame in sent}.values())

    def _survey(self) -> Timeline:
        """One pass over all packets."""
        limits, base = self._limits, self._stream.time_base
        assert base is not None
        times: list[int] = []
        starts: list[int] = []
        keys: set[int] = set()
        last, last_duration = None, 0
        for count, packet in enumerate(_timed(self._container.demux(self._stream))):
            if count >= limits.max_packets:
                raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"over {limits.max_packets:,} packets of video")
            time = _time(packet)
            if packet.is_keyframe or not count:
                starts.append(time)
            if packet.is_discard or not self._is_shown(packet):
                continue
            times.append(time)
            if packet.is_keyframe:
                keys.add(time)
            if last is None or time > last:
                last, last_duration = time, packet.duration or 0
        if not times:
            raise BrokenVideoError(VideoFault.BROKEN_VIDEO, "no packet of video")
        self._times = sorted(set(times))
        self._starts = sorted(set(starts))
        # A last frame that claims to stay longer than any other is not believed.
        longest = max((after - before for before, after in pairwise(self._times)), default=max(last_duration, 1))
        end = self._times[-1] + (min(last_duration, longest) or longest)
        duration_s = float((end - self._times[0]) * base)
        if duration_s > limits.max_duration_s:
            raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"{duration_s:,.0f} seconds of video")
        keyframes = [index for index, time in enumerate(self._times) if time in keys] or [0]
        return Timeline(times=self._times, end=end, keyframes=keyframes)

    def _is_shown(self, packet: Packet[VideoStream]) -> bool:
        """False for the frames of VP8 that only others refer to."""
        return self._decoder.name != "vp8" or bool(packet.size and memoryview(packet)[0] & SHOWN)

    def _start_of(self, time: int) -> int:
        """Where decoding must start for the frame shown at this time."""
        return self._starts[max(0, bisect_right(self._starts, time) - 1)]

    def _decoded(self, start: int, wanted: set[int]) -> dict[int, VideoFrame]:
        """Frames of one stretch between keyframes by the time each was wanted for, with stand-ins for lost ones."""
        exact: dict[int, VideoFrame] = {}
        instead: dict[int, VideoFrame] = {}
        for frame in self._frames(start, wanted):
            time = frame.pts if frame.pts is not None else frame.dts
            if time is None:
                continue
            late = [other for other in wanted - exact.keys() - instead.keys() if other < time]
            # Not final: a decoder that has yet to learn the order of the frames may still give the right one.
            instead |= dict.fromkeys(late, self._take(frame, time)) if late else {}
            if time in wanted:
                exact[time] = self._take(frame, time)
        return instead | exact

    def _frames(self, start: int, wanted: set[int]) -> Iterator[av.VideoFrame]:
        """What the decoder gives from a keyframe on, until all that is wanted must have come out."""
        unfed = set(wanted)
        for packet in self._packets(start):
            if self._skips:
                self._decoder.skip_frame = "DEFAULT" if _time(packet) in wanted else "NONREF"
            unfed.discard(_time(packet))
            yield from self._fed(packet)
            if not unfed:
                break
        yield from self._fed(None)

    def _fed(self, packet: Packet[VideoStream] | None) -> list[av.VideoFrame]:
        """One packet's frames; with None, those the decoder still holds. One damaged, or over the limit, has none."""
        try:
            return self._decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError):
            return []

    def _packets(self, start: int) -> Iterator[Packet[VideoStream]]:
        """Packets from the keyframe shown at `start`, or from before it: not every seek lands where it should."""
        for time in dict.fromkeys((start, self._starts[0])):
            try:
                self._container.seek(time, stream=self._stream)
            except av.FFmpegError:
                continue
            packets = _timed(self._container.demux(self._stream))
            first = next(packets, None)
            if first is not None and _time(first) <= start:
                yield first
                yield from packets
                return

    def _take(self, frame: av.VideoFrame, time: int) -> VideoFrame:
        """The frame as it is sent, made once."""
        index = max(0, bisect_right(self._times, time) - 1)
        if index not in self._taken:
            if frame.width * frame.height > self._limits.max_pixels:
                raise BrokenVideoError(VideoFault.MEDIA_LIMIT, f"frames of {frame.width}x{frame.height}")
            base = self._stream.time_base
            assert base is not None
            self._taken[index] = VideoFrame(
                index=index,
                time_s=float((self._times[index] - self._times[0]) * base),
                picture=picture_of(frame, self._fit, self._stream.sample_aspect_ratio, self._scaler),
            )
        return self._taken[index]


def _timed(packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    """Without those that flush a decoder at the end, and those without a time, which cannot be chosen."""
    return (packet for packet in packets if packet.pts is not None or packet.dts is not None)


def _time(packet: Packet[VideoStream]) -> int:
    time = packet.pts if packet.pts is not None else packet.dts
    assert time is not None
    return time


def _nearest(found: dict[int, VideoFrame], time: int) -> VideoFrame:
    """The frame that stands in where none after it could be decoded: the one before, else the first of all."""
    before = [other for other in found if other < time]
    return found[max(before) if before else min(found)]
