"""Which file systems may hold a run: what mountinfo says of them, and what a try in the folder finds out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FolderInUse
from sinks.files import Files
from sinks.folder import LOCK, FolderLock
from sinks.mounts import LOCAL, Mount, fault_of, mount_of, must_be_tried, read_mounts, try_out

MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
41 27 0:40 / /mnt/a\040b rw,nosuid - fuse.gcsfuse my-bucket rw,user_id=0
42 27 0:41 / /mnt rw - tmpfs tmpfs rw
43 27 0:42 / /home rw,relatime - nfs4 host:/home rw,vers=4.2,local_lock=none
44 27 0:43 / /home rw,relatime - nfs host:/home rw,vers=3,nolock,local_lock=all
45 27 0:44 / /odd\134\011\012 rw -  no-type-before-it rw
a line that is none
46 27 0:45 / /blank rw - fuse  rw
"""


def mount(kind: str, source: str = "x", options: str = "rw") -> Mount:
    return Mount(point=PurePath("/m"), kind=kind, source=source, options=frozenset(options.split(",")))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/out", "ext4"),
        ("/proc/x", "proc"),
        ("/mnt/out", "tmpfs"),
        ("/mnt/a b/out", "fuse.gcsfuse"),
        ("/mnt/a b", "fuse.gcsfuse"),
        ("/mnt/a bc", "tmpfs"),
        ("/homer", "ext4"),
        ("/home/me/out", "nfs"),
    ],
)
def test_a_path_is_on_the_deepest_mount_above_it_and_of_two_at_one_place_on_the_later(path: str, kind: str) -> None:
    found = mount_of(PurePath(path), read_mounts(MOUNTINFO))
    assert found is not None
    assert found.kind == kind


def test_fields_are_taken_apart_whatever_is_in_them() -> None:
    mounts = {str(mount.point): mount for mount in read_mounts(MOUNTINFO)}
    assert mounts["/"].options == {"rw", "relatime", "discard"}
    assert mounts["/odd\\\t\n"].kind == ""
    assert mounts["/blank"].source == ""
    assert len(mounts) == 7


@given(
    point=st.binary(max_size=20).map(lambda name: b"/" + name.replace(b"\0", b"")),
    source=st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"")),
)
def test_whatever_the_kernel_escapes_is_read_back(point: bytes, source: bytes) -> None:
    def escaped(name: bytes) -> bytes:
        return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in name)

    # The kernel lets a carriage return stand as it is; only a newline ends a line.
    line = b"1 0 8:1 / %b rw - ext4 %b rw\n" % (escaped(point), escaped(source))
    (found,) = read_mounts(line)
    assert found.point == PurePath(os.fsdecode(point))
    assert found.source == os.fsdecode(source)


@given(st.binary())
def test_nothing_that_stands_there_breaks_the_reader(data: bytes) -> None:
    for found in read_mounts(data):
        fault_of(found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (mount("fuse.gcsfuse", "my-bucket"), "whole objects"),
        (mount("fuse.s3fs", "s3fs"), "whole objects"),
        (mount("fuse", "s3fs#bucket"), "whole objects"),
        (mount("fuse.rclone", "remote:path"), "whole objects"),
        (mount("fuse", "mountpoint-s3"), "whole objects"),
        (mount("fuse", "blobfuse2"), "whole objects"),
        (mount("fuse", "https://dav.example.org/"), "whole objects"),
        (mount("nfs", "host:/x", "rw,vers=3,nolock,local_lock=all"), "this machine alone"),
        (mount("nfs4", "host:/x", "rw,local_lock=flock"), "mounted with local_lock=flock"),
        (mount("lustre", "host:/x", "rw,localflock"), "this machine alone"),
        (mount("cifs", "//host/x"), "cannot be replaced"),
        (mount("cifs", "//host/x", "rw,nobrl"), "mounted with nobrl"),
        (mount("9p", "hostshare"), "locks"),
        (mount("fuse.sshfs", "host:"), "this machine alone"),
    ],
)
def test_what_is_known_to_break_a_promise_is_known_by_type_source_or_option(found: Mount, words: str) -> None:
    fault = fault_of(found)
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize(
    "found",
    [
        *(mount(kind) for kind in sorted(LOCAL)),
        mount("nfs4", "host:/x", "rw,vers=4.2,local_lock=none"),
        mount("nfs", "host:/x", "rw,vers=3,local_lock=posix"),
        mount("fuse.juicefs", "JuiceFS:x"),
        mount("fuse", "a-bucket"),
        mount("ext4", "/dev/mapper/s3fs"),
        mount("xfs", "http-data"),
        mount("ceph", "host:/"),
    ],
)
def test_nothing_else_is_refused_unseen(found: Mount) -> None:
    assert fault_of(found) is None


