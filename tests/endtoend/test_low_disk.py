"""A run on a disk that fills up and is emptied again: a real file system of a few megabytes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.commands import CLI, ROOT, environment, finished, run_arguments, simulated, write_table

pytestmark = pytest.mark.slow
ROWS = 3000
SIZE_MB = 72
FILLER = b"\0" * (SIZE_MB - 24 << 20)


def in_small_disk(disk: Path, command: list[object]) -> subprocess.Popen[str]:
    """The command with a disk of its own in that folder; skips where a user may not mount one."""
    mount = f"mount -t tmpfs -o size={SIZE_MB}m none {shlex.quote(str(disk))}"
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a disk in memory")
    line = f"{mount} && exec {shlex.join(map(str, command))}"
    return subprocess.Popen(
        [*inside, line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def held(out: Path) -> str | None:
    """Why the run waits, as its last event says."""
    try:
        last = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        why = json.loads(last)["held"]
    except (OSError, IndexError, ValueError):
        return None
    return str(why) if why else None


def test_a_run_waits_while_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    table = write_table(tmp_path / "videos.csv", ROWS)
    with simulated(tmp_path, {"latency": {"kind": "fixed", "median": 0.1}}) as provider:
        words = run_arguments(table, disk / "out", provider.url, "--concurrency", 100)
        process = in_small_disk(disk, [sys.executable, CLI, *words])
        try:
            seen = Path(f"/proc/{process.pid}/root{disk}")
            until(lambda: provider.ledger()["requests"] > 0, process)
            (seen / "filler").write_bytes(FILLER)
            until(lambda: held(seen / "out") is not None, process)
            assert "MB are left" in str(held(seen / "out"))
            until(lambda: provider.ledger()["in_flight"] == 0, process)
            waiting = provider.ledger()["requests"]
            assert waiting < ROWS
            time.sleep(1.5)
            assert provider.ledger()["requests"] == waiting
            (seen / "filler").unlink()
        except BaseException:
            process.kill()
            raise
        said = finished(process)
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == ROWS
        assert f"{ROWS:,} done" in said.err
