"""Video files to frames: the right ones, in their true shape and colours, or one reason why not."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from encoders.container import VideoLimits, refuse_open
from encoders.faults import BrokenVideoError, VideoFault
from encoders.fit import Fit
from encoders.sample import Choice
from encoders.video import UNLIMITED, VideoFrame, video_frames
from engine.errors import RowError
from engine.types import FailureKind
from tests.fakes.clips import FPS, FRAMES, SIZE, TICKS, Clip, encoded, index_of, packets, plain, reading, scene
from tests.fakes.photos import psnr_db
from tests.fakes.zoo import GOOD, Animal, cut, zoo

NONE = Fit(rule="none", model="m")
EVERY = Choice(num_frames=-1)
MIDDLES = [1, 4, 7, 10, 13, 16, 19, 22]
"""Of 24 frames, those on show at the midpoints of eight equal parts."""
NEEDED = 0x60
"""Of a NAL unit's first byte: zero if no other frame refers to it. ITU-T H.264, 7.3.1."""
VP8_SHOWN = 0x10
ROOT = Path(__file__).parents[2]


def frames_of(data: bytes, choice: Choice = EVERY, fit: Fit = NONE) -> list[VideoFrame]:
    return video_frames(io.BytesIO(data), choice, fit)


def fault_of(data: bytes, choice: Choice = EVERY, limits: VideoLimits = UNLIMITED) -> VideoFault:
    """Why there is no frame, told in one short line."""
    with pytest.raises(BrokenVideoError) as caught:
        video_frames(io.BytesIO(data), choice, NONE, limits=limits)
    assert 0 < len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    return caught.value.reason


def image_of(frame: VideoFrame) -> Image.Image:
    image = Image.open(io.BytesIO(frame.picture.data))
    assert image.format == "JPEG"
    assert image.size == (frame.picture.width, frame.picture.height)
    return image.convert("RGB")


def told(frames: list[VideoFrame]) -> list[int]:
    """The index that each frame's grey level tells."""
    return [index_of(float(np.asarray(image_of(frame).convert("L")).mean())) for frame in frames]


@pytest.mark.parametrize("animal", zoo(), ids=lambda animal: animal.name)
def test_every_animal_of_the_zoo_ends_as_the_table_says(animal: Animal) -> None:
    if isinstance(animal.outcome, VideoFault):
        assert fault_of(animal.data, Choice()) == animal.outcome
    else:
        sent = frames_of(animal.data, Choice())
        assert len(sent) == animal.outcome


@pytest.mark.parametrize("animal", cut(), ids=lambda animal: animal.name)
def test_a_file_cut_off_anywhere_gives_what_is_left_or_a_reason(animal: Animal) -> None:
    try:
        sent = frames_of(animal.data)
    except BrokenVideoError:
        assert fault_of(animal.data)
    else:
        # With B-frames the last packets before the cut may be of later frames.
        whole = len(sent) - (3 if "b_frames" in animal.name else 0)
        assert told(sent[:whole]) == list(range(whole))
        assert [frame.index for frame in sent] == list(range(len(sent)))
        assert 1 <= len(frames_of(animal.data, Choice())) <= 8


def test_more_of_a_file_gives_no_fewer_frames() -> None:
    counts = []
    for animal in cut():
        if "index_first" in animal.name:
            try:
                counts.append(len(frames_of(animal.data)))
            except BrokenVideoError:
                counts.append(0)
    assert counts == sorted(counts)
    assert counts[-1] > 15


@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_frames_sent_are_the_frames_named(name: str) -> None:
    data = plain(GOOD[name])
    assert told(frames_of(data)) == [frame.index for frame in frames_of(data)] == list(range(FRAMES))
    for choice in (Choice(sampling="neva"), Choice(sampling="uniform"), Choice(sampling="keyframes")):
        sent = frames_of(data, choice)
        assert told(sent) == [frame.index for frame in sent]
    assert [frame.index for frame in frames_of(data, Choice(sampling="neva"))] == [0, 3, 6, 9, 13, 16, 19, 23]
    for choice, index in ((Choice(splice="first"), 0), (Choice(splice="middle"), 12), (Choice(splice="last"), 23)):
        sent = frames_of(data, choice)
        assert [(frame.index, *told([frame])) for frame in sent] == [(index, index)]


