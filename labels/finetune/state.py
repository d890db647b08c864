"""What was uploaded and started, remembered beside the training file: a command typed twice pays once.

`<train>.finetune.json` holds, for each address, the ids of files by the digest of their content, and the jobs by the
digest of all that was asked. Before a job is created it says so, with the jobs there were: should nobody live to hear
the answer, the next start looks which one is new. It holds no key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, FolderInUse, SinkBroken
from sinks.files import OS_FILES, Files, replace_file

VERSION = 1
SUFFIX = ".finetune.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Creating:
    """A job that was asked for, and of which no answer was heard."""

    training_file: str
    before: tuple[str, ...]
    """The jobs on this file that there were."""


class State:
    """The file, read once and written at each change."""

    def __init__(self, path: Path, *, base_url: str, files: Files = OS_FILES) -> None:
        """Read what is there.

        Raises:
            ConfigError: it cannot be read, or is none of ours.
        """
        self.path = path
        self._files = files
        self._all = _read(path)
        self._here: dict[str, Any] = self._all["addresses"].setdefault(
            base_url.rstrip("/"), {"files": {}, "jobs": {}, "creating": {}}
        )

    def file_id(self, digest: str) -> str | None:
        """What the file with this content is called there."""
        return _str(self._here["files"].get(digest))

    def keep_file(self, digest: str, file_id: str) -> None:
        self._here["files"][digest] = file_id
        self._write()

    def job_id(self, asked: str) -> str | None:
        """The last job that was created for this order."""
        return _str(self._here["jobs"].get(asked))

    def job_ids(self) -> frozenset[str]:
        """All jobs that are known."""
        return frozenset(map(str, self._here["jobs"].values()))

    def keep_job(self, asked: str, job_id: str) -> None:
        self._here["jobs"][asked] = job_id
        self._here["creating"].pop(asked, None)
        self._write()

    def creating(self, asked: str) -> Creating | None:
        """What was asked for without hearing the answer."""
        said = self._here["creating"].get(asked)
        if not isinstance(said, dict):
            return None
        return Creating(training_file=str(said.get("training_file")), before=tuple(map(str, said.get("before", ()))))

    def other_creating(self, asked: str, *, training_file: str) -> bool:
        """Whether another order on the same examples was never answered."""
        others = (self.creating(other) for other in self._here["creating"] if other != asked)
        return any(other is not None and other.training_file == training_file for other in others)

    def begin(self, asked: str, creating: Creating) -> None:
        """To be called before a job is asked for."""
        self._here["creating"][asked] = {"training_file": creating.training_file, "before": list(creating.before)}
        self._write()

    def forget(self, asked: str) -> None:
        """To be called when it is certain that no job came of it."""
        self._here["creating"].pop(asked, None)
        self._write()

    def _write(self) -> None:
        try:
            replace_file(self._files, self.path, orjson.dumps(self._all, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise SinkBroken(f"{self.path} cannot be written: {error.strerror}") from error


def state_path(train: Path | None, train_id: str | None) -> Path:
    """Beside the training file; for one that was uploaded already, in the folder of the command."""
    return Path(f"{train_id}{SUFFIX}") if train is None else train.with_name(train.name + SUFFIX)


def digest_of(base_url: str, body: Mapping[str, Any], contents: Sequence[str | None]) -> str:
    """What makes two orders the same: the address, every field, and what the files hold, whatever they are called."""
    said = {**body, "training_file": contents[0], "validation_file": contents[1], "address": base_url.rstrip("/")}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def alone(path: Path | None) -> Iterator[None]:
    """Keep a second command on the same training file out, which would upload and create twice.

    Raises:
        ConfigError: there is no such file.
        FolderInUse: another one is at it.
    """
    if path is None:
        yield
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"--train {path}: {error.strerror}") from error
    try:
        _lock(fd, path)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderInUse(f"another finetune is starting with {path}; nothing was sent by this one") from error
    except OSError:
        pass  # A file system without locks; what is remembered still holds for commands one after the other.


def _read(path: Path) -> dict[str, Any]:
    try:
        said = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {"version": VERSION, "addresses": {}}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except orjson.JSONDecodeError:
        said = None
    if not _is_ours(said):
        raise ConfigError(
            f"{path} should hold what was uploaded and started, and does not. Nothing was sent. Move it away if no job "
            "was started with this file; otherwise one may be started and paid for again"
        )
    return dict(said)


def _is_ours(said: object) -> bool:
    if not isinstance(said, dict) or said.get("version") != VERSION or not isinstance(said.get("addresses"), dict):
        return False
    parts = ("files", "jobs", "creating")
    return all(
        isinstance(here, dict) and all(isinstance(here.get(part), dict) for part in parts)
        for here in said["addresses"].values()
    )


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None
