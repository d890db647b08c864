"""Frames and videos inside a tar or zip file, on disk or far away, read where they lie.

The archive is indexed once, before the run (encoders/index.py); a worker then needs one lookup and one read a row, and
nothing is unpacked to disk. If the archive changes during the run its rows fail, for the index no longer tells where
anything is.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from encoders.index import Index, build, cached_path, open_whole
from encoders.locate import (
    MAX_FRAME_BYTES,
    FrameFile,
    check_id,
    check_named,
    frames_among,
    unreadable,
    video_among,
)
from encoders.members import RAW, STORED, Left, Member
from encoders.ranges import LocalFile, Ranged, as_file, batches
from encoders.tar import tar_members
from encoders.zip import LOCAL_BYTES, data_offset, inflated, is_bomb, zip_members
from engine.errors import ConfigError, RowError
from engine.types import FailureKind

DIGESTED_BYTES = 64 << 10
"""At either end of an archive: a tar that was written anew differs at its start, a zip file at its end."""
MAX_INFLATED_VIDEO_BYTES = 256 << 20
"""A deflated video cannot be sought in and is unpacked into memory."""
SUFFIX = ".index"


class Archive:
    """One archive and its index; what it opens, it opens in the process that reads."""

    def __init__(self, file: Ranged, index: Path | None = None) -> None:
        self.file = file
        self._index_path = index

    def __reduce__(self) -> tuple[type[Archive], tuple[Ranged, Path | None]]:
        return Archive, (self.file, self._index_path)

    def prepare(self) -> Index:
        """Find or make the index. The caller closes it.

        Raises:
            ConfigError: the archive is missing, unreadable, or none.
        """
        try:
            stamp, digest = self.file.stamp(), self._digest()
            for path in self._places():
                if (found := open_whole(path)) is None:
                    continue
                if (found.stamp, found.digest) == (stamp, digest):
                    self._index_path = path
                    return found
                found.close()
            return self._built(stamp, digest)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{self.file.name} cannot be read: {error}") from error

    @cached_property
    def index(self) -> Index:
        """The index that `prepare` found or made.

        Raises:
            RowError: it is gone.
        """
        assert self._index_path is not None, "prepare() comes first"
        try:
            return Index(self._index_path)
        except (sqlite3.Error, ValueError) as error:
            raise unreadable(error) from error

    @contextmanager
    def unchanged(self) -> Iterator[Index]:
        """The index, as long as the archive is the one it describes.

        Raises:
            RowError: the archive cannot be reached, or it was changed before or while the context was open.
        """
        self._check()
        try:
            yield self.index
        except (sqlite3.Error, OSError) as error:
            raise unreadable(error) from error
        finally:
            # Also where something failed: a picture may be broken because its archive was written over.
            self._check()

    def read(self, members: Sequence[Member]) -> Iterator[bytes | None]:
        """The bytes of members, some read ahead; None for one that is empty, too large or damaged.

        Raises:
            RowError: the archive cannot be reached, or has become shorter.
        """
        for group in batches(members, lambda member: member.packed):
            sound = [
                member for member in group if member.size and _most(member) <= MAX_FRAME_BYTES and not is_bomb(member)
            ]
            try:
                data = dict(zip(sound, self._contents(sound), strict=True))
            except RowError:
                raise
            except Exception as error:
                raise unreadable(error) from error
            yield from (data.get(member) for member in group)

    @contextmanager
    def video(self, member: Member) -> Iterator[BinaryIO]:
        """A member as a seekable file.

        Raises:
            RowError: it cannot be reached; or it is deflated and too large to be unpacked into memory (`media_limit`).
        """
        if member.form in {RAW, STORED}:
            start = self._starts([member])[0]
            with self.file.window(start) as read, as_file(read, member.size) as file:
                yield file
            return
        if _most(member) > MAX_INFLATED_VIDEO_BYTES or is_bomb(member):
            message = f"a compressed video of {member.size:,} bytes; store videos in a zip file uncompressed (zip -0)"
            raise RowError(FailureKind.MEDIA_LIMIT, message)
        data = self._contents([member])[0]
        if data is None:
            raise RowError(FailureKind.MEDIA_UNREADABLE, "the video is damaged inside its zip file")
        with io.BytesIO(data) as file:
            yield file

    def _contents(self, members: Sequence[Member]) -> list[bytes | None]:
        ranges = [(start, member.packed) for start, member in zip(self._starts(members), members, strict=True)]
        out: list[bytes | None] = []
        for member, data in zip(members, self.file.read_many(ranges), strict=True):
            if len(data) < member.packed:
                raise _changed(self.file.name)
            out.append(data if member.form in {RAW, STORED} else inflated(data, member.size))
        return out

    def _starts(self, members: Sequence[Member]) -> list[int]:
        """Where the data of members begin; in a zip file their local headers tell."""
        if all(member.form == RAW for member in members):
            return [member.offset for member in members]
        headers = self.file.read_many([(member.offset, LOCAL_BYTES) for member in members])
        starts = [data_offset(header, member.offset) for header, member in zip(headers, members, strict=True)]
        if None in starts:
            raise _changed(self.file.name)
        return [start for start in starts if start is not None]

    def _check(self) -> None:
        try:
            stamp = self.file.stamp()
        except Exception as error:
            raise unreadable(error) from error
        if stamp != self.index.stamp:
            raise _changed(self.file.name)

    def _built(self, stamp: str, digest: str) -> Index:
        left = Left()
        read, size, name = self.file.read, self.file.size(), self.file.name
        list_members = zip_members if read(0, 2) == b"PK" or name.lower().endswith(".zip") else tar_members
        failures = []
        for path in self._places():
            members = list_members(self.file.scan(), size, name=name, left=left)
            try:
                build(path, members, stamp=stamp, digest=digest, notes=lambda: left.notes(name))
            except OSError as error:
                failures.append(str(error))
                left.clear()
                continue
            if self.file.stamp() != stamp:
                path.unlink(missing_ok=True)
                raise ConfigError(f"{name} changed while it was read; begin when nothing writes to it any more")
            self._index_path = path
            return Index(path)
        raise ConfigError(f"{name}: its index can be written nowhere: {'; '.join(failures)}")

    def _places(self) -> Iterator[Path]:
        """Where the index may lie, the best place first."""
        if isinstance(self.file, LocalFile):
            path = self.file.path.absolute()
            yield path.with_name(f"{path.name}{SUFFIX}")
            yield cached_path(str(path))
        else:
            yield cached_path(self.file.name)

    def _digest(self) -> str:
        ends = self.file.read(0, DIGESTED_BYTES) + self.file.read(
            max(0, self.file.size() - DIGESTED_BYTES), DIGESTED_BYTES
        )
        return hashlib.sha256(ends).hexdigest()


class ArchiveFrames:
    """`<id>/frame_<n>.<ext>` inside an archive, perhaps all below one top folder."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def prepare(self) -> tuple[str, ...]:
        with closing(self._archive.prepare()) as index:
            if index.frames_root is None:
                raise ConfigError(f"{self._archive.file.name} holds no frames; they should be called ID/frame_0.jpg")
            return index.notes

    @contextmanager
    def open(self, identity: str) -> Iterator[PackedFrames | None]:
        check_id(identity)
        with self._archive.unchanged() as index:
            members = index.folder(_below(index.frames_root, identity))
            yield PackedFrames(self._archive, members) if members else None


