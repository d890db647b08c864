"""The members of an archive, whatever its format: what is kept of each, and which are never followed."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from encoders.locate import MAX_PATH_BYTES

RAW, STORED, DEFLATED = 0, 1, 2
"""How a member's bytes lie: at the offset itself (tar), or behind a local header at the offset (zip)."""


class Member(NamedTuple):
    """A regular file inside an archive."""

    folder: str
    """Path of the folder it lies in, without a leading or trailing slash; empty at the top."""
    name: str
    offset: int
    """Bytes from the start of the archive."""
    size: int
    """Bytes of the file itself."""
    packed: int
    """Bytes it takes in the archive."""
    form: int
    """RAW, STORED or DEFLATED."""


class Left:
    """What was left out of an archive, and why."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.cut: str | None = None
        """How the archive ends too early, if it does."""

    def clear(self) -> None:
        self.counts.clear()
        self.cut = None

    def notes(self, name: str) -> tuple[str, ...]:
        said = [] if self.cut is None else [f"{name}: {self.cut}"]
        if any(self.counts.values()):
            parts = ", ".join(f"{what} ({count:,})" for what, count in sorted(self.counts.items()) if count)
            said.append(f"{name}: left out {parts}")
        return tuple(said)


def split_name(raw: bytes, encoding: str, left: Left) -> tuple[str, str] | None:
    """Folder and name of a member; None, counted, for a name that could mean a place outside the archive."""
    try:
        path = raw.decode(encoding)
    except UnicodeDecodeError:
        left.counts["with names that are not Unicode"] += 1
        return None
    if path.startswith("/") or "\\" in path or "\0" in path or len(raw) > MAX_PATH_BYTES:
        left.counts["with names that lead elsewhere"] += 1
        return None
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts:
        parts = [part for part in parts if part not in {"", "."}]
        if ".." in parts or not parts:
            left.counts["with names that lead elsewhere"] += 1
            return None
    return "/".join(parts[:-1]), parts[-1]
