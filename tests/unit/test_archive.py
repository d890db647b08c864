"""Archives are read as they were written, by whomever; what is wrong with them is said or left out, never guessed."""

from __future__ import annotations

import gzip
import io
import os
import pickle  # noqa: TID251 - what the pool does with a store
import sqlite3
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.archive import Archive
from encoders.index import Index
from encoders.locate import FrameStore
from encoders.members import Left, Member
from encoders.places import frame_store, video_store
from encoders.ranges import LocalFile
from encoders.tar import BLOCK, tar_members
from encoders.zip import zip_members
from engine.errors import ConfigError, RowError
from engine.types import FailureKind
from tests.fakes.archives import make_archive, make_tar, make_zip

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
SPARSE_BYTES = 9 << 30


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def prepared(path: Path) -> FrameStore:
    store = frame_store(str(path))
    store.prepare()
    found = pickle.loads(pickle.dumps(store))
    assert isinstance(found, type(store))
    return found


def frames_of(store: FrameStore, identity: str = "7") -> list[bytes | None] | None:
    with store.open(identity) as found:
        return None if found is None else list(found.read(found.files()))


def failure_of(store: Any, identity: str = "7") -> FailureKind:
    with pytest.raises(RowError) as failed:
        frames_of(store, identity)
    return failed.value.kind


def listed(data: bytes, left: Left | None = None) -> dict[str, bytes]:
    """What our reader finds in a tar or zip file."""

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    list_members = zip_members if data[:2] == b"PK" else tar_members
    found = list_members(read, len(data), name="a", left=left or Left())
    return {
        f"{member.folder}/{member.name}".lstrip("/"): data[member.offset : member.offset + member.packed]
        for member in found
    }


def tar_of(members: Mapping[str, bytes], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=150).filter(
    lambda name: name not in {".", ".."}
)


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=1500), max_size=6),
    st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
)
def test_a_tar_of_the_standard_library_is_read_as_it_was_written(members: dict[str, bytes], form: int) -> None:
    assert listed(tar_of(members, form)) == members


@given(st.binary(max_size=4000), st.integers(0, 3000), st.sampled_from(FORMS))
def test_a_damaged_tar_ends_in_a_note_or_a_refusal_and_nothing_else(noise: bytes, at: int, form: int) -> None:
    data = tar_of({"a/frame_0.jpg": b"x" * 700, "é" * 60 if form else "e": b"y"}, form)
    damaged = data[:at] + noise + data[at + len(noise) :]
    left = Left()
    try:
        found = listed(damaged, left)
    except ConfigError:
        return
    assert left.cut or left.counts or found or damaged[:BLOCK] == bytes(BLOCK)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top", ["", "./", "frames/", "./frames/"])
def test_one_folder_above_all_others_is_seen_through(form: int, top: str, tmp_path: Path) -> None:
    members = {f"{top}{identity}/frame_0.jpg": identity.encode() for identity in ("7", "8")}
    store = prepared(make_tar(tmp_path / "a.tar", {f"{top}README": b"", **members}, form=form))
    assert frames_of(store, "8") == [b"8"]
    assert frames_of(store, "frames") is None


def test_an_archive_of_a_single_id_has_no_folder_above(tmp_path: Path) -> None:
    assert frames_of(prepared(make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"}))) == [b"x"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_in_any_script_are_whole(form: int, tmp_path: Path) -> None:
    identity = "名" * 80
    store = prepared(make_tar(tmp_path / "a.tar", {f"{'d' * 90}/{identity}/frame_0.jpg": b"x"}, form=form))
    assert frames_of(store, identity) == [b"x"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_of_more_than_8_gb_is_passed_over_to_the_next(form: Literal[1, 2], tmp_path: Path) -> None:
    big, small = tarfile.TarInfo("big.mp4"), tarfile.TarInfo("7.mp4")
    big.size, small.size = SPARSE_BYTES, 3
    path = tmp_path / "v.tar"
    with path.open("wb") as file:
        file.write(big.tobuf(form))
        file.seek(SPARSE_BYTES, os.SEEK_CUR)
        file.write(small.tobuf(form) + b"abc" + bytes(3 * BLOCK))
    store = video_store(str(path))
    assert store.prepare() == ()
    with store.open("7") as found:
        assert found is not None
        assert found.read() == b"abc"
    with store.open("big") as found:
        assert found is not None
        assert found.seek(-5, os.SEEK_END) == SPARSE_BYTES - 5
        assert found.read() == bytes(5)


def test_links_devices_and_names_that_lead_elsewhere_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"7/frame_{ord(kind)}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("/7/frame_1.jpg", "../7/frame_2.jpg", "7/../7/frame_3.jpg", "7\\frame_4.jpg"):
            archive.addfile(tarfile.TarInfo(name))
        member = tarfile.TarInfo("7/frame_5.jpg")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"fine"))
    store = frame_store(str(path))
    (note,) = store.prepare()
    assert "links and devices (4), with names that lead elsewhere (4)" in note
    assert frames_of(store) == [b"fine"]


def test_a_zip_member_that_is_a_link_is_left_out(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"7/frame_0.jpg": b"fine"})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("7/frame_1.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    store = frame_store(str(path))
    assert "links and devices (1)" in store.prepare()[0]
    assert frames_of(store) == [b"fine"]


def test_sparse_members_are_left_out_and_what_follows_is_found() -> None:
    pax = tarfile.TarInfo("GNUSparseFile.0/a.mp4")
    pax.size = BLOCK
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.mp4"}
    old = bytearray(tarfile.TarInfo("b.mp4").tobuf(tarfile.GNU_FORMAT))
    old[156:157], old[482] = b"S", 1
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + sum(old[156:]) + 256)
    after = tarfile.TarInfo("7.mp4")
    after.size = 1
    data = pax.tobuf(tarfile.PAX_FORMAT) + bytes(BLOCK) + old + bytes(BLOCK) + after.tobuf() + b"x" + bytes(3 * BLOCK)
    left = Left()
    assert listed(bytes(data), left) == {"7.mp4": b"x"}
    assert left.counts == Counter({"sparse files": 2})


