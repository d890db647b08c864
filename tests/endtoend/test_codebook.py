"""`codebook` as a user types it, and a codebook of one's own from its file to labels, without touching code."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from labels.codebook import SHIPPED, load_codebook
from tests.fakes.codebooks import ODD, perfect_answer
from tests.fakes.commands import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
PETS = """\
name = "pets"
title = "Pets in short videos"
role = "You label short videos for a study of animals."
vision = "You see frames of one video, in order."

[[dimensions]]
key = "animal"
title = "Animal"
kind = "categorical"
definition = "The animal that is shown most."
evidence = "What is seen in the frames."
values = ["cat", "dog", "other", "cannot_determine"]
synonyms = { cat = ["kitten"], dog = ["puppy"] }

[[dimensions]]
key = "leash"
title = "Leash"
kind = "categorical"
definition = "Whether the dog is on a leash."
evidence = "A visible leash."
values = ["yes", "no"]
when = { key = "animal", equals = "dog" }

[[dimensions]]
key = "calm"
title = "Calmness"
kind = "number"
definition = "How calm the animal is."
evidence = "Its movements."
minimum = 0
maximum = 1

[groups.parts]
who = ["animal", "leash"]
how = ["calm"]
"""


def test_show_tells_what_is_asked() -> None:
    said = cli("codebook", "show", "comprehensive")
    assert said.code == 0, said
    for words in ("china_sensitive", "unless china_related = yes", "gold: harmful_content, harmful", "by-category"):
        assert words in said.out
    assert "if hate_speech = yes then harmful_content = yes" in said.out
    book = load_codebook("comprehensive")
    told = json.loads(cli("codebook", "show", "comprehensive", "--json").out)
    assert [dimension["key"] for dimension in told["dimensions"]] == [each.key for each in book.dimensions]
    assert (told["digest"], told["schema_digest"]) == (book.digest, book.schema_digest())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_is_sound(name: str) -> None:
    said = cli("codebook", "check", name)
    assert (said.code, said.out.split(",")[0]) == (0, f"{name}: sound"), said
    assert "tokens" not in said.err


def test_check_names_line_and_key_of_a_mistake_and_warns_of_what_may_be_one(tmp_path: Path) -> None:
    path = tmp_path / "pets.toml"
    path.write_text(PETS.replace('kind = "number"', 'kind = "numbr"'))
    said = cli("codebook", "check", path)
    assert (said.code, said.out) == (64, "")
    assert f"{path}, line 27: dimension calm: kind must be one of" in said.err
    assert "Traceback" not in said.err
    path.write_text(ODD)
    said = cli("codebook", "check", path)
    assert said.code == 0
    assert "warning: 话题: 'US' and 'us' differ in case alone" in said.err
    assert "warning: 话题 has no value for lacking evidence" in said.err


def test_prompt_prints_the_prompt_the_schema_or_the_form_of_a_part_or_the_whole() -> None:
    book, part = load_codebook("comprehensive"), ("by-category", "C")
    flags = ("--group-mode", "by-category", "--group", "C")
    assert cli("codebook", "prompt", "comprehensive").out == book.system_prompt() + "\n"
    assert cli("codebook", "prompt", "comprehensive", *flags).out == book.system_prompt(part) + "\n"
    said = cli("codebook", "prompt", "comprehensive", "--vision", "--group", "C").out
    assert said == f"{book.vision_context}\n\n{book.system_prompt(part)}\n"
    assert json.loads(cli("codebook", "prompt", "comprehensive", "--schema", *flags).out) == book.json_schema(part)
    said = cli("codebook", "prompt", "comprehensive", "--response-format").out
    assert json.loads(said) == book.response_format()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--group-mode", "by-category"), "goes with --group: A, B, C, D"),
        (("--group-mode", "thirds", "--group", "A"), "comprehensive has binary, by-category, per-item, single"),
        (("--group", "Z"), "--group Z needs --group-mode"),
        (("--group-mode", "binary", "--group", "A"), "goes with --group: china, content"),
    ],
)
def test_a_part_that_there_is_not_is_refused_with_those_there_are(flags: tuple[str, ...], words: str) -> None:
    said = cli("codebook", "prompt", "comprehensive", *flags)
    assert (said.code, said.out) == (64, "")
    assert words in said.err


def test_a_codebook_of_ones_own_goes_from_its_file_to_labels(tmp_path: Path) -> None:
    """Its prompt, as printed, is answered by somebody who knows nothing else; the answers come back as labels."""
    path, raw, rng = tmp_path / "pets.toml", tmp_path / "raw.jsonl", random.Random(4)
    path.write_text(PETS)
    assert cli("codebook", "check", path).code == 0
    assert cli("codebook", "prompt", path, "--vision").out.startswith("You see frames of one video, in order.\n\nYou")
    made = [perfect_answer(cli("codebook", "prompt", path).out, rng) for _ in range(5)]
    answers = [json.dumps(said) for said in made]
    answers += ['```json\n{"animal":"Puppy","leash":true,"calm":"0.5"}\n```', '{"animal":"horse","leash":"","calm":1}']
    lines = [
        {"idx": idx, "meta_id": f"v{idx}", "raw": text, "finish_reason": "stop"} for idx, text in enumerate(answers)
    ]
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = cli("parse", "--raw", raw, "--out", tmp_path / "parsed.jsonl", "--codebook", path)
    assert (said.code, said.out.split("\n")[0]) == (0, "parsed 5/7 = 0.714"), said
    parsed = [json.loads(line) for line in (tmp_path / "parsed.jsonl").read_text().splitlines()]
    assert [line["json"] for line in parsed[:5]] == made
    assert [line["reason"] for line in parsed[5:]] == ["bad_value:leash", "bad_value:animal"]

    lines = []
    for group, text in (("who", '{"animal":"puppy","leash":"no"}'), ("how", '{"calm":0.25')):
        prompt = cli("codebook", "prompt", path, "--group-mode", "parts", "--group", group).out
        assert "- calm: a number from 0 to 1" in prompt or group == "who"
        lines.append(
            {"idx": len(lines), "meta_id": f"v0__group_{group}", "raw": text + ("\n" if group == "how" else "")}
        )
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = cli("parse", "--raw", raw, "--out", tmp_path / "merged.jsonl", "--codebook", path, "--merge")
    assert said.code == 0, said
    (record,) = [json.loads(line) for line in (tmp_path / "merged.jsonl").read_text().splitlines()]
    assert (record["json"], record["complete"]) == ({"animal": "dog", "leash": "no", "calm": 0.25}, True)
    assert record["repairs"] == ["how:truncated_tail", "who:value:animal"]
