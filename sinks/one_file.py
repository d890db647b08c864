"""The rows of a run folder as one file beside it: a line a row, whatever its end, in the form of the raw record.

The folder is the truth, and this file a copy of it that people and other programs read. While a run goes on each commit
puts its rows at the end of the file; when the run ends, however it ends, the file is written anew in the order of the
input and takes the place of the old one at once. A life that goes on with a run begins likewise, without the rows that
it will try again: the file never has two lines of a row. Only a process that is killed leaves a file that lacks a
commit or ends in a torn line; the next life puts that right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from engine.errors import SinkBroken
from engine.ports import SinkStatistics
from engine.types import Record
from sinks.files import OS_FILES, Files, partial_of, write_all, writing_new
from sinks.folder import FAILURES, RESULTS, read_manifest
from sinks.lines import SHARED, line_of
from sinks.ordered import CommittedLines
from sinks.shards import ShardSink
from sinks.summary import committed_ends, read_checkpoint

GROUP_MARK = "__group_"
"""Between the id of a video and the group of questions, in the id of a chat about one group."""
FAILED = "<<REQUEST FAILED: {}>>"
"""In the place of an answer, as the scripts wrote it whose file this is."""


class Form(Protocol):
    """What becomes of a line of the run folder in the file."""

    def __call__(self, said: Mapping[str, Any], *, model: str | None) -> dict[str, Any]:
        """As `raw_record`."""
        ...


def raw_record(said: Mapping[str, Any], *, model: str | None) -> dict[str, Any]:
    """The raw record of a row.

    Args:
        said: its line, in `results/` or `failures/`.
        model: which was asked, for rows whose provider named none.
    """
    failed = "kind" in said
    identity = said["meta_id"]
    video, mark, group = identity.rpartition(GROUP_MARK)
    grouped = {"group_id": group, "original_meta_id": video} if mark and video and group else {}
    return {
        "idx": said["row"],
        # A line that is no row has no id either.
        "meta_id": identity or str(said["row"]),
        "raw": FAILED.format(said["message"]) if failed else said["raw"],
        "attempt": said["attempt"],
        "latency_s": said.get("latency_s"),
        "model": said.get("model") or model,
        "finish_reason": said.get("finish_reason"),
        "truncated": said.get("truncated"),
        "max_tokens_used": said.get("max_tokens_used"),
        **grouped,
        "status": "error" if failed else "ok",
        "error_kind": said.get("kind"),
        "http_status": said.get("status"),
        "error": said.get("message"),
        "usage": said["usage"],
        "cost_usd": said.get("cost_usd"),
        "frames": said.get("frames", []),
        "degraded": said.get("degraded"),
        "request_id": said.get("request_id"),
        **({SHARED: said[SHARED]} if SHARED in said else {}),
    }


def write_raw(
    out: Path,
    to: Path,
    *,
    wanted: Callable[[int], bool] = lambda _: True,
    files: Files = OS_FILES,
    form: Form = raw_record,
) -> int:
    """Write what a run folder holds into one file, in the order of the input; how many rows that are.

    Args:
        out: the run folder.
        to: the file; whatever stood there is replaced once the new one is whole and on the disk.
        wanted: which rows, by their ordinals.
        files: how the disk is reached.
        form: what a line becomes.

    Raises:
        ConfigError: the folder holds no run.
        SinkBroken: a committed line is damaged, or the disk failed. What stood at `to` before still does.
    """
    manifest = read_manifest(out)
    model = _only(manifest.get("settings", {}).get("model"))
    ends = committed_ends(*read_checkpoint(out))
    partial, count = partial_of(to), 0
    with CommittedLines(out, shards=manifest["shards"], ends=ends) as lines:
        for _ in lines.scan(RESULTS, FAILURES):
            pass
        try:
            with writing_new(files, partial) as put:
                for row, places in lines.rows():
                    if wanted(row):
                        # Results are scanned first, so a row's result comes first; of its failures the last one counts.
                        failed, line = lines.line(row, places[0])
                        if failed and len(places) > 1:
                            _, line = lines.line(row, places[-1])
                        put(_dumped(form(orjson.loads(line), model=model)))
                        count += 1
            files.rename(partial, to)
            files.sync_folder(to.parent)
        except OSError as error:
            raise SinkBroken(
                f"writing {to} failed: {error.strerror or error}. {out} holds every answer; once the disk is well "
                "again, go on with --resume, which writes it anew"
            ) from error
        finally:
            with suppress(OSError):
                files.unlink(partial)
    return count


class RawFile:
    """A sink that keeps its rows in a run folder and copies of them in one file. A context manager.

    Args:
        sink: the run folder, open for longer than this.
        out: where it is.
        to: the file.
        model: which is asked.
        files: how the disk is reached.
        form: what a line of the folder becomes.
    """

    def __init__(
        self,
        sink: ShardSink,
        out: Path,
        to: Path,
        *,
        model: object,
        files: Files = OS_FILES,
        form: Form = raw_record,
    ) -> None:
        self._sink = sink
        self._out = out
        self._to = to
        self._model = _only(model)
        self._files = files
        self._form = form
        self._fd = -1
        self._waiting: list[Record] = []
        self._swap = threading.Lock()
        self.trouble: str | None = None
        """Why nothing is put into the file any more; it is written anew when the run ends."""

    def __enter__(self) -> Self:
        write_raw(self._out, self._to, wanted=self._sink.is_done, files=self._files, form=self._form)
        try:
            self._fd = self._files.open_append(self._to)
        except OSError as error:
            raise SinkBroken(f"{self._to} cannot be written: {error.strerror}; nothing was sent") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close(self._fd)
        try:
            self._sink.commit()
            write_raw(self._out, self._to, files=self._files, form=self._form)
        except SinkBroken:
            # What ended the run is what its user has to hear of.
            if error is None:
                raise

    def is_done(self, row: int) -> bool:
        return self._sink.is_done(row)

    def put(self, record: Record) -> None:
        again = self._sink.is_done(record.row)
        self._sink.put(record)
        if not again:
            with self._swap:
                self._waiting.append(record)

    def commit(self) -> int:
        with self._swap:
            # All of them are put, so this commit or an earlier one makes them last.
            safe, self._waiting = self._waiting, []
        count = self._sink.commit()
        if safe and self.trouble is None:
            self._append(safe)
        return count

    def _append(self, records: list[Record]) -> None:
        lines = (self._form(orjson.loads(line_of(record)), model=self._model) for record in records)
        try:
            write_all(self._files, self._fd, b"".join(map(_dumped, lines)))
        except OSError as error:
            self.trouble = f"{self._to} cannot be written ({error.strerror}); {self._out} holds every answer"

    def close(self) -> None:
        self._sink.close()

    @property
    def learnt(self) -> dict[str, Any]:
        return self._sink.learnt

    def statistics(self) -> SinkStatistics:
        return self._sink.statistics()

    def free_bytes(self) -> int | None:
        return self._sink.free_bytes()


def _dumped(said: Mapping[str, Any]) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


def _only(model: object) -> str | None:
    """The model where there is but one."""
    return model if isinstance(model, str) else None
