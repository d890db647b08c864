"""`infer` as a user starts it, against the simulated provider."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from encoders.refs import frame_ref
from tests.fakes.commands import Said, cli, environment, finished, lines_of, simulated, start_cli
from tests.fakes.photos import encoded, phone_photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SLOW_SERVER: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.15}}
RAW_KEYS = [
    *("idx", "meta_id", "raw", "attempt", "latency_s", "model", "finish_reason", "truncated", "max_tokens_used"),
    *("status", "error_kind", "http_status", "error", "usage", "cost_usd", "frames", "degraded", "request_id"),
]


def chat(row: int, *, content: object = None, gold: bool = True, **more: object) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": "Label the video. Answer with JSON."},
        {"role": "user", "content": f"TRANSCRIPT:\nrow {row}" if content is None else content},
    ]
    if gold:
        messages.append({"role": "assistant", "content": '{"answer":"the gold label"}'})
    return {"meta_id": str(7_000_000_000_000_000_000 + row), "messages": messages} | more


def write_chats(path: Path, chats: Sequence[object]) -> Path:
    lines = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in chats)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def raw_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def infer_arguments(chats: Path, out: Path, url: str, *more: object) -> Sequence[object]:
    return ("infer", "--val-file", chats, "--model", "simulated/vision", "--out", out, "--base-url", url, *more)


def infer(chats: Path, out: Path, url: str, *more: object) -> Said:
    return cli(*infer_arguments(chats, out, url, *more))


def wait_for_lines(out: Path, count: int, *, within_s: float = 30.0) -> None:
    """Return once the file has so many lines."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if out.exists() and out.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{count} lines were never written")


def test_every_chat_gets_one_raw_record_in_the_order_of_the_file(tmp_path: Path) -> None:
    out = tmp_path / "out" / "preds.raw.jsonl"
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(120)])
    with simulated(tmp_path) as provider:
        said = infer(chats, out, provider.url, "--price-in", 1, "--price-out", 2)
        entries = provider.entries()
    assert said.code == 0, said.err
    assert said.out == ""
    assert sorted(int(entry["row"]) for entry in entries) == list(range(120))
    assert {(entry["max_tokens"], entry["structured"], entry["images"]) for entry in entries} == {(128, None, 0)}
    lines = raw_lines(out)
    assert [line["idx"] for line in lines] == list(range(120))
    assert all(list(line) == RAW_KEYS for line in lines)
    first = lines[0]
    assert (first["meta_id"], first["attempt"], first["max_tokens_used"]) == ("7000000000000000000", 1, 128)
    assert (first["finish_reason"], first["truncated"], first["status"]) == ("stop", False, "ok")
    assert (first["error"], first["error_kind"], first["http_status"]) == (None, None, None)
    assert first["usage"]["completion_tokens"] > 0
    assert first["cost_usd"] > 0
    assert round(first["latency_s"], 3) == first["latency_s"]
    assert "gold label" not in out.read_text()
    for command in ("status", "verify"):
        assert cli(command, f"{out}.run").code == 0
    assert cli("export", f"{out}.run", "--to", tmp_path / "table.csv").code == 0
    assert str(out) in said.err


def test_the_answer_that_is_wanted_and_other_keys_are_never_sent(tmp_path: Path) -> None:
    chats = write_chats(
        tmp_path / "val.jsonl",
        [{"messages": [{"role": "user", "content": "row 0", "name": "x"}, {"role": "assistant", "content": "gold"}]}],
    )
    with simulated(tmp_path) as provider:
        assert infer(chats, tmp_path / "raw.jsonl", provider.url, "--append-enforcer", "--effort", "low").code == 0
        (entry,) = provider.entries()
    body_bytes = entry["body_bytes"]
    assert 200 < body_bytes < 600
    assert raw_lines(tmp_path / "raw.jsonl")[0]["meta_id"] == "0"


def test_ids_and_groups_are_those_of_the_file_and_skip_keeps_positions(tmp_path: Path) -> None:
    chats = write_chats(
        tmp_path / "val.jsonl",
        [
            chat(0),
            chat(1, meta_id="42__group_B", group_id="B", original_meta_id="42"),
            {"messages": chat(2)["messages"]},
            chat(3, meta_id=7531309745475554591),
            chat(4),
        ],
    )
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path) as provider:
        said = infer(chats, out, provider.url, "--skip", 1, "--limit", 3)
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 3
    lines = raw_lines(out)
    assert [(line["idx"], line["meta_id"]) for line in lines] == [
        (1, "42__group_B"),
        (2, "2"),
        (3, "7531309745475554591"),
    ]
    assert (lines[0]["group_id"], lines[0]["original_meta_id"]) == ("B", "42")
    assert list(lines[0])[9:12] == ["group_id", "original_meta_id", "status"]
    assert "group_id" not in lines[1]


