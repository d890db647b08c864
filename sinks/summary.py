"""What a run folder holds, read without its lock: a run may be going on in it."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import SinkBroken
from sinks.checkpoint import LOG, SLOTS, SPENT, Checkpoint, Commit, State, restore_spent
from sinks.files import OS_FILES, reading_lines
from sinks.folder import CHECKPOINT, FAILURES, LOCK, QUARANTINE, RESULTS, read_manifest
from sinks.lines import FAILURE_KEYS, RESULT_KEYS, SHARED, has_keys
from sinks.rows import RowSet
from sinks.withdraw import INTENT

HOLDER_BYTES = 4096
"""More than a holder of the lock says of itself."""
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, zlib.error)
"""What reading a sealed file may raise whose seal is right and whose content is none of ours."""
TRIES = 5
"""A snapshot is written every half minute, and reading the checkpoint takes milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Committed rows of all lives of a run."""

    out: str
    model: str | None
    created: str | None
    done: int
    truncated: int
    """Of those, the ones whose answer was cut off."""
    shared: int
    """Of those, the ones that have another row's answer, or one from the cache."""
    failed: int
    failed_by_kind: dict[str, int]
    rows_total: int | None
    """Rows the input holds; None until a life of the run has read it to its end."""
    left: int | None
    shards: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    """Sum over the result lines."""
    unpriced_rows: int
    """Rows whose cost is not known; they are not in `cost_usd`."""
    spent: dict[str, Any] | None
    """The money of the whole run, as the engine counts it: `cost_usd` of all calls, those of rows that never ended
    included, `unknown_calls` that are not in it, and more. None if no life has said."""
    quarantine_files: int
    """Torn tails and withdrawn answers that were set aside."""
    quarantine_bytes: int
    held_by: dict[str, Any] | None
    """`pid`, `host` and `started` of the process that has the folder in use, as far as it says; None if none has."""

    def text(self) -> str:
        """For a person."""
        left = "unknown (the input has not been read to its end yet)" if self.left is None else f"{self.left:,}"
        kinds = "".join(f"\n              {count:,} {kind}" for kind, count in sorted(self.failed_by_kind.items()))
        cut = f"\n              {self.truncated:,} of them cut off (--only truncated)" if self.truncated else ""
        cut += f"\n              {self.shared:,} of them share the answer of another" if self.shared else ""
        return (
            f"run         {self.out}\nmodel       {self.model}\nstarted     {self.created}\n"
            f"done        {self.done:,}{cut}\nfailed      {self.failed:,}{kinds}\nleft        {left}\n"
            f"quarantine  {self.quarantine_files:,} files, {self.quarantine_bytes:,} bytes\n"
            f"in use      {self._holder()}\n"
            f"tokens      {self.prompt_tokens:,} in, {self.completion_tokens:,} out\n"
            f"cost        {self._money()}"
        )

    def _holder(self) -> str:
        if self.held_by is None:
            return "no"
        if "pid" not in self.held_by:
            return "by a process that does not say which"
        return f"by process {self.held_by['pid']} on {self.held_by.get('host')} since {self.held_by.get('started')}"

    def _money(self) -> str:
        """What is known, and the name of what is not."""
        if self.spent is None:
            unpriced = f" and {self.unpriced_rows:,} rows of unknown cost" if self.unpriced_rows else ""
            return f"${self.cost_usd:,.4f}{unpriced}"
        parts = [f"${self.spent.get('cost_usd', 0.0):,.4f}"]
        if unknown := self.spent.get("unknown_calls"):
            worst = self.spent.get("unknown_usd")
            parts.append(f"{unknown:,} calls of unknown cost" + (f" (worst case ${worst:,.4f})" if worst else ""))
        if unpriced_calls := self.spent.get("unpriced_calls"):
            parts.append(f"{unpriced_calls:,} calls without a known price")
        return ", and ".join(parts)


