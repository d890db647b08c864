"""Media is found where it belongs, nowhere else, and what cannot be reached is never taken for missing."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pickle  # noqa: TID251 - what the pool does with a store
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from encoders.locate import FrameStore, VideoStore, is_missing
from encoders.places import frame_store, video_store
from encoders.storage import variables_for
from engine.errors import ConfigError, RowError
from engine.types import FailureKind
from tests.fakes.archives import make_archive

ROOT = Path(__file__).parent.parent.parent
HOSTILE: dict[str, list[str]] = json.loads((ROOT / "tests/data/hostile_ids.json").read_text(encoding="utf-8"))
FRAMES = {"7/frame_0.jpg": b"zero", "7/frame_10.jpg": b"ten", "7/frame_9.jpg": b"nine"}
VIDEOS = {"7.mp4": b"seven", "sub/deep/é.mp4": b"deep", "8.MOV": b"eight"}


UNPRIVILEGED = """
import os
from encoders.places import frame_store, video_store
from engine.errors import RowError

if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)

def end(deed):
    try:
        return deed()
    except RowError as error:
        return str(error.kind)

def frames(identity):
    with frame_store("frames").open(identity) as found:
        return list(found.read(found.files()))

def video(named):
    with video_store("videos").open("7", named) as found:
        return found

print([end(lambda: frames("8")), end(lambda: frames("7")), end(lambda: video("")), end(lambda: video("sub/deep/x"))])
"""
"""Root may read everything, so this gives up being root first."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix:
        return make_archive(path, members)
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def frames_of(store: FrameStore, identity: str) -> list[bytes | None] | None:
    with store.open(identity) as found:
        return None if found is None else list(found.read(found.files()))


def video_of(store: VideoStore, identity: str, named: str = "") -> bytes | None:
    with store.open(identity, named) as found:
        return None if found is None else found.read()


def as_in_a_worker(store: Any) -> Any:
    store.prepare()
    data = pickle.dumps(store)
    assert len(data) < 1000
    return pickle.loads(data)


@pytest.mark.parametrize("name", ["frames", "frames.tar", "frames.zip"])
def test_frames_are_the_same_wherever_they_lie(name: str, tmp_path: Path) -> None:
    store = as_in_a_worker(frame_store(str(put(tmp_path / name, FRAMES))))
    assert frames_of(store, "7") == [b"zero", b"nine", b"ten"]
    assert frames_of(store, "8") is None


@pytest.mark.parametrize("name", ["videos", "videos.tar", "videos.zip"])
def test_videos_are_the_same_wherever_they_lie(name: str, tmp_path: Path) -> None:
    store = as_in_a_worker(video_store(str(put(tmp_path / name, VIDEOS))))
    assert video_of(store, "7") == b"seven"
    assert video_of(store, "8") == b"eight"
    assert video_of(store, "9") is None
    assert video_of(store, "9", "sub/deep/é.mp4") == b"deep"
    assert video_of(store, "7", "sub/7.mp4") is None
    assert video_of(store, "7", "sub/deep") is None
    with store.open("7") as file:
        assert (file.seek(-2, os.SEEK_END), file.read(), file.tell(), file.seek(1), file.read(2)) == (
            *(3, b"en", 5),
            *(1, b"ev"),
        )


@pytest.mark.parametrize("name", ["videos", "videos.tar", "videos.zip"])
def test_of_several_videos_with_one_id_the_first_suffix_counts(name: str, tmp_path: Path) -> None:
    members = {f"7.{suffix}": suffix.encode() for suffix in ("m4v", "mkv", "webm", "mov", "mp4", "avi", "jpg")}
    assert video_of(as_in_a_worker(video_store(str(put(tmp_path / name, members)))), "7") == b"mp4"


@pytest.mark.parametrize("identity", ["a.b", "a.mp4", "a%", "a_", "a'b", "名前"])
def test_an_id_is_matched_to_the_letter(identity: str, tmp_path: Path) -> None:
    members = {f"{identity}.mp4": b"right", "a.mp4": b"a", "aXb.mp4": b"wrong", "A_.mp4": b"wrong"}
    for name in ("videos", "videos.tar", "videos.zip"):
        assert video_of(as_in_a_worker(video_store(str(put(tmp_path / name, members)))), identity) == b"right"


def test_no_hostile_id_opens_anything_outside_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [*HOSTILE["refused"], *HOSTILE["names"]]
    assert len(ids) > 300
    base = tmp_path / "base"
    for name in ("frames", "frames.tar", "frames.zip"):
        base.mkdir(exist_ok=True)
        put(base / name, FRAMES)
    for name in ("videos", "videos.tar", "videos.zip"):
        put(base / name, VIDEOS)
    put(base / "outside", {"frame_0.jpg": b"secret", "x/frame_0.jpg": b"secret"})
    (base / "outside.mp4").write_bytes(b"secret")
    for place, suffix in (("frames", ""), ("videos", ".mp4")):
        (base / place / f"link{suffix}").symlink_to(base / f"outside{suffix}")
        (base / place / f"folderlink{suffix}").symlink_to(base / place / f"7{suffix}")
        os.mkfifo(base / place / f"fifo{suffix}")
        monkeypatch.chdir(base / place)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"socket{suffix}")
        if os.geteuid() == 0:
            os.mknod(f"device{suffix}", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (base / "ids.json").write_text(json.dumps(ids))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.prying", str(base)], capture_output=True, check=True, cwd=ROOT, timeout=50
    )
    said = json.loads(done.stdout)
    refused = set(HOSTILE["refused"])
    for identity, *ends in said["by_id"]:
        assert ends == ["invalid_id" if identity in refused else "none"] * 6, repr(identity)
    for name, *ends in said["by_column"]:
        assert set(ends) <= {"invalid_id", "none"}, repr(name)
    given = {str(base / name) for name in ("frames", "videos")}
    given |= {str(base / f"{name}.{suffix}") for name in ("frames", "videos") for suffix in ("tar", "zip")}
    for event, path, flags in said["opened"]:
        if event == "open" and path not in given:
            assert "/" not in path, path
            assert path not in {"", ".", ".."}
            assert flags & os.O_NOFOLLOW, path
        elif event == "sqlite3.connect":
            assert path.startswith(f"file:{base}/"), path
        else:
            assert event == "open", (event, path)


