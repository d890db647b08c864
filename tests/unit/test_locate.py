"""Frames are found where they belong, and nowhere else."""

from __future__ import annotations

import itertools
import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.locate import MAX_FRAME_BYTES, FrameFile, check_id, frame_files, frame_folder, read_frame, thinned
from engine.errors import RowError
from engine.types import FailureKind

HOSTILE_IDS = json.loads((Path(__file__).parent.parent / "data/hostile_ids.json").read_text(encoding="utf-8"))


def listed(root: Path, identity: str) -> list[str] | None:
    with frame_folder(root, identity) as fd:
        return None if fd is None else [frame.name for frame in frame_files(fd)]


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    for name in (
        "frame_10.jpg",
        "frame_9.JPG",
        "frame_0.png",
        "frame_2.webp",
        "frame_001.jpeg",
        "notes.txt",
        "frame_x.jpg",
    ):
        (folder / name).touch()
    assert listed(tmp_path, "7") == ["frame_0.png", "frame_001.jpeg", "frame_2.webp", "frame_9.JPG", "frame_10.jpg"]


def test_of_two_files_with_one_number_the_jpg_counts(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    for suffix in ("webp", "png", "jpeg", "jpg"):
        (tmp_path / "7" / f"frame_3.{suffix}").touch()
    assert listed(tmp_path, "7") == ["frame_3.jpg"]


@pytest.mark.parametrize("identity", HOSTILE_IDS["refused"])
def test_an_id_that_could_lead_elsewhere_is_refused(identity: str, tmp_path: Path) -> None:
    with pytest.raises(RowError) as refused, frame_folder(tmp_path, identity):
        pass
    assert refused.value.kind is FailureKind.INVALID_ID


@pytest.mark.parametrize(
    "identity", ["~", "-rf", "CON", "a b", "…", "$HOME", "*", "a:b", "名前", "7531309745475554591"]
)
def test_a_strange_id_that_is_one_name_is_only_a_name(identity: str, tmp_path: Path) -> None:
    assert listed(tmp_path, identity) is None
    (tmp_path / identity).mkdir()
    (tmp_path / identity / "frame_0.jpg").touch()
    assert listed(tmp_path, identity) == ["frame_0.jpg"]


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "frame_0.jpg").touch()
    (root / "7").symlink_to(outside)
    assert listed(root, "7") is None


def test_a_root_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real" / "7").mkdir(parents=True)
    (tmp_path / "real" / "7" / "frame_0.jpg").touch()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert listed(tmp_path / "root", "7") == ["frame_0.jpg"]


def test_only_regular_files_of_sane_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "frame_0.jpg").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "frame_1.jpg")
    (folder / "frame_2.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "frame_3.jpg"))
        (folder / "frame_4.jpg").touch()
        os.truncate(folder / "frame_4.jpg", MAX_FRAME_BYTES + 1)
        (folder / "frame_5.jpg").touch()
        (folder / "frame_6.jpg").write_bytes(b"fine")
        with frame_folder(tmp_path, "7") as fd:
            assert fd is not None
            assert [read_frame(fd, frame) for frame in frame_files(fd)] == [None] * 6 + [b"fine"]
            assert read_frame(fd, FrameFile(index=7, name="frame_7.jpg")) is None


@given(st.integers(0, 500), st.integers(1, 64))
def test_thinning_keeps_first_and_last_and_spreads_evenly(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    if count and most > 1:
        assert kept[0] == 0
        assert kept[-1] == count - 1
        steps = {later - earlier for earlier, later in itertools.pairwise(kept)}
        assert not steps or max(steps) - min(steps) <= 1


@given(st.text())
def test_any_id_is_accepted_or_refused_and_never_opens_anything_outside(identity: str) -> None:
    try:
        check_id(identity)
    except RowError:
        return
    joined = os.path.normpath(os.path.join("/root", identity))  # noqa: PTH118 - the law is about plain path joining
    assert Path(joined).parent == Path("/root")