def summarise(out: Path) -> Summary:
    """Count what is committed; reads every result line once.

    Raises:
        ConfigError: the folder holds no run.
        SinkBroken: `run.json` or a committed line is damaged, or committed bytes are missing.
    """
    manifest = read_manifest(out)
    state, commits = read_checkpoint(out)
    ends = committed_ends(state, commits)
    restore_spent(state, commits)
    learnt = state.learnt
    done, kinds = RowSet(), dict[int, str]()
    tokens = Counter[str]()
    cost, unpriced, truncated, shared = 0.0, 0, 0, 0
    for name, line in committed_lines(out, ends):
        usage = line["usage"] or {}
        tokens["in"] += usage.get("prompt_tokens", 0)
        tokens["out"] += usage.get("completion_tokens", 0)
        if name.startswith(FAILURES):
            kinds[line["row"]] = line["kind"]
            continue
        done.add(line["row"])
        truncated += line["truncated"]
        shared += SHARED in line
        if line["cost_usd"] is None:
            unpriced += 1
        else:
            cost += line["cost_usd"]
    by_kind = Counter(kind for row, kind in kinds.items() if row not in done)
    failed = by_kind.total()
    total = learnt.get("rows_total")
    aside = _sizes(out / QUARANTINE)
    return Summary(
        out=str(out),
        model=manifest.get("settings", {}).get("model"),
        created=manifest.get("created"),
        done=done.count,
        truncated=truncated,
        shared=shared,
        failed=failed,
        failed_by_kind=dict(by_kind),
        rows_total=total,
        left=None if total is None else max(0, total - done.count - failed),
        shards=manifest["shards"],
        prompt_tokens=tokens["in"],
        completion_tokens=tokens["out"],
        cost_usd=cost,
        unpriced_rows=unpriced,
        spent=learnt.get(SPENT),
        quarantine_files=len(aside),
        quarantine_bytes=sum(aside),
        held_by=holder_of(out),
    )


def read_checkpoint(out: Path) -> tuple[State, list[Commit]]:
    """The newest whole snapshot and the commits after it.

    Raises:
        SinkBroken: they cannot be read.
    """
    try:
        state, commits, _ = Checkpoint(out / CHECKPOINT, OS_FILES).load()
    except (OSError, *MALFORMED) as error:
        raise SinkBroken(f"{out / CHECKPOINT} cannot be read: {error}") from error
    return state, commits


def committed_ends(state: State, commits: Iterable[Commit]) -> dict[str, int]:
    """Shard name to the end of its committed bytes, by a snapshot and the commits after it."""
    ends = dict(state.ends)
    for commit in commits:
        ends.update((name, end) for name, (end, _, _) in commit.shards.items())
    return ends


def checkpoint_bytes(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint as of one moment: read until the snapshots stood still meanwhile. Empty if missing."""
    data: dict[str, bytes] = {}
    for _ in range(TRIES):
        data = {name: _bytes(folder / name) for name in (*SLOTS, LOG, INTENT)}
        if all(_bytes(folder / slot) == data[slot] for slot in SLOTS):
            break
    return data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def holder_of(out: Path) -> dict[str, Any] | None:
    """What the process that holds the lock says of itself; None if the lock is free. The lock is not kept."""
    try:
        fd = os.open(out / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(OSError, ValueError):
            said = orjson.loads(os.pread(fd, HOLDER_BYTES, 0))
            return said if isinstance(said, dict) else {}
        return {}
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(fd)


def damaged(path: Path, at: int) -> SinkBroken:
    """A committed line of this file that is none."""
    return SinkBroken(f"{path}: the committed line at byte {at} is damaged")


def missing(path: Path, size: int, end: int) -> SinkBroken:
    """A file that is shorter than what was committed."""
    return SinkBroken(f"{path} has {size} bytes, {end} were committed: committed bytes are missing")


def said_by(line: bytes, *, failed: bool) -> dict[str, Any] | None:
    """What a whole line of ours says, or None."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    keys = FAILURE_KEYS if failed else RESULT_KEYS
    return said if isinstance(said, dict) and has_keys(said, keys) and line.endswith(b"\n") else None


def both(one: RowSet, other: RowSet) -> int:
    """How many rows are in both."""
    return one.count - one.without(other).count


def _sizes(folder: Path) -> list[int]:
    """Of each file in a folder that others may be writing in."""
    sizes: list[int] = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                sizes.append(path.stat().st_size)
    return sizes


def committed_lines(out: Path, ends: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every committed line as (shard name, object), results first."""
    for name in sorted(ends, key=lambda name: (not name.startswith(RESULTS), name)):
        path, end, at = out / name, ends[name], 0
        try:
            if (size := path.stat().st_size) < end:
                raise missing(path, size, end)
            with reading_lines(OS_FILES, path, end) as lines:
                for line in lines:
                    said = said_by(line, failed=name.startswith(FAILURES))
                    if said is None:
                        raise damaged(path, at)
                    at += len(line)
                    yield name, said
        except OSError as error:
            raise SinkBroken(f"{path} cannot be read: {error.strerror}; {end} bytes were committed") from error
