"""The five steps of the scripts this program takes over, command by command, and what goes wrong in them."""

from __future__ import annotations

import csv
import json
import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labels.codebook import load_codebook
from tests.fakes.commands import Said, Simulated, cli, simulated
from tests.fakes.photos import encoded, phone_photo

BOOK = load_codebook("comprehensive")
VIDEOS = 12
FIRST_ID = 7_531_309_745_475_554_591
GOLD = {
    "china_related": "yes",
    "stance_gov": "neutral/unclear",
    "stance_culture": "pro",
    "stance_tech": "anti",
    "sensitive": "no",
    "collective_action": "no",
    "hate_speech": "no",
    "harmful": "no",
    "news": "yes",
    "inauthentic": "cannot_determine",
    "derivative": "no",
}
BUILD = "build --input {labelled} --output {train} --include-images --frames-dir {frames} --comprehensive"
BUILD_BARE = (
    "build --input {bare} --output {inference} --include-images --frames-dir {frames} --comprehensive --no-labels"
)
INFER = (
    "infer --val-file {inference} --model meta-llama/Llama-4-Scout-17B-16E-Instruct --out {raw} --include-images"
    " --frames-dir {frames} --concurrency 4 --temperature 0 --max-tokens 800 --retry-on-trunc"
)
PARSE = "parse --raw {raw} --out {parsed} --print-bad 5"
SCORE = "score --val-file {train} --preds {parsed} --dump-csv {results}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A folder with tables and frames, and the words that the commands below name its files by."""

    folder: Path
    provider: Simulated

    def paths(self) -> dict[str, Path]:
        data, out = self.folder / "data", self.folder / "out"
        return {
            "labelled": data / "labeled_videos.csv",
            "bare": data / "unlabeled_videos.csv",
            "frames": self.folder / "frames",
            "train": data / "train.jsonl",
            "inference": data / "inference.jsonl",
            "raw": out / "preds.raw.jsonl",
            "parsed": out / "preds.parsed.jsonl",
            "results": out / "results.csv",
        }

    def type(self, command: str, *more: str) -> Said:
        """One command line, with its files in the places of their names."""
        words = [word.format(**self.paths()) for word in shlex.split(command)]
        asks = ["--base-url", self.provider.url] if words[0] == "infer" else []
        return cli(*words, *asks, *more)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.paths()[name].read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with simulated(tmp_path) as provider:
        made = Desk(folder=tmp_path, provider=provider)
        for name in ("labelled", "bare"):
            path = made.paths()[name]
            path.parent.mkdir(exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(
                    file, ["meta_id", "subtitle", "meta_desc", *(GOLD if name == "labelled" else ())]
                )
                table.writeheader()
                for at in range(VIDEOS):
                    texts = {"meta_id": str(FIRST_ID + at), "subtitle": "they walk through", "meta_desc": f"row {at}"}
                    table.writerow(texts | (GOLD if name == "labelled" else {}))
        picture = encoded(phone_photo("coffee", (90, 160)))
        for at in range(VIDEOS - 1):
            folder = made.paths()["frames"] / str(FIRST_ID + at)
            folder.mkdir(parents=True)
            for frame in (0, 1, 10):
                (folder / f"frame_{frame}.jpg").write_bytes(picture)
        yield made


def test_the_five_steps_work_as_they_are_written(desk: Desk) -> None:
    for step in (BUILD, BUILD_BARE, INFER, PARSE, SCORE):
        said = desk.type(step)
        assert said.code == 0, f"{step}\n{said.err}"
    train, inference = desk.lines("train"), desk.lines("inference")
    assert [line["meta_id"] for line in train] == [str(FIRST_ID + at) for at in range(VIDEOS)]
    system, user, gold = train[0]["messages"]
    assert system["content"].startswith("You are analyzing TikTok videos using both visual and textual content.")
    assert [part["type"] for part in user["content"]] == ["image_url"] * 3 + ["text"]
    assert user["content"][-1]["text"] == "TRANSCRIPT:\nthey walk through\n\nDESCRIPTION:\nrow 0"
    assert list(json.loads(gold["content"])) == [dimension.key for dimension in BOOK.dimensions]
    assert [message["role"] for message in inference[0]["messages"]] == ["system", "user"]
    # The last video has no frames: text alone, and no word of frames before it.
    assert train[-1]["messages"][1]["content"].startswith("TRANSCRIPT:")
    assert not train[-1]["messages"][0]["content"].startswith("You are analyzing TikTok videos using both visual")
    raw = desk.lines("raw")
    assert [line["idx"] for line in raw] == list(range(VIDEOS))
    assert list(raw[0])[:9] == [
        *("idx", "meta_id", "raw", "attempt", "latency_s", "model", "finish_reason", "truncated", "max_tokens_used"),
    ]
    assert desk.provider.ledger()["images"] == 3 * (VIDEOS - 1)
    parsed = desk.lines("parsed")
    assert [line["parsed"] for line in parsed] == [True] * VIDEOS
    assert all(BOOK.asked()[at].accepts(value) for line in parsed for at, value in enumerate(line["json"].values()))
    assert len(desk.paths()["results"].read_text(encoding="utf-8").splitlines()) == VIDEOS + 1
    assert "china_related" in said.out


def test_perfect_answers_score_one(desk: Desk) -> None:
    assert desk.type(BUILD).code == 0
    gold = {line["meta_id"]: line["messages"][-1]["content"] for line in desk.lines("train")}
    desk.paths()["raw"].parent.mkdir()
    with desk.paths()["raw"].open("w", encoding="utf-8") as file:
        for at, (identity, answer) in enumerate(gold.items()):
            record = {"idx": at, "meta_id": identity, "raw": answer, "attempt": 1, "finish_reason": "stop"}
            file.write(json.dumps(record) + "\n")
    assert desk.type(PARSE).code == 0
    report = desk.folder / "report.json"
    said = desk.type("score --val-file {train} {parsed}", "--out", str(report))
    assert said.code == 0, said.err
    assert "1.000" in said.out


def test_images_by_reference_are_sent_as_those_inline(desk: Desk) -> None:
    assert desk.type(BUILD_BARE).code == 0
    inline = desk.paths()["inference"].stat().st_size
    assert desk.type(BUILD_BARE, "--image-refs").code == 0
    assert desk.paths()["inference"].stat().st_size < inline
    assert "base64" not in desk.paths()["inference"].read_text(encoding="utf-8")
    assert desk.type(INFER).code == 0
    assert desk.provider.ledger()["images"] == 3 * (VIDEOS - 1)


def test_a_video_without_frames_is_named_and_sent_as_text(desk: Desk) -> None:
    said = desk.type(BUILD_BARE)
    assert said.code == 0
    assert str(FIRST_ID + VIDEOS - 1) in said.err
    assert str(FIRST_ID) not in said.err


def test_images_without_a_place_for_frames_are_refused(desk: Desk) -> None:
    said = desk.type("build --input {bare} --output {inference} --include-images --no-labels")
    assert said.code == 64
    assert "--frames-dir" in said.err
    said = desk.type(BUILD_BARE.replace("{frames}", "{frames}-elsewhere"))
    assert said.code == 64
    assert "no such" in said.err.lower()


def test_a_broken_frame_is_left_out_and_the_others_go_on(desk: Desk) -> None:
    (desk.paths()["frames"] / str(FIRST_ID) / "frame_1.jpg").write_bytes(random.Random(1).randbytes(500))
    assert desk.type(BUILD_BARE).code == 0
    content = desk.lines("inference")[0]["messages"][1]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]


