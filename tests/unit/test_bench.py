"""The benchmarks' own promises: turns, paces, sizes of requests, and a command that measures what it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from bench.bodies import BODIES, CODEBOOK, make_rows, requests
from bench.compare import FIGURES, check_own, table, tree_of
from bench.suite import Case, Figures, Taken, Told, in_turns, spread
from bench.suite_engine import Kind, Requests
from bench.suite_stages import cases as stage_cases
from bench.throughput import CLI, BenchError, provider, publish
from bench.watching import Point, Watched, reached, watched
from cli import call
from engine.life import SNAPSHOT_S
from labels.terminal import EXIT_USAGE


def test_rounds_go_through_all_cases_before_any_comes_again() -> None:
    seen = []

    def case(name: str, most: int | None = None) -> Case:
        def once(at: int) -> dict[str, object]:
            seen.append(f"{name}{at}")
            return {"cost_s": float(at), "curve": [at]}

        return Case(name=name, about={"size": 2}, once=once, most_rounds=most)

    said: list[str] = []
    taken = in_turns([case("a"), case("b", most=1)], rounds=3, say=said.append)
    assert seen == ["a0", "b0", "a1", "a2"]
    assert taken[0] == {"name": "a", "size": 2, "figures": {"cost_s": [0.0, 1.0, 2.0]}, "last": {"curve": [2]}}
    assert taken[1]["figures"] == {"cost_s": [0.0]}
    assert said[0] == "1/3 a: cost_s 0"


def test_what_is_stopped_keeps_the_rounds_that_had_ended() -> None:
    def once(at: int) -> Figures:
        if at == 2:
            raise KeyboardInterrupt
        return {"cost_s": float(at)}

    kept: dict[int, Taken] = {}
    with pytest.raises(KeyboardInterrupt):
        in_turns([Case(name="a", once=once)], rounds=3, say=lambda _: None, keep=kept.__setitem__)
    assert {ended: taken[0]["figures"] for ended, taken in kept.items()} == {
        1: {"cost_s": [0.0]},
        2: {"cost_s": [0.0, 1.0]},
    }


def test_a_round_that_gives_a_reason_in_place_of_figures_is_kept_as_one() -> None:
    rounds: list[Figures] = [{"cost_s": 1.0}, {"why_not": "it hung"}]
    taken = in_turns([Case(name="a", once=lambda at: rounds[at])], rounds=2, say=lambda _: None)
    assert taken[0]["figures"] == {"cost_s": [1.0]}
    assert taken[0]["last"] == {"why_not": "it hung"}


def points(*said: tuple[float, int, float, float]) -> list[Point]:
    """Of moments, rows, and CPU time of the main process and of all."""
    return [
        Point(at_s=at_s, rows=rows, main_cpu_s=main_s, tree_cpu_s=tree_s, main_mb=1, tree_mb=2, peak_mb=3)
        for at_s, rows, main_s, tree_s in said
    ]


def test_the_pace_is_that_of_the_middle_with_moments_between_samples_interpolated() -> None:
    # Two seconds in which nothing comes, then 100 rows a second at 1 ms of the main process and 2 of workers a row.
    taken = Watched(
        code=0,
        wall_s=12,
        cpu_s=9,
        points=points((0, 0, 0, 0), (2, 0, 3, 5), (7, 500, 3.5, 6.5), (12, 1000, 4, 8)),
    )
    steady = taken.steady(1000)
    assert steady is not None
    assert steady.rows_per_s == pytest.approx(100)
    assert steady.main_cpu_s_per_1000 == pytest.approx(1)
    assert steady.workers_cpu_s_per_1000 == pytest.approx(2)
    assert (taken.main_peak_mb, taken.tree_peak_mb) == (3, 2)


def test_a_pace_that_was_never_seen_is_none() -> None:
    seen = points((0, 0, 0, 0), (1, 800, 1, 1))
    assert Watched(code=0, wall_s=1, cpu_s=1, points=seen).steady(1000) is None
    assert reached(seen, 900) is None


@pytest.mark.slow
def test_a_process_is_watched_with_its_children(tmp_path: Path) -> None:
    child = "import time; block = b'x' * 50_000_000; time.sleep(0.6)"
    parent = f"import subprocess, sys; print('said'); subprocess.run([sys.executable, '-c', {child!r}]); sys.exit(3)"
    rows = iter(range(10**6))
    taken = watched([sys.executable, "-c", parent], said=tmp_path / "said", progress=lambda: next(rows))
    assert (taken.code, (tmp_path / "said").read_text()) == (3, "said\n")
    assert taken.tree_peak_mb > taken.main_peak_mb + 40
    assert 0 < taken.points[-1].tree_cpu_s <= taken.cpu_s + 0.1
    assert [point.rows for point in taken.points] == sorted(point.rows for point in taken.points)


@pytest.mark.parametrize("name", ["2 KB", "300 KB", "1 MB"])
def test_requests_have_the_size_they_are_called_by(name: str, tmp_path: Path) -> None:
    make_rows(tmp_path, BODIES[name], rows=3)
    made = list(requests(tmp_path, BODIES[name], count=3))
    assert {len(body) for body in made} == {BODIES[name].n_bytes}
    assert len(set(made)) == 3


def test_padded_frames_are_whole_pictures(tmp_path: Path) -> None:
    make_rows(tmp_path, BODIES["300 KB"], rows=1)
    files = sorted(tmp_path.glob("frames/*/*.jpg"))
    assert len(files) == 4
    for file in files:
        with Image.open(BytesIO(file.read_bytes())) as picture:
            picture.load()
            assert picture.size == (360, 640)


@pytest.mark.slow
def test_the_yardstick_asks_every_body_once(tmp_path: Path) -> None:
    make_rows(tmp_path, BODIES["2 KB"], rows=40)
    (tmp_path / "bodies.jsonl").write_bytes(
        b"".join(body + b"\n" for body in requests(tmp_path, BODIES["2 KB"], count=40))
    )
    with provider(tmp_path, {}, codebook=tmp_path / "codebook.toml") as server:
        words = ("--base-url", server.url, "--rows", tmp_path / "bodies.jsonl", "--out", tmp_path / "out.jsonl")
        command = [sys.executable, "-m", "bench.yardstick", *map(str, words), "--concurrency", "7"]
        subprocess.run(command, check=True, cwd=CLI.parent)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(answers) == 40
    assert all(json.loads(answer["text"]).keys() == {"politics", "food", "travel"} for answer in answers)


@pytest.mark.slow
def test_a_whole_run_is_measured_at_its_pace_and_the_yardstick_beside_it(tmp_path: Path) -> None:
    kind = Kind(offered_per_s=400, rows=400, quick_rows=400, at_once=(8,), quick_at_once=(8,))
    with ExitStack() as opened:
        told = Told(folder=tmp_path, opened=opened, rounds=1, quick=True)
        asked = Requests(told, BODIES["2 KB"], kind, at_once=8)
        ours, plain = asked.run(), asked.plain()
    assert 0 < ours["main_cpu_s_per_1000"] < ours["main_cpu_s_per_1000_whole"]
    assert 0 < plain["rows_per_s"] < 450
    assert plain["workers_cpu_s_per_1000"] == 0
    assert 0 < ours["most_in_flight"] <= 8
    assert ours["tree_peak_rss_mb"] > ours["main_peak_rss_mb"] > plain["main_peak_rss_mb"]
    assert SNAPSHOT_S <= 1.0, "what is in flight is read from snapshots"


@pytest.mark.slow
def test_every_stage_can_be_measured_alone(tmp_path: Path) -> None:
    with ExitStack() as opened:
        told = Told(folder=tmp_path, opened=opened, rounds=1, quick=True)
        taken = in_turns(stage_cases(told), rounds=1, say=lambda _: None)
    assert {case["stage"] for case in taken} == {
        "source",
        "encode",
        "hand-off",
        "client",
        "labels",
        "commit",
        "provider",
    }
    assert all(case["figures"]["rows_per_s"][0] > 0 for case in taken)


def test_the_codebook_of_the_benchmarks_is_sound(tmp_path: Path) -> None:
    (tmp_path / "book.toml").write_text(CODEBOOK)
    assert call(["codebook", "check", str(tmp_path / "book.toml")]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "there is no suite 'nope'"),
        (["engine", "--rounds", "0"], "--rounds must be at least 1"),
        (["limits", "--case", "nope"], "limits has no case called 'nope'"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_measured(
    words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["bench", *words]) == EXIT_USAGE
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_leaves_figures_and_prints_their_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "limits", "--quick", "--case", "8 slots, Reelbatch", "--case", "steady, Reelbatch"]
    assert call([*words, "--rounds", "2", "--out", str(tmp_path)]) == 0
    said = json.loads((tmp_path / "limits.json").read_text())
    assert [case["name"] for case in said["cases"]] == ["steady, Reelbatch"]
    assert len(said["cases"][0]["figures"]["share_of_ideal"]) == 2
    assert said["quick"]
    assert said["command"].startswith("python cli.py bench limits --rounds 2 --quick --case")
    assert {"date", "machine", "load_before"} <= said.keys()
    assert "| steady | 0.9" in capsys.readouterr().out


def test_published_figures_say_how_they_came_about(tmp_path: Path) -> None:
    publish("a", "python cli.py bench a", {"x": 1}, folder=tmp_path / "new")
    publish("b", "pool --rounds 1", {}, folder=tmp_path)
    assert json.loads((tmp_path / "new" / "a.json").read_text())["command"] == "python cli.py bench a"
    assert json.loads((tmp_path / "b.json").read_text())["command"] == "python -m bench.pool --rounds 1"


def test_a_state_is_a_folder_of_the_program_or_a_revision(tmp_path: Path) -> None:
    assert tree_of(str(CLI.parent), tmp_path) == CLI.parent.resolve()
    with pytest.raises(BenchError, match=r"no such thing is no folder with cli\.py, and git says"):
        tree_of("no such thing", tmp_path)


def test_a_state_that_would_run_the_code_of_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cli.py").touch()
    with pytest.raises(BenchError, match="does not run its own code"):
        check_own(tmp_path.resolve())
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "worker.py").touch()
    (tmp_path / "engine" / "__init__.py").touch()
    check_own(tmp_path.resolve())


def test_states_are_compared_by_the_pairs_of_a_round() -> None:
    # The second round met a neighbour: both states are twice as slow in it.
    a = {"figures": {name: [1.0, 2.0] for name in FIGURES}}
    b = {"figures": {name: [0.9, 1.8] for name in FIGURES}}
    assert (
        table(a, b)[2]
        == "| main cpu s per 1000 | 1.500 (1.000 to 2.000) | 1.350 (0.900 to 1.800) | 0.900 (0.900 to 0.900) |"
    )


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([3, 1, 2]) == spread([1, 2, 3])
    assert (spread([5, 1, 2]).least, spread([5, 1, 2]).median, spread([5, 1, 2]).most) == (1, 2, 5)