@pytest.mark.parametrize("cut", [BLOCK * 3 + 100, BLOCK * 2, BLOCK * 2 + 300, BLOCK * 3])
def test_a_tar_that_breaks_off_is_used_as_far_as_it_goes(cut: int, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"first", "7/frame_1.jpg": b"x" * 600})
    os.truncate(path, cut)
    store = frame_store(str(path))
    (note,) = store.prepare()
    assert "breaks off" in note
    assert frames_of(store) == [b"first"]


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for data in (b"old", b"newer"):
            member = tarfile.TarInfo("7/frame_0.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert frames_of(prepared(path)) == [b"newer"]


def test_a_compressed_tar_says_how_to_unpack_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(make_tar(tmp_path / "b.tar", {"7/frame_0.jpg": b"x"}).read_bytes()))
    with pytest.raises(ConfigError, match="gunzip"):
        frame_store(str(path)).prepare()


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize("data", [b"garbage" * 500, b"\xff" * 5000, b"PK\5\6", b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_archive_is_refused(suffix: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=suffix if data[:2] != b"PK" else "zip"):
        frame_store(str(path)).prepare()


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_without_media_of_the_kind_is_refused(suffix: str, tmp_path: Path) -> None:
    path = make_archive(tmp_path / f"a.{suffix}", {"README": b"x", "7.mp4": b"x"})
    with pytest.raises(ConfigError, match="no frames"):
        frame_store(str(path)).prepare()
    assert video_store(str(path)).prepare() == ()
    path = make_archive(tmp_path / f"b.{suffix}", {"7/frame_0.jpg": b"x"})
    with pytest.raises(ConfigError, match="no videos"):
        video_store(str(path)).prepare()


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=1500), max_size=6),
    st.binary(max_size=30),
    st.binary(max_size=30),
)
def test_a_zip_of_the_standard_library_lists_as_it_was_written(
    members: dict[str, bytes], before: bytes, comment: bytes
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = comment.replace(b"PK", b"")
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    data = before + out.getvalue()
    found = zip_members(lambda at, size: data[at : at + size], len(data), name="a", left=Left())
    sizes = {f"{member.folder}/{member.name}".lstrip("/"): member.size for member in found}
    assert sizes == {name: len(data) for name, data in members.items()}


def test_a_zip_with_64_bit_offsets_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = make_zip(tmp_path / "a.zip", {f"{at}/frame_0.jpg": b"%d" % at * 60 for at in range(5)})
    assert frames_of(prepared(path), "4") == [b"4" * 60]


def test_deflated_members_are_unpacked_and_bombs_are_not(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip",
        {"7/frame_0.jpg": b"ab" * 5000, "7/frame_1.jpg": bytes(50 << 20), "7/frame_2.jpg": bytes(65 << 20)},
        method=zipfile.ZIP_DEFLATED,
    )
    assert frames_of(prepared(path)) == [b"ab" * 5000, None, None]


@pytest.mark.parametrize("said", [9_999, 10_001])
def test_a_deflated_member_that_is_not_of_the_size_it_claims_is_unusable(said: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"7/frame_0.jpg": b"ab" * 5000}, method=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace((10_000).to_bytes(4, "little"), said.to_bytes(4, "little")))
    assert frames_of(prepared(path)) == [None]


