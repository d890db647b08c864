"""The command line on media in a real S3 server: frames, videos and an archive, and a server that refuses some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.archives import make_tar
from tests.fakes.clips import plain
from tests.fakes.commands import cli, lines_of, run_arguments, simulated, write_table
from tests.fakes.photos import encoded, phone_photo
from tests.remote.storage_server import Storage, storage_server

pytestmark = [pytest.mark.remote, pytest.mark.timeout(120)]
FIRST = 7_000_000_000_000_000_000
ROWS = 6


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """Rows 0 and 1 have frames, 2 and 3 a video, 4 a frame in an archive, 5 nothing."""
    picture = encoded(phone_photo("coffee", (90, 160)))
    archive = make_tar(tmp_path / "frames.tar", {f"{FIRST + 4}/frame_0.jpg": picture})
    objects = {f"frames/{FIRST + row}/frame_{at}.jpg": picture for row in (0, 1) for at in range(3)}
    objects |= {f"videos/{FIRST + row}.mp4": plain() for row in (2, 3)}
    objects["frames.tar"] = archive.read_bytes()
    with storage_server() as server:
        server.put_all("media", objects)
        for name, value in server.variables(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        yield server


def frames_by_row(out: Path) -> dict[int, int]:
    return {line["row"]: len(line["frames"]) for line in lines_of(out)}


def test_a_run_reads_frames_and_videos_from_a_bucket(tmp_path: Path, storage: Storage) -> None:
    table = write_table(tmp_path / "t.csv", ROWS)
    with simulated(tmp_path) as provider:
        places = ("--frames-dir", "s3://media/frames", "--videos", "s3://media/videos", "--num-frames", 4)
        said = cli(*run_arguments(table, tmp_path / "out", provider.url, *places, "--fit", "64x64"))
        assert said.code == 0, said.err
        assert frames_by_row(tmp_path / "out") == {0: 3, 1: 3, 2: 4, 3: 4, 4: 0, 5: 0}
        packed = ("--frames-dir", "s3://media/frames.tar")
        said = cli(*run_arguments(table, tmp_path / "packed", provider.url, *packed))
        assert said.code == 0, said.err
        assert frames_by_row(tmp_path / "packed") == {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 0}
    assert "secret" not in said.err


def test_media_that_cannot_be_reached_fail_their_rows_and_are_fetched_when_the_storage_is_back(
    tmp_path: Path, storage: Storage
) -> None:
    table = write_table(tmp_path / "t.csv", ROWS)
    storage.fault, storage.only = "403", str(FIRST + 1)
    with simulated(tmp_path) as provider:
        arguments = run_arguments(
            table, tmp_path / "out", provider.url, "--frames-dir", "s3://media/frames", "--max-failed", "100%"
        )
        said = cli(*arguments)
        assert said.code == 1, said.err
        assert [(line["row"], line["kind"]) for line in lines_of(tmp_path / "out", "failures")] == [
            (1, "media_unreadable")
        ]
        asked = provider.ledger()["requests"]
        storage.fault = ""
        said = cli(*arguments, "--resume", "--retry-failed")
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == asked + 1
    assert frames_by_row(tmp_path / "out") == {0: 3, 1: 3, 2: 0, 3: 0, 4: 0, 5: 0}