def test_a_skip_beyond_the_end_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(5)])
    with simulated(tmp_path) as provider:
        said = infer(chats, tmp_path / "raw.jsonl", provider.url, "--skip", 5)
        assert provider.ledger()["requests"] == 0
    assert said.code == 64
    assert "--skip 5 leaves nothing" in said.err
    assert "5 chats" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenario.json", "val.jsonl"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--include-images",), "--include-images needs --frames-dir"),
        (("--response-format", "json_schema"), "needs --codebook"),
        (("--response-format", "json_object", "--no-response-format"), "--no-response-format forbids"),
        (("--base-sleep", "-1"), "--base-sleep"),
        (("--growth", "1"), "--growth 1"),
        (("--codebook", "nothing"), "--codebook nothing"),
        (("--val-file", "missing.jsonl"), "missing.jsonl: no such file"),
        (("--val-file", "table.csv"), "unknown kind of file"),
    ],
)
def test_wrong_flags_are_named(tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(0)])
    arguments = [*infer_arguments(chats, tmp_path / "raw.jsonl", "http://127.0.0.1:9"), *flags]
    if "--val-file" in flags:
        del arguments[1:3]
    said = cli(*arguments)
    assert said.code == 64, said.err
    assert words in said.err
    assert not (tmp_path / "raw.jsonl").exists()


def test_no_key_is_said_at_once(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(0)])
    said = cli("infer", "--val-file", chats, "--model", "m", "--out", tmp_path / "raw.jsonl")
    assert said.code == 64
    assert "TOGETHER_API_KEY" in said.err


def test_an_allowance_grows_to_its_cap_and_never_shrinks(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(0)])
    with simulated(tmp_path, {"answer_tokens": {"kind": "fixed", "median": 5000}}) as provider:
        more = ("--retry-on-trunc", "--growth", 1.8, "--max-tokens-cap", 512)
        assert infer(chats, tmp_path / "grown.jsonl", provider.url, *more).code == 0
        assert [entry["max_tokens"] for entry in provider.entries()] == [128, 230, 414, 512]
        assert infer(chats, tmp_path / "large.jsonl", provider.url, "--max-tokens", 800, "--retry-on-trunc").code == 0
        assert [entry["max_tokens"] for entry in provider.entries()][4:] == [800]
        assert infer(chats, tmp_path / "once.jsonl", provider.url).code == 0
        assert [entry["max_tokens"] for entry in provider.entries()][5:] == [128]
    for name, tokens, attempts in (("grown", 512, 4), ("large", 800, 1), ("once", 128, 1)):
        (line,) = raw_lines(tmp_path / f"{name}.jsonl")
        assert (line["truncated"], line["finish_reason"], line["max_tokens_used"]) == (True, "length", tokens)
        assert line["attempt"] == attempts


def test_lines_that_are_no_chats_fail_by_themselves(tmp_path: Path) -> None:
    chats = write_chats(
        tmp_path / "val.jsonl",
        [
            chat(0),
            '{"meta_id": "1", "messages": [',
            "",
            chat(2, messages=[{"role": "tool", "content": "x"}]),
            {"meta_id": "3"},
            chat(4, content=[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
            chat(5, content=[{"type": "image_url", "image_url": {"url": frame_ref("7", "frame_0.jpg")}}]),
            chat(6),
        ],
    )
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path) as provider:
        said = infer(chats, out, provider.url, "--max-failed", 10)
        assert provider.ledger()["requests"] == 2
    assert said.code == 1, said.err
    lines = raw_lines(out)
    assert [line["idx"] for line in lines] == list(range(7)), "the blank line is none"
    assert [line["status"] for line in lines] == ["ok", *["error"] * 5, "ok"]
    broken = lines[1]
    assert broken["raw"] == f"<<REQUEST FAILED: {broken['error']}>>"
    assert broken["error"].startswith("line 2: no JSON object")
    assert (broken["finish_reason"], broken["truncated"], broken["error_kind"]) == (None, None, "bad_row")
    assert list(broken) == RAW_KEYS
    assert [
        word in line["error"]
        for word, line in zip(("role", "messages", "file:", "--frames-dir"), lines[2:], strict=False)
    ] == [True] * 4
    assert cli("verify", f"{out}.run").code == 0


def test_a_refused_chat_is_a_failure_line_and_a_resume_tries_it_again(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(30)])
    out = tmp_path / "raw.jsonl"
    refusing = {"faults": [{"kind": "status", "status": 400, "message": "no thanks", "containing": "row 7"}]}
    with simulated(tmp_path, refusing) as provider:
        arguments = infer_arguments(chats, out, provider.url)
        said = cli(*arguments)
        assert said.code == 1, said.err
        assert "--resume" in said.err
        failed = raw_lines(out)[7]
        assert (failed["status"], failed["http_status"], failed["error_kind"]) == ("error", 400, "refused")
        assert failed["raw"].startswith("<<REQUEST FAILED: HTTP 400: no thanks")
        assert failed["latency_s"] is None
        provider.tell({"row_pattern": r"row (\d+)"})
        assert cli(*arguments).code == 73, "a run that is there is gone on with by --resume alone"
        said = cli(*arguments, "--resume")
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 31
    lines = raw_lines(out)
    assert [line["idx"] for line in lines] == list(range(30))
    assert {line["status"] for line in lines} == {"ok"}


