"""Every call of the store fails in turn; and a disk that is really full, and signals that really come between."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import FolderInUse, SinkBroken
from sinks.files import Files, write_all
from sinks.shards import ShardSink
from tests.fakes.commands import ROOT, cli, lines_of, run_arguments, simulated, write_table
from tests.fakes.records import result
from tests.soak.checks import passed
from tests.soak.failing import ERRORS, KINDS

FULL_DISK_BYTES = 256 << 10
NAMES = 100
LARGE_DISK = f"size=128m,nr_inodes={NAMES}"


@pytest.mark.slow
def test_whatever_call_fails_the_run_ends_resumably_and_nothing_is_called_done_that_is_not() -> None:
    tried = passed("failing_calls").steps
    assert {kind for kind, _ in (step.split() for step, times in tried.items() if times)} == set(KINDS)
    assert {name for _, name in (step.split() for step, times in tried.items() if times)} == {
        errno.errorcode[error] for error in ERRORS
    }


def test_writes_of_a_few_bytes_are_continued() -> None:
    assert passed("writes_of_a_few_bytes").states == 1


class Deaf(Files):
    """Takes no byte and says no error."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return 0


def test_a_disk_that_takes_nothing_is_full_and_not_waited_for() -> None:
    with pytest.raises(OSError, match="takes no more") as raised:
        write_all(Deaf(), -1, b"line\n")
    assert raised.value.errno == errno.ENOSPC


INTERRUPTED = """\
    import os, sys
    from pathlib import Path
    from sinks.shards import ShardSink
    from tests.fakes.records import result

    out = Path(sys.argv[1])
    for life in range(2):
        with ShardSink.open(out, manifest={}, shards=2, resume=life > 0) as sink:
            for row in range(8 * life, 8 * life + 8):
                sink.put(result(row))
                sink.commit()
"""
CALLS = ("fdatasync", "fsync", "write", "pwrite64", "rename", "unlink", "ftruncate")


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_calls_that_signals_interrupt_are_begun_again(tmp_path: Path, call: str) -> None:
    """From outside, by the tracer: every third such call ends with EINTR."""
    if (strace := shutil.which("strace")) is None:
        pytest.skip("needs strace")
    out = tmp_path / "run"
    command = [strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:error=EINTR:when=3+3", sys.executable, "-c", textwrap.dedent(INTERRUPTED)]
    said = subprocess.run([*command, str(out)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=50)
    if "ptrace" in said.stderr:
        pytest.skip("may not trace")
    assert said.returncode == 0, said.stderr
    assert sorted(line["row"] for line in lines_of(out)) == list(range(16))


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of its own of a quarter of a megabyte, or as a test wants it."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = getattr(request, "param", f"size={FULL_DISK_BYTES}")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(disk: Path, *, but_bytes: int) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - but_bytes))
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", [LARGE_DISK], indirect=True)
def test_a_disk_that_takes_no_more_at_a_commit_ends_the_run_with_74_and_a_resume_completes_it(
    small_disk: Path, tmp_path: Path
) -> None:
    """It has bytes and no names left: nobody can see that beforehand."""
    table, out = write_table(tmp_path / "videos.csv", 100), small_disk / "out"
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.1}}) as provider:
        ballast = small_disk / "ballast"
        ballast.mkdir()
        for name in range(NAMES - 22):
            (ballast / str(name)).touch()
        arguments = run_arguments(table, out, provider.url, "--shards", 50)
        said = cli(*arguments)
        assert said.code == 74, said.err
        assert "No space left on device" in said.err
        assert "results are safe" in said.err
        assert "--resume" in said.err
        done = int(said.err.partition(" results are safe")[0].rpartition(" ")[2])
        shutil.rmtree(ballast)
        again = cli(*arguments, "--resume")
        assert again.code == 0, again.err
    rows = [line["row"] for line in lines_of(out)]
    assert sorted(rows) == list(range(100))
    assert done < 100


@pytest.mark.slow
def test_a_full_disk_at_the_start_is_said_and_burns_no_row(small_disk: Path, tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 5), small_disk / "out"
    with simulated(tmp_path) as provider:
        ballast = fill(small_disk, but_bytes=0)
        arguments = run_arguments(table, out, provider.url)
        said = cli(*arguments)
        assert said.code in {73, 74}, said.err
        assert "No space left on device" in said.err
        assert provider.ledger()["requests"] == 0
        waited = cli(*arguments, "--max-outage", "1s")
        assert waited.code in {73, 74}, waited.err
        assert provider.ledger()["requests"] == 0
        ballast.unlink()
        waited = cli(*arguments, "--resume", "--max-outage", "1s")
        assert waited.code == 74, waited.err
        assert "waited in vain, as long as --max-outage allows, for room on the disk of --out" in waited.err
        assert provider.ledger()["requests"] == 0


def test_a_full_disk_at_a_snapshot_ends_the_life_and_nothing_is_lost(small_disk: Path) -> None:
    now_s = 0.0
    out = small_disk / "out"
    sink = ShardSink.open(out, manifest={}, shards=2, resume=False, clock=lambda: now_s)
    for row in range(20):
        sink.put(result(row))
    sink.commit()
    sink.learnt["lengths"] = "x" * FULL_DISK_BYTES
    now_s = 60.0
    with pytest.raises(SinkBroken, match=r"snapshot .* No space left on device\. All results are safe.* --resume"):
        sink.commit()
    sink.close()
    with ShardSink.open(out, manifest={}, shards=2, resume=True) as sink:
        assert (sink.statistics().done, sink.statistics().salvaged) == (20, 0)


def test_a_folder_that_takes_no_lock_file_is_named(small_disk: Path) -> None:
    fill(small_disk, but_bytes=0)
    with pytest.raises(FolderInUse, match=r"cannot be (created or )?written: No space left on device"):
        ShardSink.open(small_disk / "out", manifest={}, shards=2, resume=False)