class PackedFrames:
    """The members of one id's folder."""

    def __init__(self, archive: Archive, members: Sequence[Member]) -> None:
        self._archive = archive
        self._members = {member.name: member for member in members}

    def files(self) -> list[FrameFile]:
        return frames_among(self._members)

    def read(self, frames: Sequence[FrameFile]) -> Iterator[bytes | None]:
        return self._archive.read([self._members[frame.name] for frame in frames])


class ArchiveVideos:
    """`<id>.<ext>` inside an archive, perhaps all in one top folder, or what a row names there."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def prepare(self) -> tuple[str, ...]:
        with closing(self._archive.prepare()) as index:
            if index.videos_root is None:
                raise ConfigError(f"{self._archive.file.name} holds no videos; they should be called ID.mp4")
            return index.notes

    @contextmanager
    def open(self, identity: str, named: str = "") -> Iterator[BinaryIO | None]:
        components = check_named(named) if named else ()
        if not components:
            check_id(identity)
        with self._archive.unchanged() as index:
            if components:
                member = index.named(_below(index.videos_root, *components[:-1]), components[-1])
            else:
                members = {member.name: member for member in index.beginning(index.videos_root or "", identity)}
                name = video_among(identity, members)
                member = None if name is None else members[name]
            if member is None:
                yield None
                return
            with self._archive.video(member) as file:
                yield file


def _most(member: Member) -> int:
    """Bytes of memory it takes to read a member; an archive may claim that few are packed as many."""
    return max(member.size, member.packed)


def _below(root: str | None, *components: str) -> str:
    return "/".join(part for part in (root, *components) if part)


def _changed(name: str) -> RowError:
    return RowError(
        FailureKind.MEDIA_UNREADABLE, f"{name} was changed after the run began; a resume would index it anew"
    )