def test_a_signal_ends_with_75_and_a_resume_finishes_what_is_left(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(600)])
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = infer_arguments(chats, out, provider.url, "--concurrency", 32)
        process = start_cli(*arguments)
        wait_for_lines(out, 40)
        process.send_signal(signal.SIGINT)
        said = finished(process)
        assert said.code == 75, said.err
        assert "--resume" in said.err
        stopped = raw_lines(out)
        assert len(stopped) == provider.ledger()["delivered"], "an answer that was paid for is not in the file"
        assert [line["idx"] for line in stopped] == sorted(line["idx"] for line in stopped)
        said = cli(*arguments, "--resume")
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 600, "a chat was sent twice"
    assert [line["idx"] for line in raw_lines(out)] == list(range(600))


def test_kills_lose_nothing_and_the_file_grows_while_the_run_goes_on(tmp_path: Path) -> None:
    rows, kills = 250, 3
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(rows)])
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path, SLOW_SERVER) as provider:
        arguments = infer_arguments(chats, out, provider.url, "--concurrency", 16, "--resume")
        seen: set[int] = set()
        for kill in range(1, kills + 1):
            process = start_cli(*arguments)
            wait_for_lines(out, 40 * kill)
            process.kill()
            assert finished(process).code == -signal.SIGKILL
            whole = [json.loads(line) for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            found = [line["idx"] for line in whole]
            assert len(found) == len(set(found)), "the file has two lines of a chat"
            assert seen <= set(found), "a line that was there is gone"
            seen = set(found)
        said = cli(*arguments)
        assert said.code == 0, said.err
        calls = [entry["row"] for entry in provider.entries()]
    lines = raw_lines(out)
    assert [line["idx"] for line in lines] == list(range(rows))
    assert {line["status"] for line in lines} == {"ok"}
    assert len(set(calls)) == rows
    assert len(calls) - rows <= kills * 3 * 16
    assert len(lines_of(Path(f"{out}.run"))) == rows
    assert cli("verify", f"{out}.run").code == 0


def test_a_wrong_key_ends_the_run_and_says_so(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(50)])
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path, {"api_key": "right"}) as provider:
        env = environment(TOGETHER_API_KEY="wrong")
        said = cli(*infer_arguments(chats, out, provider.url), env=env)
        assert said.code == 69, said.err
        assert provider.ledger()["requests"] <= 4
        assert raw_lines(out) == []
        env = environment(TOGETHER_API_KEY="right")
        assert cli(*infer_arguments(chats, out, provider.url, "--resume"), env=env).code == 0
    assert len(raw_lines(out)) == 50


def test_being_told_to_slow_down_costs_no_chat(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(8)])
    slow = {"faults": [{"kind": "status", "status": 429, "first_attempts": 2, "containing": "row 5"}]}
    with simulated(tmp_path, slow) as provider:
        said = infer(chats, tmp_path / "raw.jsonl", provider.url, "--base-sleep", 0.01, "--retries", 1)
        assert provider.ledger()["by_status"] == {"200": 8, "429": 2}
    assert said.code == 0, said.err
    assert {line["status"] for line in raw_lines(tmp_path / "raw.jsonl")} == {"ok"}


def frames(root: Path, identity: str, count: int) -> list[bytes]:
    (root / identity).mkdir(parents=True)
    made = [encoded(phone_photo(("china", "coffee")[n % 2], (200 + n, 320))) for n in range(count)]
    for n, data in enumerate(made):
        (root / identity / f"frame_{n}.jpg").write_bytes(data)
    return made


def inline(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}}


