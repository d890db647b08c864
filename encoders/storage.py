"""A place behind an address that fsspec knows: s3://, gs:// and others. The only file that names fsspec.

Whatever a storage says but "not found", or does not say in time, is an error. Names are passed on as they are: nothing
here expands patterns, follows addresses found in listings, or keeps listings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from encoders.locate import VIDEO_SUFFIXES, unreadable
from encoders.ranges import Range
from engine.errors import ConfigError

BLOCK_BYTES = 1 << 20
"""Of a video that is being decoded: at 30 ms a request one stream of blocks still brings over 200 Mbit/s."""
BLOCKS_HELD = 24
CONNECT_S, READ_S, ATTEMPTS = 4, 8, 3
"""A storage that does not answer must end the row, not the worker: all attempts together stay below its time limit."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):{1,2}", re.IGNORECASE)
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"total_max_attempts": ATTEMPTS, "mode": "standard"},
        }
    },
}
_OBJECTS = frozenset({"s3", "gs"})
"""Storages without folders, whose listings take the beginning of a name."""
_SAME = {"s3a": "s3", "gcs": "gs"}
_REFUSED = frozenset({"http", "https", "ftp", "data", "github", "git", "jupyter", "reference", "blockcache"})
"""What stands in these addresses, or in the pages they list, can lead to other machines."""
_COMMON_VARIABLES = r"FSSPEC_\w+|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
_VARIABLES = {
    "s3": r"AWS_\w+",
    "gs": r"GOOGLE_\w+|GCE_METADATA_\w+|CLOUDSDK_\w+|GCSFS_\w+|STORAGE_EMULATOR_HOST",
    "az": r"AZURE_\w+",
    "abfs": r"AZURE_\w+",
    "abfss": r"AZURE_\w+",
}


def is_address(where: str) -> bool:
    """Whether this is an address and no path."""
    return "://" in where and _ADDRESS.match(where) is not None


def variables_for(where: str) -> frozenset[str]:
    """The variables of this environment that whoever reads this place needs: credentials, proxies, certificates.

    None for a local place.
    """
    if not is_address(where) or _protocol(where) == "file":
        return frozenset()
    wanted = re.compile("|".join(filter(None, (_VARIABLES.get(_protocol(where)), _COMMON_VARIABLES))))
    return frozenset(name for name in os.environ if wanted.fullmatch(name))


def _protocol(where: str) -> str:
    scheme = where.partition("://")[0].lower()
    return _SAME.get(scheme, scheme)


class Remote:
    """One place behind an address; connects in the process that reads."""

    def __init__(self, where: str) -> None:
        """Check the address.

        Raises:
            ConfigError: it is of a kind that is not read, or holds a password.
        """
        self.where = where.rstrip("/")
        self._kind = _protocol(where)
        if "::" in where or self._kind in _REFUSED:
            raise ConfigError(f"{where}: give a folder or archive on disk, or in a storage such as s3:// or gs://")
        if urlsplit(where).password is not None:
            raise ConfigError("an address with a password in it would be kept with the run; use the environment")

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.where,)

    @cached_property
    def connection(self) -> tuple[Any, str]:
        """The file system and the path in it.

        Raises:
            ConfigError: what speaks to this storage is not installed, or nothing does.
        """
        try:
            import fsspec  # noqa: PLC0415 - 30 MB and more, which only remote places need

            fs, path = fsspec.core.url_to_fs(
                self.where, use_listings_cache=False, skip_instance_cache=True, **_OPTIONS.get(self._kind, {})
            )
        except ImportError as error:
            raise ConfigError(f"{self.where} needs more packages: pip install 'reelbatch[remote]' ({error})") from error
        except ValueError as error:
            raise ConfigError(f"{self.where}: {error}") from error
        if self._kind == "s3":
            # botocore retries already; both together would outlast the row.
            fs.retries = 1
        return fs, path.rstrip("/")

    def info(self, *below: str) -> Mapping[str, Any]:
        """What the storage says of one object or folder. Raises what it raises."""
        fs, root = self.connection
        said = fs.info("/".join((root, *below)))
        assert isinstance(said, Mapping)
        return said

    def check(self) -> None:
        """Make sure that the place is there.

        Raises:
            ConfigError: it is not, or it cannot be reached.
        """
        try:
            self.info()
        except ConfigError:
            raise
        except FileNotFoundError as error:
            raise ConfigError(f"{self.where}: there is nothing at this address") from error
        except Exception as error:
            raise ConfigError(f"{self.where} cannot be read: {type(error).__name__}: {error}") from error

    def entries(self, folder: str, *, beginning: str) -> dict[str, int]:
        """The files of a folder whose names begin so, with their sizes; none if there is no such folder.

        Raises:
            RowError: the storage did not say (`media_unreadable`).
        """
        fs, root = self.connection
        path = f"{root}/{folder}" if folder else root
        try:
            # A listing of objects is empty where nothing is; if it is "not found", the whole bucket is.
            listed = _found(fs, path, beginning) if self._kind in _OBJECTS else _listed(fs, path)
        except Exception as error:
            raise unreadable(error) from error
        names = [(str(item["name"]).rpartition("/")[2], item) for item in listed]
        return {
            name: int(item["size"] or 0)
            for name, item in names
            if item["type"] == "file" and name.startswith(beginning)
        }

    def videos(self, identity: str) -> dict[str, int]:
        """Files at the top that could be the video of an id, with their sizes; the first alone if each is asked for.

        Raises:
            RowError: the storage did not say (`media_unreadable`).
        """
        if self._kind in _OBJECTS:
            return self.entries("", beginning=f"{identity}.")
        for name in (f"{identity}.{form}" for suffix in VIDEO_SUFFIXES for form in (suffix, suffix.upper())):
            if (size := self.size_of(name)) is not None:
                return {name: size}
        return {}

    def size_of(self, *below: str) -> int | None:
        """Bytes of one file, or None if there is none.

        Raises:
            RowError: the storage did not say (`media_unreadable`).
        """
        if self._kind in _OBJECTS:
            return self.entries("/".join(below[:-1]), beginning=below[-1]).get(below[-1])
        try:
            said = self.info(*below)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unreadable(error) from error
        return int(said["size"]) if said["type"] == "file" else None

    @contextmanager
    def reading(self, *below: str) -> Iterator[Callable[[int, int], bytes]]:
        """A `read` through a few blocks in memory, the next one fetched while this one is used."""
        fs, root = self.connection
        with fs.open(
            "/".join((root, *below)),
            "rb",
            block_size=BLOCK_BYTES,
            cache_type="background",
            cache_options={"maxblocks": BLOCKS_HELD},
        ) as file:

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                data = file.read(size)
                assert isinstance(data, bytes)
                return data

            yield read

    def read_many(self, pieces: Sequence[tuple[str, Range]]) -> list[bytes | Exception]:
        """Pieces of files below the place, several requests at a time; an error in the place of what it befell."""
        fs, root = self.connection
        paths = [f"{root}/{name}" if name else root for name, _ in pieces]
        starts = [offset for _, (offset, _) in pieces]
        ends = [offset + size for _, (offset, size) in pieces]
        found: list[bytes | Exception] = fs.cat_ranges(paths, starts, ends, on_error="return")
        return found


def _found(fs: Any, path: str, beginning: str) -> Sequence[Mapping[str, Any]]:
    return list(fs.find(path, maxdepth=1, prefix=beginning, detail=True).values())


def _listed(fs: Any, path: str) -> Sequence[Mapping[str, Any]]:
    try:
        found: Sequence[Mapping[str, Any]] = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return found
