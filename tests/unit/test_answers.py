"""The index of a run and the cache of many, when something is wrong with them: a miss, and one sentence."""

from __future__ import annotations

import calendar
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from sinks.answers import ANSWERS, ANSWERS_FILES, PLACE_PAGE_BYTES, WAL_PAGES, Cache, RunAnswers
from sinks.batch import Answered
from sinks.lines import line_of
from sinks.shards import ShardSink
from tests.fakes.records import cut, result

KEY, OTHER = b"k" * 16, b"o" * 16
ROOT = Path(__file__).parent.parent.parent


def open_run(out: Path, only: frozenset[str] | None = None) -> ShardSink:
    return ShardSink.open(out, manifest={}, shards=2, resume=(out / "run.json").exists(), only=only)


def run_of(out: Path, *texts: str) -> Path:
    """A run whose rows have these answers and their number as a key."""
    with open_run(out) as sink, RunAnswers(out, shards=2) as answers:
        sink.remember = answers.remember
        for row, text in enumerate(texts):
            sink.put(result(row, text, key=bytes([row]) * 16))
        sink.commit()
    return out


def answered(text: str = "yes", key: bytes = KEY) -> Answered:
    line = line_of(result(5, text))
    return Answered(key=key, row=5, name="results/shard-00001.jsonl", at=0, line=line)


def test_the_index_of_a_run_is_known_to_its_next_life(tmp_path: Path) -> None:
    out = run_of(tmp_path / "run", "a", "b")
    with RunAnswers(out, shards=2) as answers:
        known = answers.find(bytes([1]) * 16)
    assert known is not None
    assert (known.row, known.reply.text) == (1, "b")


@pytest.mark.parametrize(
    "damage", ["garbage", "zeros", "cut", "a newer format", "another table", "a link to elsewhere"]
)
def test_a_damaged_index_is_begun_anew_without_a_word(tmp_path: Path, damage: str) -> None:
    out = run_of(tmp_path / "run", "a", "b")
    path = out / ANSWERS
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(8192))
        case "zeros":
            path.write_bytes(bytes(8192))
        case "cut":
            path.write_bytes(path.read_bytes()[:1500])
        case "a newer format":
            with closing(sqlite3.connect(path)) as file:
                file.execute("PRAGMA user_version = 99")
        case "another table":
            with closing(sqlite3.connect(path)) as file:
                file.execute("DROP TABLE answers")
        case "a link":
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere")
    with open_run(out) as sink, RunAnswers(out, shards=2) as answers:
        sink.remember = answers.remember
        assert answers.trouble is None
        sink.put(result(4, "new", key=KEY))
        sink.commit()
        known = answers.find(KEY)
        assert known is not None
        assert known.reply.text == "new"
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_where_another_line_stands_now_is_a_miss(tmp_path: Path) -> None:
    out = run_of(tmp_path / "run", "a", "b", "c")
    shard = out / "results" / "shard-00000.jsonl"
    first, second = shard.read_bytes().splitlines(keepends=True)
    assert len(first) == len(second)
    shard.write_bytes(second + first)
    with RunAnswers(out, shards=2) as answers:
        assert answers.find(bytes([0]) * 16) is None
        assert answers.find(bytes([2]) * 16) is None
        assert answers.trouble is None


def test_lines_that_moved_when_others_were_withdrawn_are_asked_for_again_and_found_then(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with open_run(out) as sink, RunAnswers(out, shards=2) as answers:
        sink.remember = answers.remember
        sink.put(cut(0))
        sink.put(result(2, "kept", key=KEY))
    with open_run(out, frozenset({"truncated"})) as sink, RunAnswers(out, shards=2) as answers:
        sink.remember = answers.remember
        assert answers.find(KEY) is None
        sink.put(result(0, "again", key=KEY))
        sink.commit()
        known = answers.find(KEY)
    assert known is not None
    assert (known.row, known.reply.text) == (0, "again")


def test_a_shard_that_is_gone_is_a_miss(tmp_path: Path) -> None:
    out = run_of(tmp_path / "run", "a")
    (out / "results" / "shard-00000.jsonl").unlink()
    with RunAnswers(out, shards=2) as answers:
        assert answers.find(bytes(16)) is None


def test_an_index_that_cannot_be_made_says_so_once_and_finds_nothing(tmp_path: Path) -> None:
    out = run_of(tmp_path / "run", "a")
    for name in ANSWERS_FILES:
        (out / name).unlink(missing_ok=True)
    (out / ANSWERS).mkdir()
    with RunAnswers(out, shards=2) as answers:
        assert answers.trouble is not None
        assert str(out / ANSWERS) in answers.trouble
        answers.remember([answered()])
        assert answers.find(KEY) is None


def test_index_and_cache_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    out = run_of(tmp_path / "run", "a")
    with RunAnswers(out, shards=2) as index, Cache(tmp_path / "cache", salt=b"") as cache:
        index.remember([answered()])
        cache.remember([answered()])
        found = [path for folder in (out, tmp_path / "cache") for path in folder.glob(ANSWERS + "*")]
        assert len(found) == 6
        for path in (*found, tmp_path / "cache"):
            assert not path.stat().st_mode & 0o077, path
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [ANSWERS]


def test_a_cache_keeps_the_answer_and_nothing_of_the_row(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"") as cache:
        cache.remember([answered("the answer")])
    data = (tmp_path / "cache" / ANSWERS).read_bytes()
    assert b"the answer" in data
    assert b"id-5" not in data
    assert b"meta_id" not in data
    with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS)) as file:
        ((model, created),) = file.execute("SELECT model, created FROM answers").fetchall()
    assert model == "m"
    assert abs(time.time() - calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ"))) < 60


def test_answers_to_other_models_or_other_forms_are_not_those_looked_for(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"one") as cache:
        cache.remember([answered()])
        assert cache.find(KEY) is not None
    with Cache(tmp_path / "cache", salt=b"two") as cache:
        assert cache.find(KEY) is None


@pytest.mark.parametrize("damage", ["garbage", "a newer format", "a file in its place"])
def test_a_cache_that_is_none_is_left_alone_and_the_run_goes_on(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache"
    path = folder / ANSWERS
    if damage == "a file in its place":
        path = folder
        path.write_text("mine")
    else:
        with Cache(folder, salt=b"") as cache:
            cache.remember([answered()])
        if damage == "garbage":
            path.write_bytes(os.urandom(8192))
        else:
            with closing(sqlite3.connect(path)) as file:
                file.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with Cache(folder, salt=b"") as cache:
        assert cache.trouble is not None
        assert "the run goes on without it" in cache.trouble
        assert cache.find(KEY) is None
        cache.remember([answered()])
    assert path.read_bytes() == before, "somebody's file was changed"


def test_an_entry_that_cannot_be_read_is_a_miss(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"") as cache:
        cache.remember([answered()])
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS)) as file:
            for value in (b"{", b"[]", b"{}", b'{"raw":3}', None):
                file.execute("UPDATE answers SET answer = ?", (value,))
                file.commit()
                assert cache.find(KEY) is None
        assert cache.trouble is None