def test_a_video_that_a_row_names_is_reached_through_no_link(tmp_path: Path) -> None:
    put(tmp_path / "outside", {"x.mp4": b"secret"})
    root = put(tmp_path / "videos", {"inside/x.mp4": b"fine"})
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to(root / "inside")
    store = video_store(str(root))
    assert video_of(store, "7", "inside/x.mp4") == b"fine"
    assert video_of(store, "7", "out/x.mp4") is None
    assert video_of(store, "7", "in/x.mp4") is None
    for named in (
        "../outside/x.mp4",
        str(tmp_path / "outside/x.mp4"),
        "inside\\x.mp4",
        "inside/x.mp4\0",
        "a/" * 2100 + "x",
    ):
        with pytest.raises(RowError) as refused:
            video_of(store, "7", named)
        assert refused.value.kind is FailureKind.INVALID_ID


def test_a_frame_that_vanishes_after_listing_is_unusable_and_no_error(tmp_path: Path) -> None:
    store = frame_store(str(put(tmp_path / "frames", FRAMES)))
    with store.open("7") as found:
        assert found is not None
        files = found.files()
        (tmp_path / "frames/7/frame_9.jpg").unlink()
        assert list(found.read(files)) == [b"zero", None, b"ten"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT, errno.EPERM])
def test_an_error_that_says_nothing_of_the_name_is_not_taken_for_missing(number: int) -> None:
    assert not is_missing(OSError(number, ""))


def test_what_may_not_be_read_fails_its_row(tmp_path: Path) -> None:
    put(tmp_path / "frames", FRAMES)
    put(tmp_path / "videos", VIDEOS)
    (tmp_path / "frames/8").mkdir(mode=0)
    (tmp_path / "frames/7/frame_9.jpg").chmod(0)
    (tmp_path / "videos/7.mp4").chmod(0)
    (tmp_path / "videos/sub").chmod(0)
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=50,
        check=False,
    )
    (tmp_path / "videos/sub").chmod(0o755)
    (tmp_path / "frames/8").chmod(0o755)
    assert done.stdout.decode().strip() == str(["media_unreadable"] * 4), done.stderr.decode()


def test_a_place_that_is_gone_fails_every_row(tmp_path: Path) -> None:
    frames, videos = put(tmp_path / "frames", FRAMES), put(tmp_path / "videos", VIDEOS)
    frames.rename(tmp_path / "elsewhere")
    videos.rename(tmp_path / "away")
    for store in (frame_store(str(frames)), video_store(str(videos))):
        with pytest.raises(RowError) as failed, store.open("7"):
            pass
        assert failed.value.kind is FailureKind.MEDIA_UNREADABLE


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ("no/such/folder", "No such file"),
        ("no/such.tar", "No such file"),
        ("frames.tar.gz", "plain .tar"),
        ("frames.TGZ", "plain .tar"),
        ("frames.tar.zst", "plain .tar"),
        ("http://host/frames", "s3://"),
        ("https://host/frames.tar", "s3://"),
        ("simplecache::s3://bucket/x", "s3://"),
        ("s3://key:secret@bucket/x", "environment"),
        ("file://host/x", "no host"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_run(where: str, hint: str) -> None:
    for make in (frame_store, video_store):
        with pytest.raises(ConfigError) as refused:
            make(where).prepare()
        assert hint in str(refused.value)
        assert "secret" not in str(refused.value)


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    root = put(tmp_path / "my frames", FRAMES)
    assert frames_of(frame_store(f"file://{tmp_path}/my%20frames"), "7") == [b"zero", b"nine", b"ten"]
    assert frames_of(frame_store(f"file://{root}".replace(" ", "%20")), "8") is None


def test_a_storage_without_its_package_says_what_to_install() -> None:
    if not missing("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(ConfigError, match=r"pip install 'reelbatch\[remote\]'"):
        frame_store("s3://bucket/frames").prepare()


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def test_a_worker_is_told_the_credentials_of_its_storage_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_PROFILE",
        "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "OPENAI_API_KEY",
        "HTTPS_PROXY",
    ):
        monkeypatch.setenv(name, "x")
    assert variables_for("/data/frames") == variables_for("file:///data/frames") == frozenset()
    at_s3, at_gs = variables_for("s3://bucket/frames"), variables_for("gcs://bucket/frames.tar")
    assert {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"} <= at_s3
    assert not {name for name in at_s3 if name.startswith(("GOOGLE", "OPENAI"))}
    assert "GOOGLE_APPLICATION_CREDENTIALS" in at_gs
    assert not {name for name in at_gs if name.startswith(("AWS", "OPENAI"))}
