"""`estimate` against what a real run then takes, and the two calls that measure a picture, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli import call
from tests.fakes.commands import KEY, cli, environment, lines_of, run_arguments, simulated, write_table
from tests.fakes.photos import encoded, phone_photo

pytestmark = pytest.mark.slow

LLAMA32 = "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo"
PRICES = ("--price-in", 0.18, "--price-out", 0.59)


def put_frames(root: Path, rows: int) -> Path:
    """For each row a folder of none to five phone frames, the seventh rows none at all."""
    data = encoded(phone_photo("coffee", (720, 1280)), quality=60)
    for row in range(rows):
        folder = root / str(7_000_000_000_000_000_000 + row)
        folder.mkdir(parents=True)
        for at in range(row % 7 % 6):
            (folder / f"frame_{at}.jpg").write_bytes(data)
    return root


def estimated(capsys: pytest.CaptureFixture[str], told: Sequence[object], *more: object) -> dict[str, Any]:
    """What `estimate --json` says, in this process."""
    code = call(["estimate", *map(str, told), *map(str, more), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads(said.out)
    assert isinstance(found, dict)
    return found


def test_the_seeds_example_comes_out_at_2305_dollars_by_numbers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    told = ("--rows", 1_000_000, "--frames", 4, "--frame-size", "720x1280", "--model", LLAMA32, *PRICES)
    said = cli("estimate", *told, "--fit", "none")
    assert said.code == 0, said.err
    assert "12,808,000,000" in said.out
    assert "$2,305" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    found = estimated(capsys, told, "--fit", "none")
    assert found["image_usd"] == pytest.approx(2305.44)
    by_choice = {(other["fit"], other["max_frames"]): other for other in found["others"]}
    assert by_choice["tokens", 4]["image_usd"] == pytest.approx(2305.44 / 2)


def test_an_estimate_is_what_the_run_then_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write_table(tmp_path / "videos.csv", 70), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 70)
    with simulated(tmp_path) as provider:
        told = [*run_arguments(table, out, provider.url, "--frames-dir", frames, *PRICES), "--max-frames", 3]
        told[told.index("--model") + 1] = LLAMA32
        found = estimated(capsys, told[1:])
        assert provider.ledger()["requests"] == 0
        assert not out.exists()
        small = estimated(capsys, told[1:], "--sample", 30)
        said = cli(*told)
        assert said.code == 0, said.err
        ledger = provider.ledger()
        left = estimated(capsys, told[1:], "--resume")
    lines = lines_of(out)
    sent = sum(frame["tokens"] for line in lines for frame in line["frames"])
    assert ledger["images"] * 1601 == sent
    assert found["image_tokens"] == pytest.approx(sent, rel=0.02)
    assert found["prompt_tokens"]["middle"] == pytest.approx(ledger["prompt_tokens"], rel=0.02)
    report = json.loads((out / "report.json").read_text())
    assert found["usd"]["low"] <= report["cost_usd"] <= found["usd"]["high"]
    # The sample's draw is fixed, so this is one draw of those that the interval promises 95 in 100 of.
    assert small["prompt_tokens"]["low"] < ledger["prompt_tokens"] < small["prompt_tokens"]["high"]
    assert small["rows"]["looked_at"] == 30
    assert left["rows"]["done"] == 70
    assert left["image_tokens"] == 0
    # The body is that of the frames as they are sent.
    assert 0 < found["body_bytes_per_row"] < 200_000


def test_a_model_nobody_knows_is_measured_once_and_a_resume_goes_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = write_table(tmp_path / "videos.csv", 14), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 14)
    with simulated(tmp_path, {"tokens_per_image": 777}) as provider:
        told = (*run_arguments(table, out, provider.url, "--frames-dir", frames, *PRICES), "--resume")
        said = cli(*told, "--limit", 0)
        assert said.code == 0, said.err
        ledger = provider.ledger()
        again = cli(*told)
        assert provider.ledger()["requests"] == ledger["requests"]
        found = estimated(capsys, told[1:])
    assert again.code == 0, again.err
    assert ledger["requests"] == 14 + 2
    assert said.err.count("777 tokens for a picture of 315x560") == 1
    assert "777 tokens" not in again.err
    assert {frame["tokens"] for line in lines_of(out) for frame in line["frames"]} == {777}
    assert json.loads((out / "run.json").read_text())["measured"]["image_tokens"]["tokens"] == 777
    report = json.loads((out / "report.json").read_text())
    spent = (ledger["prompt_tokens"] * 0.18 + ledger["completion_tokens"] * 0.59) / 1e6
    assert report["cost_usd"] == pytest.approx(spent), "the two calls are in the books"
    assert found["notes"] == []
    assert cli("verify", out).code == 0


def test_a_server_that_reports_no_usage_is_asked_once_and_the_run_goes_on(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 7), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 7)
    with simulated(tmp_path, {"faults": [{"kind": "no_usage"}]}) as provider:
        said = cli(*run_arguments(table, out, provider.url, "--frames-dir", frames))
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 7 + 1
    assert said.err.count("could not be measured (the server reports no usage)") == 1
    assert len(lines_of(out)) == 7
    kept = json.loads((out / "run.json").read_text())["measured"]["image_tokens"]
    assert kept == {"model": "simulated/vision", "trouble": "the server reports no usage"}, "so that no resume asks"


def test_a_wrong_formula_is_told_of_on_demand_before_a_run_and_for_nothing_by_its_first_replies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = write_table(tmp_path / "videos.csv", 40), tmp_path / "out"
    frames = put_frames(tmp_path / "frames", 40)
    with simulated(tmp_path, {"tokens_per_image": 6404}) as provider:
        told = [*run_arguments(table, out, provider.url, "--frames-dir", frames)]
        told[told.index("--model") + 1] = LLAMA32
        found = estimated(capsys, told[1:], "--probe-tokens")
        assert provider.ledger()["requests"] == 2
        said = cli(*told, env=environment(TOGETHER_API_KEY=KEY))
        assert provider.ledger()["requests"] == 2 + 40, "a model that has a formula is not asked about"
    assert "its formula says 1,601" in found["notes"][0]
    assert said.code == 0, said.err
    assert said.err.count("in its first 20 replies") == 1
    assert KEY not in said.out + said.err


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (("--model", LLAMA32), 64, "--input is missing"),
        (("--model", LLAMA32, "--rows", 5, "--frames", 2), 64, "--frame-size"),
        (("--model", LLAMA32, "--rows", 5, "--frames", 2, "--frame-size", "large"), 64, "720x1280"),
        (("--model", LLAMA32, "--rows", 5, "--input", "x.csv"), 64, "take the place of --input"),
        (("--model", LLAMA32, "--input", "/no/such/file.csv"), 64, "/no/such/file.csv"),
        (("--model", LLAMA32, "--rows", 5, "--rate", 0), 64, "--rate"),
        (("--rows", 5), 64, "--model is missing"),
    ],
)
def test_a_wrong_flag_is_one_message(
    told: tuple[object, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["estimate", *map(str, told)]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