def told(tmp_path: Path, line: str) -> Path:
    """A mountinfo by which everything under `tmp_path` is on such a file system."""
    path = tmp_path / "mountinfo"
    path.write_text(f"1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:9 / {tmp_path} rw - {line}\n")
    return path


def test_a_refusal_says_what_it_is_why_and_where_to_go_instead_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(FolderInUse) as raised:
        must_be_tried(out, mountinfo=told(tmp_path, "fuse.s3fs s3fs rw"))
    for words in (f"{out} is on fuse.s3fs (s3fs, mounted at {tmp_path})", "whole objects", "local disk", "`export`"):
        assert words in str(raised.value)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("line", "tried"),
    [("ext4 /dev/vdb rw", False), ("overlay overlay rw", False), ("nfs4 h:/x rw,local_lock=none", True)],
)
def test_only_what_is_neither_local_nor_known_is_tried(tmp_path: Path, line: str, *, tried: bool) -> None:
    assert must_be_tried(tmp_path / "out", mountinfo=told(tmp_path, line)) is tried


def test_where_the_system_says_nothing_every_folder_is_tried(tmp_path: Path) -> None:
    assert must_be_tried(tmp_path, mountinfo=tmp_path / "none")


def test_a_link_does_not_hide_what_a_folder_is_on(tmp_path: Path) -> None:
    bucket, link = tmp_path / "bucket", tmp_path / "link"
    bucket.mkdir()
    link.symlink_to(bucket)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:9 / {bucket} rw - fuse.s3fs s3fs rw\n")
    with pytest.raises(FolderInUse, match=r"fuse\.s3fs"):
        must_be_tried(link / "out", mountinfo=mountinfo)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder whose lock is held, as the kernel of this machine does it."""
    lock = FolderLock(tmp_path / "out")
    yield tmp_path / "out"
    lock.release()


def test_a_disk_of_this_machine_passes_the_try_and_keeps_nothing_of_it(held: Path) -> None:
    (held / "trial.partial").write_bytes(b"of a try that was killed")
    (held / "trial-new.partial").write_bytes(b"of a try that was killed")
    try_out(held, lock=LOCK)
    assert [path.name for path in held.iterdir()] == [LOCK]


class EndsFilesWhenClosed(Files):
    """As a store of whole objects: what was closed cannot be opened to be written."""

    def open_append(self, path: Path) -> int:
        if path.exists():
            raise OSError(errno.EPERM, "Operation not permitted")
        return super().open_append(path)


class Overwrites(Files):
    """Takes an append for a new beginning."""

    def open_append(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)


class NeverRenames(Files):
    def rename(self, old: Path, new: Path) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")


class CopiesToRename(Files):
    """Shows the old bytes on."""

    def rename(self, old: Path, new: Path) -> None:
        old.unlink()


class NeverDeletes(Files):
    def unlink(self, path: Path) -> None:
        if path.exists():
            raise OSError(errno.EACCES, "Permission denied")


class IgnoresCuts(Files):
    def truncate(self, fd: int, size: int) -> None:
        pass


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (EndsFilesWhenClosed(), r"does not append to a file \(Operation not permitted\)"),
        (Overwrites(), "does not append to a file .it says it did, and did not"),
        (IgnoresCuts(), "does not append to a file"),
        (NeverRenames(), r"does not replace a file that is open \(Function not implemented\)"),
        (CopiesToRename(), "does not replace a file that is open"),
        (NeverDeletes(), r"does not delete a file \(Permission denied\)"),
    ],
)
def test_a_file_system_that_fails_the_try_is_refused_with_what_it_does_not_do(
    held: Path, files: Files, words: str
) -> None:
    with pytest.raises(FolderInUse, match=words) as raised:
        try_out(held, lock=LOCK, files=files)
    assert "local disk" in str(raised.value)


def test_a_lock_that_two_can_have_fails_the_try(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with pytest.raises(FolderInUse, match="does not refuse a second lock"):
        try_out(tmp_path, lock=LOCK)


def test_who_was_refused_a_folder_does_not_hold_it(tmp_path: Path) -> None:
    out, first = tmp_path / "out", FolderLock(tmp_path / "out")
    with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        FolderLock(out)
    first.release()
    FolderLock(out).release()


@pytest.mark.parametrize("how", ["moved", "replaced", "emptied"])
def test_a_folder_that_is_no_longer_at_its_place_is_noticed(tmp_path: Path, how: str) -> None:
    out, lock = tmp_path / "out", FolderLock(tmp_path / "out")
    assert lock.lost() is None
    if how == "emptied":
        (out / LOCK).unlink()
    else:
        out.rename(tmp_path / "elsewhere")
    other = FolderLock(out) if how == "replaced" else None
    assert "moved, removed or replaced" in str(lock.lost())
    lock.release()
    if other:
        assert other.lost() is None
        other.release()
