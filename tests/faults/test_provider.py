"""The simulated provider, spoken to over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.scenario import PROFILES
from engine.hints import wait_hint_s
from labels.codebook import load_codebook
from labels.reading import CodebookReader
from tests.fakes.asking import ask, body_of, connect, told
from tests.fakes.commands import Simulated, cli, simulated, start_cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


def test_a_completion_has_the_form_every_client_expects_and_says_it_is_made_up(shared: Simulated) -> None:
    replied = ask(shared, body_of())
    assert (replied.status, replied.headers["x-simulated"]) == (200, "true")
    said = replied.said
    assert said["simulated"] is True
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["message"]["role"] == "assistant"
    assert said["choices"][0]["finish_reason"] == "stop"
    usage = said["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_same_messages_get_the_same_answer_and_others_another(shared: Simulated) -> None:
    texts = [ask(shared, body_of(f"row {row}")).said["choices"][0]["message"]["content"] for row in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4


@pytest.mark.parametrize("name", ["standard", "numeric", "comprehensive", "numeric-comprehensive", "cooking"])
def test_labels_are_valid_for_the_codebook_that_a_request_brings(shared: Simulated, name: str) -> None:
    book = load_codebook(name)
    reader = CodebookReader(codebook=book)
    plain = {"type": "json_schema", "json_schema": {"name": "x", "schema": book.json_schema()}}
    for row in range(10):
        said = ask(shared, body_of(f"row {row}", response_format=plain)).said
        assert reader.read(said["choices"][0]["message"]["content"]).labels is not None
    if name == "comprehensive":
        said = ask(shared, body_of("row 1", response_format=book.response_format())).said
        assert reader.read(said["choices"][0]["message"]["content"]).labels is not None


def test_an_answer_is_cut_where_the_allowance_ends(shared: Simulated) -> None:
    said = ask(shared, body_of(max_tokens=7)).said
    assert (said["choices"][0]["finish_reason"], said["usage"]["completion_tokens"]) == ("length", 7)


def test_other_addresses_say_what_they_are(shared: Simulated) -> None:
    assert ask(shared, path="/v1/models").said["data"][0]["id"] == "simulated"
    assert ask(shared, path="/health").said == {"status": "ok", "simulated": True}
    assert ask(shared, path="/v1/nonesuch").status == 404
    assert ask(shared, path="/v1/chat/completions").status == 405
    assert ask(shared, b"{").status == 400
    assert ask(shared, {"messages": 3}).status == 400
    refused = ask(shared, {"latencies": 1}, path="/scenario")
    assert (refused.status, "latencies" in refused.data.decode()) == (400, True)


def test_connections_are_kept_and_pipelined_requests_are_answered_in_order(shared: Simulated) -> None:
    where = urlsplit(shared.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as wire:
        for row in range(5):
            data = json.dumps(body_of(f"row {row}")).encode()
            wire.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
            )
        received = b""
        while received.count(b"HTTP/1.1 200") < 5 or not received.endswith(b"}"):
            received += wire.recv(1 << 16)
    numbers = [int(part.partition(b"\r\n")[0]) for part in received.split(b"x-request-id: sim-")[1:]]
    assert numbers == sorted(numbers)


def test_chunked_and_expecting_requests_are_understood(shared: Simulated) -> None:
    where = urlsplit(shared.url)
    data = json.dumps(body_of()).encode()
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, data[:10], len(data) - 10, data[10:])
    with socket.create_connection((where.hostname, where.port), timeout=10) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n")
        wire.sendall(b"expect: 100-continue\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 100")
        wire.sendall(chunks)
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("limit", ["requests_per_min", "tokens_per_min"])
def test_a_limit_answers_429_and_says_when_to_come_back_as_that_provider_does(
    shared: Simulated, profile: str, limit: str
) -> None:
    with told(shared, profile=profile, **{limit: 60.0 if limit == "requests_per_min" else 30_000.0}):
        replies = [ask(shared, body_of()) for _ in range(4)]
    assert replies[0].status == 200
    refused = [replied for replied in replies if replied.status == 429]
    assert refused
    wait_s = wait_hint_s(refused[0].headers, "")
    if profile in {"together", "openai", "azure", "fireworks", "groq", "openrouter"}:
        assert wait_s is not None
        assert 0 < wait_s <= 2
    else:
        assert wait_s is None


def test_limits_follow_their_steps(shared: Simulated) -> None:
    since = float(shared.entries()[-1]["received_s"]) + 3600
    with told(shared, requests_per_min=6000.0, limit_steps=[[0.0, 0.01], [since, 1.0]]):
        assert [ask(shared, body_of()).status for _ in range(3)] == [200, 429, 429]


def test_too_many_at_once_are_queued_and_then_refused(shared: Simulated) -> None:
    with told(shared, slots=1, queue=1, latency={"median": 1.0}):
        started = time.monotonic()
        connections = [connect(shared) for _ in range(3)]
        for connection in connections:
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        wires = [connection.sock for connection in connections]
        at_once, _, _ = select.select(wires, [], [])
        refused_s = time.monotonic() - started
        replies = [connection.getresponse() for connection in connections]
        took_s = time.monotonic() - started
        for connection in connections:
            connection.close()
    # Which connection is read first is the system's choice, so no order is asked for.
    assert sorted(reply.status for reply in replies) == [200, 200, 503]
    refused = [wire for wire, reply in zip(wires, replies, strict=True) if reply.status == 503]
    assert at_once == refused, "the one that is refused waits for nobody"
    assert refused_s < 0.75
    assert took_s >= 2.0, "the one that was queued waited for the one before it"


def test_slots_and_latency_follow_their_steps(shared: Simulated) -> None:
    with told(shared, slots=1, queue=1, slot_steps=[[0, 3]], latency={"median": 0.1}, latency_steps=[[0, 4]]):
        connections = [connect(shared) for _ in range(3)]
        started = time.monotonic()
        for connection in connections:
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        assert [connection.getresponse().status for connection in connections] == [200, 200, 200]
        assert time.monotonic() - started >= 0.4
        for connection in connections:
            connection.close()


def test_only_the_right_key_is_let_in(shared: Simulated) -> None:
    with told(shared, api_key="right"):
        assert ask(shared, body_of(), Authorization="Bearer wrong").status == 401
        assert ask(shared, body_of()).status == 401
        assert ask(shared, body_of(), Authorization="Bearer right").status == 200
        assert ask(shared, body_of(), **{"api-key": "right"}).status == 200


def test_the_ledger_knows_every_request_its_row_and_the_bytes_of_its_images(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    (tmp_path / "s.json").write_text(json.dumps({"row_pattern": r"row (\d+)", "digest_images": True, "ledger_rows": 9}))
    picture = b"\xff\xd8 picture"
    url = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "row 42"}]
    with start_cli("simulate", "--port", 0, "--scenario", tmp_path / "s.json", "--ledger", path) as process:
        assert process.stdout is not None
        provider = Simulated(process.stdout.readline().strip(), process.pid)
        ask(provider, body_of() | {"messages": [{"role": "user", "content": content}]})
        ask(
            provider,
            body_of("row 7", model="n", response_format={"type": "json_object"}),
            Authorization="Bearer sk-secret",
        )
        entries = provider.entries()
        totals = provider.ledger()
        process.terminate()
        process.communicate()
    assert [entry["row"] for entry in entries] == ["42", "7"]
    assert entries[0]["image_digests"] == [hashlib.sha256(picture).hexdigest()[:16]]
    assert all(entry["delivered"] and entry["answered_s"] >= entry["received_s"] for entry in entries)
    assert [entry["model"] for entry in entries] == ["m", "n"]
    assert [entry["structured"] for entry in entries] == [None, "json_object"]
    assert [entry["key"] for entry in entries] == ["", hashlib.sha256(b"sk-secret").hexdigest()[:6]]
    assert totals["by_model"] == {"m": 1, "n": 1}
    assert "secret" not in path.read_text()
    assert (totals["requests"], totals["delivered"], totals["images"]) == (2, 2, 1)
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_client_that_hangs_up_is_not_delivered_to(shared: Simulated) -> None:
    def wait_for(in_flight: int) -> None:
        deadline = time.monotonic() + 10
        while shared.ledger()["in_flight"] != in_flight and time.monotonic() < deadline:
            time.sleep(0.02)

    with told(shared, latency={"median": 3.0}):
        before = shared.ledger()
        connection = connect(shared)
        connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        wait_for(1)
        connection.close()
        wait_for(0)
        after = shared.ledger()
    assert after["requests"] == before["requests"] + 1
    assert after["delivered"] == before["delivered"]


def test_a_port_in_use_is_one_clear_message(shared: Simulated) -> None:
    said = cli("simulate", "--port", urlsplit(shared.url).port)
    assert said.code == 64
    assert "--port" in said.err
    assert "Traceback" not in said.err
