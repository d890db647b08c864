"""The benchmark beside other clients: what it measures, what it refuses, and what it must not leave running."""

from __future__ import annotations

import ast
import dataclasses
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.peers.environments import ROOT, VENVS, install, peers
from bench.peers.errands import Errand, Taken
from bench.peers.guard import TOO_LONG
from bench.peers.subjects import Subject, answers, subjects
from bench.peers.suite import Wanted, cases, figures
from bench.suite import Told, in_turns

SCRIPTS = sorted({peer.module for peer in peers()[0]})
ASKS = """
    import json, sys, urllib.request
    url, rows, out = sys.argv[1:4]
    with open(rows) as bodies, open(out, "w") as answered:
        for row, body in enumerate(bodies):
            call = urllib.request.urlopen(f"{url}/chat/completions", body.encode())
            answer = json.load(call)["choices"][0]["message"]["content"]
            answered.write(json.dumps({"row": row, "answer": answer}) + "\\n")
"""
FORGETS = ASKS + "            break\n"
BURNS = """
    import time
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
"""


def fake(tmp_path: Path, script: str, name: str = "fake") -> Subject:
    """A subject whose script is run by this Python, and leaves answers as those of the peers do."""
    path = tmp_path / f"{name}.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")

    def command(errand: Errand) -> Sequence[object]:
        with (tmp_path / f"{name}.calls").open("a", encoding="utf-8") as calls:
            calls.write(".")
        return (sys.executable, path, errand.url, errand.inputs.bodies, errand.out / "answers.jsonl")

    return Subject(
        name=name,
        version="1.0",
        licence="none",
        rows={"2KB": 10},
        command=command,
        answered=lambda out: answers(out / "answers.jsonl"),
    )


def measured(tmp_path: Path, subject: Subject, wanted: Wanted, *, rounds: int = 1) -> dict[str, Any]:
    """The one case there is, measured."""
    folder = tmp_path / "bench"
    folder.mkdir()
    with ExitStack() as opened:
        told = Told(folder=folder, opened=opened, rounds=rounds, quick=False)
        found = [case for case in cases(told, wanted, among=[subject]) if case.about["subject"] == subject.name]
        (taken,) = in_turns(found, rounds=rounds, say=lambda _: None)
    return taken


def guarded(tmp_path: Path, script: str, *, most_s: float) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    guard = ["-m", "bench.peers.guard", "--most-s", str(most_s), "--home", str(tmp_path), "--"]
    return subprocess.run(
        [sys.executable, *guard, sys.executable, str(path)], cwd=ROOT, check=False, capture_output=True, text=True
    )


ONE = Wanted(sizes=["2KB"], concurrency=[1])


@pytest.mark.slow
def test_a_client_is_measured_over_two_numbers_of_rows(tmp_path: Path) -> None:
    taken = measured(tmp_path, fake(tmp_path, ASKS), ONE)
    assert (taken["subject"], taken["version"], taken["size"], taken["rows"]) == ("fake", "1.0", "2KB", 10)
    assert taken["figures"]["requests"] == [10]
    assert taken["figures"]["most_in_flight"] == [1]
    # One call after the other, 0.1 s each, and the start besides.
    assert taken["figures"]["rows_per_s_whole"][0] < 10.0
    assert taken["figures"]["rows_per_s"][0] > 3
    assert taken["figures"]["cpu_s_per_1000_whole"][0] > taken["figures"]["cpu_s_per_1000"][0]
    assert (tmp_path / "fake.calls").read_text(encoding="utf-8") == ".."


def test_what_both_runs_take_alike_is_in_no_figure_of_the_rows() -> None:
    took: dict[str, Any] = {"rss_mb": 50.0, "requests": 10, "most_in_flight": 1, "main_cpu_s": None, "why_not": None}
    fewer = Taken(rows=2, wall_s=5.0 + 2 * 0.1, cpu_s=3.0 + 2 * 0.01, **took)
    more = Taken(rows=10, wall_s=5.0 + 10 * 0.1, cpu_s=3.0 + 10 * 0.01, **took)
    found = figures(fewer, more)
    assert found["rows_per_s"] == pytest.approx(10.0)
    assert found["cpu_s_per_1000"] == pytest.approx(10.0)
    assert found["rows_per_s_whole"] == pytest.approx(10 / 6.0)
    assert found["cpu_s_per_1000_whole"] == pytest.approx(310.0)


@pytest.mark.slow
def test_rows_without_an_answer_are_no_measurement_and_are_not_tried_again(tmp_path: Path) -> None:
    taken = measured(tmp_path, fake(tmp_path, FORGETS), ONE, rounds=2)
    assert taken["last"]["why_not"].startswith("ended with 0, 1 of 2 rows answered")
    assert not taken["figures"]
    assert (tmp_path / "fake.calls").read_text(encoding="utf-8") == ".."


@pytest.mark.slow
def test_a_client_that_breaks_is_quoted(tmp_path: Path) -> None:
    taken = measured(tmp_path, fake(tmp_path, 'raise SystemExit("no such model")'), ONE)
    assert taken["last"]["why_not"] == "ended with 1, 0 of 2 rows answered: no such model"