def test_a_cache_that_another_holds_for_too_long_is_done_without(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"", busy_s=0.05) as cache:
        cache.remember([answered()])
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert cache.find(KEY) is not None, "a writer kept a reader out"
            cache.remember([answered(key=OTHER)])
        assert cache.trouble is not None
        assert "locked" in cache.trouble


def test_a_cache_that_cannot_be_written_does_not_keep_others_from_it(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"") as cache:
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS)) as file:
            file.execute("DROP TABLE answers")
        cache.remember([answered()])
        assert cache.trouble is not None
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS, timeout=0.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")


def test_a_cache_damaged_while_it_is_used_is_a_miss_from_then_on(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache", salt=b"") as cache:
        for number in range(200):
            cache.remember([answered("x" * 5000, key=number.to_bytes(16, "big"))])
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "cache" / ANSWERS).open("r+b") as file:
            file.seek(1024)
            file.write(os.urandom(400 << 10))
        with closing(sqlite3.connect(tmp_path / "cache" / ANSWERS)) as other:
            # A change of another connection makes the reader look at the file again.
            other.execute("PRAGMA user_version = 1")
        found = [cache.find(number.to_bytes(16, "big")) for number in range(200)]
        assert cache.trouble is not None
        assert all(known is None or known.reply.text == "x" * 5000 for known in found)


OPENER = """
import sys
from pathlib import Path
from sinks.answers import Cache
from tests.unit.test_answers import answered
print("ready", flush=True)
sys.stdin.read()
for number in range(12):
    with Cache(Path(sys.argv[1]) / str(number), salt=b"") as cache:
        cache.remember([answered()])
        assert cache.trouble is None, cache.trouble
"""


@pytest.mark.slow
def test_a_cache_may_be_made_by_several_at_the_same_moment(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENER, str(tmp_path)]
    openers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.close()
    for opener in openers:
        with opener:
            assert opener.wait(40) == 0


WRITER = """
import sys
from pathlib import Path
from sinks.answers import Cache
from tests.unit.test_answers import answered
first = int(sys.argv[2])
with Cache(Path(sys.argv[1]), salt=b"") as cache:
    for batch in range(40):
        cache.remember([answered("x" * 300, key=(first + batch * 5 + at).to_bytes(16, "big")) for at in range(5)])
    assert cache.trouble is None, cache.trouble
"""


@pytest.mark.slow
def test_processes_write_into_one_cache_at_the_same_time(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(1000 * number)], cwd=ROOT)
        for number in range(3)
    ]
    assert [writer.wait(40) for writer in writers] == [0, 0, 0]
    with Cache(tmp_path / "cache", salt=b"") as cache:
        for number in range(3):
            for at in range(200):
                assert cache.find((1000 * number + at).to_bytes(16, "big")) is not None


def test_the_log_of_a_long_run_is_taken_into_its_file_though_an_answer_was_looked_for_early(tmp_path: Path) -> None:
    rng = random.Random(1)
    (tmp_path / "run").mkdir()
    with RunAnswers(tmp_path / "run", shards=2) as answers:
        answers.remember([answered()])
        answers.find(KEY)
        for _ in range(100):
            answers.remember([answered(key=rng.randbytes(16)) for _ in range(1000)])
        log_mb = (tmp_path / "run" / f"{ANSWERS}-wal").stat().st_size / 2**20
    # Each key changes a page or two of a kilobyte.
    assert log_mb < 3 * WAL_PAGES * PLACE_PAGE_BYTES / 2**20
