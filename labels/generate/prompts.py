"""Prompt files: .jsonl is read where it is; the list of a .json file becomes one, beside what the run keeps."""

from __future__ import annotations

import json
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from encoders.lines import object_of
from engine.errors import ConfigError, InputError, SinkBroken
from engine.readers import JSON_SUFFIXES, open_table
from sinks.files import FOLDER_MODE, OS_FILES, replace_file
from sinks.folder import PROMPTS

MAX_LINE_BYTES = 4 << 20
"""A prompt is words; its medium is a name."""
LISTS = (".json",)


def check_file(path: Path) -> None:
    """Refuse what can be no file of prompts.

    Raises:
        ConfigError: it is missing, or of another kind.
    """
    if path.suffix.lower() not in {*JSON_SUFFIXES, *LISTS}:
        raise ConfigError(f"--prompt-file {path}: unknown kind of file; take .jsonl, or .json with a list")
    if not path.is_file():
        raise ConfigError(f"--prompt-file {path}: {'not a file' if path.exists() else 'no such file'}")


def as_lines(path: Path, folder: Path) -> Path:
    """The prompts as a file of lines: the file itself, or a copy of its list in a run folder.

    Raises:
        ConfigError: the file cannot be read.
        InputError: it holds no prompt, or no list.
        SinkBroken: the copy cannot be written.
    """
    try:
        if path.suffix.lower() not in LISTS:
            with open_table(path, whole_lines=True, max_line_bytes=MAX_LINE_BYTES) as table:
                if next(table.records(()), None) is None:
                    raise InputError(f"{path} holds no prompt; it needs one JSON object a line")
            return path
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--prompt-file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(said, list) or not said:
        raise InputError(f"{path} holds no list of prompts; a .json file is one list of objects")
    return _copied(said, folder / PROMPTS)


def _copied(prompts: list[Any], to: Path) -> Path:
    data = b"".join(json.dumps(prompt).encode() + b"\n" for prompt in prompts)
    try:
        # Another process may be reading it: a run that goes on finds the file it was told of.
        if not to.exists() or to.read_bytes() != data:
            to.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            replace_file(OS_FILES, to, data)
    except OSError as error:
        raise SinkBroken(f"{to} cannot be written: {error.strerror}; nothing was sent") from error
    return to


class Prompts:
    """The lines of a prompt file by their positions. A context manager that holds the file open.

    Eight bytes a prompt are kept: where its line begins.

    Args:
        path: the file, lines as the run reads them.
    """

    def __init__(self, path: Path) -> None:
        self._starts = array("Q")
        with open_table(path, whole_lines=True, max_line_bytes=MAX_LINE_BYTES) as table:
            for _ in table.records(()):
                place = table.here()
                assert place is not None
                self._starts.append(place.byte)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def get(self, row: int) -> dict[str, Any]:
        """What the line of a row says; nothing if it is no JSON object.

        Raises:
            SinkBroken: it cannot be read any more.
        """
        if row >= len(self._starts):
            return {}
        start = self._starts[row]
        try:
            return object_of(self._line(start).removeprefix(b"\xef\xbb\xbf").decode(errors="replace"))
        except OSError as error:
            raise SinkBroken(f"the prompt file cannot be read any more: {error.strerror}") from error

    def _line(self, start: int) -> bytes:
        size = 4096
        while True:
            data = os.pread(self._fd, size, start)
            end = data.find(b"\n")
            if end >= 0 or len(data) < size or size > MAX_LINE_BYTES:
                return data if end < 0 else data[:end]
            size *= 4
