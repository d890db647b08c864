"""Where each member of an archive lies: a file made once, in which a worker finds a row's media by one lookup.

An SQLite file without row ids: members sorted by folder and name, so the frames of an id lie side by side. It is
written under another name and renamed when whole, tells which state of the archive it describes, and is read without
locks and without a copy in memory. Of several members with one name the last counts, as it does when unpacking.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from encoders.locate import VIDEO_SUFFIXES, frames_among
from encoders.members import Member
from engine.errors import ConfigError

VERSION = 1
BUILD_CACHE_KB = 64 << 10
"""Pages held while building; members that come in no order need them."""
READ_CACHE_KB = 2 << 10
_ROWS = "SELECT folder, name, offset, size, packed, form FROM member WHERE folder = ?"


class Index:
    """An index opened for reading."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            sqlite3.Error: there is none, or it is damaged.
            ValueError: it is one of another version.
        """
        # immutable: no locks, no journal, nothing a process that may write no files would stumble over.
        self._db = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._db.execute(f"PRAGMA cache_size = -{READ_CACHE_KB}")
        self._db.execute("PRAGMA trusted_schema = OFF")
        try:
            about = self._about()
            self.stamp: str = about["stamp"]
            self.digest: str = about["digest"]
            self.members: int = about["members"]
            self.notes: tuple[str, ...] = tuple(about["notes"])
            self.frames_root: str | None = about["frames_root"]
            self.videos_root: str | None = about["videos_root"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()

    def _about(self) -> dict[str, Any]:
        row = self._db.execute("SELECT said FROM about").fetchone()
        about = orjson.loads(row[0]) if row else None
        if not isinstance(about, dict) or about.get("version") != VERSION:
            raise ValueError("an index of another version")
        return about

    def folder(self, folder: str) -> list[Member]:
        """All members of a folder."""
        return [Member(*row) for row in self._db.execute(_ROWS, (folder,))]

    def named(self, folder: str, name: str) -> Member | None:
        row = self._db.execute(f"{_ROWS} AND name = ?", (folder, name)).fetchone()
        return None if row is None else Member(*row)

    def beginning(self, folder: str, stem: str) -> list[Member]:
        """The members of a folder whose name is the stem, a dot and more; `/` is the character after the dot."""
        rows = self._db.execute(f"{_ROWS} AND name > ? AND name < ?", (folder, f"{stem}.", f"{stem}/"))
        return [Member(*row) for row in rows]


class Roots:
    """Finds out whether the media lie at the top of an archive or in one folder that holds everything."""

    def __init__(self) -> None:
        self._tops: dict[bool, set[str]] = {True: set(), False: set()}
        """First component of the paths of frames (True) and videos (False); an empty one for those at the top."""

    def see(self, member: Member) -> None:
        if member.name[:6].lower() == "frame_" and frames_among([member.name]):
            top, _, rest = member.folder.partition("/")
            self._note(top if rest else "", frames=True)
        elif member.name.rpartition(".")[2].lower() in VIDEO_SUFFIXES:
            self._note(member.folder.partition("/")[0], frames=False)

    def _note(self, top: str, *, frames: bool) -> None:
        tops = self._tops[frames]
        # Two tell as much as a million: there is not one folder above all.
        if len(tops) < 2:  # noqa: PLR2004
            tops.add(top)

    def root(self, *, frames: bool) -> str | None:
        """The folder that holds everything, empty for the archive itself, None if there is no such medium at all."""
        tops = self._tops[frames]
        return None if not tops else next(iter(tops)) if len(tops) == 1 else ""


def build(
    path: Path, members: Iterable[Member], *, stamp: str, digest: str, notes: Callable[[], Iterable[str]]
) -> None:
    """Write an index. A crash leaves the old one, or none.

    Args:
        path: where it will stand.
        members: what it holds; read lazily, in bounded memory.
        stamp: the state of the archive.
        digest: of parts of its contents.
        notes: what its user should know; asked after the last member.

    Raises:
        OSError: it cannot be written there.
        ConfigError: as the members say.
    """
    roots = Roots()

    def seen() -> Iterator[Member]:
        for member in members:
            roots.see(member)
            yield member

    fd, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        try:
            with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as db:
                for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{BUILD_CACHE_KB}"):
                    db.execute(f"PRAGMA {pragma}")
                db.execute("BEGIN")
                db.execute("CREATE TABLE about (said TEXT)")
                db.execute(
                    "CREATE TABLE member (folder TEXT, name TEXT, offset INTEGER, size INTEGER, packed INTEGER, "
                    "form INTEGER, PRIMARY KEY (folder, name)) WITHOUT ROWID"
                )
                db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?)", seen())
                (count,) = db.execute("SELECT count(*) FROM member").fetchone()
                about = {
                    "version": VERSION,
                    "stamp": stamp,
                    "digest": digest,
                    "members": count,
                    "notes": list(notes()),
                    "frames_root": roots.root(frames=True),
                    "videos_root": roots.root(frames=False),
                }
                db.execute("INSERT INTO about VALUES (?)", (orjson.dumps(about).decode(),))
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error
        os.fsync(fd)
        Path(partial).replace(path)
    finally:
        os.close(fd)
        Path(partial).unlink(missing_ok=True)


def open_whole(path: Path) -> Index | None:
    """The index at this path, or None if there is none that can be used."""
    try:
        return Index(path)
    except (sqlite3.Error, ValueError):
        return None


def cache_folder() -> Path:
    """Where an index lies that cannot lie beside its archive; made if missing.

    Raises:
        ConfigError: it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "reelbatch"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; the index of an archive must have a place to lie") from error
    return folder


def cached_path(name: str) -> Path:
    """The place of an index in the cache, by what its archive is called."""
    return cache_folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.index"