@pytest.mark.parametrize("field", [20, 24])
def test_a_stored_member_that_claims_two_sizes_is_left_out(field: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"7/frame_0.jpg": b"x", "8/frame_0.jpg": b"y"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + field
    data[at : at + 4] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)
    store = frame_store(str(path))
    assert "of two sizes (1)" in store.prepare()[0]
    assert frames_of(store) is None
    assert frames_of(store, "8") == [b"y"]


def test_a_deflated_video_is_unpacked_unless_it_is_a_bomb(tmp_path: Path) -> None:
    members = {"7.mp4": os.urandom(3000), "8.mp4": bytes(30 << 20)}
    store = video_store(str(make_zip(tmp_path / "v.zip", members, method=zipfile.ZIP_DEFLATED)))
    store.prepare()
    with store.open("7") as found:
        assert found is not None
        assert found.read() == members["7.mp4"]
    with pytest.raises(RowError) as failed, store.open("8"):
        pass
    assert failed.value.kind is FailureKind.MEDIA_LIMIT


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_that_changes_during_the_run_fails_its_rows_and_a_new_run_indexes_it(
    suffix: str, tmp_path: Path
) -> None:
    path = make_archive(tmp_path / f"a.{suffix}", {"7/frame_0.jpg": b"old"})
    store = prepared(path)
    assert frames_of(store) == [b"old"]
    make_archive(path, {"6/frame_0.jpg": b"other", "7/frame_0.jpg": b"new"})
    assert failure_of(store) is FailureKind.MEDIA_UNREADABLE
    assert frames_of(prepared(path)) == [b"new"]


def test_an_archive_that_changes_while_a_row_is_read_fails_that_row(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"old"})
    store = prepared(path)
    with pytest.raises(RowError, match="was changed"), store.open("7") as found:  # noqa: PT012 - the end raises
        assert found is not None
        list(found.read(found.files()))
        os.truncate(path, 700)


def test_an_archive_that_was_replaced_with_its_size_and_time_kept_is_indexed_anew(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"old"})
    kept = path.stat()
    prepared(path)
    make_tar(path, {"8/frame_0.jpg": b"new"})
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert frames_of(prepared(path), "8") == [b"new"]


def test_an_archive_that_is_gone_fails_its_rows(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"})
    store = prepared(path)
    path.unlink()
    assert failure_of(store) is FailureKind.MEDIA_UNREADABLE


def test_the_index_lies_beside_its_archive_and_is_made_once(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"})
    prepared(path)
    made = (tmp_path / "a.tar.index").stat()
    prepared(path)
    assert (tmp_path / "a.tar.index").stat().st_ino == made.st_ino
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["a.tar", "a.tar.index"]


def test_where_the_folder_takes_no_file_the_index_lies_in_the_cache(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"})
    # A folder in its place is what no owner of the disk can write over either.
    (tmp_path / "a.tar.index").mkdir()
    assert frames_of(prepared(path)) == [b"x"]
    assert len(list((tmp_path / "cache/reelbatch").iterdir())) == 1
    assert frames_of(prepared(path)) == [b"x"]


@pytest.mark.parametrize("damage", [b"", b"garbage", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_index_is_made_anew(damage: bytes, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"})
    prepared(path)
    (tmp_path / "a.tar.index").write_bytes(damage)
    assert frames_of(prepared(path)) == [b"x"]


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"x"})
    prepared(path)
    with sqlite3.connect(tmp_path / "a.tar.index") as database:
        database.execute("""UPDATE about SET said = replace(said, '"version":1', '"version":0')""")
    database.close()
    with pytest.raises(ValueError, match="version"):
        Index(tmp_path / "a.tar.index")
    assert frames_of(prepared(path)) == [b"x"]


def test_an_index_that_breaks_during_the_run_fails_its_rows(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {f"{at}/frame_0.jpg": b"x" for at in range(2000)})
    store = prepared(path)
    index = tmp_path / "a.tar.index"
    os.truncate(index, index.stat().st_size // 3)
    assert failure_of(store, "1999") is FailureKind.MEDIA_UNREADABLE


def test_frames_of_no_bytes_and_of_too_many_are_unusable(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7/frame_0.jpg": b"", "7/frame_1.jpg": bytes((64 << 20) + 1)})
    assert frames_of(prepared(path)) == [None, None]


def test_many_frames_of_a_row_are_read_in_batches_and_in_order(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {f"7/frame_{at}.jpg": b"%d" % at for at in range(40)})
    assert frames_of(prepared(path)) == [b"%d" % at for at in range(40)]


def test_an_index_is_asked_by_parameters_and_never_by_a_pattern(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"7.mp4": b"x", "a%.mp4": b"y"})
    archive = Archive(LocalFile(path))
    archive.prepare().close()
    assert archive.index.beginning("", "%") == []
    assert archive.index.beginning("", "a%") == [Member("", "a%.mp4", 3 * BLOCK, 1, 1, 0)]
    assert archive.index.named("", "' OR 1=1 --") is None