def test_pictures_are_sent_that_stand_in_the_file_are_named_in_it_or_are_put_in(tmp_path: Path) -> None:
    root = tmp_path / "frames"
    photos = frames(root, "42", 3)
    text = {"type": "text", "text": "TRANSCRIPT:\nrow 0"}
    named = [{"type": "image_url", "image_url": {"url": frame_ref("42", f"frame_{n}.jpg")}} for n in (2, 0)]
    chats = write_chats(
        tmp_path / "val.jsonl",
        [
            chat(0, content=[inline(photos[0]), inline(photos[1]), text]),
            chat(1, content=[*named, {"type": "text", "text": "row 1"}]),
            chat(2, meta_id="42__group_A"),
            chat(3, meta_id="43"),
        ],
    )
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path, {"digest_images": True}) as provider:
        said = infer(chats, out, provider.url, "--include-images", "--frames-dir", root, "--fit", "none")
        assert said.code == 0, said.err
        sent = {int(entry["row"]): entry["image_digests"] for entry in provider.entries() if entry["row"]}
    lines = raw_lines(out)
    digests = [frame["digest"] for frame in lines[2]["frames"]]
    assert len(digests) == 3
    assert sent == {0: digests[:2], 1: [digests[2], digests[0]], 2: digests, 3: []}
    assert [frame["digest"] for frame in lines[1]["frames"]] == sent[1]
    assert [frame["index"] for frame in lines[1]["frames"]] == [2, 0]
    assert lines[3]["degraded"] == ["text_only:no_folder"]
    assert "No frames found for video 43: sent as text alone" in said.err


def test_a_model_that_takes_no_pictures_is_named_as_the_cause(tmp_path: Path) -> None:
    root = tmp_path / "frames"
    frames(root, "42", 1)
    chats = write_chats(tmp_path / "val.jsonl", [chat(row, meta_id="42") for row in range(30)])
    blind = {"faults": [{"kind": "status", "status": 400, "message": "This model does not support image input"}]}
    with simulated(tmp_path, blind) as provider:
        said = infer(chats, tmp_path / "raw.jsonl", provider.url, "--include-images", "--frames-dir", root)
    assert said.code != 0
    assert "Use a vision-capable model" in said.err
    assert "does not support image input" in said.err


def test_a_group_is_asked_for_its_own_schema(tmp_path: Path) -> None:
    chats = write_chats(
        tmp_path / "val.jsonl", [chat(0, meta_id="1__group_A"), chat(1, meta_id="1"), chat(2, meta_id="1__group_D")]
    )
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path) as provider:
        said = infer(chats, out, provider.url, "--codebook", "comprehensive")
        assert said.code == 0, said.err
        assert {entry["structured"] for entry in provider.entries()} == {"json_schema"}
    keys = [set(json.loads(line["raw"])) for line in raw_lines(out)]
    assert [len(found) for found in keys] == [4, 11, 3]
    assert keys[2] == {"news_segments", "inauthentic_content", "derivative_content"}


def test_warm_up_waits_for_a_cold_address_and_is_no_row(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(5)])
    out = tmp_path / "raw.jsonl"
    cold = {"faults": [{"kind": "status", "status": 503, "first_attempts": 1, "containing": "ping"}]}
    with simulated(tmp_path, cold) as provider:
        said = infer(chats, out, provider.url, "--warmup", 3, "--price-in", 1, "--price-out", 1)
        assert said.code == 0, said.err
        assert provider.ledger()["requests"] == 7
    assert "is ready: call 2 of at most 3" in said.err
    assert len(raw_lines(out)) == 5
    report = json.loads((Path(f"{out}.run") / "report.json").read_text())
    assert report["cost_usd"] > sum(line["cost_usd"] for line in raw_lines(out))


def test_an_address_that_stays_cold_ends_before_any_chat_is_sent(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(5)])
    with simulated(tmp_path, {"faults": [{"kind": "status", "status": 503}]}) as provider:
        said = infer(chats, tmp_path / "raw.jsonl", provider.url, "--warmup", 2)
        assert said.code == 75, said.err
        assert "no answer to 2 warm-up calls" in said.err
        assert provider.ledger()["requests"] == 2


def test_a_file_that_no_run_has_made_is_never_replaced(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(0)])
    out = tmp_path / "raw.jsonl"
    out.write_text("of somebody else\n")
    for more in ((), ("--resume",)):
        said = infer(chats, out, "http://127.0.0.1:9", *more)
        assert said.code == 73, said.err
    assert out.read_text() == "of somebody else\n"


def test_another_file_or_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "val.jsonl", [chat(row) for row in range(3)])
    out = tmp_path / "raw.jsonl"
    with simulated(tmp_path) as provider:
        arguments = infer_arguments(chats, out, provider.url)
        assert cli(*arguments).code == 0
        said = cli(*arguments, "--resume", "--append-enforcer")
        assert said.code == 78
        assert "append_enforcer" in said.err
        with chats.open("a") as file:
            file.write(json.dumps(chat(3)) + "\n")
        assert cli(*arguments, "--resume").code == 78
        assert cli(*arguments, "--resume", "--extend").code == 0
        assert provider.ledger()["requests"] == 4
    assert [line["idx"] for line in raw_lines(out)] == [0, 1, 2, 3]
