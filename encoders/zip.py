"""The central directory of a zip file, one entry after the other, and the bytes of one member.

Format as PKWARE's APPNOTE 6.3.10 describes it, zip64 included. The standard library's reader keeps the whole directory
in memory, about a kilobyte a member.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator

from encoders.members import DEFLATED, STORED, Left, Member, split_name
from engine.errors import ConfigError

LOCAL_BYTES = 30
MAX_RATIO = 200
"""Deflate reaches 1,032; pictures and videos are compressed already and stay near 1."""
HARMLESS_BYTES = 1 << 20
"""Below this size any ratio is fine."""
_PIECE_BYTES = 4 << 20
_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT_BYTES = 0xFFFF
_UNIX = 3
_ENCRYPTED, _UTF8 = 0x1, 0x800
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_METHODS = {0: STORED, 8: DEFLATED}


def zip_members(read: Callable[[int, int], bytes], size: int, *, name: str, left: Left) -> Iterator[Member]:
    """The regular files of a zip file, in the order of its directory.

    Args:
        read: bytes at an offset, fewer only at the end.
        size: bytes of the whole file.
        name: what its user calls it.
        left: is told what was left out.

    Raises:
        ConfigError: it is no zip file, or its directory, which stands at its end, is damaged or missing.
    """
    start, length, count, shift = _directory(read, size, name)
    data, at, taken = b"", 0, 0
    for _ in range(count):
        if len(data) - at < _ENTRY.size + 3 * _FULL16 and taken < length:
            piece = read(start + taken, min(_PIECE_BYTES, length - taken))
            taken += len(piece) or length
            data, at = data[at:] + piece, 0
        try:
            entry = _ENTRY.unpack_from(data, at)
        except struct.error:
            entry = (b"",)
        if entry[0] != b"PK\1\2":
            raise ConfigError(f"{name}: the directory of this zip file is damaged")
        names = at + _ENTRY.size
        extras = names + entry[10]
        at = extras + entry[11] + entry[12]
        member = _member(entry, data[names:extras], data[extras : extras + entry[11]], left, shift=shift)
        if member is not None:
            yield member


def _directory(read: Callable[[int, int], bytes], size: int, name: str) -> tuple[int, int, int, int]:
    """Start and length in bytes of the central directory, its entries, and how far all offsets are shifted."""
    tail_at = max(0, size - _END.size - _MAX_COMMENT_BYTES - _END64_PLACE.size)
    tail = read(tail_at, size - tail_at)
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise ConfigError(f"{name} is no whole zip file: the directory at its end is missing")
    _, _, _, _, count, length, start, _ = _END.unpack_from(tail, found)
    end = tail_at + found
    place = found - _END64_PLACE.size
    if place >= 0 and tail[place : place + 4] == b"PK\6\7":
        end = _END64_PLACE.unpack_from(tail, place)[2]
        record = read(end, _END64.size)
        if len(record) < _END64.size or record[:4] != b"PK\6\6":
            raise ConfigError(f"{name}: the directory of this zip file is damaged")
        _, _, _, _, _, _, _, count, length, start = _END64.unpack(record)
    # Something before the archive, such as an unpacking program, shifts every offset.
    shift = end - length - start
    if shift < 0:
        raise ConfigError(f"{name}: the directory of this zip file is damaged")
    return start + shift, length, count, shift


def _member(entry: tuple[int, ...], raw: bytes, extra: bytes, left: Left, *, shift: int) -> Member | None:
    _, made_by, _, flags, method, _, _, _, packed, size, _, _, _, _, _, attributes, offset = entry
    if raw.endswith(b"/"):
        return None
    mode = attributes >> 16
    if made_by >> 8 == _UNIX and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        left.counts["links and devices"] += 1
        return None
    if flags & _ENCRYPTED or method not in _METHODS:
        left.counts["encrypted or packed in a rare way"] += 1
        return None
    if _FULL32 in {size, packed, offset}:
        size, packed, offset = _wide(extra, size, packed, offset)
    if _METHODS[method] == STORED and packed != size:
        left.counts["of two sizes"] += 1
        return None
    try:
        encoding = "utf-8" if flags & _UTF8 or raw.isascii() or raw.decode() else "cp437"
    except UnicodeDecodeError:
        encoding = "cp437"
    split = split_name(raw, encoding, left)
    return split and Member(split[0], split[1], offset + shift, size, packed, _METHODS[method])


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit numbers of those that have no room in the entry, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            data = extra[at + 4 : at + 4 + length]
            numbers = iter([int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data) - 7, 8)])
            return tuple(next(numbers, 0) if value == _FULL32 else value for value in (size, packed, offset))  # type: ignore[return-value]
        at += 4 + length
    return size, packed, offset


def data_offset(local: bytes, offset: int) -> int | None:
    """Where a member's data begin, by its local header; None if there is none at the offset."""
    if len(local) < LOCAL_BYTES or local[:4] != b"PK\3\4":
        return None
    fields = _LOCAL.unpack(local)
    return offset + LOCAL_BYTES + int(fields[9]) + int(fields[10])


def is_bomb(member: Member) -> bool:
    """Whether a member claims to be far more than it takes in the archive."""
    return member.size > max(HARMLESS_BYTES, MAX_RATIO * member.packed)


def inflated(data: bytes, size: int) -> bytes | None:
    """Deflated bytes unpacked, to exactly `size` bytes; None if they are not that."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than expected, so that more is noticed and never held.
        out = unpacker.decompress(data, size + 1)
    except zlib.error:
        return None
    return out if len(out) == size else None
