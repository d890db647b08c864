"""Answers that were cut off, taken out of `results/` so that their rows can be asked for again.

A row must never have two lines in `results/`, so the old one goes before a new one can come. Nothing else in a run
folder takes committed bytes away, hence the order, of which every step is on the disk before the next begins:

1. Each row gets a failure line of kind `truncated`, by ordinary commits, before anything here is called. A row that has
   a line in both places counts as done: a crash changes nothing.
2. The lines, whole, go to `quarantine/`; each shard without them is written beside it as a `.partial` file.
3. The intent is put into `checkpoint/`, sealed: the new end of each such shard, the rows, and the whole state that
   shall hold. From here on the withdrawal has happened, whoever completes it.
4. The partial files take the places of the shards; then both snapshots become the new state, and the commit log, whose
   checksums speak of the old bytes, is emptied; then the intent goes.

Step 4 depends on nothing but the intent and on files that have lasted, and doing it twice is doing it once, so it may
be killed anywhere and begun again. Partial files without an intent belong to a withdrawal that never happened: they go.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from engine.errors import SinkBroken
from sinks.checkpoint import Checkpoint, State, crc32c, sealed, state_as_json, state_from_json, unsealed
from sinks.files import PARTIAL, Files, partial_of, reading_lines, replace_file, writing_new
from sinks.folder import CHECKPOINT, QUARANTINE, RESULTS
from sinks.lines import cut_answer
from sinks.rows import RowSet

INTENT = "withdrawal"
DIGEST_CHARS = 16


@dataclass(slots=True)
class Intent:
    """A withdrawal that is decided and may not be complete."""

    ends: dict[str, int]
    """New size of each shard that was written anew."""
    rows: RowSet
    """Rows whose results are withdrawn."""
    state: State
    """What holds once it is complete."""


def encode_intent(intent: Intent) -> bytes:
    rows = base64.b64encode(intent.rows.packed()).decode()
    return sealed(orjson.dumps({"ends": intent.ends, "rows": rows, "state": state_as_json(intent.state)}))


def decode_intent(data: bytes) -> Intent | None:
    """A whole intent, or None."""
    body = unsealed(data)
    if body is None:
        return None
    said = orjson.loads(body)
    rows = RowSet.unpacked(base64.b64decode(said["rows"]))
    return Intent(ends=said["ends"], rows=rows, state=state_from_json(said["state"]))


class Withdrawals:
    """Those of one run folder, by the process that holds its lock."""

    def __init__(self, out: Path, *, files: Files, checkpoint: Checkpoint) -> None:
        self._out = out
        self._files = files
        self._checkpoint = checkpoint
        self._intent = out / CHECKPOINT / INTENT

    def settle(self) -> list[str]:
        """Complete what an earlier life decided, clear away what it did not; what was done, in sentences.

        Raises:
            SinkBroken: a file that had lasted is gone.
        """
        notes = []
        if self._intent.exists():
            data = self._intent.read_bytes()
            intent = decode_intent(data)
            if intent is None:
                place = f"{CHECKPOINT}-{INTENT}.{crc32c(data):08x}"
                self._files.rename(self._intent, self._out / QUARANTINE / place)
                notes.append(f"a damaged {CHECKPOINT}/{INTENT} went to {QUARANTINE}/{place}")
            else:
                self._complete(intent)
                notes.append(f"the withdrawal of {intent.rows.count} answers that were cut off was completed")
        for folder in (RESULTS, QUARANTINE):
            for partial in sorted((self._out / folder).glob("*" + PARTIAL)):
                self._files.unlink(partial)
        return notes

    def withdraw(self, state: State, *, rows: RowSet, shards: list[str]) -> State:
        """Take the cut answers of these rows out of these shards; every row has its failure line already.

        Returns:
            The state that holds now.

        Raises:
            SinkBroken: a shard is shorter than what was committed. Nothing has changed.
        """
        ends = {name: self._rewrite(name, state.ends[name], rows) for name in shards}
        for folder in (QUARANTINE, RESULTS):
            self._files.sync_folder(self._out / folder)
        after = replace(
            state,
            # A number of its own tells the new snapshots from the old ones.
            seq=state.seq + 1,
            ends=state.ends | ends,
            results=state.results.without(rows),
            superseded=state.superseded - rows.count,
        )
        intent = Intent(ends=ends, rows=rows, state=after)
        replace_file(self._files, self._intent, encode_intent(intent))
        self._complete(intent)
        return after

    def _rewrite(self, name: str, end: int, rows: RowSet) -> int:
        """Write a shard without the rows beside it, and their lines to quarantine; the size of what is left."""
        path = self._out / name
        aside = self._out / QUARANTINE / f"{name.replace('/', '-')}{PARTIAL}"
        digest, kept, moved = hashlib.sha256(), 0, 0
        with (
            reading_lines(self._files, path, end) as lines,
            writing_new(self._files, partial_of(path)) as keep,
            writing_new(self._files, aside) as set_aside,
        ):
            for line in lines:
                said = cut_answer(line)
                if said is not None and said["row"] in rows:
                    set_aside(line)
                    digest.update(line)
                    moved += len(line)
                else:
                    keep(line)
                    kept += len(line)
        if kept + moved != end:
            raise SinkBroken(f"{path} has {kept + moved} bytes, {end} were committed: committed bytes are missing")
        # Named by what it holds: a withdrawal that is begun again leaves no second copy.
        place = f"{name.replace('/', '-')}.withdrawn.{digest.hexdigest()[:DIGEST_CHARS]}"
        self._files.rename(aside, self._out / QUARANTINE / place)
        return kept

    def _complete(self, intent: Intent) -> None:
        waiting = [name for name in intent.ends if self._waits(name, intent.ends[name])]
        for name in waiting:
            self._files.rename(partial_of(self._out / name), self._out / name)
        self._files.sync_folder(self._out / RESULTS)
        self._checkpoint.restart(intent.state)
        self._files.unlink(self._intent)
        self._files.sync_folder(self._out / CHECKPOINT)

    def _waits(self, name: str, end: int) -> bool:
        """Whether a shard's new file has yet to take its place; one of the two has the size the intent says."""
        partial = partial_of(self._out / name)
        waits = partial.exists()
        found = partial if waits else self._out / name
        if (size := found.stat().st_size) != end:
            raise SinkBroken(
                f"{found} has {size} bytes instead of {end}: a withdrawal that was begun cannot be completed. "
                "Nothing was changed; restore the file from a copy"
            )
        return waits
