"""The simulated provider of fine-tuning looks as strictly as the real ones say they do."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from bench.finetuning_form import Body, read_form
from bench.finetuning_jobs import RefusedError, check_job, look_through, scenario_from
from engine.errors import ConfigError
from tests.fakes.finetuning import chat

PICTURE = "data:image/png;base64,AAAA"


def lines(*said: object) -> list[bytes]:
    return [orjson.dumps(line) + b"\n" for line in said]


@pytest.mark.parametrize(
    "said",
    [
        [],
        [{"messages": chat(), "meta_id": "7"}],
        [{"messages": chat()[:2]}],
        [{"messages": chat()[1:2] + chat()[1:]}],
        [{"messages": chat(pictures=[PICTURE])}],
        [{"messages": [message | {"content": []} for message in chat()]}],
        [{"messages": chat()}, {"messages": [m | {"content": [{"type": "text", "text": "x"}]} for m in chat()]}],
        ["no object"],
    ],
)
def test_a_file_that_a_real_one_would_refuse_is_refused(said: list[object]) -> None:
    with pytest.raises(RefusedError):
        look_through(lines(*said))


def test_a_sound_file_is_counted() -> None:
    assert look_through(lines(*[{"messages": chat()}] * 3)) == 3


@pytest.mark.parametrize(
    ("api", "told"),
    [
        ("openai", {"training_file": "f"}),
        ("openai", {"model": "m", "training_file": "f", "learning_rate": 0.1}),
        ("openai", {"model": "m", "training_file": "f", "method": {"type": "dpo"}}),
        ("together", {"model": "m", "training_file": "f", "method": {}}),
        ("together", {"model": "m", "training_file": "f", "n_evals": 3}),
        ("together", {"model": "m", "training_file": "f", "n_epochs": 1.5}),
    ],
)
def test_a_job_that_a_real_one_would_refuse_is_refused(api: str, told: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        check_job(told, api)


@pytest.mark.parametrize("size", [0, 1, 5, 300_000, (256 << 10) - 3])
def test_a_file_comes_out_of_its_form_to_the_letter(size: int) -> None:
    content = (b"\r\n--almost\r\n" * (size // 12 + 1))[:size]
    form = (
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: x\r\n\r\n'
    )
    whole = form + content + b"\r\n--B--\r\n"
    out = io.BytesIO()
    body = Body(io.BytesIO(whole + b"the next request"), len(whole))
    assert read_form(body, "multipart/form-data; boundary=B", out) == {"purpose": "fine-tune", "file": "a.jsonl"}
    assert out.getvalue() == content


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
def test_what_is_no_form_is_refused(kind: str) -> None:
    with pytest.raises(RefusedError):
        read_form(Body(io.BytesIO(b"{}"), 2), kind, io.BytesIO())


def test_a_form_that_breaks_off_is_refused() -> None:
    with pytest.raises(RefusedError, match="breaks off"):
        read_form(Body(io.BytesIO(b"--B\r\nContent"), 12), "multipart/form-data; boundary=B", io.BytesIO())


@pytest.mark.parametrize("said", [{"unknown": 1}, {"blows": [{"what": 1}]}, {"blows": [7]}, []])
def test_a_scenario_that_is_none_is_a_wrong_file(said: Any) -> None:
    with pytest.raises(ConfigError):
        scenario_from(said)
