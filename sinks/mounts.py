"""Whether a file system can hold a run: appends that stay, names that change in one step, a lock that excludes others.

Linux says in `/proc/self/mountinfo` what a folder is on. Disks of this machine are taken as they come. What is known to
break a promise is refused by name: it would pass every try made from here, since the kernel keeps locks for a file
system that has none, and object stores show appended bytes before they have them. All else is tried in the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from engine.errors import FolderInUse
from sinks.files import OS_FILES, Files, write_all

MOUNTINFO = Path("/proc/self/mountinfo")
TRIALS = ("trial.partial", "trial-new.partial")
"""The files of a try. A kill may leave one behind; the next life tries again, and takes it away."""
WAY_OUT = (
    "Put the run folder on a local disk; when the run is done, copy it to where you want it, or what `export` makes of "
    "it. `status`, `verify` and `export` read a copy there too"
)

LOCAL = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "nilfs2", "reiserfs"),
        *("tmpfs", "ramfs", "rootfs", "overlay", "aufs", "apfs", "hfs"),
    )
)
"""Types on which only this machine writes, with locks of the kernel's own."""

OBJECT_STORES = frozenset(
    (
        *("gcsfuse", "s3fs", "goofys", "geesefs", "tigrisfs", "rclone", "mountpoint-s3", "mount-s3", "blobfuse"),
        *("blobfuse2", "cloudfuse", "ossfs", "ossfs2", "cosfs", "obsfs", "riofs", "yas3fs", "minfs", "alluxio-fuse"),
        *("hadoop-fuse-dfs", "davfs", "davfs2", "curlftpfs"),
    )
)
"""Programs behind a FUSE mount, as its type (`fuse.s3fs`) or, where that is plain `fuse`, its source names them."""

NETWORK_SHARES = {
    "cifs": "a file that is open cannot be replaced there",
    "smb3": "a file that is open cannot be replaced there",
    "smbfs": "a file that is open cannot be replaced there",
    "9p": "its locks need not reach the machine that has the files",
    "fuse.sshfs": "its locks hold on this machine alone",
}
"""Type to what is wrong with it."""

LOCKS_STAY_HERE = frozenset(("nolock", "local_lock=all", "local_lock=flock", "localflock", "localflocks", "nobrl"))
"""Options by which NFS, Lustre, GFS2, OCFS2 and SMB keep locks on this machine, whoever else writes."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    point: PurePath
    kind: str
    """As in `ext4`, `nfs4`, `fuse.s3fs`."""
    source: str
    """A device, `host:/path`, or whatever a FUSE program calls itself."""
    options: frozenset[str]
    """Of the mount and of the file system."""

    def name(self) -> str:
        """For a person."""
        return f"{self.kind} ({self.source}, mounted at {self.point})"


def read_mounts(data: bytes) -> list[Mount]:
    """The mounts in a `/proc/PID/mountinfo`, in its order; lines in another form are left out."""
    mounts = []
    for line in data.split(b"\n"):
        # Blanks inside a field are escaped, and the optional fields in the middle end in a lone dash.
        here, _, there = line.partition(b" - ")
        fields, system = here.split(b" "), there.split(b" ")
        if len(fields) < 6 or len(system) < 3:  # noqa: PLR2004 - as proc(5) numbers them
            continue
        mounts.append(
            Mount(
                point=PurePath(_plain(fields[4])),
                kind=_plain(system[0]),
                source=_plain(system[1]),
                options=frozenset(_plain(fields[5] + b"," + system[2]).split(",")),
            )
        )
    return mounts


def _plain(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field))


def mount_of(path: PurePath, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that an absolute path without symbolic links is on: the deepest, of equals the last."""
    found = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (found is None or mount.point.is_relative_to(found.point)):
            found = mount
    return found


