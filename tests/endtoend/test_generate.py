"""`generate` as a user starts it, against the simulated provider."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clips import plain
from tests.fakes.commands import Said, Simulated, cli, finished, lines_of, simulated, start_cli
from tests.fakes.neva import AS_WRITTEN
from tests.fakes.photos import encoded, phone_photo
from tests.fakes.serving import command, free_port, living, pids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SLOW_SERVER: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.15}}
OURS = [
    *("prompt", "full_text", "pred_answer", "model_id", "answer_id", "metadata", "status", "error_kind", "error"),
    *("truncated", "usage", "cost_usd", "frames", "degraded", "request_id"),
]


def put_media(root: Path) -> Path:
    root.mkdir()
    (root / "video_test.mp4").write_bytes(plain())
    (root / "photo.jpg").write_bytes(encoded(phone_photo("china", (200, 300))))
    return root


def prompt(row: int, **more: object) -> dict[str, Any]:
    return {
        "video": "video_test.mp4",
        "text": f"Can you describe row {row}?",
        "category": "conv",
        "question_id": row,
    } | more


def write_prompts(path: Path, prompts: Sequence[object]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(prompts), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(said) + "\n" for said in prompts), encoding="utf-8")
    return path


def answers(out: Path) -> list[dict[str, Any]]:
    text = out.read_text(encoding="utf-8")
    return list(json.loads(text)) if out.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def arguments(tmp_path: Path, prompts: Path, out: Path, url: str, *more: object) -> Sequence[object]:
    places = ("--prompt-file", prompts, "--media-base-path", tmp_path / "media", "--output-file", out)
    return ("generate", *places, "--model", "simulated/vision", "--base-url", url, *more)


def generate(tmp_path: Path, prompts: Path, out: Path, url: str, *more: object) -> Said:
    return cli(*arguments(tmp_path, prompts, out, url, *more))


def asked(provider: Simulated) -> list[tuple[int, int]]:
    """The row and the number of pictures of each call but those that measure what a picture costs."""
    return [(int(entry["row"]), entry["images"]) for entry in provider.entries() if entry["row"] is not None]


def wait_for_lines(out: Path, count: int, *, within_s: float = 30.0) -> None:
    """Return once the file has so many lines."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if out.exists() and out.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{count} lines were never written")


def test_a_prompt_file_and_settings_as_nemo_takes_them_give_answers(tmp_path: Path) -> None:
    media = put_media(tmp_path / "media")
    example = prompt(0, text="Can you describe the scene?")
    prompts, out = write_prompts(tmp_path / "p.jsonl", [example]), tmp_path / "out" / "answers.jsonl"
    places = (f"prompt_file={prompts}", f"inference.media_base_path={media}", f"output_file={out}")
    with simulated(tmp_path) as provider:
        said = cli("generate", *AS_WRITTEN, *places, "--model", "simulated/vision", "--base-url", provider.url)
        (entry,) = [entry for entry in provider.entries() if entry["max_tokens"] == 256]
    assert said.code == 0, said.err
    assert said.out == ""
    assert entry["images"] == 8
    (answer,) = answers(out)
    assert list(answer) == [*example, *OURS]
    assert {key: answer[key] for key in example} == example, "the question keeps its own fields"
    assert answer["prompt"] == "Can you describe the scene?<video>"
    assert answer["pred_answer"] == answer["full_text"].strip() != ""
    assert (answer["answer_id"], answer["metadata"], answer["status"]) == (0, {}, "ok")
    assert [frame["index"] for frame in answer["frames"]] == [0, 3, 6, 9, 13, 16, 19, 23]
    assert said.err.count("trainer.devices") == 1, "what means nothing here is said once"
    assert cli("verify", f"{out}.run").code == 0


@pytest.mark.parametrize(("source", "target"), [("p.jsonl", "a.json"), ("p.json", "a.jsonl"), ("p.json", "a.json")])
def test_both_forms_of_both_files_keep_the_order_of_the_input(tmp_path: Path, source: str, target: str) -> None:
    put_media(tmp_path / "media")
    rows = [prompt(row) if row % 3 else prompt(row, video=None, image="photo.jpg") for row in range(30)]
    prompts, out = write_prompts(tmp_path / source, rows), tmp_path / target
    with simulated(tmp_path) as provider:
        said = generate(tmp_path, prompts, out, provider.url, "--price-in", 1, "--price-out", 2)
        assert said.code == 0, said.err
        images = dict(asked(provider))
        assert generate(tmp_path, prompts, out, provider.url).code == 73
        assert generate(tmp_path, prompts, out, provider.url, "--resume").code == 0, "nothing is left to do"
        assert len(asked(provider)) == 30
    assert images == {row: 8 if row % 3 else 1 for row in range(30)}
    found = answers(out)
    assert [answer["question_id"] for answer in found] == list(range(30))
    assert all(answer["status"] == "ok" and answer["cost_usd"] > 0 for answer in found)
    assert cli("verify", f"{out}.run").code == 0


