"""Video files of every kind and what becomes of each, made on the spot: good, odd, cut off, hostile, and no videos."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
from av.video.reformatter import Colorspace
from PIL import Image

from encoders.faults import VideoFault
from tests.fakes.clips import FPS, FRAMES, Clip, added, packets, plain, sound_alone

CONTAINER, CODEC, NO_VIDEO = VideoFault.UNSUPPORTED_CONTAINER, VideoFault.UNSUPPORTED_CODEC, VideoFault.NO_VIDEO
BROKEN, LIMIT = VideoFault.BROKEN_VIDEO, VideoFault.MEDIA_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Animal:
    """One file of the zoo."""

    name: str
    data: bytes
    outcome: int | VideoFault | None
    """Frames that eight uniform ones come to, or the reason why none can be sent; None if it may be either."""


@cache
def zoo() -> tuple[Animal, ...]:
    """All whose end is known; names do not repeat."""
    return (*_good(), *_hostile(), *_strange())


@cache
def cut() -> tuple[Animal, ...]:
    """Good files cut off at every tenth."""
    return tuple(_cut())


GOOD = {
    "h264.mp4": Clip(),
    "h264.mov": Clip(container="mov"),
    "h264.mkv": Clip(container="matroska"),
    "hevc.mp4": Clip(codec="libx265"),
    "hevc.mkv": Clip(codec="libx265", container="matroska"),
    "vp8.webm": Clip(codec="libvpx", container="webm"),
    "vp9.webm": Clip(codec="libvpx-vp9", container="webm"),
    "vp9.mp4": Clip(codec="libvpx-vp9"),
    "av1.mp4": Clip(codec="libsvtav1"),
    "av1.webm": Clip(codec="libsvtav1", container="webm"),
    "mpeg4.mp4": Clip(codec="mpeg4"),
    "mpeg4.mkv": Clip(codec="mpeg4", container="matroska"),
    "index_first.mp4": Clip(muxer=(("movflags", "faststart"),)),
    "fragments.mp4": Clip(muxer=(("movflags", "frag_keyframe+empty_moov+default_base_moof"),)),
    "no_cues.mkv": Clip(container="matroska", muxer=(("live", "1"),)),
    "b_frames.mp4": Clip(b_frames=3, options=(("preset", "fast"),)),
    "b_frames.mkv": Clip(b_frames=3, options=(("preset", "fast"),), container="matroska"),
    "open_gop.mp4": Clip(b_frames=3, options=(("x264-params", "open-gop=1:keyint=8"), ("preset", "fast"))),
    "open_gop_hevc.mp4": Clip(
        codec="libx265", options=(("x265-params", "log-level=none:open-gop=1:keyint=8:bframes=3"), ("preset", "fast"))
    ),
    "all_intra.mp4": Clip(gop=1),
    "one_keyframe.mp4": Clip(gop=1000),
    "interlaced.mp4": Clip(options=(("x264-params", "tff=1"),)),
    "ten_bits.mp4": Clip(codec="libx265", pix_fmt="yuv420p10le"),
    "bt2020.mp4": Clip(codec="libx265", pix_fmt="yuv420p10le", matrix=Colorspace.BT2020),
    "full_range.mp4": Clip(full_range=True),
    "bt709.mp4": Clip(matrix=Colorspace.ITU709),
    "yuv444.mp4": Clip(pix_fmt="yuv444p"),
    "yuv422.mp4": Clip(pix_fmt="yuv422p"),
    "grey.mp4": Clip(pix_fmt="gray", full_range=True),
    "odd_size.webm": Clip(codec="libvpx-vp9", container="webm", size=(65, 49)),
    "turned_90.mp4": Clip(rotation=90),
    "turned_180.mp4": Clip(rotation=180),
    "turned_270.mp4": Clip(rotation=-90),
    "mirrored.mp4": Clip(rotation=0, hflip=True),
    "wide_pixels.mp4": Clip(shape=Fraction(2)),
    "narrow_pixels.mkv": Clip(shape=Fraction(1, 2), container="matroska"),
    "uneven.mp4": Clip(times=tuple(100 * i + (i % 3) * 30 for i in range(FRAMES))),
    "uneven.mkv": Clip(times=tuple(100 * i + (i % 3) * 30 for i in range(FRAMES)), container="matroska"),
    "late_start.mp4": Clip(times=tuple(5000 + 100 * i for i in range(FRAMES))),
    "sound.mp4": Clip(sound=True),
    "sound.mkv": Clip(sound=True, container="matroska"),
    "cover.mp4": Clip(cover=True),
    "two_videos.mp4": Clip(second_video=True),
    "transparent.webm": Clip(codec="libvpx", container="webm", pix_fmt="yuva420p"),
}


def _good() -> Iterator[Animal]:
    for name, clip in GOOD.items():
        yield Animal(name=name, data=plain(clip), outcome=8)
    yield Animal(name="one_frame.mp4", data=plain(Clip(), 1), outcome=1)
    yield Animal(name="one_frame.webm", data=plain(GOOD["vp9.webm"], 1), outcome=1)
    yield Animal(name="five_frames.mp4", data=plain(Clip(), 5), outcome=5)
    before = Clip(times=tuple(100 * i - 500 for i in range(FRAMES)))
    yield Animal(name="starts_before_zero.mp4", data=plain(before), outcome=8)
    yield Animal(name="no_utf8.mp4", data=plain().replace(b"Lavf", b"\xff\xfe\xfd\xfc"), outcome=8)
    yield Animal(name="wrong_duration.mp4", data=patched(plain(), b"mvhd", 16, 0xFFFFFFF), outcome=8)
    yield Animal(name="no_duration.mp4", data=patched(patched(plain(), b"mvhd", 16, 0), b"mdhd", 16, 0), outcome=8)
    yield Animal(name="grows.webm", data=_growing(), outcome=8)


def _cut() -> Iterator[Animal]:
    for name in ("h264.mp4", "index_first.mp4", "fragments.mp4", "b_frames.mkv", "vp9.webm"):
        whole = plain(GOOD[name])
        for tenth in range(1, 10):
            yield Animal(name=f"{tenth}_tenths_of_{name}", data=whole[: len(whole) * tenth // 10], outcome=None)


def _hostile() -> Iterator[Animal]:
    whole = plain()
    yield Animal(name="8k_by_8k.mp4", data=_huge_mp4(), outcome=LIMIT)
    yield Animal(name="8k_by_8k.webm", data=_huge_webm(), outcome=LIMIT)
    yield Animal(name="million_samples.mp4", data=patched(whole, b"stsz", 8, 100_000_000, size=8), outcome=LIMIT)
    yield Animal(name="million_in_a_fragment.mp4", data=patched(_fragments(), b"trun", 4, 1 << 31), outcome=LIMIT)
    yield Animal(name="edits_without_end.mp4", data=patched(whole, b"elst", 4, 1 << 30), outcome=LIMIT)
    yield Animal(name="boxes_without_end.mp4", data=whole + struct.pack(">I4s", 8, b"free") * 250_000, outcome=LIMIT)
    yield Animal(name="nine_streams.mp4", data=_streams(9), outcome=LIMIT)
    yield Animal(name="thousand_streams.mp4", data=_streams(1000), outcome=LIMIT)
    yield Animal(name="packed_header.mp4", data=whole.replace(b"udta", b"cmov"), outcome=CONTAINER)
    yield Animal(name="elsewhere.mp4", data=_elsewhere(), outcome=BROKEN)
    for name, text in PLAYLISTS.items():
        yield Animal(name=name, data=text.encode(), outcome=CONTAINER)
        boxed = struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + text.encode()
        yield Animal(name=f"after_ftyp_{name}", data=boxed, outcome=BROKEN)


PLAYLISTS = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile '/etc/passwd'\nfile 'http://127.0.0.1:9/x.mp4'\n",
    "concat_url.mp4": "concat:/etc/passwd|http://127.0.0.1:9/x.mp4",
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "dash.mp4": '<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>',
    "subtitles.mp4": "[Script Info]\nTitle: x\n",
}


def _strange() -> Iterator[Animal]:
    yield Animal(name="empty.mp4", data=b"", outcome=BROKEN)
    yield Animal(name="text.mp4", data=b"not a video at all\n" * 20, outcome=CONTAINER)
    yield Animal(name="zeros.mp4", data=bytes(4096), outcome=CONTAINER)
    yield Animal(name="short.mp4", data=b"\0\0\0", outcome=CONTAINER)
    yield Animal(name="ebml_alone.mkv", data=b"\x1a\x45\xdf\xa3", outcome=BROKEN)
    yield Animal(name="ftyp_alone.mp4", data=b"\0\0\0\x10ftypisom\0\0\0\0", outcome=BROKEN)
    for kind in ("JPEG", "PNG", "GIF"):
        out = io.BytesIO()
        Image.new("RGB", (64, 48), "green").save(out, kind)
        yield Animal(name=f"{kind.lower()}.mp4", data=out.getvalue(), outcome=CONTAINER)
    for container, codec in (("avi", "mpeg4"), ("mpegts", "libx264"), ("flv", "libx264"), ("h264", "libx264")):
        data = plain(Clip(container=container, codec=codec), 4)
        yield Animal(name=f"{container}.mp4", data=data, outcome=CONTAINER)
    yield Animal(
        name="mjpeg.mov", data=plain(Clip(container="mov", codec="mjpeg", pix_fmt="yuvj420p"), 4), outcome=CODEC
    )
    prores = Clip(container="mov", codec="prores_ks", pix_fmt="yuv422p10le")
    yield Animal(name="prores.mov", data=plain(prores, 4), outcome=CODEC)
    yield Animal(name="ffv1.mkv", data=plain(Clip(container="matroska", codec="ffv1"), 4), outcome=CODEC)
    yield Animal(name="sound_alone.mp4", data=sound_alone("mp4"), outcome=NO_VIDEO)
    yield Animal(name="sound_alone.mkv", data=sound_alone("matroska"), outcome=NO_VIDEO)
    yield Animal(name="sound_and_cover.mp4", data=sound_alone("mp4", cover=True), outcome=NO_VIDEO)


def patched(data: bytes, box: bytes, at: int, value: int, *, size: int = 0) -> bytes:
    """The file with one 32-bit number of the first such box changed, `at` bytes into its body.

    With `size` the number before it is set too: for `stsz` that makes all samples of one size.
    """
    start = data.index(box) + 4
    out = bytearray(data)
    if size:
        struct.pack_into(">I", out, start + at - 4, size)
    struct.pack_into(">I", out, start + at, value)
    return bytes(out)


def _fragments() -> bytes:
    return plain(GOOD["fragments.mp4"])


def _huge_mp4() -> bytes:
    """One grey frame of 67 megapixels in some kilobytes."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = added(container, "libx264", (8192, 8192))
        stream.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "sync-lookahead=0"}
        container.mux(stream.encode(av.VideoFrame(8192, 8192, "yuv420p")))
        container.mux(stream.encode(None))
    return out.getvalue()


