"""The command line against a real server that it did not write itself: pictures, cut answers, grammars, and its end."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from encoders.formulas import merged_patches
from labels.serve.address import first_model
from sinks.folder import read_manifest
from tests.fakes.clips import plain
from tests.fakes.commands import Said, finished, lines_of, start_cli, write_table
from tests.fakes.neva import AS_WRITTEN
from tests.fakes.photos import encoded, phone_photo
from tests.fakes.serving import free_port, is_free, living
from tests.vllm.tiny_server import CONTEXT_TOKENS, NAME, START_S, Vllm, processes_in, serve_command

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2 * START_S)]
ROWS = 200
FIRST = 7_000_000_000_000_000_000
MARKERS = 2
"""The template puts one before a picture and one behind it."""
SIZE = (168, 224)
MOODS, PLACES = ("calm", "angry", "cannot_determine"), ("indoors", "outdoors")
CODEBOOK = f"""
name = "scenes"
title = "Scenes"
role = "You label short videos."

[[dimensions]]
key = "mood"
title = "Mood"
kind = "categorical"
definition = "The mood of the video."
evidence = "What is said."
values = {json.dumps(MOODS)}

[[dimensions]]
key = "place"
title = "Place"
kind = "categorical"
definition = "Where it was taken."
evidence = "What is shown."
values = {json.dumps(PLACES)}
"""
"""Of questions that do not depend on one another, so that an answer under its schema is a valid one."""


def tokens_of(width: int, height: int) -> int:
    """Of a picture, as the processor of the tiny model brings it into bounds."""
    return merged_patches(width, height, factor=28, most_px=224 * 224, least_px=56 * 56) + MARKERS


def picture(width: int, height: int, name: str = "coffee") -> dict[str, object]:
    data = base64.b64encode(encoded(phone_photo(name, (width, height)))).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def words(text: str = "label this") -> dict[str, object]:
    return {"type": "text", "text": text}


def cli(*arguments: object) -> Said:
    return finished(start_cli(*arguments), timeout_s=2 * START_S)


def run(folder: Path, *more: object, rows: int, url: str) -> Said:
    table = write_table(folder / "videos.csv", rows)
    places = ("--input", table, "--out", folder / "out", "--base-url", url, "--workers", 1)
    return cli("run", *places, "--model", NAME, *more)


def put_frames(folder: Path, rows: int, *, frames: int) -> Path:
    data = [encoded(phone_photo(name, SIZE)) for name in ("coffee", "china", "rocket")]
    for row in range(rows):
        place = folder / "frames" / str(FIRST + row)
        place.mkdir(parents=True)
        for number in range(frames):
            (place / f"frame_{number}.jpg").write_bytes(data[(row + number) % 3])
    return folder / "frames"


def test_prompt_tokens_grow_with_pictures_as_the_formula_says(vllm: Vllm) -> None:
    bare = vllm.ask([words()], max_tokens=1)["usage"]["prompt_tokens"]
    for sizes in [(112, 112)], [(224, 224)], [(140, 252)], [(720, 1280)], [(112, 112), (224, 224)]:
        content = [*(picture(*size) for size in sizes), words()]
        counted = vllm.ask(content, max_tokens=1)["usage"]["prompt_tokens"]
        assert counted - bare == sum(tokens_of(*size) for size in sizes), sizes


def test_what_a_picture_shows_reaches_the_model(vllm: Vllm) -> None:
    def likelihoods(name: str) -> list[float]:
        said = vllm.ask([picture(224, 224, name), words()], max_tokens=1, logprobs=True, top_logprobs=5)
        return [found["logprob"] for found in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]]

    assert likelihoods("coffee") == pytest.approx(likelihoods("coffee"), abs=1e-3)
    assert likelihoods("coffee") != pytest.approx(likelihoods("china"), abs=1e-3)


def test_the_server_says_its_model_and_context(vllm: Vllm) -> None:
    listed = first_model(vllm.base_url)
    assert (listed.name, listed.context_tokens) == (NAME, CONTEXT_TOKENS)


def test_answers_that_are_cut_off_are_asked_for_again_with_more_tokens(tmp_path: Path, vllm: Vllm) -> None:
    (tmp_path / "prompt.txt").write_text("Go on for ever.")
    lengths = ("--max-tokens", 16, "--growth", 2.0, "--max-tokens-cap", 64)
    # It is given no chance to stop by itself.
    said = run(tmp_path, "--system-prompt", tmp_path / "prompt.txt", *lengths, "--no-share", rows=8, url=vllm.base_url)
    assert said.code == 0, said.err
    lines = lines_of(tmp_path / "out")
    assert len(lines) == 8
    cut = [line for line in lines if line["truncated"]]
    assert cut, "the model stopped by itself each time"
    for line in cut:
        assert (line["finish_reason"], line["max_tokens_used"], line["attempt"]) == ("length", 64, 3)


def test_two_hundred_rows_with_frames_are_labelled_under_the_codebook(tmp_path: Path, vllm: Vllm) -> None:
    """Random weights say nothing; every label is valid all the same, for the server enforces the schema."""
    frames = put_frames(tmp_path, ROWS, frames=3)
    (tmp_path / "scenes.toml").write_text(CODEBOOK)
    asked = ("--codebook", tmp_path / "scenes.toml", "--response-format", "json_schema", "--temperature", 1.0)
    began_s = time.monotonic()
    said = run(tmp_path, "--frames-dir", frames, *asked, rows=ROWS, url=vllm.base_url)
    took_s = time.monotonic() - began_s
    assert said.code == 0, said.err
    lines = lines_of(tmp_path / "out")
    assert sorted(line["row"] for line in lines) == list(range(ROWS))
    for line in lines:
        assert line["label_error"] is None, line
        assert json.loads(line["raw"]) == line["labels"], "it took a repair"
        assert line["labels"]["mood"] in MOODS
        assert line["labels"]["place"] in PLACES
        assert len(line["frames"]) == 3
        assert line["usage"]["prompt_tokens"] > 3 * tokens_of(*SIZE)
    assert len({line["raw"] for line in lines}) > 1
    measured = read_manifest(tmp_path / "out")["measured"]["image_tokens"]
    assert measured["tokens"] == tokens_of(measured["width"], measured["height"])
    print(f"\n{ROWS} rows of 3 frames in {took_s:.1f} s")  # noqa: T201 - `make test-vllm` shows it


def test_a_prompt_file_is_answered(tmp_path: Path, vllm: Vllm) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in ("coffee", "china"):
        (media / f"{name}.jpg").write_bytes(encoded(phone_photo(name, (112, 112))))
    prompts = tmp_path / "prompts.jsonl"
    asked = [
        {"image": f"{('coffee', 'china')[number % 2]}.jpg", "text": f"What is it? {number}", "question_id": number}
        for number in range(ROWS)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked))
    said = cli(
        *("generate", "--prompt-file", prompts, "--media-base-path", media, "--media-type", "image"),
        *("--output-file", tmp_path / "answers.jsonl", "--model", NAME, "--base-url", vllm.base_url),
        *("--tokens-to-generate", 16),
    )
    assert said.code == 0, said.err
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["question_id"] for answer in answers] == list(range(ROWS))
    assert all("pred_answer" in answer for answer in answers)


def test_a_prompt_about_a_video_with_the_settings_of_neva_is_answered(tmp_path: Path, vllm: Vllm) -> None:
    (tmp_path / "video_test.mp4").write_bytes(plain())
    asked = {"video": "video_test.mp4", "text": "Can you describe the scene?", "category": "conv", "question_id": 0}
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text(json.dumps(asked) + "\n")
    places = (f"prompt_file={prompts}", f"inference.media_base_path={tmp_path}", f"output_file={out}")
    said = cli("generate", *AS_WRITTEN, *places, "--model", NAME, "--base-url", vllm.base_url, "--num-frames", 4)
    assert said.code == 0, said.err
    (answer,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert {key: answer[key] for key in asked} == asked
    assert answer["status"] == "ok", answer
    assert answer["full_text"], "the model answered"
    shown = [tokens_of(frame["width"], frame["height"]) for frame in answer["frames"]]
    assert len(shown) == 4
    assert answer["usage"]["prompt_tokens"] > sum(shown), "the frames were read"
    assert 1 < answer["usage"]["completion_tokens"] <= 256


def test_a_run_starts_the_server_and_leaves_nothing_of_it(tmp_path: Path, tiny_model: Path) -> None:
    frames = put_frames(tmp_path, 4, frames=12)
    port = free_port()
    table = write_table(tmp_path / "videos.csv", 4)
    (tmp_path / "prompt.txt").write_text("What is shown?")
    said = cli(
        *("run", "--input", table, "--out", tmp_path / "out", "--frames-dir", frames, "--workers", 1),
        *("--serve", serve_command(tiny_model, port), "--serve-timeout", START_S),
        *("--system-prompt", tmp_path / "prompt.txt", "--max-tokens", 64, "--max-tokens-cap", 64),
        *("--auto-frames", "--context-tokens", 600),
    )
    assert said.code == 0, said.err
    lines = lines_of(tmp_path / "out")
    assert len(lines) == 4
    assert {line["model"] for line in lines} == {NAME}
    assert all(line["degraded"][0].startswith("fewer_frames:12>") for line in lines)
    assert is_free(port)
    started = processes_in(tmp_path / "out" / "server.log")
    assert len(started) >= 2, "the server and its engine"
    assert living(started) == []
    assert cli("verify", tmp_path / "out").code == 0
