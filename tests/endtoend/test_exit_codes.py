"""Every exit code with its message: what happened, what is safe, what to type next, and that typing it works."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import (
    CLI,
    KEY,
    ROOT,
    Said,
    Simulated,
    cli,
    environment,
    finished,
    lines_of,
    run_arguments,
    simulated,
    start_cli,
    write_table,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROWS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("provider")) as server:
        yield server


@pytest.fixture
def provider(server: Simulated) -> Simulated:
    server.tell({"row_pattern": r"row (\d+)"})
    return server


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "videos.csv", ROWS)


@pytest.fixture(scope="module")
def original(server: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    assert cli(*run_arguments(write_table(folder / "videos.csv", ROWS), folder / "out", server.url)).code == 0
    return folder / "out"


@pytest.fixture
def out(original: Path, tmp_path: Path) -> Path:
    """A finished run."""
    return shutil.copytree(original, tmp_path / "out")


def told(said: Said, code: int, *words: str) -> str:
    """The command a message ends with, after its code and its words were checked."""
    assert (said.code, said.out) == (code, ""), said
    for part in words:
        assert part in said.err, said.err
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    return last.strip() if last.startswith("  ") else ""


def typed(command: str, **more: str) -> Said:
    """What a message says to type, as a shell takes it."""
    words = shlex.split(command)
    assert words[:2] == [sys.executable, str(CLI)], "it is this program, however it was started"
    return cli(*words[2:], env=environment(**more))


def test_64_names_the_flag_and_where_flags_are_explained(tmp_path: Path, table: Path) -> None:
    said = cli(*run_arguments(table, tmp_path / "out", "http://127.0.0.1:9/v1", "--shards", 0))
    command = told(said, 64, "--shards must be at least 1", "Nothing was sent and nothing changed")
    assert "--shards" in typed(command).out
    command = told(cli("frobnicate"), 64, "frobnicate", "nothing changed")
    assert command.endswith("cli.py --help"), "there is no help on a command that there is not"


def test_65_names_what_the_input_lacks_and_the_same_command_works_once_it_is_mended(
    tmp_path: Path, table: Path, provider: Simulated
) -> None:
    whole = table.read_bytes()
    table.write_bytes(whole.replace(b"meta_id", b"number"))
    arguments = run_arguments(table, tmp_path / "out", provider.url)
    told(cli(*arguments), 65, "no id column", "safe", "type the command again")
    table.write_bytes(whole)
    assert cli(*arguments).code == 0


def test_69_says_that_no_row_was_lost_and_the_command_goes_on_with_another_key(
    tmp_path: Path, table: Path, provider: Simulated
) -> None:
    provider.tell({"api_key": "the right one"})
    said = cli(*run_arguments(table, tmp_path / "out", provider.url), env=environment(TOGETHER_API_KEY=KEY))
    command = told(said, 69, "401", "safe", "--resume")
    assert typed(command, TOGETHER_API_KEY="the right one").code == 0
    assert len(lines_of(tmp_path / "out")) == ROWS


def test_1_says_where_the_reasons_are_and_the_command_tries_the_failed_rows_again(
    tmp_path: Path, table: Path, provider: Simulated
) -> None:
    provider.tell({"faults": [{"kind": "status", "status": 400, "message": "no", "containing": "row 1"}]})
    said = cli(*run_arguments(table, tmp_path / "out", provider.url))
    command = told(said, 1, "1 rows failed", "failures/ says why", "all others are safe", "--retry-failed")
    provider.tell({})
    assert typed(command).code == 0


def test_73_is_settled_by_the_command_where_the_folder_holds_a_run(out: Path, table: Path, provider: Simulated) -> None:
    before = (out / "run.json").read_bytes()
    said = cli(*run_arguments(table, out, provider.url))
    command = told(said, 73, "holds a run already", "nothing changed", "another --out")
    assert (out / "run.json").read_bytes() == before
    assert typed(command).code == 0


def test_74_does_not_call_safe_what_is_gone_and_the_command_works_once_it_is_back(
    tmp_path: Path, out: Path, table: Path, provider: Simulated
) -> None:
    shard = out / "results" / "shard-00003.jsonl"
    shard.rename(tmp_path / "aside")
    said = cli(*run_arguments(table, out, provider.url, "--resume"))
    command = told(said, 74, "shard-00003.jsonl is gone", "not named here is safe", "--resume")
    (tmp_path / "aside").rename(shard)
    assert typed(command).code == 0


def test_75_says_what_may_still_be_spent_and_the_command_takes_a_higher_ceiling(
    tmp_path: Path, table: Path, provider: Simulated
) -> None:
    prices = ("--price-in", 1000, "--price-out", 1000, "--max-cost", 0.01)
    said = cli(*run_arguments(table, tmp_path / "out", provider.url, *prices))
    command = told(said, 75, "--max-cost", "safe", "--resume")
    assert typed(command.replace("--max-cost 0.01", "--max-cost 1000")).code == 0


def test_78_names_what_differs_and_the_two_ways_to_go_on(out: Path, table: Path, provider: Simulated) -> None:
    said = cli(*run_arguments(table, out, provider.url, "--resume", "--temperature", 0.5))
    told(said, 78, "temperature", "Nothing was changed", "old values", "another --out")


def test_70_is_for_a_fault_of_the_program_itself(tmp_path: Path, table: Path) -> None:
    # A library that is installed and broken: nothing of the program expects that.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "uvloop.py").write_text("def new_event_loop():\n    raise ZeroDivisionError('broken')\n")
    said = cli(
        *run_arguments(table, tmp_path / "out", "http://127.0.0.1:9/v1"),
        env=environment(PYTHONPATH=str(tmp_path / "lib")),
    )
    told(said, 70, "a bug in Reelbatch: ZeroDivisionError", "safe", "REELBATCH_DEBUG=1")


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_folder_that_is_moved_or_removed_ends_the_run_with_74_and_nothing_is_written_elsewhere(
    tmp_path: Path, how: str, provider: Simulated
) -> None:
    table, out, elsewhere = write_table(tmp_path / "videos.csv", 60), tmp_path / "out", tmp_path / "elsewhere"
    provider.tell({"row_pattern": r"row (\d+)", "latency": {"kind": "fixed", "median": 0.1}})
    process = start_cli(*run_arguments(table, out, provider.url, "--concurrency", 2, "--shards", 2))
    while process.poll() is None and not any(out.glob("results/shard-*.jsonl")):
        os.sched_yield()
    out.rename(elsewhere)
    if how == "removed":
        shutil.rmtree(elsewhere)
    command = told(finished(process), 74, "was moved, removed or replaced", "move it back")
    assert not out.exists()
    if how == "moved":
        elsewhere.rename(out)
        provider.tell({"row_pattern": r"row (\d+)"})
        assert typed(command).code == 0
        assert sorted(line["row"] for line in lines_of(out)) == list(range(60))


def among_mounts(*arguments: object, before: str) -> Said:
    """A command in a place of its own among the mounts, after shell commands that change them there."""
    words = shlex.join([sys.executable, str(CLI), *map(str, arguments)])
    shell = ("unshare", "--map-root-user", "--mount", "sh", "-ec", f"{before}\nexec {words}")
    done = subprocess.run(shell, capture_output=True, text=True, timeout=50, env=environment(), cwd=ROOT, check=False)
    return Said(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture
def namespace() -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("needs a mount namespace of its own")


@pytest.mark.usefixtures("namespace")
def test_a_bucket_is_refused_before_anything_is_sent_and_a_copy_in_it_is_read(
    tmp_path: Path, out: Path, table: Path, provider: Simulated
) -> None:
    sent = provider.ledger()["requests"]
    lines = Path("/proc/self/mountinfo").read_text()
    (tmp_path / "mountinfo").write_text(f"{lines}9999 1 0:99 / {tmp_path} rw - fuse.gcsfuse a-bucket rw\n")
    before = f"mount --bind {tmp_path / 'mountinfo'} /proc/$$/mountinfo"
    said = among_mounts(*run_arguments(table, tmp_path / "new", provider.url), before=before)
    told(said, 73, "new is on fuse.gcsfuse (a-bucket", "whole objects", "nothing changed", "local disk")
    assert not (tmp_path / "new").exists()
    assert provider.ledger()["requests"] == sent
    for command in (("status", out), ("verify", out), ("export", out, "--to", tmp_path / "table.csv")):
        assert among_mounts(*command, before=before).code == 0


@pytest.mark.usefixtures("namespace")
def test_a_folder_that_can_only_be_read_is_refused_and_read(out: Path, table: Path, provider: Simulated) -> None:
    before = f"mount --bind {out} {out}\nmount -o remount,ro,bind {out}"
    said = among_mounts(*run_arguments(table, out, provider.url, "--resume"), before=before)
    told(said, 73, "cannot be created or written: Read-only file system", "nothing changed")
    assert among_mounts("verify", out, before=before).code == 0
