"""A server that a command starts: waited for, watched, and ended with it, whatever either of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from engine.errors import AuthRejected, ConfigError, ProviderDown
from labels.serve.address import ServePlan, first_model, is_healthy, serve_plan
from labels.serve.guard import LAST_WORDS_BYTES, LOG_BYTES, Log
from labels.serve.server import LocalServer, served
from tests.fakes.commands import ROOT
from tests.fakes.serving import command, free_port, is_free, left_after, living, pids

slow = [pytest.mark.slow, pytest.mark.timeout(90)]
linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")


def plan(folder: Path, *more: object, timeout_s: float = 30.0) -> ServePlan:
    text = command(folder, free_port(), *more)
    return serve_plan(text, base_url=None, log=folder / "server.log", timeout_s=timeout_s)


def port_of(given: ServePlan) -> int:
    return int(given.base_url.removesuffix("/v1").rpartition(":")[2])


class Listener:
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("more", "base_url", "expected"),
    [
        ("", None, "http://127.0.0.1:8000/v1"),
        ("--port 8123", None, "http://127.0.0.1:8123/v1"),
        ("--port=8123 --seed 1", None, "http://127.0.0.1:8123/v1"),
        ("--port 8123", "http://localhost:9/v1/", "http://localhost:9/v1"),
        ("--port nine", "http://127.0.0.1:9", "http://127.0.0.1:9/v1"),
    ],
)
def test_the_address_is_the_one_given_or_the_port_of_the_command(
    more: str, base_url: str | None, expected: str
) -> None:
    if base_url is not None:
        more = ""
    found = serve_plan(f"{sys.executable} -m server {more}", base_url=base_url, log=Path("log"), timeout_s=1)
    assert found.base_url == expected


@pytest.mark.parametrize(
    ("text", "base_url", "words"),
    [
        ("", None, "is empty"),
        ("vllm 'serve", None, "No closing quotation"),
        ("no-such-program serve", None, "env NAME=VALUE"),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve", None, "env NAME=VALUE"),
        (f"{sys.executable} --port nine", None, "'nine' is no port"),
        (f"{sys.executable} --port 70000", None, "'70000' is no port"),
        (sys.executable, "http://gpu-host:8000/v1", "on this machine"),
        (sys.executable, "https://127.0.0.1:8000/v1", "on this machine"),
        (sys.executable, "http://127.0.0.1:eight/v1", "--base-url"),
    ],
)
def test_a_command_that_cannot_be_run_or_reached_is_refused(text: str, base_url: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        serve_plan(text, base_url=base_url, log=Path("log"), timeout_s=1)


def test_a_program_that_is_none_is_a_wrong_flag(tmp_path: Path) -> None:
    (tmp_path / "server").write_bytes(b"\x7fELF, but no more of it")
    (tmp_path / "server").chmod(0o755)
    given = serve_plan(str(tmp_path / "server"), base_url=None, log=tmp_path / "server.log", timeout_s=30)
    with closing(LocalServer(given)) as server, pytest.raises(ConfigError, match="Exec format error"):
        server.wait_until_healthy(Listener())


class TestStarting:
    pytestmark = slow

    def test_a_slow_server_is_waited_for_and_ends_with_the_context(self, tmp_path: Path) -> None:
        given, heard = plan(tmp_path, "--slow", 1.0), Listener()
        with served(given, say=heard) as server:
            assert is_healthy(given.base_url)
            assert server.pid == pids(tmp_path)[0]
            # Neither Ctrl-C at the terminal nor a hang-up of it reaches the server.
            assert os.getsid(pids(tmp_path)[0]) != os.getsid(0)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5, "SIGTERM was not enough, though the server heeds it"
        assert living(pids(tmp_path)) == []
        assert is_free(port_of(given))
        assert "loading the model" in given.log.read_text()
        assert "answers after" in heard.said[-1]

    def test_where_there_is_no_health_the_list_of_models_decides(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--slow", 0.5, "--no-health")
        with served(given, say=Listener()):
            listed = first_model(given.base_url)
        assert (listed.name, listed.context_tokens) == ("tiny/first", 2048)

    def test_a_server_that_ends_at_once_ends_the_command_with_its_last_words(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--dies-at-once", "--forks")
        words = r"ended with code 7(.|\n)*no such model, says the fake"
        with pytest.raises(AuthRejected, match=words), served(given, say=Listener(), grace_s=0.5):
            pass
        assert left_after(pids(tmp_path), 0) == []

    def test_a_server_that_takes_too_long_is_ended(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--slow", 600, timeout_s=1.0)
        words = r"within 1 s \(--serve-timeout\)(.|\n)*loading the model"
        with pytest.raises(AuthRejected, match=words), served(given, say=Listener()):
            pass
        assert living(pids(tmp_path)) == []
        assert is_free(port_of(given))

    def test_an_address_that_is_taken_is_refused_and_nothing_started(self, tmp_path: Path) -> None:
        given = plan(tmp_path)
        with served(given, say=Listener()):
            (tmp_path / "second").mkdir()
            other = serve_plan(
                command(tmp_path / "second", port_of(given)),
                base_url=None,
                log=tmp_path / "second" / "log",
                timeout_s=9,
            )
            with pytest.raises(ConfigError, match="listens at"), served(other, say=Listener()):
                pass
            assert is_healthy(given.base_url)
        assert pids(tmp_path / "second") == []


class TestEnding:
    pytestmark = slow

    def test_one_that_ignores_sigterm_is_killed_after_the_grace(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--stubborn")
        with served(given, say=Listener(), grace_s=0.5):
            began_s = time.monotonic()
        assert 0.5 <= time.monotonic() - began_s < 5
        assert living(pids(tmp_path)) == []

    @linux
    def test_what_a_server_has_started_ends_with_it(self, tmp_path: Path) -> None:
        """In its group or out of it, heeding SIGTERM or not."""
        given = plan(tmp_path, "--forks", "--strays")
        with served(given, say=Listener(), grace_s=0.5):
            assert len(living(pids(tmp_path))) == 3
        assert living(pids(tmp_path)) == []

    def test_an_interrupted_command_waits_seconds_and_not_the_whole_grace(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--stubborn")
        began_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt), served(given, say=Listener(), grace_s=60):
            raise KeyboardInterrupt
        assert time.monotonic() - began_s < 20
        assert living(pids(tmp_path)) == []

    @linux
    def test_kill_9_of_the_command_leaves_nothing(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--stubborn", "--forks", "--strays")
        owner = start_owner(given)
        try:
            assert len(living(pids(tmp_path))) == 3
        finally:
            owner.kill()
            owner.communicate()
        assert left_after(pids(tmp_path), 10) == []
        assert is_free(port_of(given))

    def test_kill_9_of_the_command_while_the_server_loads_leaves_nothing(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--slow", 600)
        owner = start_owner(given, until="loading")
        owner.kill()
        owner.communicate()
        assert left_after(pids(tmp_path), 10) == []

    def test_a_server_that_dies_ends_the_wait_with_its_last_words(self, tmp_path: Path) -> None:
        given = plan(tmp_path)
        with served(given, say=Listener()) as server:
            os.kill(pids(tmp_path)[0], signal.SIGKILL)
            error = anyio.run(server.ended)
        assert isinstance(error, ProviderDown)
        assert "was ended by SIGKILL" in str(error)
        assert "loading the model" in str(error)

    def test_a_guard_that_is_killed_takes_the_server_with_it(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--forks")
        with served(given, say=Listener()) as server:
            os.kill(server._guard.pid, signal.SIGKILL)
            error = anyio.run(server.ended)
            assert isinstance(error, ProviderDown)
            assert left_after(pids(tmp_path), 10) == []

    def test_a_server_that_talks_without_end_is_not_held_up(self, tmp_path: Path) -> None:
        given = plan(tmp_path, "--talks-bytes", 40 << 20)
        with served(given, say=Listener()):
            pass
        kept = [path.stat().st_size for path in tmp_path.glob("server.log*")]
        assert len(kept) == 2
        assert max(kept) <= LOG_BYTES


def start_owner(given: ServePlan, *, until: str = "answers") -> subprocess.Popen[str]:
    """A process that owns a server, once what it is told or logs says so."""
    script = (
        "import sys, pathlib; from labels.serve.server import served; from labels.serve.address import serve_plan\n"
        "given = serve_plan(sys.argv[1], base_url=None, log=pathlib.Path(sys.argv[2]), timeout_s=60)\n"
        "with served(given, say=lambda text: print(text, flush=True), grace_s=0.5):\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, " ".join(given.command), str(given.log)]
    owner = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    if until == "answers":
        assert any("answers" in line for line in owner.stdout)
    deadline = time.monotonic() + 30
    while until == "loading" and "loading" not in (given.log.read_text() if given.log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return owner


def test_a_log_goes_on_in_a_new_file_and_keeps_one_before(tmp_path: Path) -> None:
    log = Log(tmp_path / "server.log")
    for number in range(40):
        log.write(bytes([65 + number % 26]) * (1 << 20))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"server.log", "server.log.1"}
    assert max(sizes.values()) <= LOG_BYTES
    assert log.last_words == b"N" * LAST_WORDS_BYTES
    assert (tmp_path / "server.log").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_loses_the_log_and_nothing_else() -> None:
    log = Log(Path("/dev/full"))
    log.write(b"first")
    log.write(b" second")
    assert log.last_words == b"first second"


def test_a_server_that_lists_no_model_is_no_source_of_a_name() -> None:
    with pytest.raises(ConfigError, match="--model"):
        first_model(f"http://127.0.0.1:{free_port()}/v1")
