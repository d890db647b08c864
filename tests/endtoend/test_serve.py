"""`run --serve`: the server comes up before the first row, and nothing of it is left however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.commands import CLI, KEY, ROOT, cli, environment, lines_of, write_table
from tests.fakes.serving import command, free_port, is_free, left_after, living, pids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ROWS = 40


class Job:
    """A run with a server of its own."""

    def __init__(self, folder: Path, *server: object) -> None:
        self.folder, self.out, self.port = folder, folder / "out", free_port()
        self._table = write_table(folder / "videos.csv", ROWS)
        self.server = server

    def arguments(self, *more: object) -> list[str]:
        serve = command(self.folder, self.port, *self.server)
        words = ["run", "--input", self._table, "--out", self.out, "--codebook", "standard", "--serve", serve]
        return [*map(str, words), "--workers", "1", *map(str, more)]

    def start(self, *more: object) -> subprocess.Popen[str]:
        """In a session of its own, as from a terminal of its own."""
        return subprocess.Popen(
            [sys.executable, str(CLI), *self.arguments(*more)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )

    def log(self) -> str:
        path = self.out / "server.log"
        return path.read_text() if path.exists() else ""

    def left(self) -> list[int]:
        return living(pids(self.folder))

    def rows_done(self) -> list[int]:
        return sorted(line["row"] for line in lines_of(self.out))


def until(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_brings_its_server_and_asks_its_first_model_without_any_key(tmp_path: Path) -> None:
    job = Job(tmp_path, "--slow", 1.0, "--forks")
    said = cli(*job.arguments(), env=environment(TOGETHER_API_KEY=KEY))
    assert said.code == 0, said.err
    assert job.rows_done() == list(range(ROWS))
    assert {line["model"] for line in lines_of(job.out)} == {"tiny/first"}
    assert "authorization None" in job.log()
    assert KEY not in job.log()
    assert job.left() == []
    assert is_free(job.port)
    assert cli("verify", job.out).code == 0


def test_a_server_that_does_not_start_ends_with_69_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    job = Job(tmp_path, "--dies-at-once")
    said = cli(*job.arguments())
    assert said.code == 69
    assert "no such model, says the fake" in said.err
    job.server = ()
    said = cli(*job.arguments())
    assert said.code == 0, said.err
    assert job.rows_done() == list(range(ROWS))


def test_a_server_that_dies_stops_the_run_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    job = Job(tmp_path, "--dies-after", 10)
    began_s = time.monotonic()
    said = cli(*job.arguments("--concurrency", 2))
    assert said.code == 75, said.err
    assert time.monotonic() - began_s < 40, "it waited for a server that will not come back"
    assert "CUDA out of memory, says the fake" in said.err
    assert "--resume" in said.err
    assert 0 < len(job.rows_done()) <= 10
    assert not lines_of(job.out, "failures")
    job.server = ()
    said = cli(*job.arguments("--resume"))
    assert said.code == 0, said.err
    assert job.rows_done() == list(range(ROWS))


def test_ctrl_c_reaches_the_run_and_not_the_server_so_that_answers_in_flight_arrive(tmp_path: Path) -> None:
    job = Job(tmp_path, "--latency", 1.0)
    process = job.start("--concurrency", 4)
    until(lambda: "call 2" in job.log(), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "Stopped by SIGINT" in err
    assert len(job.rows_done()) >= 2
    assert job.left() == []
    assert is_free(job.port)


def test_two_signals_leave_nothing_of_a_server_that_heeds_none(tmp_path: Path) -> None:
    job = Job(tmp_path, "--latency", 5.0, "--stubborn", "--forks")
    process = job.start()
    until(lambda: "call 1" in job.log(), process)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert left_after(pids(tmp_path), 10) == []
    assert is_free(job.port)


def test_a_signal_while_the_server_loads_ends_both(tmp_path: Path) -> None:
    job = Job(tmp_path, "--slow", 600)
    process = job.start()
    until(lambda: "loading" in job.log(), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "Stopped by SIGTERM" in err
    assert job.left() == []


def test_kill_9_leaves_no_server_and_the_run_goes_on_later(tmp_path: Path) -> None:
    job = Job(tmp_path, "--latency", 0.5, "--forks")
    process = job.start("--concurrency", 2)
    until(lambda: "call 3" in job.log(), process)
    process.kill()
    process.communicate()
    assert left_after(pids(tmp_path), 25) == []
    assert is_free(job.port)
    job.server = ()
    said = cli(*job.arguments("--resume"))
    assert said.code == 0, said.err
    assert job.rows_done() == list(range(ROWS))


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--codebook", "no-such-book"), 64, "no-such-book"),
        (("--endpoint", "http://127.0.0.1:9/v1,model=m"), 64, "--endpoint"),
        (("--serve-timeout", 0), 64, "--serve-timeout"),
        (("--base-url", "https://api.openai.com/v1"), 64, "on this machine"),
    ],
)
def test_a_wrong_flag_shows_before_the_server_is_started(
    tmp_path: Path, more: tuple[object, ...], code: int, words: str
) -> None:
    job = Job(tmp_path)
    arguments = job.arguments(*more)
    if "--codebook" in more:
        del arguments[arguments.index("--codebook") : arguments.index("--codebook") + 2]
    said = cli(*arguments)
    assert said.code == code, said.err
    assert words in said.err
    assert pids(tmp_path) == []


def test_a_folder_that_holds_a_run_is_refused_before_the_server_is_started(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert cli(*job.arguments()).code == 0
    (tmp_path / "pids").unlink()
    said = cli(*job.arguments())
    assert said.code == 73, said.err
    assert "--resume" in said.err
    assert pids(tmp_path) == []
