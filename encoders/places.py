"""What `--frames-dir` and `--videos` name: a folder, a tar or zip file, or an address of either."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from encoders.archive import Archive, ArchiveFrames, ArchiveVideos
from encoders.folders import FolderFrames, FolderVideos
from encoders.locate import FrameStore, VideoStore
from encoders.ranges import LocalFile
from encoders.remote import RemoteFile, RemoteFrames, RemoteVideos
from encoders.storage import is_address
from engine.errors import ConfigError

ARCHIVES = (".tar", ".zip")
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar")


def frame_store(where: str) -> FrameStore:
    """The place of frames that a user names.

    Raises:
        ConfigError: it can be no such place; whether it is there, `prepare` tells.
    """
    match _place(where):
        case Archive() as archive:
            return ArchiveFrames(archive)
        case str() as address:
            return RemoteFrames(address)
        case path:
            return FolderFrames(path)


def video_store(where: str) -> VideoStore:
    """The place of videos that a user names.

    Raises:
        ConfigError: as `frame_store`.
    """
    match _place(where):
        case Archive() as archive:
            return ArchiveVideos(archive)
        case str() as address:
            return RemoteVideos(address)
        case path:
            return FolderVideos(path)


def _place(where: str) -> Archive | str | Path:
    """An archive, an address below which there are many, or a folder."""
    where = _local(where)
    if is_address(where):
        return Archive(RemoteFile(where)) if _is_archive(where) else where
    path = Path(where)
    return Archive(LocalFile(path)) if _is_archive(where, path) else path


def _local(where: str) -> str:
    """A `file:` address as the path it means."""
    if not where.startswith("file://"):
        return where
    parts = urlsplit(where)
    if parts.netloc not in {"", "localhost"}:
        raise ConfigError(f"{where}: a file address names no host; write file:///path or the path alone")
    return unquote(parts.path)


def _is_archive(where: str, path: Path | None = None) -> bool:
    name = where.lower().rstrip("/")
    if path is not None and path.is_dir():
        return False
    if name.endswith(PACKED):
        raise ConfigError(
            f"{where}: no member of a compressed archive can be read without unpacking all before it; "
            "unpack it once to a plain .tar, or put the files into a .zip"
        )
    return name.endswith(ARCHIVES)
