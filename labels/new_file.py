"""A file that has its name only once it is whole and on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine.errors import SinkBroken
from sinks.files import OS_FILES, Files, partial_of, writing_new

Put = Callable[[bytes], None]


@contextmanager
def new_file(path: Path, *, files: Files = OS_FILES) -> Iterator[Put]:
    """What takes the bytes of a new file; the folder it lies in is made if missing.

    An error in the context, ours or not, leaves what stood at the path before.

    Raises:
        SinkBroken: it cannot be written.
    """
    partial = partial_of(path)

    def checked(data: bytes) -> None:
        # Called for every line, and a context of its own would take longer than the line.
        try:
            put(data)
        except OSError as error:
            raise _broken(path, error) from error

    try:
        with ExitStack() as opened:
            with _on(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                put = opened.enter_context(writing_new(files, partial))
            yield checked
            with _on(path):
                opened.close()
                files.rename(partial, path)
    finally:
        with suppress(OSError):
            files.unlink(partial)
    try:
        files.sync_folder(path.parent)
    except OSError as error:
        raise SinkBroken(
            f"{path} is whole, but may not outlast a crash: {error.strerror}. Type the command again"
        ) from error


@contextmanager
def _on(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: OSError) -> SinkBroken:
    return SinkBroken(
        f"writing {path} failed: {error.strerror or error}. What stood there before, if anything, still does. "
        "Make room or choose another place, then type the command again"
    )
