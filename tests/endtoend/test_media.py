"""Frames and videos, ready, in archives and hostile, through the command line."""

from __future__ import annotations

import csv
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from encoders.faults import VideoFault
from tests.fakes.archives import make_tar
from tests.fakes.clips import plain
from tests.fakes.commands import cli, lines_of, run_arguments, simulated
from tests.fakes.photos import encoded, phone_photo
from tests.fakes.zoo import Animal, cut, zoo

pytestmark = pytest.mark.slow
HOSTILE = Path(__file__).parent.parent / "data" / "hostile_ids.json"
MORE_MB = 60
"""What the main process may take more for the zoo than for the good files alone."""


def write_videos(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A CSV of (id, transcript, video)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("meta_id", "subtitle", "meta_desc", "video"), *((a, b, "", c) for a, b, c in rows)]
        )
    return path


def by_id(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line["meta_id"]: line for line in lines}


def test_frames_in_an_archive_and_videos_in_a_folder_feed_one_run(tmp_path: Path) -> None:
    picture = encoded(phone_photo("coffee", (90, 160)))
    frames = make_tar(tmp_path / "frames.tar", {"a/frame_3.jpg": picture, "both/frame_0.jpg": picture})
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    for name in ("b.mp4", "both.mp4", "deep/named.mp4"):
        (videos / name).write_bytes(plain())
    table = write_videos(
        tmp_path / "t.csv",
        [("a", "x", ""), ("b", "x", ""), ("both", "x", ""), ("c", "x", "deep/named.mp4"), ("none", "x", "")],
    )
    out = tmp_path / "out"
    with simulated(tmp_path) as provider:
        said = cli(
            *run_arguments(table, out, provider.url, "--frames-dir", frames, "--videos", videos, "--num-frames", 4),
            *("--sampling", "neva", "--fit", "64x64"),
        )
    assert said.code == 0, said.err
    assert "Pictures are made small by libjpeg-turbo" in said.err
    found = by_id(lines_of(out))
    assert [frame["index"] for frame in found["a"]["frames"]] == [3]
    assert [frame["index"] for frame in found["both"]["frames"]] == [0]
    assert found["both"]["frames"][0]["time_s"] is None
    for name in ("b", "c"):
        sent = found[name]["frames"]
        assert len(sent) == 4
        assert sent[0]["index"] == 0
        assert sent[0]["time_s"] == 0
        assert all(before["time_s"] < after["time_s"] for before, after in pairwise(sent))
        assert found[name]["degraded"] is None
    assert found["none"]["degraded"] == ["text_only:no_file"]


def test_other_frames_of_the_videos_are_another_run(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "b.mp4").write_bytes(plain())
    table = write_videos(tmp_path / "t.csv", [("b", "x", "")])
    with simulated(tmp_path) as provider:
        words = run_arguments(table, tmp_path / "out", provider.url, "--videos", tmp_path / "videos")
        assert cli(*words).code == 0
        said = cli(*words, "--resume", "--sampling", "keyframes")
    assert said.code == 78
    assert "settings.recipe.videos.sampling" in said.err


def test_a_place_that_is_missing_is_refused_before_any_call(tmp_path: Path) -> None:
    table = write_videos(tmp_path / "t.csv", [("b", "x", "")])
    with simulated(tmp_path) as provider:
        said = cli(*run_arguments(table, tmp_path / "out", provider.url, "--videos", tmp_path / "nowhere.tar"))
        assert provider.ledger()["requests"] == 0
    assert said.code == 64
    assert "--videos" in said.err
    assert "nowhere.tar" in said.err
    assert not (tmp_path / "out").exists()


def kind_of(animal: Animal) -> set[str | None]:
    """How a row ends that has nothing but this file: the kind of its failure, None for a result."""
    if animal.outcome is None:
        return {None, "bad_media", "media_limit"}
    if isinstance(animal.outcome, int):
        return {None}
    return {"media_limit" if animal.outcome == VideoFault.MEDIA_LIMIT else "bad_media"}


def test_a_zoo_of_strange_and_hostile_files_costs_the_rows_it_must_and_no_other(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    expected: dict[str, set[str | None]] = {}
    rows: list[tuple[str, str, str]] = []

    def add(identity: str, video: str, *ends: str | None) -> None:
        expected[identity] = set(ends)
        rows.append((identity, "", video))

    for at, animal in enumerate((*zoo(), *cut())):
        (videos / f"{at}-{animal.name}").write_bytes(animal.data)
        add(f"zoo-{at}", f"{at}-{animal.name}", *kind_of(animal))
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(plain())
    (videos / "link.mp4").symlink_to(secret)
    (videos / "up").symlink_to(tmp_path)
    os.mkfifo(videos / "pipe.mp4")
    for name in ("link.mp4", "up/secret.mp4", "pipe.mp4", "vanished.mp4"):
        add(name.replace("/", "-"), name, "bad_row")
    for at, name in enumerate(json.loads(HOSTILE.read_text(encoding="utf-8"))["refused"]):
        if name and name.isprintable():
            add(f"hostile-{at}", name, "invalid_id", "bad_row")
    good = [f"good-{at}" for at in range(20)]
    for name in good:
        (videos / f"{name}.mp4").write_bytes(plain())
        add(name, "", None)

    with simulated(tmp_path) as provider:
        places = ("--videos", videos, "--fit", "64x64", "--max-failed", "100%")
        calm_table = write_videos(tmp_path / "calm.csv", [(name, "", "") for name in good])
        assert cli(*run_arguments(calm_table, tmp_path / "calm", provider.url, *places)).code == 0
        said = cli(*run_arguments(write_videos(tmp_path / "t.csv", rows), tmp_path / "out", provider.url, *places))
    assert said.code == 1, said.err
    ends: dict[str, str | None] = dict.fromkeys(by_id(lines_of(tmp_path / "out")))
    ends |= {name: line["kind"] for name, line in by_id(lines_of(tmp_path / "out", "failures")).items()}
    assert {name: end for name, end in ends.items() if end not in expected[name]} == {}
    assert ends.keys() == expected.keys()
    calm, wild = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("calm", "out"))
    assert wild["encode"]["crashes"] == wild["encode"]["timeouts"] == 0
    assert wild["process"]["main_peak_rss_mb"] - calm["process"]["main_peak_rss_mb"] < MORE_MB
