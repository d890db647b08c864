"""Media in a real S3 server: found, missing, refused, failing and slow are five different things.

`make test-s3` runs these in an environment of its own.
"""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251 - what the pool does with a store
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from encoders.places import frame_store, video_store
from encoders.storage import variables_for
from engine.errors import ConfigError, RowError
from engine.types import FailureKind
from tests.fakes.archives import make_archive
from tests.remote.storage_server import Storage, storage_server

pytestmark = [pytest.mark.remote, pytest.mark.timeout(120)]
ROOT = Path(__file__).parent.parent.parent
HOSTILE: dict[str, list[str]] = json.loads((ROOT / "tests/data/hostile_ids.json").read_text(encoding="utf-8"))
FRAMES = {f"frames/7/frame_{at}.jpg": b"%d" % at * 1000 for at in range(20)}
BUCKET = "media"
BIG_BYTES = 60 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Storage]:
    with storage_server() as storage:
        storage.put_all(BUCKET, FRAMES)
        yield storage


@pytest.fixture
def storage(server: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in server.variables(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    server.fault = server.only = ""
    server.asked.clear()
    server.most_at_once = 0
    return server


def as_in_a_worker(store: Any) -> Any:
    store.prepare()
    return pickle.loads(pickle.dumps(store))


def frames_of(store: Any, identity: str = "7") -> list[bytes | None] | None:
    with store.open(identity) as found:
        return None if found is None else list(found.read(found.files()))


def video_of(store: Any, identity: str, named: str = "") -> bytes | None:
    with store.open(identity, named) as found:
        return None if found is None else bytes(found.read())


def kind_of(store: Any, identity: str = "7") -> FailureKind:
    with pytest.raises(RowError) as failed:
        frames_of(store, identity)
    return failed.value.kind


def test_frames_of_a_row_are_fetched_in_order_a_few_at_a_time(storage: Storage) -> None:
    store = as_in_a_worker(frame_store(f"s3://{BUCKET}/frames"))
    storage.asked.clear()
    storage.most_at_once = 0
    assert frames_of(store) == [b"%d" % at * 1000 for at in range(20)]
    assert 1 < storage.most_at_once <= 8
    assert len(storage.asked) == 21, "one listing, one request a frame"


def test_a_missing_id_is_one_request_and_no_error(storage: Storage) -> None:
    store = as_in_a_worker(frame_store(f"s3://{BUCKET}/frames/"))
    storage.asked.clear()
    assert frames_of(store, "8") is None
    assert len(storage.asked) == 1


def test_a_frame_that_vanishes_after_listing_is_unusable(storage: Storage) -> None:
    storage.put_all(BUCKET, {"gone/7/frame_0.jpg": b"a", "gone/7/frame_1.jpg": b"b"})
    with as_in_a_worker(frame_store(f"s3://{BUCKET}/gone")).open("7") as found:
        files = found.files()
        storage.request("DELETE", f"/{BUCKET}/gone/7/frame_0.jpg")
        assert list(found.read(files)) == [None, b"b"]


@pytest.mark.parametrize("fault", ["403", "500"])
@pytest.mark.parametrize("only", ["", "frame_3"])
def test_refused_and_failing_are_not_missing(fault: str, only: str, storage: Storage) -> None:
    store = as_in_a_worker(frame_store(f"s3://{BUCKET}/frames"))
    storage.fault, storage.only = fault, only
    assert kind_of(store) is FailureKind.MEDIA_UNREADABLE
    if not only:
        assert kind_of(store, "8") is FailureKind.MEDIA_UNREADABLE
        with pytest.raises(RowError) as failed:
            video_of(video_store(f"s3://{BUCKET}/frames"), "7")
        assert failed.value.kind is FailureKind.MEDIA_UNREADABLE
    storage.fault = ""
    assert frames_of(store) is not None


def test_a_storage_that_does_not_answer_ends_the_row_and_not_the_worker(storage: Storage) -> None:
    store = as_in_a_worker(frame_store(f"s3://{BUCKET}/frames"))
    storage.fault = "slow"
    began = time.monotonic()
    assert kind_of(store) is FailureKind.MEDIA_UNREADABLE
    assert time.monotonic() - began < 50, "a worker that is silent for 60 s is killed"


def test_a_bucket_that_is_gone_is_not_a_missing_id(storage: Storage) -> None:
    assert kind_of(frame_store("s3://no-such-bucket/frames")) is FailureKind.MEDIA_UNREADABLE


@pytest.mark.parametrize("where", ["s3://no-such-bucket", "s3://media/nothing", "s3://media/nothing.tar"])
def test_an_address_where_nothing_is_ends_before_the_run(where: str, storage: Storage) -> None:
    with pytest.raises(ConfigError, match=where):
        frame_store(where).prepare()


@pytest.mark.parametrize("fault", ["403", "500"])
def test_an_address_that_cannot_be_reached_ends_before_the_run(fault: str, storage: Storage) -> None:
    storage.fault = fault
    for where in (f"s3://{BUCKET}/frames", f"s3://{BUCKET}/a.tar"):
        with pytest.raises(ConfigError, match="cannot be read"):
            frame_store(where).prepare()


def test_videos_are_found_by_id_and_by_name(storage: Storage) -> None:
    storage.put_all(
        BUCKET, {"videos/7.mp4": b"seven", "videos/8.MOV": b"eight", "videos/7.txt": b"", "videos/sub/é ü.mp4": b"deep"}
    )
    store = as_in_a_worker(video_store(f"s3://{BUCKET}/videos"))
    assert [video_of(store, name) for name in ("7", "8", "9", "sub")] == [b"seven", b"eight", None, None]
    assert video_of(store, "9", "sub/é ü.mp4") == b"deep"
    assert video_of(store, "7", "sub/none.mp4") is None


def test_decoding_the_start_of_a_large_video_downloads_little_of_it(storage: Storage) -> None:
    data = bytes(range(256)) * (BIG_BYTES // 256)
    storage.put_all(BUCKET, {"big/7.mp4": data})
    store = as_in_a_worker(video_store(f"s3://{BUCKET}/big"))
    storage.asked.clear()
    with store.open("7") as found:
        assert found.seek(0, io.SEEK_END) == len(data)
        for at in (0, len(data) - 70_000, 1000, 20_000_000):
            found.seek(at)
            assert found.read(65_000) == data[at : at + 65_000]
    assert sum(asked.sent_bytes for asked in storage.asked) < 12 << 20


def test_a_read_that_fails_in_the_middle_fails_the_row_even_if_the_decoder_thought_it_the_end(storage: Storage) -> None:
    storage.put_all(BUCKET, {"cut/7.mp4": bytes(8 << 20)})
    store = as_in_a_worker(video_store(f"s3://{BUCKET}/cut"))
    with pytest.raises(RowError) as failed, store.open("7") as found:  # noqa: PT012 - it is the end that raises
        found.read(1000)
        storage.fault = "500"
        found.seek(6 << 20)
        with pytest.raises(OSError, match="oh"):
            found.read(1000)
    assert failed.value.kind is FailureKind.MEDIA_UNREADABLE


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_is_read_by_ranges(suffix: str, storage: Storage, tmp_path: Path) -> None:
    members = {f"{at}/frame_{n}.jpg": b"%d" % n * 3000 for at in range(30) for n in range(4)}
    members["big.bin"] = bytes(30 << 20)
    members["99/frame_0.jpg"] = b"last"
    data = make_archive(tmp_path / f"a.{suffix}", members).read_bytes()
    storage.put_all(BUCKET, {f"a.{suffix}": data})
    store = as_in_a_worker(frame_store(f"s3://{BUCKET}/a.{suffix}"))
    assert sum(asked.sent_bytes for asked in storage.asked) < 10 << 20, "the contents of large members are not fetched"
    assert len(storage.asked) < 20
    storage.asked.clear()
    assert frames_of(store, "17") == [b"%d" % n * 3000 for n in range(4)]
    assert frames_of(store, "99") == [b"last"]
    assert frames_of(store, "100") is None
    assert sum(asked.sent_bytes for asked in storage.asked) < 20_000
    storage.asked.clear()
    frame_store(f"s3://{BUCKET}/a.{suffix}").prepare()
    assert sum(asked.sent_bytes for asked in storage.asked) < 200_000, "the index is made once"


def test_a_video_in_a_remote_tar_is_a_file_of_its_own(storage: Storage) -> None:
    data, out = bytes(range(256)) * 20_000, io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("6.mp4", "7.mp4", "8.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    storage.put_all(BUCKET, {"v.tar": out.getvalue()})
    store = as_in_a_worker(video_store(f"s3://{BUCKET}/v.tar"))
    assert video_of(store, "7") == data
    assert video_of(store, "9") is None


def test_a_remote_archive_that_changed_is_indexed_anew_by_the_next_run(storage: Storage, tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        path = make_archive(tmp_path / "a.tar", {"7/frame_0.jpg": content})
        storage.put_all(BUCKET, {"changing.tar": path.read_bytes()})
        assert frames_of(as_in_a_worker(frame_store(f"s3://{BUCKET}/changing.tar"))) == [content]


def test_no_hostile_id_asks_for_anything_outside_its_prefix(storage: Storage) -> None:
    storage.put_all(BUCKET, {"outside/frame_0.jpg": b"secret", "frames/../outside/frame_0.jpg": b"secret"})
    frames, videos = frame_store(f"s3://{BUCKET}/frames"), video_store(f"s3://{BUCKET}/frames")
    refused, kinds = set(HOSTILE["refused"]), set()
    for identity in (*HOSTILE["refused"], *HOSTILE["names"]):
        for store in (frames, videos):
            try:
                with store.open(identity) as found:
                    assert found is None, repr(identity)
                    assert identity not in refused
            except RowError as error:
                kinds.add(error.kind)
    assert kinds == {FailureKind.INVALID_ID}
    assert len(storage.asked) > 200
    for asked in storage.asked:
        prefix = unquote(asked.path).partition("prefix=")[2].partition("&encoding-type")[0]
        assert asked.path.startswith(f"/{BUCKET}?"), asked
        assert prefix.startswith("frames/"), asked


def test_a_worker_reads_with_what_its_environment_is_left_with(storage: Storage) -> None:
    """No more than the scrubbed environment and the storage's own variables, no files, 256 descriptors."""
    where = f"s3://{BUCKET}/frames"
    code = f"""
from engine.worker import confine
confine(2048)
from encoders.places import frame_store
with frame_store({where!r}).open("7") as found:
    data = list(found.read(found.files()))
status = open("/proc/self/status").read()
print(len(data), int(status.split("VmRSS:")[1].split()[0]) // 1024)
"""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", *variables_for(where)) if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    frames, rss_mb = map(int, done.stdout.split())
    assert frames == 20
    assert rss_mb < 250
