"""Where answers of earlier are found: by the key of their request, in the lines of this run or in a cache of many runs.

Both are SQLite files that may be lost at any time. An answer is put in only after its line is safe, and what is found
is believed only after a look at it: of a run the file holds no more than the place of a line, and there must stand a
whole answer of that very row. Whatever else goes wrong is a miss: the row is asked for, and the user told once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from engine.types import Known, Reply, Usage
from sinks.batch import Answered
from sinks.files import FOLDER_MODE, OS_FILES
from sinks.folder import RESULTS, shard_name
from sinks.lines import RESULT_KEYS
from sinks.seen import Seen

ANSWERS = "answers.sqlite"
ANSWERS_FILES = (ANSWERS, ANSWERS + "-wal", ANSWERS + "-shm")
"""The names that SQLite gives to what stands beside a file it has open."""
FORMAT = 1
PLACE_PAGE_BYTES, ANSWER_PAGE_BYTES = 1024, 4096
"""Keys come at random, so that nearly every row of a long run changes a page of its own: small pages write less. Whole
answers would leave half of them empty."""
HELD_KB = 2 << 10
"""Of the file, by each of two connections, however large it is: keys come at random, and more would find no more."""
WAL_PAGES = 16 << 10
"""Sixteen megabytes, or four times that, until they are moved into the file."""
LOOK_S = 0.02
BUSY_S = 5.0
"""Another process that writes into the same cache is done in milliseconds."""
SALTED_BYTES = 16
KEPT = ("raw", "finish_reason", "max_tokens_used", "latency_s", "model", "usage", "cost_usd", "request_id")
"""What a cache keeps of a line: nothing of the row."""


class _Table:
    """One table in one file: keys, and what stands beside them. No method raises but `open`.

    Reads come from one thread, writes from one thread at a time, over connections of their own: in WAL mode neither
    waits for the other. The file is whole after any crash; what was put in last may be missing then.

    Args:
        path: the file.
        columns: three, beside the key.
        page_bytes: what is read and written at once.
        busy_s: how long a write waits for another process.
        reads_only: whether it is another process that makes the file and puts entries in.
    """

    def __init__(
        self, path: Path, columns: str, *, page_bytes: int, busy_s: float = BUSY_S, reads_only: bool = False
    ) -> None:
        self._reads_only = reads_only
        self._path = path
        self._columns = columns
        self._page_bytes = page_bytes
        self._busy_s = busy_s
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._stale = True
        """Whether what is read must be looked at anew: something was put in since."""
        self.trouble: str | None = None
        """Why nothing is found or kept any more."""

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            sqlite3.Error, OSError: it is damaged, not ours, or cannot be written.
        """
        if self._reads_only:
            self._reading = self._connect(0.0)
            self._ready_to_read(self._reading)
            return
        os.close(OS_FILES.open_append(self._path))  # SQLite would let everybody read it.
        until_s = time.monotonic() + self._busy_s
        while not self._opened():
            # Where two make the same file, one of them is turned away at once, whatever time it has.
            if time.monotonic() > until_s:
                raise sqlite3.OperationalError("database is locked")
            time.sleep(LOOK_S)

    def _opened(self) -> bool:
        """Open the file; False if another process is in the way."""
        try:
            self._writing = self._connect(self._busy_s)
            self._prepare(self._writing)
            self._reading = self._connect(0.0)
            self._ready_to_read(self._reading)
        except sqlite3.Error as error:
            self.close()
            if not _is_busy(error):
                raise
            return False
        return True

    def _connect(self, busy_s: float) -> sqlite3.Connection:
        # A file that is missing is made by whoever keeps it, never by who only reads.
        place = f"{self._path.absolute().as_uri()}?mode={'rw' if self._reads_only else 'rwc'}"
        return sqlite3.connect(place, timeout=busy_s, isolation_level=None, check_same_thread=False, uri=True)

    def _ready_to_read(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA query_only = {self._reads_only:d}")
        connection.execute(f"PRAGMA cache_size = -{HELD_KB}")
        connection.execute("SELECT * FROM answers LIMIT 0")

    def renew(self) -> None:
        """See what others have put in since; called by the thread that reads. They wait for who never does this."""
        self._stale = True
        if self._reading is not None and self._reading.in_transaction:
            try:
                self._reading.execute("COMMIT")
            except sqlite3.Error as error:
                self.give_up(error)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        run = connection.execute
        run(f"PRAGMA page_size = {self._page_bytes}")
        if (mode := run("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise sqlite3.OperationalError(f"its disk does not let one read while another writes (journal {mode})")
        run(f"PRAGMA cache_size = -{HELD_KB}")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == FORMAT:
            return
        if version:
            raise sqlite3.DatabaseError(f"it has format {version}")
        run("BEGIN IMMEDIATE")
        run(f"CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, {self._columns}) WITHOUT ROWID")
        run(f"PRAGMA user_version = {FORMAT}")
        run("COMMIT")

    def get(self, key: bytes) -> tuple[Any, ...] | None:
        """What stands beside a key."""
        if self._reading is None or self.trouble is not None:
            return None
        try:
            self._look_anew()
            found: tuple[Any, ...] | None = self._reading.execute(
                "SELECT * FROM answers WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            if not _is_busy(error):
                self.give_up(error)
            return None
        return found

    def _look_anew(self) -> None:
        """Read as of one moment until something is put in: taking and leaving the lock costs more than reading."""
        assert self._reading is not None
        if self._stale:
            self._stale = False
            if self._reading.in_transaction:
                self._reading.execute("COMMIT")
            self._reading.execute("BEGIN")

    def is_empty(self) -> bool:
        """Whether nothing has ever been put in."""
        try:
            first = None if self._reading is None else self._reading.execute("SELECT 1 FROM answers LIMIT 1")
            return first is not None and first.fetchone() is None
        except sqlite3.Error:
            return False

    def put(self, entries: Iterable[tuple[Any, ...]]) -> None:
        """Put entries in, newer ones in the place of older ones."""
        if self._writing is None or self.trouble is not None:
            return
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            # In the order of the table, for the sake of its pages.
            self._writing.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", sorted(entries))
            self._writing.execute("COMMIT")
            self._stale = True
        except sqlite3.Error as error:
            self.give_up(error)
            # Others may still be able to write.
            with suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")

    def give_up(self, error: Exception) -> None:
        """Find and keep nothing from now on."""
        self.trouble = self.trouble or str(error)

    def close(self) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._reading = self._writing = None


class RunAnswers:
    """Answers of earlier rows of a run folder, of all its lives; a context manager.

    Args:
        out: the folder, whose lock is held.
        shards: how many it has.
        reads_only: whether it is by another process that the lock is held, and answers are remembered.
    """

    def __init__(self, out: Path, *, shards: int, reads_only: bool = False) -> None:
        self._out = out
        self._shards = shards
        self._reads_only = reads_only
        self._table = _Table(
            out / ANSWERS,
            "row INTEGER, at INTEGER, size INTEGER",
            page_bytes=PLACE_PAGE_BYTES,
            reads_only=reads_only,
        )
        self._seen: Seen | None = None
        """Every key of the file; None if there are some from before, or others put some in."""

    def __enter__(self) -> Self:
        try:
            self._table.open()
        except (sqlite3.Error, OSError) as first:
            if self._reads_only:
                self._table.give_up(first)
                return self
            # It is nobody's but ours, and not worth more than a few calls.
            try:
                for name in ANSWERS_FILES:
                    OS_FILES.unlink(self._out / name)
                self._table.open()
            except (sqlite3.Error, OSError) as error:
                self._table.give_up(error)
        if not self._reads_only and self._table.is_empty():
            self._seen = Seen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    @property
    def trouble(self) -> str | None:
        """Why answers are not found any more, in a sentence."""
        why = self._table.trouble
        return why and f"{self._out / ANSWERS} cannot be used ({why}): rows that are alike may be asked for twice"

    def find(self, key: bytes) -> Known | None:
        """The answer to a request with this key, read from its line."""
        if not key or (self._seen is not None and not self._seen.may_hold(key)):
            return None
        found = self._table.get(key)
        if self._seen is not None:
            # The next look may be long in coming, and the log grows for as long as this one's moment is held on to.
            self._table.renew()
        if found is None:
            return None
        _, row, at, size = found
        try:
            fd = OS_FILES.open_read(self._out / shard_name(RESULTS, row % self._shards))
            try:
                line = OS_FILES.read(fd, size, at)
            finally:
                os.close(fd)
            said = orjson.loads(line)
        except (OSError, ValueError, TypeError):
            return None  # Shards that were written anew have their lines elsewhere.
        if not isinstance(said, dict) or list(said) != RESULT_KEYS or said["row"] != row or said["truncated"]:
            return None
        return _known(said, row=row)

    def renew(self) -> None:
        """Find from now on what another process has remembered."""
        self._table.renew()

    def remember(self, answered: Sequence[Answered]) -> None:
        """Note where these lines stand; they are safe."""
        if self._seen is not None:
            for one in answered:
                self._seen.add(one.key)
        self._table.put((one.key, one.row, one.at, len(one.line)) for one in answered)


class Cache:
    """Answers of many runs, in a folder that several may use at once; a context manager.

    Args:
        folder: created if missing.
        salt: what decides an answer and is not in the body: the models, the form of the answer.
        busy_s: how long another process may keep it from being written.
        reads_only: whether another process of the run remembers answers here.
    """

    def __init__(self, folder: Path, *, salt: bytes, busy_s: float = BUSY_S, reads_only: bool = False) -> None:
        self._folder = folder
        self._salt = hashlib.sha256(salt).digest()
        self._table = _Table(
            folder / ANSWERS,
            "answer BLOB, model TEXT, created TEXT",
            page_bytes=ANSWER_PAGE_BYTES,
            busy_s=busy_s,
            reads_only=reads_only,
        )

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._table.open()
        except (sqlite3.Error, OSError) as error:
            self._table.give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    @property
    def trouble(self) -> str | None:
        """Why answers are not found or kept any more, in a sentence."""
        why = self._table.trouble
        return why and f"the cache {self._folder / ANSWERS} cannot be used ({why}): the run goes on without it"

    def find(self, key: bytes) -> Known | None:
        """The answer to a request with this key, of whichever run."""
        found = self._table.get(self._salted(key))
        if found is None:
            return None
        try:
            said = orjson.loads(found[1])
            return _known(said, row=None)
        except (ValueError, TypeError, KeyError):
            return None

    def renew(self) -> None:
        """Find from now on what another process has remembered."""
        self._table.renew()

    def remember(self, answered: Sequence[Answered]) -> None:
        """Keep the answers of these lines; they are safe."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entries = []
        for one in answered:
            said = orjson.loads(one.line)
            kept = orjson.dumps({name: said[name] for name in KEPT})
            entries.append((self._salted(one.key), kept, said["model"], created))
        self._table.put(entries)

    def _salted(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, digest_size=SALTED_BYTES, key=self._salt).digest()


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether another process is in the way for a moment; the lowest byte of SQLite's codes is the kind of error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _known(said: dict[str, Any], *, row: int | None) -> Known:
    """What a line, or what is kept of one, knows.

    Raises:
        KeyError, TypeError: it is none of ours.
    """
    reply = Reply(
        text=said["raw"],
        finish_reason=said["finish_reason"],
        usage=None if said["usage"] is None else Usage(**said["usage"]),
        model=said["model"],
        request_id=said["request_id"],
        latency_s=said["latency_s"],
    )
    return Known(row=row, reply=reply, max_tokens_used=said["max_tokens_used"], cost_usd=said["cost_usd"])
