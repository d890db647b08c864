"""The rules of `generate`: settings, what is sent beyond the usual fields, answers out of conversations, rows."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from encoders.asking import Asking
from engine.errors import ConfigError, InputError
from labels.generate.answers import AnswerRows, write_list
from labels.generate.clean import TEMPLATES, Template, clean
from labels.generate.config_file import YAML_MISSING, settings_of
from labels.generate.flags import GenerateFlags
from labels.generate.order import Sampling, body_of, order_of
from labels.generate.prompts import Prompts, as_lines
from labels.judge.inputs import ANSWER_KEYS

TIGER = "a tiger eats a tax"
LABELS = (
    "<extra_id_2>quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,correctness:4,coherence:4,complexity:4,"
    "verbosity:4\n"
)
CONVERSATIONS: dict[Template, str] = {
    "none": f" {TIGER}\n",
    "nvgpt": (
        "<extra_id_0>System\nBe kind.\n\n<extra_id_1>User\nWhat?<video>\n"
        f"<extra_id_1>Assistant\n{LABELS}{TIGER}\n<extra_id_1>"
    ),
    "nv_steerlm": f"<extra_id_1>User\nWhat?\n<extra_id_1>Assistant\n{LABELS}{TIGER}<extra_id_7>",
    "nv_dpo": f"<extra_id_0>System\n\n<extra_id_1>User\nWhat?\n<extra_id_1>Assistant\n{TIGER}\n<extra_id_1>",
    "llama_2": f"<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nWhat? [/INST] {TIGER} </s>",
    "llama_3": (
        "<|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n{TIGER}<|eot_id|>"
    ),
    "mistral": f"<s>[INST] What? [/INST] {TIGER}</s>",
    "yi_34b": f"<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n{TIGER}<|im_end|>",
    "v1": f"A chat. USER: What? ASSISTANT: {TIGER}</s>",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_answer_keeps_every_letter_whatever_stands_around_it(template: Template) -> None:
    assert clean(CONVERSATIONS[template], template) == TIGER


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("said", [TIGER, "extra", "assistant", "", "s", "1 <extra", "im_end", "Assistant: I am"])
def test_a_bare_answer_is_left_as_it_stands(template: Template, said: str) -> None:
    assert clean(said, template) == said


@pytest.mark.parametrize("template", TEMPLATES[1:])
def test_no_conversation_is_taken_for_an_answer(template: Template) -> None:
    assert "What?" not in clean(CONVERSATIONS[template], template)
    assert "What?" in clean(CONVERSATIONS[template], "none")


def test_later_words_beat_earlier_ones_and_are_of_the_type_of_their_flag() -> None:
    words = ("inference.temperature=0.5", "inference.temperature=1", "inference.greedy=True", "data.num_frames=-1")
    found = settings_of(None, (*words, "inference.end_strings=[<extra_id_1>, '</s>']", "prompt_file=7.jsonl"))
    assert found.values == {
        "temperature": 1,
        "greedy": True,
        "num_frames": -1,
        "end_strings": ("<extra_id_1>", "</s>"),
        "prompt_file": "7.jsonl",
    }


def test_keys_of_a_model_on_ones_own_cards_are_told_once_and_others_refused() -> None:
    found = settings_of(None, ("trainer.devices=4", "inference.add_BOS=False", "tensor_model_parallel_size=8"))
    assert not found.values
    assert found.note() == (
        "Left to the server that is asked: trainer.devices, inference.add_BOS, tensor_model_parallel_size",
    )
    with pytest.raises(ConfigError, match=r"unknown keys: inference\.beams, modell\."):
        settings_of(None, ("modell=x", "inference.beams=4"))


@pytest.mark.parametrize(
    "word",
    [
        *("inference.top_k=1.5", "inference.greedy=1", "inference.media_type=sound", "inference.end_strings=x"),
        *("inference.temperature=True", "inference.insert_media_token=middle", "inference.top_p=high"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_by_its_key(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0].replace(".", r"\.")):
        settings_of(None, (word,))


def test_without_a_yaml_library_the_way_to_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "neva.yaml"
    path.write_text("inference:\n  top_k: 3\n  beams: 4\n")
    words = r"unknown keys: inference\.beams" if find_spec("yaml") else re.escape(YAML_MISSING)
    with pytest.raises(ConfigError, match=words):
        settings_of(path, ())


def test_a_file_of_nemo_is_read_and_flags_beat_it(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path, prompts = tmp_path / "neva.yaml", tmp_path / "p.jsonl"
    prompts.write_text('{"video": "a.mp4", "text": "What?"}\n')
    path.write_text(
        "inference:\n  greedy: False\n  top_k: 3\n  top_p: 0.8\n  end_strings: ['<extra_id_1>']\n"
        f"  media_base_path: {tmp_path}\n  insert_media_token: left\n  media_type: image\n"
        f"prompt_file: {prompts}\noutput_file: {tmp_path / 'a.jsonl'}\ntrainer:\n  devices: 8\nbase_model_file: null\n"
    )
    order = order_of(GenerateFlags(config_file=path, top_p=0.5), ("inference.top_k=4",))
    assert (order.sampling.top_k, order.sampling.top_p) == (4, 0.5)
    assert order.sampling.end_strings == ("<extra_id_1>",)
    assert order.asking == Asking(media_type="image", insert="left")
    assert "trainer.devices, base_model_file" in order.notes[0]


def order_for(tmp_path: Path, **told: Any) -> Any:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"video": "a.mp4", "text": "What?"}\n')
    flags = GenerateFlags(prompt_file=prompts, output_file=tmp_path / "a.jsonl", media_base_path=str(tmp_path), **told)
    return order_of(flags, ())


@pytest.mark.parametrize(
    ("params", "url", "sent"),
    [
        ("auto", "http://127.0.0.1:8000/v1", True),
        ("auto", "http://localhost:8000/v1", True),
        ("auto", "https://api.together.xyz/v1", False),
        ("vllm", "https://api.together.xyz/v1", True),
        ("openai", "http://127.0.0.1:8000/v1", False),
    ],
)
def test_a_servers_own_fields_go_only_where_they_are_taken(tmp_path: Path, params: Any, url: str, sent: bool) -> None:  # noqa: FBT001
    order = order_for(tmp_path, server_params=params, top_k=5, min_tokens_to_generate=2, end_strings=("END",))
    body, notes = body_of(order, [url])
    extras = {"top_k": 5, "repetition_penalty": 1.2, "min_tokens": 2}
    assert body == {"stop": ["END"]} | (extras if sent else {})
    assert bool(notes) is not sent
    assert body_of(order, [url, "https://elsewhere.example/v1"])[0].keys() == (
        {"stop"} | (extras.keys() if params == "vllm" else set())
    )


def test_what_says_nothing_is_not_sent() -> None:
    assert Sampling().extras() == {"repetition_penalty": 1.2}
    assert Sampling(repetition_penalty=1.0).extras() == {}
    assert Sampling(top_k=5, greedy=True, repetition_penalty=1.0).extras() == {}


def test_prompts_are_found_by_position_whatever_lines_lie_between(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    long = "x" * 20_000
    lines = [
        b"\xef\xbb\xbf" + b'{"n": 0}',
        b"",
        b'{"n": 1}',
        b"   ",
        b"[1]",
        b"broken",
        json.dumps({"n": long}).encode(),
    ]
    path.write_bytes(b"\r\n".join(lines))
    with Prompts(path) as prompts:
        assert [prompts.get(row) for row in range(6)] == [{"n": 0}, {"n": 1}, {}, {}, {"n": long}, {}]


def test_a_list_becomes_lines_once_and_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('[{"video": "é\\ud800", "n": 7531309745475554591}, 5]')
    lines = as_lines(path, tmp_path / "run")
    assert [json.loads(line) for line in lines.read_text().splitlines()] == json.loads(path.read_text())
    before = lines.stat()
    assert as_lines(path, tmp_path / "run").stat().st_ino == before.st_ino
    for text in ("[]", "{}", "no"):
        path.write_text(text)
        with pytest.raises(InputError):
            as_lines(path, tmp_path / "run")
    assert lines.stat().st_ino == before.st_ino


RESULT = {"row": 0, "meta_id": "0", "raw": CONVERSATIONS["v1"], "truncated": False, "model": "m", "usage": None}
FAILURE = {"row": 0, "meta_id": "0", "kind": "refused", "message": "no", "usage": None}


def answered(tmp_path: Path, line: str, said: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    with Prompts(path) as prompts:
        return AnswerRows(prompts=prompts, asking=Asking(insert="left"), template="v1")(said, model="asked")


def test_an_answer_keeps_its_question_and_an_old_answer_file_can_be_asked_again(tmp_path: Path) -> None:
    row = answered(tmp_path, '{"image": "a.jpg", "text": "What?", "question_id": "q7", "kept": [1]}', RESULT)
    assert (row["text"], row["question_id"], row["kept"], row["prompt"]) == ("What?", "q7", [1], "<image>What?")
    assert (row["full_text"], row["pred_answer"], row["model_id"]) == (CONVERSATIONS["v1"], TIGER, "m")
    assert next(key for key in ANSWER_KEYS if key in row) == "pred_answer", "judge would take the question for it"
    again = answered(tmp_path, json.dumps(row), FAILURE)
    assert (again["prompt"], again["pred_answer"], again["status"]) == ("<image>What?", None, "error")


def test_a_line_that_is_no_prompt_has_an_answer_row_all_the_same(tmp_path: Path) -> None:
    row = answered(tmp_path, "[1]", FAILURE)
    assert (row["question_id"], row["prompt"], row["full_text"], row["model_id"]) == (0, None, None, "asked")
    assert (row["error_kind"], row["error"], row["metadata"]) == ("refused", "no", {})


def test_what_no_writer_takes_passes_through_as_text(tmp_path: Path) -> None:
    row = answered(tmp_path, f'{{"image": "a.jpg", "text": "W\\ud800?", "n": {10**30}}}', RESULT)
    assert (row["text"], row["n"]) == ("W\ufffd?", str(10**30))


@pytest.mark.parametrize("rows", [[], [{"n": 1}], [{"n": 1}, {"n": "]"}]])
def test_lines_become_one_list(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    lines, to = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_list(lines, to)
    assert json.loads(to.read_text()) == rows