@pytest.mark.parametrize("name", ["h264.mp4", "b_frames.mp4", "b_frames.mkv", "vp9.webm", "av1.mp4"])
def test_times_count_from_the_first_frame(name: str) -> None:
    sent = frames_of(plain(GOOD[name]), Choice())
    assert [frame.index for frame in sent] == MIDDLES
    assert [frame.time_s for frame in sent] == pytest.approx([index / FPS for index in MIDDLES], abs=0.0011)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_at_an_uneven_rate_the_time_decides_and_not_the_number(container: str) -> None:
    ticks = [0, 10, 20, 30, 40, 1000, 1010, 2000, 3000, 3900]
    data = plain(Clip(container=container, times=tuple(ticks)), len(ticks))
    sent = frames_of(data, Choice(num_frames=4))
    assert told(sent) == [frame.index for frame in sent] == [4, 6, 7, 8]
    assert [frame.time_s for frame in sent] == pytest.approx([ticks[i] / 1200 for i in (4, 6, 7, 8)], abs=0.0011)


@pytest.mark.parametrize("gop", [1, 5, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_jumping_gives_the_very_pixels_that_decoding_everything_gives(codec: str, gop: int, b_frames: int) -> None:
    moving = [scene((160, 120)).crop((x, x // 2, x + 64, x // 2 + 48)) for x in range(0, 80, 2)]
    options = (("preset", "fast"),)
    data = encoded(moving, Clip(codec=codec, gop=gop, b_frames=b_frames, options=options))
    whole = {frame.index: frame.picture.data for frame in frames_of(data)}
    assert len(whole) == len(moving)
    for choice in (
        Choice(),
        Choice(sampling="neva", num_frames=11),
        Choice(sampling="keyframes"),
        Choice(splice="last"),
    ):
        for frame in frames_of(data, choice):
            assert frame.picture.data == whole[frame.index]


def assert_alike(sent: Image.Image, wanted: Image.Image, *, loss_db: float = 1.5) -> None:
    """That one JPEG looks as good as another of what it should show."""
    out = io.BytesIO()
    wanted.save(out, "JPEG", quality=80, subsampling="4:2:0")
    assert psnr_db(sent, wanted) > psnr_db(Image.open(out), wanted) - loss_db


COLOURS = {
    "bt601": Clip(matrix=Colorspace.ITU601),
    "bt709": Clip(matrix=Colorspace.ITU709),
    "full_range": Clip(matrix=Colorspace.ITU601, full_range=True),
    "full_range_bt709": Clip(matrix=Colorspace.ITU709, full_range=True),
    "full_range_av1": Clip(matrix=Colorspace.ITU709, full_range=True, codec="libsvtav1"),
    "untold": Clip(),
    "ten_bits": Clip(matrix=Colorspace.ITU709, codec="libx265", pix_fmt="yuv420p10le"),
    "bt2020": Clip(matrix=Colorspace.BT2020, codec="libx265", pix_fmt="yuv420p10le"),
    "yuv444": Clip(matrix=Colorspace.ITU709, pix_fmt="yuv444p"),
    "yuv422": Clip(matrix=Colorspace.ITU709, pix_fmt="yuv422p"),
    "vp9": Clip(codec="libvpx-vp9", container="webm", matrix=Colorspace.ITU709),
    "av1": Clip(codec="libsvtav1", matrix=Colorspace.ITU709),
    "odd_size": Clip(codec="libvpx-vp9", container="webm", size=(97, 55)),
    "interlaced": Clip(options=(("x264-params", "tff=1"),)),
    "transparent": Clip(codec="libvpx", container="webm", pix_fmt="yuva420p"),
}


@pytest.mark.parametrize("name", sorted(COLOURS))
def test_colours_come_out_as_they_went_in(name: str) -> None:
    size = COLOURS[name].size if name == "odd_size" else (96, 64)
    clip = replace(COLOURS[name], size=size)
    data = encoded([scene(size)] * 3, clip)
    sent = image_of(frames_of(data)[0])
    assert_alike(sent, scene(size))
    means = [np.asarray(image, dtype=float).mean((0, 1)) for image in (sent, scene(size))]
    assert np.abs(means[0] - means[1]).max() < 3


def test_a_large_untold_video_is_taken_for_bt709_and_a_small_one_for_bt601() -> None:
    for size, matrix in (((64, 592), Colorspace.ITU709), ((64, 560), Colorspace.ITU601)):
        pure = Image.new("RGB", size, (200, 40, 40))
        with_matrix = encoded([pure], Clip(size=size, matrix=matrix))
        named = image_of(frames_of(with_matrix)[0])
        untold = encoded([pure], Clip(size=size, matrix=matrix, told=False))
        assert psnr_db(image_of(frames_of(untold)[0]), named) > 45


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709])
def test_a_smaller_picture_looks_like_a_full_conversion_made_smaller(matrix: Colorspace) -> None:
    size = (288, 512)
    data = encoded([scene(size)], Clip(size=size, matrix=matrix, options=(("crf", "1"),)))
    sent = frames_of(data, fit=Fit(rule="158x280", model="m", box=(158, 280)))[0]
    assert (sent.picture.width, sent.picture.height) == (157, 280)
    best = scene(size).resize((157, 280), Image.Resampling.LANCZOS)
    assert_alike(image_of(sent), best, loss_db=0.4)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_turned_or_mirrored_video_is_sent_as_it_is_shown(degrees: int, hflip: bool) -> None:  # noqa: FBT001
    data = encoded([scene()], Clip(rotation=degrees, hflip=hflip))
    stored = np.asarray(scene())
    shown = np.rot90(stored, degrees // 90)
    sent = image_of(frames_of(data)[0])
    assert_alike(sent, Image.fromarray(shown[:, ::-1] if hflip else shown))


def test_a_turned_video_is_fitted_as_it_is_shown() -> None:
    box = Fit(rule="40x40", model="m", box=(40, 40))
    sent = frames_of(encoded([scene()], Clip(rotation=90)), fit=box)[0].picture
    assert (sent.width, sent.height) == (30, 40)


@pytest.mark.parametrize(
    ("shape", "size"),
    [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(16, 11), (93, 48)), (Fraction(60), (64, 48))],
)
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_pixels_that_are_not_square_are_made_so_within_reason(
    container: str, shape: Fraction, size: tuple[int, int]
) -> None:
    sent = frames_of(encoded([scene()], Clip(shape=shape, container=container)))[0].picture
    assert (sent.width, sent.height) == size


def test_a_video_that_changes_size_is_sent_in_both_sizes() -> None:
    data = next(animal.data for animal in zoo() if animal.name == "grows.webm")
    sizes = [(frame.picture.width, frame.picture.height) for frame in frames_of(data)]
    assert sizes == [(64, 48)] * 12 + [(128, 96)] * 12


def test_the_cover_and_a_second_video_are_never_sent() -> None:
    for clip in (Clip(cover=True), Clip(second_video=True)):
        assert told(frames_of(plain(clip), Choice())) == MIDDLES


def test_frames_cut_by_an_edit_list_are_not_there() -> None:
    data = plain(Clip(times=tuple(TICKS * (i - 5) for i in range(FRAMES))))
    sent = frames_of(data)
    assert told(sent) == list(range(5, FRAMES))
    assert [frame.index for frame in sent] == list(range(FRAMES - 5))
    assert sent[0].time_s == 0
    assert told(frames_of(data, Choice(splice="first"))) == [5]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_damaged_stretch_costs_its_own_frames_alone(container: str) -> None:
    data = bytearray(plain(Clip(container=container)))
    for pos, packet in packets(bytes(data))[8:16]:
        at = data.index(packet, pos)
        data[at : at + len(packet)] = bytes(len(packet))
    sent = frames_of(bytes(data))
    assert told(sent) == [frame.index for frame in sent]
    assert {*range(8), *range(16, 24)} <= {frame.index for frame in sent}
    padded = frames_of(bytes(data), Choice(sampling="neva"))
    assert len(padded) == 8
    assert told(padded) == [frame.index for frame in padded]


def test_one_damaged_frame_that_no_other_needs_is_left_out_alone() -> None:
    clip = Clip(b_frames=3, gop=1000, options=(("preset", "fast"),))
    data = bytearray(plain(clip))
    pos, packet = next(found for found in packets(bytes(data))[8:] if not found[1][4] & NEEDED)
    data[pos + 4 : pos + len(packet)] = bytes(len(packet) - 4)
    sent = frames_of(bytes(data))
    assert told(sent) == [frame.index for frame in sent]
    lost = set(range(FRAMES)) - {frame.index for frame in sent}
    assert len(lost) == 1
    neva = frames_of(bytes(data), Choice(sampling="neva", num_frames=FRAMES))
    (missing,) = lost
    assert told(neva) == [index + (index == missing) for index in range(FRAMES)]


def test_a_last_frame_said_to_stay_for_hours_does_not_push_out_the_others() -> None:
    out = io.BytesIO()
    with reading(plain()) as source, av.open(out, "w", format="mp4") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.duration = 10**8 if index == FRAMES - 1 else packet.duration
                packet.stream = stream
                container.mux(packet)
    assert told(frames_of(out.getvalue(), Choice())) == MIDDLES


def test_no_picture_is_larger_than_allowed_when_a_video_grows() -> None:
    data = next(animal.data for animal in zoo() if animal.name == "grows.webm")
    limits = VideoLimits(max_pixels=SIZE[0] * SIZE[1])
    sent = video_frames(io.BytesIO(data), EVERY, NONE, limits=limits)
    assert {(frame.picture.width, frame.picture.height) for frame in sent} == {SIZE}


def test_frames_of_vp8_that_are_never_shown_do_not_count() -> None:
    data = bytearray(plain(GOOD["vp8.webm"]))
    pos, packet = packets(bytes(data))[5]
    data[data.index(packet, pos)] &= ~VP8_SHOWN
    sent = frames_of(bytes(data))
    assert [frame.index for frame in sent] == list(range(FRAMES - 1))
    assert told(sent) == [index for index in range(FRAMES) if index != 5]


def test_a_file_without_a_table_of_keyframes_is_read_all_the_same() -> None:
    data = plain(Clip(gop=1000)).replace(b"stss", b"free")
    sent = frames_of(data, Choice(sampling="neva"))
    assert told(sent) == [frame.index for frame in sent] == [0, 3, 6, 9, 13, 16, 19, 23]


TIGHT = {
    "pixels": (VideoLimits(max_pixels=SIZE[0] * SIZE[1] - 1), VideoLimits(max_pixels=SIZE[0] * SIZE[1])),
    "packets": (VideoLimits(max_packets=FRAMES - 1), VideoLimits(max_packets=FRAMES)),
    "duration": (VideoLimits(max_duration_s=FRAMES / FPS - 0.01), VideoLimits(max_duration_s=FRAMES / FPS)),
    "file": (VideoLimits(max_file_bytes=1000), VideoLimits(max_file_bytes=10_000)),
    "frames": (VideoLimits(max_frames=FRAMES - 1), VideoLimits(max_frames=FRAMES)),
    "streams": (VideoLimits(max_streams=0), VideoLimits(max_streams=1)),
}


@pytest.mark.parametrize("name", sorted(TIGHT))
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_each_limit_lies_where_it_says(container: str, name: str) -> None:
    data = plain(Clip(container=container))
    too_tight, enough = TIGHT[name]
    assert fault_of(data, limits=too_tight) == VideoFault.MEDIA_LIMIT
    assert len(video_frames(io.BytesIO(data), EVERY, NONE, limits=enough)) == FRAMES


def test_the_file_is_left_open_and_may_stand_anywhere() -> None:
    file = io.BytesIO(plain())
    file.seek(77)
    assert len(video_frames(file, Choice(), NONE)) == 8
    assert not file.closed


class Failing(io.BytesIO):
    """Storage that breaks once so many bytes have been read."""

    left = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise RowError(FailureKind.MEDIA_UNREADABLE, "the storage went away")
        return data


@pytest.mark.parametrize("name", ["index_first.mp4", "fragments.mp4", "h264.mkv"])
def test_storage_that_fails_is_never_taken_for_a_broken_or_a_shorter_video(name: str) -> None:
    data = plain(GOOD[name])
    for tenth in range(10):
        file = Failing(data)
        file.left = tenth * len(data) // 10
        with pytest.raises(RowError, match="storage went away"):
            video_frames(file, Choice(), NONE)


BEGIN, END = "/nowhere/begin", "/nowhere/end"
WATCHED = f"""
import io, os, sys
from encoders.container import BrokenVideoError
from encoders.fit import Fit
from encoders.sample import Choice
from encoders.video import video_frames

def mark(path):
    try:
        os.open(path, os.O_RDONLY)
    except OSError:
        pass

files = [bytes.fromhex(line) for line in sys.stdin]
for number, data in enumerate(files):
    if number == 1:
        mark({BEGIN!r})
    try:
        video_frames(io.BytesIO(data), Choice(), Fit(rule="none", model="m"))
    except BrokenVideoError:
        pass
mark({END!r})
"""
"""The first file is a good one: it has every library loaded that is ever needed."""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_file_makes_the_demuxer_open_another_or_a_socket(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    hostile = [animal.data for animal in (*zoo(), *cut()) if len(animal.data) < 200_000]
    told_files = "\n".join(data.hex() for data in (plain(), *hostile))
    watch = ["strace", "-f", "-e", "trace=open,openat,socket,connect,execve", "-o", str(log)]
    done = subprocess.run(
        [*watch, sys.executable, "-c", WATCHED], input=told_files, capture_output=True, text=True, cwd=ROOT, check=False
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("this machine does not allow tracing")
    assert done.returncode == 0, done.stderr[-500:]
    calls = log.read_text(encoding="utf-8").splitlines()
    begin, end = (next(at for at, call in enumerate(calls) if path in call) for path in (BEGIN, END))
    assert calls[begin + 1 : end] == []


def test_nothing_a_file_asks_for_is_opened() -> None:
    with pytest.raises(BrokenVideoError, match="another file"):
        refuse_open("http://127.0.0.1/secret", 1, {})
