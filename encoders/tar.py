"""The headers of a tar file, one after the other: ustar, GNU and pax, contents skipped.

Formats as POSIX.1-2001 (pax), the GNU tar manual ("Basic Tar Format") and star's documents describe them. The standard
library's reader keeps every member in memory and takes ten times as long; a member here is a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from encoders.members import RAW, Left, Member, split_name
from engine.errors import ConfigError

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20
"""Of a long name or a set of pax records; names end at 4 KiB."""
_ZEROS = bytes(BLOCK)
_REGULAR = b"0\x007"
_SPARSE, _FOLDER, _LONG_NAME = b"S", b"5", b"L"
_EXTENSIONS = b"xL"
_ABOUT_OTHERS = b"gKV"
"""Settings of all later members, the long target of a link, the label of the whole archive."""
_NO_FILES = b"123456"
"""Hard and symbolic links, devices, folders, pipes: nothing follows their header."""
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class _BrokenHeaderError(Exception):
    """These 512 bytes are no tar header. `str()` goes on after "the archive"."""

    at = 0


def tar_members(read: Callable[[int, int], bytes], size: int, *, name: str, left: Left) -> Iterator[Member]:
    """The regular files of a tar file, in its order.

    Args:
        read: bytes at an offset, fewer only at the end.
        size: bytes of the whole file.
        name: what its user calls it.
        left: is told what was left out, and whether the end is missing.

    Raises:
        ConfigError: it is no tar file, or a compressed one, in which no member can be found without unpacking all.
    """
    refuse_packed(read(0, 8), name)
    try:
        for at, entry in _entries(read):
            if entry.kind in _NO_FILES:
                left.counts["links and devices"] += entry.kind != _FOLDER
            elif entry.sparse:
                left.counts["sparse files"] += 1
            elif entry.kind not in _REGULAR:
                left.counts["of unknown kind"] += 1
            elif entry.start + entry.length > size:
                left.cut = f"the archive breaks off within the member at byte {at:,}; what stands before is used"
            # An old tar marks folders by a slash alone.
            elif not entry.name.endswith(b"/") and (split := split_name(entry.name, "utf-8", left)) is not None:
                yield Member(split[0], split[1], entry.start, entry.length, entry.length, RAW)
    except _BrokenHeaderError as error:
        if error.at == 0 and size:
            raise ConfigError(f"{name} is no tar file: it {error}") from error
        left.cut = left.cut or f"the archive {error} at byte {error.at:,}; what stands before is used"


class _Entry(NamedTuple):
    kind: bytes
    name: bytes
    start: int
    """Where its contents begin."""
    length: int
    sparse: bool


def _entries(read: Callable[[int, int], bytes]) -> Iterator[tuple[int, _Entry]]:
    """What the headers describe, each with the offset of its own header."""
    at = 0
    said = _Extensions()
    while (header := read(at, BLOCK)) != _ZEROS:
        try:
            kind, length = _checked(header)
            start = at + BLOCK
            if kind in _EXTENSIONS:
                said.take(kind, _extension(read, start, length))
            elif kind not in _ABOUT_OTHERS:
                length = 0 if kind in _NO_FILES else said.length(length)
                if kind == _SPARSE:
                    start = _after_sparse_map(read, start, header)
                yield at, _Entry(kind, said.name or _name(header), start, length, kind == _SPARSE or said.sparse)
                said = _Extensions()
        except _BrokenHeaderError as error:
            error.at = at
            raise
        at = _after(start, length)


class _Extensions:
    """What the headers before a member say of it that has no room in its own."""

    def __init__(self) -> None:
        self._long_name = b""
        self._pax: dict[bytes, bytes] = {}

    def take(self, kind: bytes, data: bytes) -> None:
        if kind == _LONG_NAME:
            self._long_name = data.split(b"\0", 1)[0]
        else:
            self._pax |= _records(data)

    @property
    def name(self) -> bytes:
        return self._pax.get(b"path", self._long_name)

    @property
    def sparse(self) -> bool:
        return any(key.startswith(b"GNU.sparse.") for key in self._pax)

    def length(self, otherwise: int) -> int:
        value = self._pax.get(b"size")
        if value is None:
            return otherwise
        if not value.isdigit() or len(value) > 19:  # noqa: PLR2004 - digits of 2 to the power of 63
            raise _BrokenHeaderError("has a damaged pax header")
        return int(value)


def refuse_packed(head: bytes, name: str) -> None:
    """Say how to unpack a compressed archive."""
    for magic, (packer, unpacker) in _PACKED.items():
        if head.startswith(magic):
            raise ConfigError(
                f"{name} is compressed ({packer}), so no member can be read without unpacking all before it; "
                f"unpack it once: {unpacker} -c {name} > FILE.tar"
            )


def _checked(header: bytes) -> tuple[bytes, int]:
    """Kind and length of a member, if the checksum fits; some old programs summed signed bytes."""
    if len(header) < BLOCK:
        raise _BrokenHeaderError("breaks off")
    summed = _number(header[148:156])
    plain = sum(header) - sum(header[148:156]) + 8 * 32
    if summed != plain and summed != plain - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):  # noqa: PLR2004
        raise _BrokenHeaderError("has a damaged header")
    return header[156:157], _number(header[124:136])


def _number(field: bytes) -> int:
    """Octal digits, or base 256 behind a first byte of 0x80, as GNU writes what has no room (over 8 GB)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise _BrokenHeaderError("has a damaged header") from None


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    # GNU keeps times where ustar keeps the folder.
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(read: Callable[[int, int], bytes], start: int, length: int) -> bytes:
    if length > MAX_EXTENSION_BYTES:
        raise _BrokenHeaderError("has a name of absurd length")
    data = read(start, length)
    if len(data) < length:
        raise _BrokenHeaderError("breaks off")
    return data


def _records(data: bytes) -> dict[bytes, bytes]:
    """Pax records: length in digits, a space, key=value, a newline; the length counts all of it."""
    found = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 10].partition(b" ")
        if not space or not digits.isdigit():
            raise _BrokenHeaderError("has a damaged pax header")
        key, _, value = data[at + len(digits) + 1 : at + int(digits) - 1].partition(b"=")
        found[key] = value
        at += max(int(digits), len(digits) + 1)
    return found


def _after(start: int, length: int) -> int:
    return start + (length + BLOCK - 1) // BLOCK * BLOCK


def _after_sparse_map(read: Callable[[int, int], bytes], start: int, header: bytes) -> int:
    """Where the data of an old GNU sparse file begin: its map may go on in blocks of its own."""
    more = header[482:483] == b"\1"
    while more:
        block = read(start, BLOCK)
        start += BLOCK
        more = block[504:505] == b"\1"
    return start
