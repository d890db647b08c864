"""The run folder itself: who may write in it, and which run it holds."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, FolderInUse, ResumeMismatch, SinkBroken
from sinks.files import FILE_MODE, FOLDER_MODE, Files, replace_file
from sinks.mounts import WAY_OUT, must_be_tried, try_out

FORMAT = 1
MANIFEST, LOCK = "run.json", "run.lock"
RESULTS, FAILURES, CHECKPOINT, QUARANTINE = "results", "failures", "checkpoint", "quarantine"
SERVER_LOGS = ("server.log", "server.log.1")
"""What a server has said that a run started, before there was anything else to write; the older part last."""
PROMPTS, ANSWERS = "prompts.jsonl", "answers.jsonl"
"""What `generate` keeps beside: a list of prompts as lines, and answers on their way to a list."""
FOLDERS = (RESULTS, FAILURES, CHECKPOINT, QUARANTINE)
INPUT, INPUT_BEFORE, REVISION = "input", "input_before", "revision"
MEASURED = "measured"
"""What calls at the start of a run found out about the provider."""
INFORMATIVE = frozenset({"path", "mtime_ns"})
"""Fields of the input that may differ: a file that was moved or touched is the same input."""


def shard_name(folder: str, number: int) -> str:
    return f"{folder}/shard-{number:05d}.jsonl"


class FolderLock:
    """The kernel's lock on `run.lock`: gone with the process that holds it, however that ends.

    Args:
        out: the run folder; created if missing.

    Raises:
        FolderInUse: another process holds it, it cannot be written, or its file system cannot hold a run.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._fd = -1
        try:
            untried = must_be_tried(out)
            out.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._fd = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise FolderInUse(
                f"the run folder {out} cannot be created or written: {error.strerror}; give an --out that can"
            ) from error
        try:
            self._take(untried=untried)
        except BaseException:
            self.release()
            raise

    def _take(self, *, untried: bool) -> None:
        out = self._out
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"the run folder {out} is in use by {_holder(self._fd)}; wait for it or stop it first"
            ) from None
        except OSError as error:
            raise FolderInUse(f"the file system of {out} has no locks ({error.strerror}). {WAY_OUT}") from error
        if untried:
            try_out(out, lock=LOCK)
        said = {"pid": os.getpid(), "host": socket.gethostname(), "started": _now()}
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, orjson.dumps(said), 0)
        except OSError as error:
            raise FolderInUse(f"the run folder {out} cannot be written: {error.strerror}") from error

    def lost(self) -> str | None:
        """Why the path no longer leads to the folder that is held, or None: what is in it is opened by name."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), (self._out / LOCK).lstat()):
                return None
        return (
            f"the run folder {self._out} was moved, removed or replaced while the run went on; nothing more was "
            "written. What was committed is wherever that folder is now: move it back"
        )

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_manifest(out: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        ConfigError: the folder holds no run.
        SinkBroken: the file is damaged.
    """
    try:
        data = (out / MANIFEST).read_bytes()
    except OSError as error:
        raise ConfigError(f"{out} holds no run ({MANIFEST}: {error.strerror})") from error
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise SinkBroken(f"{out / MANIFEST} is damaged: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("shards"), int):
        raise SinkBroken(f"{out / MANIFEST} is damaged: it names no shards")
    return said


def start_folder(out: Path, manifest: Mapping[str, object], *, shards: int, files: Files) -> None:
    """Make a folder a run's: its subfolders, then its manifest, which is what makes it one."""
    known = {LOCK, MANIFEST + ".partial", *SERVER_LOGS, PROMPTS, PROMPTS + ".partial", *FOLDERS}
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in known)
    filled = [name for name in FOLDERS if (out / name).is_dir() and any((out / name).iterdir())]
    if foreign or filled:
        raise FolderInUse(
            f"{out} is not empty ({', '.join((foreign + filled)[:3])}) and holds no run; take another --out"
        )
    try:
        for name in FOLDERS:
            files.make_folder(out / name)
        said = dict(manifest) | {"format": FORMAT, "shards": shards, "created": _now()}
        replace_file(files, out / MANIFEST, orjson.dumps(said, option=orjson.OPT_INDENT_2))
        files.sync_folder(out.parent)
    except OSError as error:
        raise FolderInUse(f"the run folder {out} cannot be written: {error.strerror}") from error