def test_a_client_that_is_not_installed_is_named_with_the_reason(tmp_path: Path) -> None:
    subject = dataclasses.replace(fake(tmp_path, ASKS), missing="not installed")
    assert measured(tmp_path, subject, ONE)["last"] == {"why_not": "not installed"}


def test_only_those_that_are_asked_for_are_measured(tmp_path: Path) -> None:
    with ExitStack() as opened:
        told = Told(folder=tmp_path, opened=opened, rounds=1, quick=False)
        found = cases(told, Wanted(only=["openai", "OpenAI"], sizes=["300KB"], concurrency=[64, 512]))
    assert [case.about["subject"] for case in found] == [
        *["openai-python, httpx", "openai-python, aiohttp"] * 2,
        "OpenAI cookbook, api_request_parallel_processor",
    ]
    assert len({case.name for case in found}) == len(found)


def test_a_quick_measurement_is_small(tmp_path: Path) -> None:
    with ExitStack() as opened:
        found = cases(Told(folder=tmp_path, opened=opened, rounds=1, quick=True))
    asked = [case for case in found if "rows" in case.about]
    assert len(asked) == len(subjects())
    assert {case.about["rows"] for case in asked} == {300}


def test_what_lies_between_two_numbers_of_rows_is_free_of_the_start() -> None:
    def taken(rows: int, seconds: float) -> Taken:
        return Taken(
            rows=rows,
            wall_s=5 + seconds,
            cpu_s=3 + seconds / 2,
            rss_mb=seconds,
            requests=rows,
            most_in_flight=8,
            main_cpu_s=1 + seconds / 4,
            why_not=None,
        )

    found = figures(taken(100, 1.0), taken(500, 5.0))
    assert found["rows_per_s"] == pytest.approx(100)
    assert found["cpu_s_per_1000"] == pytest.approx(5)
    assert found["main_cpu_s_per_1000"] == pytest.approx(2.5)
    assert found["rows_per_s_whole"] == pytest.approx(50)
    assert found["cpu_s_per_1000_whole"] == pytest.approx(11)
    assert found["rss_mb"] == 5


@pytest.mark.slow
def test_cpu_time_of_a_daemon_counts(tmp_path: Path) -> None:
    """Ray's processes are no children of the script that starts them when they end."""
    script = f"""
        import os, subprocess, sys
        if os.fork() == 0:
            subprocess.Popen([sys.executable, "-c", {textwrap.dedent(BURNS)!r}], start_new_session=True)
            os._exit(0)
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    guard = [sys.executable, "-m", "bench.peers.guard", "--most-s", "30", "--home", str(tmp_path), "--"]
    with subprocess.Popen([*guard, sys.executable, str(path)], cwd=ROOT) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert used.ru_utime + used.ru_stime > 0.5


@pytest.mark.slow
def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    script = """
        import subprocess, sys
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleeper, start_new_session=True)
        open("%s", "w").write(str(child.pid))
        child.wait()
    """
    told = tmp_path / "pid"
    assert guarded(tmp_path, script % told, most_s=1.0).returncode == TOO_LONG
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text(encoding="ascii")), 0)


@pytest.mark.slow
def test_a_command_finds_an_empty_home_and_its_code_is_handed_on(tmp_path: Path) -> None:
    said = guarded(tmp_path, "import os, sys; print(os.environ['HOME']); sys.exit(7)", most_s=30)
    assert (said.returncode, said.stdout.strip()) == (7, str(tmp_path))


def test_every_peer_has_a_pinned_version_and_a_script() -> None:
    found, absent = peers()
    for peer in found:
        assert peer.version[0].isdigit()
        assert (ROOT / "bench" / "peers" / f"{peer.module}.py").exists()
        assert peer.python.is_relative_to(VENVS)
        assert set(peer.rows) == {"2KB", "300KB"}
    assert all(each.why_not for each in absent)


@pytest.mark.parametrize("name", [*SCRIPTS, "rows"])
def test_a_peers_script_needs_nothing_of_ours_but_the_rows(name: str) -> None:
    """Its environment has none of our libraries."""
    tree = ast.parse((ROOT / "bench" / "peers" / f"{name}.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {module for module in modules if (ROOT / module.split(".")[0]).exists()}
    assert ours == (set() if name == "rows" else {"bench.peers.rows"})
    if name == "rows":
        assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


@pytest.mark.slow
def test_an_environment_is_ready_only_when_all_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that cannot be reached leaves a folder, and the peer still missing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    peer = dataclasses.replace(peers()[0][0], venvs=tmp_path)
    install(peer)
    assert peer.python.exists()
    assert peer.missing is not None


def test_an_environment_of_other_versions_is_not_ready(tmp_path: Path) -> None:
    """Otherwise figures of one release would stand under the name of another."""
    peer = dataclasses.replace(peers()[0][0], venvs=tmp_path)
    peer.ready.parent.mkdir()
    peer.ready.write_text("openai==0.1\n", encoding="utf-8")
    assert peer.missing is not None
    peer.ready.write_bytes(peer.pins.read_bytes())
    assert peer.missing is None