def test_a_model_without_eyes_says_so_and_loses_nothing(desk: Desk) -> None:
    refusal = "This model does not support images"
    desk.provider.tell({"faults": [{"kind": "status", "status": 400, "message": refusal}], "row_pattern": r"row (\d+)"})
    assert desk.type(BUILD_BARE).code == 0
    said = desk.type(INFER)
    assert said.code in {1, 69, 75}
    assert refusal in said.err
    desk.provider.tell({"row_pattern": r"row (\d+)"})
    again = desk.type(INFER, "--resume")
    assert again.code == 0, again.err
    assert [line["idx"] for line in desk.lines("raw")] == list(range(VIDEOS))
    assert all("REQUEST FAILED" not in line["raw"] for line in desk.lines("raw"))


PETS = """\
name = "pets"
title = "Pets in short videos"
role = "You label short videos for a study of animals."

[[dimensions]]
key = "animal"
title = "Animal"
kind = "categorical"
definition = "The animal that is shown most."
evidence = "What is seen in the frames."
values = ["cat", "dog", "other", "cannot_determine"]
synonyms = { cat = ["kitten"] }
gold = ["species"]

[[dimensions]]
key = "calm"
title = "Calmness"
kind = "number"
definition = "How calm the animal is."
evidence = "Its movements."
minimum = 0
maximum = 1
"""


def test_a_codebook_of_another_domain_goes_from_its_file_to_a_score(tmp_path: Path) -> None:
    book, table = tmp_path / "pets.toml", tmp_path / "pets.csv"
    book.write_text(PETS, encoding="utf-8")
    rows = "".join(f"{at},row {at} a long enough text,{'kitten' if at % 2 else 'Dog'},0.{at}\n" for at in range(8))
    table.write_text("id,description,species,calm\n" + rows, encoding="utf-8")
    gold, raw, parsed = tmp_path / "gold.jsonl", tmp_path / "raw.jsonl", tmp_path / "parsed.jsonl"
    with simulated(tmp_path) as provider:
        for command in (
            ("codebook", "check", book),
            ("build", "--input", table, "--output", gold, "--codebook", book),
            ("infer", "--val-file", gold, "--model", "m", "--base-url", provider.url, "--out", raw, "--codebook", book),
            ("parse", "--raw", raw, "--out", parsed, "--codebook", book),
            ("score", "--val-file", gold, parsed, "--codebook", book, "--out", tmp_path / "scores.json"),
        ):
            said = cli(*command)
            assert said.code == 0, f"{command}\n{said.err}"
    labels = [json.loads(line)["json"] for line in parsed.read_text(encoding="utf-8").splitlines()]
    assert [list(found) for found in labels] == [["animal", "calm"]] * 8
    answers = [json.loads(line)["messages"][-1]["content"] for line in gold.read_text(encoding="utf-8").splitlines()]
    assert json.loads(answers[0]) == {"animal": "dog", "calm": 0.0}
    assert json.loads(answers[1]) == {"animal": "cat", "calm": 0.1}
    assert "animal" in said.out