def continue_folder(out: Path, manifest: Mapping[str, object], *, resume: bool, files: Files) -> int:
    """Check that the run in the folder may be gone on with; its number of shards.

    Where the manifest says that the input has grown, `run.json` is replaced by its next revision.
    """
    if not resume:
        raise FolderInUse(f"{out} holds a run already; go on with it by --resume, or take another --out")
    stored = read_manifest(out)
    check_same_run(out, stored, manifest)
    if _extends(stored, manifest):
        grown = {name: manifest[name] for name in (INPUT, INPUT_BEFORE)} | {REVISION: stored.get(REVISION, 1) + 1}
        try:
            replace_file(files, out / MANIFEST, orjson.dumps(stored | grown, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise SinkBroken(f"{out / MANIFEST} cannot be written: {error.strerror}; nothing was changed") from error
    return int(stored["shards"])


def note_measured(out: Path, found: Mapping[str, object], *, files: Files) -> None:
    """Add to what `run.json` says was measured of the provider; only while the folder is held.

    Raises:
        SinkBroken: it cannot be read or written; what stood there still does.
    """
    stored = read_manifest(out)
    measured = {**stored.get(MEASURED, {}), **found}
    try:
        replace_file(files, out / MANIFEST, orjson.dumps(stored | {MEASURED: measured}, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise SinkBroken(f"{out / MANIFEST} cannot be written: {error.strerror}; nothing was changed") from error


def extension_of(stored: Mapping[str, Any]) -> dict[str, object]:
    """What to add to a manifest whose input is that of a stored run with more rows at its end."""
    return {INPUT_BEFORE: [*stored.get(INPUT_BEFORE, ()), stored.get(INPUT)]}


def _extends(stored: Mapping[str, Any], manifest: Mapping[str, object]) -> bool:
    return INPUT_BEFORE in manifest and manifest[INPUT_BEFORE] == extension_of(stored)[INPUT_BEFORE]


def check_same_run(
    out: Path,
    stored: Mapping[str, Any],
    manifest: Mapping[str, object],
    *,
    about_input: Sequence[str] | None = None,
) -> None:
    """Refuse to go on with a run whose input or settings differ.

    Args:
        out: the run folder.
        stored: what its `run.json` says.
        manifest: what is asked for now.
        about_input: how the inputs differ, by someone who knows more of it than the two say; None compares them here.

    Raises:
        ResumeMismatch: names every field that differs.
    """
    if stored.get("format", 0) > FORMAT:
        raise ResumeMismatch(f"{out} was written by a newer version of Reelbatch; use that one")
    # Through JSON once, so that tuples and enums compare as what the file holds.
    wanted = orjson.loads(orjson.dumps(dict(manifest)))
    parts = ["settings"] if about_input is not None or _extends(stored, manifest) else [INPUT, "settings"]
    differences = [f"  {said}" for said in about_input or ()]
    differences += [
        f"  {name}: the run has {_short(old)}, now it is {_short(new)}"
        for part in parts
        for name, old, new in _differences(part, stored.get(part), wanted.get(part))
    ]
    if differences:
        raise ResumeMismatch(
            f"{out} holds a run with other settings or another input:\n"
            + "\n".join(differences)
            + "\nNothing was changed. Go on with the old values, or start a new run with another --out"
        )


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in INFORMATIVE:
                yield from _differences(f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield name, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004 - one line of a terminal


def _holder(fd: int) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = orjson.loads(os.pread(fd, 4096, 0))
        return f"process {said['pid']} on {said['host']} since {said['started']}"
    return "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