def _huge_webm() -> bytes:
    """Small frames of VP8 that claim 67 megapixels, and so does the container. RFC 6386, 9.1."""
    data = plain(Clip(codec="libvpx", container="webm", size=(256, 256)), 2)
    for told, claim in (
        (b"\xb0\x82\x01\x00\xba\x82\x01\x00", b"\xb0\x82\x20\x00\xba\x82\x20\x00"),
        (b"\x9d\x01\x2a\x00\x01\x00\x01", b"\x9d\x01\x2a\x00\x20\x00\x20"),
    ):
        assert told in data
        data = data.replace(told, claim)
    return data


def _streams(count: int) -> bytes:
    """A file whose one track is there many times; its index stands last, so no offset moves."""
    whole = plain()
    moov, trak = whole.index(b"moov") - 4, whole.index(b"trak") - 4
    length = struct.unpack_from(">I", whole, trak)[0]
    more = whole[trak : trak + length] * (count - 1)
    size = struct.unpack_from(">I", whole, moov)[0] + len(more)
    out = whole[: trak + length] + more + whole[trak + length :]
    return out[:moov] + struct.pack(">I", size) + out[moov + 4 :]


def _elsewhere() -> bytes:
    """A track whose samples lie in another file, named by a Macintosh alias record as QuickTime knew them."""
    whole = plain()
    url = whole.index(b"url ") - 4
    path = b"/etc/passwd\0"
    volume, name = bytes([4]) + b"disk".ljust(27, b"\0"), bytes([6]) + b"passwd".ljust(63, b"\0")
    alias = bytes(10) + volume + bytes(12) + name + bytes(16) + struct.pack(">hh", -1, -1) + bytes(16)
    alias += struct.pack(">hh", 2, len(path)) + path + struct.pack(">hh", -1, 0)
    record = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    out = bytearray(whole[:url] + record + whole[url + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = out.index(box) - 4
        struct.pack_into(">I", out, at, struct.unpack_from(">I", out, at)[0] + len(record) - 12)
    return bytes(out)


def _growing() -> bytes:
    """A VP8 stream that goes on at another size halfway."""
    out = io.BytesIO()
    halves = [plain(Clip(codec="libvpx", container="webm", size=size, gop=1000), 12) for size in ((64, 48), (128, 96))]
    with av.open(out, "w", format="webm") as container:
        stream = added(container, "libvpx", (64, 48))
        for index, (_, data) in enumerate(packet for half in halves for packet in packets(half)):
            packet = av.Packet(data)
            packet.pts = packet.dts = index
            packet.time_base = Fraction(1, FPS)
            packet.stream = stream
            packet.is_keyframe = index % 12 == 0
            container.mux(packet)
    return out.getvalue()