def test_what_cannot_be_asked_fails_alone_and_never_without_its_medium(tmp_path: Path) -> None:
    put_media(tmp_path / "media")
    (tmp_path / "secret.mp4").write_bytes(plain())
    (tmp_path / "media" / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "media" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    rows = [
        prompt(0),
        prompt(1, video="missing.mp4"),
        prompt(2, video="../secret.mp4"),
        prompt(3, video=str(tmp_path / "secret.mp4")),
        prompt(4, video="broken.mp4"),
        prompt(5, video=None),
        prompt(6, text=""),
        prompt(7, video="link.mp4"),
        {"image": "photo.jpg", "question": "What does this video show, row 8?"},
    ]
    out = tmp_path / "a.jsonl"
    with simulated(tmp_path) as provider:
        said = generate(tmp_path, write_prompts(tmp_path / "p.jsonl", rows), out, provider.url, "--max-failed", 100)
        images = dict(asked(provider))
        assert images == {0: 8, 8: 1}, "the word video makes no video of an image"
        assert said.code == 1, said.err
        (tmp_path / "media" / "missing.mp4").write_bytes(plain())
        again = generate(
            tmp_path, tmp_path / "p.jsonl", out, provider.url, "--max-failed", 100, "--resume", "--only", "bad_media"
        )
        assert len(asked(provider)) == 3
    assert again.code == 1, again.err
    found = answers(out)
    kinds = [answer["error_kind"] for answer in found]
    assert kinds == [None, None, "invalid_id", "invalid_id", "bad_media", "bad_row", "bad_row", "bad_media", None]
    assert all((answer["pred_answer"] is None) == (answer["status"] == "error") for answer in found)
    assert found[8]["question_id"] == 8


def test_a_kill_and_a_resume_lose_nothing_and_pay_for_no_answer_twice(tmp_path: Path) -> None:
    put_media(tmp_path / "media")
    count = 120
    prompts, out = write_prompts(tmp_path / "p.jsonl", [prompt(row) for row in range(count)]), tmp_path / "a.jsonl"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        told = arguments(tmp_path, prompts, out, provider.url, "--concurrency", 8, "--resume")
        process = start_cli(*told)
        wait_for_lines(out, 30)
        process.kill()
        assert finished(process).code == -signal.SIGKILL
        whole = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        safe = {json.loads(line)["question_id"] for line in whole}
        assert len(safe) == len(whole) < count
        said = cli(*told)
        assert said.code == 0, said.err
        calls = [row for row, _ in asked(provider)]
    assert [answer["question_id"] for answer in answers(out)] == list(range(count))
    assert {row for row in calls if calls.count(row) > 1}.isdisjoint(safe), "an answer in the file was paid for twice"
    assert len(lines_of(Path(f"{out}.run"))) == count


def test_identical_prompts_are_asked_once_unless_told_otherwise(tmp_path: Path) -> None:
    put_media(tmp_path / "media")
    prompts = write_prompts(tmp_path / "p.jsonl", [prompt(row, text="Describe row 1") for row in range(5)])
    with simulated(tmp_path) as provider:
        assert generate(tmp_path, prompts, tmp_path / "a.jsonl", provider.url).code == 0
        assert len(asked(provider)) == 1
        assert generate(tmp_path, prompts, tmp_path / "b.jsonl", provider.url, "--no-share").code == 0
        assert len(asked(provider)) == 6
    assert [answer["shared_with"] for answer in answers(tmp_path / "a.jsonl")[1:]] == [0] * 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("inference.beams=4",), "unknown keys: inference.beams"),
        (("inference.top_k=many",), "inference.top_k: 'many'"),
        (("word",), "'word' is neither a flag nor a setting"),
        (("--output-file", "a.csv"), "a.csv: unknown kind of file"),
        (("--prompt-file", "none.jsonl"), "none.jsonl: no such file"),
        (("--media-base-path", "/nowhere"), "/nowhere: No such file"),
        (("--top-p", "2"), "--top-p"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_made(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    put_media(tmp_path / "media")
    prompts = write_prompts(tmp_path / "p.jsonl", [prompt(0)])
    told = list(arguments(tmp_path, prompts, tmp_path / "a.jsonl", "http://127.0.0.1:9"))
    if more[0] in told:
        at = told.index(more[0])
        del told[at : at + 2]
    said = cli(*told, *more)
    assert said.code == 64, said.err
    assert words in said.err
    assert not (tmp_path / "a.jsonl").exists()
    assert not (tmp_path / "a.jsonl.run").exists()


def test_a_file_that_no_run_has_made_is_never_replaced(tmp_path: Path) -> None:
    put_media(tmp_path / "media")
    out = tmp_path / "a.json"
    out.write_text("of somebody else\n")
    prompts = write_prompts(tmp_path / "p.json", [prompt(0)])
    for more in ((), ("--resume",)):
        assert generate(tmp_path, prompts, out, "http://127.0.0.1:9", *more).code == 73
    assert out.read_text() == "of somebody else\n"
    assert not (tmp_path / "a.json.run").exists()


def test_a_server_of_ones_own_is_asked_and_ends_with_the_run(tmp_path: Path) -> None:
    put_media(tmp_path / "media")
    prompts, out = write_prompts(tmp_path / "p.json", [prompt(row) for row in range(6)]), tmp_path / "a.json"
    serve = command(tmp_path, free_port())
    places = ("--prompt-file", prompts, "--media-base-path", tmp_path / "media", "--output-file", out)
    said = cli("generate", *places, "--serve", serve, "--workers", 1)
    assert said.code == 0, said.err
    assert [answer["status"] for answer in answers(out)] == ["ok"] * 6
    assert not living(pids(tmp_path))
    assert cli("verify", f"{out}.run").code == 0
