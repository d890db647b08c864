"""What `run.json` lets a later life do."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ResumeMismatch, SinkBroken
from sinks.files import OS_FILES, Files
from sinks.folder import check_same_run, continue_folder, extension_of, read_manifest, start_folder

OLD, NEW = {"size_bytes": 3, "mtime_ns": 1}, {"size_bytes": 5, "mtime_ns": 2}
SETTINGS = {"model": "m", "recipe": {"fit": "none"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    start_folder(folder, {"input": OLD, "settings": SETTINGS}, shards=2, files=Files())
    return folder


def grown(out: Path, **other: Any) -> dict[str, Any]:
    return {"input": NEW, "settings": SETTINGS} | extension_of(read_manifest(out)) | other


def test_an_input_that_has_grown_becomes_the_next_revision_and_the_old_one_is_kept(out: Path) -> None:
    first, again = read_manifest(out), grown(out)
    assert continue_folder(out, again, resume=True, files=OS_FILES) == 2
    assert read_manifest(out) == first | {"input": NEW, "input_before": [OLD], "revision": 2}
    newest = {"input": OLD | {"size_bytes": 9}, "settings": SETTINGS} | extension_of(read_manifest(out))
    continue_folder(out, newest, resume=True, files=OS_FILES)
    assert read_manifest(out)["input_before"] == [OLD, NEW]
    assert read_manifest(out)["revision"] == 3
    assert not list(out.glob("*.partial"))


def test_a_revision_of_another_input_than_the_folder_has_is_refused(out: Path) -> None:
    stale = grown(out)
    continue_folder(out, stale, resume=True, files=OS_FILES)
    other = stale | {"input": {"size_bytes": 9}}
    with pytest.raises(ResumeMismatch, match=r"input\.size_bytes: the run has 5, now it is 9"):
        continue_folder(out, other, resume=True, files=OS_FILES)
    assert read_manifest(out)["input"] == NEW


def test_other_settings_are_refused_although_the_input_may_grow(out: Path) -> None:
    with pytest.raises(ResumeMismatch, match=r'settings\.model: the run has "m", now it is "n"'):
        continue_folder(out, grown(out, settings=SETTINGS | {"model": "n"}), resume=True, files=OS_FILES)
    assert read_manifest(out)["input"] == OLD


def test_a_touched_or_moved_input_is_the_same(out: Path) -> None:
    manifest = {"input": OLD | {"mtime_ns": 7, "path": "elsewhere"}, "settings": SETTINGS}
    before = (out / "run.json").read_bytes()
    continue_folder(out, manifest, resume=True, files=OS_FILES)
    assert (out / "run.json").read_bytes() == before


def test_what_is_known_better_of_the_input_is_said_beside_every_setting_that_differs(out: Path) -> None:
    manifest = {"input": NEW, "settings": {"model": "n", "recipe": {"fit": "tokens"}}}
    with pytest.raises(ResumeMismatch) as raised:
        check_same_run(out, read_manifest(out), manifest, about_input=["input.x: it was edited"])
    said = str(raised.value).splitlines()
    assert said[1:4] == [
        "  input.x: it was edited",
        '  settings.model: the run has "m", now it is "n"',
        '  settings.recipe.fit: the run has "none", now it is "tokens"',
    ]
    assert "Nothing was changed" in said[4]


class FullDisk(Files):
    def write(self, fd: int, data: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, "the disk is full")


def test_a_full_disk_leaves_the_old_revision(out: Path) -> None:
    before = json.loads((out / "run.json").read_bytes())
    with pytest.raises(SinkBroken, match="the disk is full"):
        continue_folder(out, grown(out), resume=True, files=FullDisk())
    assert read_manifest(out) == before