def fault_of(mount: Mount) -> str | None:
    """Why a file system is known to be unfit for a run; None if it is not."""
    _, fuse, program = mount.kind.rpartition("fuse.")
    if mount.kind.startswith("fuse") and (
        (program if fuse else mount.source.partition("#")[0]) in OBJECT_STORES or mount.source.startswith("http")
    ):
        return (
            "it keeps files as whole objects, so nothing can be appended for good, names do not change in one step, "
            "and its locks hold on this machine alone"
        )
    if stay := sorted(mount.options & LOCKS_STAY_HERE):
        return f"it is mounted with {stay[0]}, so its locks hold on this machine alone"
    return NETWORK_SHARES.get(mount.kind)


def must_be_tried(out: Path, *, mountinfo: Path = MOUNTINFO) -> bool:
    """Whether it has to be found out if the file system of a folder can hold a run. Changes nothing.

    Args:
        out: the folder; it need not exist.
        mountinfo: what the system says of its mounts; where there is no such file, every folder has to be tried.

    Raises:
        FolderInUse: it is known that it cannot.
        OSError: the path leads nowhere.
    """
    try:
        mounts = read_mounts(mountinfo.read_bytes())
    except OSError:
        return True
    mount = mount_of(out.resolve(), mounts)
    if mount is not None and (fault := fault_of(mount)):
        raise FolderInUse(f"{out} is on {mount.name()}, which cannot hold a run: {fault}. {WAY_OUT}")
    return mount is None or mount.kind not in LOCAL


def try_out(out: Path, *, lock: str, files: Files = OS_FILES) -> None:
    """Do in the folder once what a run does all the time.

    Args:
        out: the folder, by the process that holds it.
        lock: the name of the file in it by whose lock it is held.
        files: how the disk is reached.

    Raises:
        FolderInUse: something did not happen, or not as it must. The file of the try is taken away.
    """
    trial, new = (out / name for name in TRIALS)
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("append to a file", lambda: _append(files, trial)),
        ("replace a file that is open", lambda: _replace(files, trial, new)),
        ("delete a file", lambda: _delete(files, trial)),
        ("refuse a second lock on a file", lambda: _excludes(out / lock)),
    )
    try:
        for what, works in steps:
            try:
                fault = "" if works() else "it says it did, and did not"
            except OSError as error:
                fault = error.strerror or str(error)
            if fault:
                raise FolderInUse(
                    f"the file system of {out} was tried and cannot hold a run: it does not {what} ({fault}). {WAY_OUT}"
                )
    finally:
        for path in (trial, new):
            with suppress(OSError):
                files.unlink(path)


def _append(files: Files, trial: Path) -> bool:
    """Two pieces by two openings, cut back and read: a store that keeps whole objects ends a file when it is closed."""
    files.unlink(trial)
    for piece in (b"one\n", b"two\nthree"):
        fd = files.open_append(trial)
        try:
            write_all(files, fd, piece)
            files.sync_data(fd)
        finally:
            files.close(fd)
    fd = files.open_update(trial)
    try:
        files.truncate(fd, 8)
        files.sync_data(fd)
        return files.size(fd) == 8 and files.read(fd, 64, 0) == b"one\ntwo\n"  # noqa: PLR2004 - of the bytes beside it
    finally:
        files.close(fd)


def _replace(files: Files, trial: Path, new: Path) -> bool:
    """As the commit log is replaced: written beside, renamed over, its folder synced."""
    held = files.open_append(trial)
    try:
        fd = files.open_new(new)
        try:
            write_all(files, fd, b"new")
            files.sync_data(fd)
        finally:
            files.close(fd)
        files.rename(new, trial)
        files.sync_folder(trial.parent)
    finally:
        files.close(held)
    return trial.read_bytes() == b"new" and not new.exists()


def _delete(files: Files, trial: Path) -> bool:
    files.unlink(trial)
    return not trial.exists()


def _excludes(lock: Path) -> bool:
    """Whether a second lock is refused while the first is held."""
    fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
