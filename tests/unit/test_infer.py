"""Flags of `infer` to a job, its one file, and what it makes of answers."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.chat import ChatEncoder
from encoders.messages import MessagesEncoder
from engine.config import manifest_of
from engine.errors import (
    ApiError,
    BudgetSpent,
    ConfigError,
    InputError,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
    ServerError,
    SinkBroken,
)
from engine.money import Books
from engine.types import Failure, FailureKind, Record, Reply, Shares, Usage
from labels.codebook import load_codebook
from labels.infer.flags import InferFlags
from labels.infer.job import RawReader, breaks_off, formats_of, infer_job, run_folder
from labels.infer.warmup import until_ready
from labels.infer.watch import BLIND, Sight
from sinks.files import Files
from sinks.lines import line_of
from sinks.one_file import RawFile, raw_record, write_raw
from sinks.shards import ShardSink
from tests.fakes.calls import make_lane
from tests.fakes.records import cut, failure, result
from tests.fakes.virtual import run_in_virtual_time

RAW_KEYS = [
    *("idx", "meta_id", "raw", "attempt", "latency_s", "model", "finish_reason", "truncated", "max_tokens_used"),
    *("status", "error_kind", "http_status", "error", "usage", "cost_usd", "frames", "degraded", "request_id"),
]
CHAT = {"meta_id": "1", "messages": [{"role": "user", "content": "x"}]}


def make_flags(folder: Path, *, chats: int = 3, **settings: Any) -> InferFlags:
    path = folder / "val.jsonl"
    path.write_text(f"{json.dumps(CHAT)}\n\n" * chats)
    told: dict[str, Any] = {
        "val_file": path,
        "out": folder / "raw.jsonl",
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
    }
    return InferFlags(**(told | settings))


def open_run(out: Path, *, resume: bool = False, retry_failed: bool = False) -> ShardSink:
    manifest = {"settings": {"model": "asked"}}
    return ShardSink.open(out, manifest=manifest, shards=1, resume=resume, retry_failed=retry_failed)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "cut_off"),
    [
        ("", True),
        (" \n", True),
        ('{"a":"yes"}', False),
        ('```json\n{"a":"yes"}\n```', False),
        ('```json\n{"a":"yes"', True),
        ('{"a":"{ not a brace"}', False),
        ('{"a":"}', True),
        ('{"a":"\\"}', True),
        ('{"a":"\\\\"}', False),
        ('{"a":{"b":1}', True),
        ('{"a":', True),
        ('{"a":1,', True),
        ("The labels are:", True),
        ('He said "hello, then {"a":1}', False),
        ("a plain sentence", False),
        ("} stray", False),
        ("[", True),
    ],
)
def test_an_answer_that_breaks_off_is_known_by_its_braces_outside_of_strings(text: str, cut_off: bool) -> None:  # noqa: FBT001 - a column of the table
    assert breaks_off(text) is cut_off
    assert RawReader().read(text).cut is cut_off
    assert RawReader().repair(text) is None


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()), min_size=1), st.data())
def test_a_whole_object_never_breaks_off_and_a_cut_one_always_does(said: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(said)
    assert not breaks_off(text)
    assert breaks_off(text[: data.draw(st.integers(1, len(text) - 1))])


def test_defaults_are_those_of_the_scripts(tmp_path: Path) -> None:
    job = infer_job(make_flags(tmp_path)).job
    settings = job.settings
    assert settings.limits.concurrency == 4
    retry = settings.retry
    assert (retry.attempts, retry.first_wait_s, retry.max_tokens, retry.on_truncation) == (5, 1.0, 128, False)
    assert (retry.growth, retry.max_tokens_cap) == (1.8, 512)
    assert settings.lanes[0].call_timeout_s == 60.0
    assert settings.format.value is None
    assert job.encoder.extra == (("temperature", 0.0),)
    assert (job.resume, job.retry_failed, job.shards, job.warmup) == (False, False, 1, 0)
    assert job.raw == tmp_path / "raw.jsonl"
    assert job.out == run_folder(job.raw) == tmp_path / "raw.jsonl.run"
    orjson.dumps(manifest_of(settings, input_identity={}), default=str)


def worker_of(flags: InferFlags) -> MessagesEncoder:
    job = infer_job(flags).job
    assert job.worker is not None
    made = job.worker(job.encoder)
    assert isinstance(made, MessagesEncoder)
    assert isinstance(job.encoder, ChatEncoder)
    return made


def test_flags_reach_the_encoder(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    flags = make_flags(
        tmp_path, include_images=True, frames_dir=str(tmp_path / "frames"), append_enforcer=True, effort="none"
    )
    made = worker_of(flags)
    assert (made.attach, made.enforcer, dict(made.formats)) == (True, True, {})
    assert dict(made.chat.extra)["reasoning"] == {"effort": "none"}
    assert worker_of(make_flags(tmp_path)).attach is False


def test_the_form_of_an_answer_is_asked_for_as_told(tmp_path: Path) -> None:
    asked = {"": load_codebook("standard").response_format()}
    assert worker_of(make_flags(tmp_path, codebook="standard")).formats[""] == asked[""]
    for more in ({"no_response_format": True}, {"response_format": "none"}):
        assert not worker_of(make_flags(tmp_path, codebook="standard", **more)).formats
    job = infer_job(make_flags(tmp_path, response_format="json_object")).job
    assert (job.settings.format.value, job.settings.format.optional) == ({"type": "json_object"}, False)


def test_every_group_of_a_codebook_has_its_form() -> None:
    book = load_codebook("comprehensive")
    formats = formats_of(book)
    for mode, groups in book.groups.items():
        for group in groups:
            assert formats[group] == book.response_format((mode, group))
    assert formats[""] == book.response_format()


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({"append_enforcer": True}, True),
        ({"codebook": "standard"}, True),
        ({"temperature": 0.5}, True),
        ({"skip": 1}, True),
        ({"concurrency": 9}, False),
        ({"retry_on_trunc": True}, False),
        ({"max_tokens": 800}, False),
        ({"warmup": 3}, False),
    ],
)
def test_a_resume_may_change_speeds_and_not_what_is_asked(
    tmp_path: Path,
    settings: dict[str, Any],
    differs: bool,  # noqa: FBT001 - a column of the table
) -> None:
    plain, other = (
        manifest_of(infer_job(make_flags(tmp_path, **more)).job.settings, input_identity={}) for more in ({}, settings)
    )
    assert (plain["settings"] != other["settings"]) is differs


def test_blank_lines_are_no_chats_when_it_is_seen_whether_a_skip_leaves_any(tmp_path: Path) -> None:
    infer_job(make_flags(tmp_path, chats=3, skip=2))
    with pytest.raises(ConfigError, match="holds 3 chats"):
        infer_job(make_flags(tmp_path, chats=3, skip=3))
    flags = make_flags(tmp_path)
    flags.val_file.write_text("\n \n")
    with pytest.raises(InputError, match="holds no chat"):
        infer_job(flags)


def test_a_result_has_the_fields_of_the_scripts_first_and_ours_after_them() -> None:
    said = raw_record(orjson.loads(line_of(result(4, text="hello"))), model="asked")
    assert list(said) == RAW_KEYS
    assert list(said.values()) == [
        *(4, "id-4", "hello", 1, 1.25, "m", "stop", False, 512),
        *("ok", None, None, None),
        {"prompt_tokens": 100, "completion_tokens": 3, "cached_tokens": 0},
        *(None, [], None, "r4"),
    ]


def test_a_failure_has_no_answer_and_says_why() -> None:
    said = raw_record(orjson.loads(line_of(failure(4))), model="asked")
    assert list(said) == RAW_KEYS
    assert said["raw"] == "<<REQUEST FAILED: HTTP 400: no>>"
    assert (said["finish_reason"], said["truncated"], said["latency_s"], said["max_tokens_used"]) == (None,) * 4
    assert (said["status"], said["error_kind"], said["http_status"]) == ("error", "refused", 400)
    assert (said["error"], said["model"], said["attempt"], said["frames"]) == ("HTTP 400: no", "asked", 2, [])
    broken = Record(row=7, id="", outcome=Failure(kind=FailureKind.BAD_ROW, message="line 9: no JSON object"))
    assert raw_record(orjson.loads(line_of(broken)), model=None)["meta_id"] == "7"


def test_groups_and_shared_answers_are_told() -> None:
    shared = result(5, shares=Shares(row=2, spared_usd=None))
    said = raw_record(orjson.loads(line_of(shared)) | {"meta_id": "9__group_A"}, model=None)
    assert list(said) == [*RAW_KEYS[:9], "group_id", "original_meta_id", *RAW_KEYS[9:], "shared_with"]
    assert (said["group_id"], said["original_meta_id"], said["shared_with"]) == ("A", "9", 2)


def test_the_file_holds_each_row_once_in_order_with_the_end_that_counts(tmp_path: Path) -> None:
    out, to = tmp_path / "run", tmp_path / "raw.jsonl"
    with open_run(out) as sink:
        for record in (result(70_000), failure(3, message="first"), result(1), failure(2)):
            sink.put(record)
    with open_run(out, resume=True, retry_failed=True) as sink:
        for record in (failure(3, message="second"), result(2)):
            sink.put(record)
    assert write_raw(out, to) == 4
    assert [(line["idx"], line["status"]) for line in lines_of(to)] == [
        (1, "ok"),
        (2, "ok"),
        (3, "error"),
        (70_000, "ok"),
    ]
    assert lines_of(to)[2]["error"] == "second"
    assert write_raw(out, to, wanted=lambda row: row != 3) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.jsonl", "run"]


def test_rows_are_in_the_file_as_soon_as_they_are_safe_and_not_before(tmp_path: Path) -> None:
    out, to = tmp_path / "run", tmp_path / "raw.jsonl"
    with open_run(out) as sink, RawFile(sink, out, to, model="asked") as raw:
        raw.put(result(5))
        assert to.read_bytes() == b""
        assert raw.commit() == 1
        assert [line["idx"] for line in lines_of(to)] == [5]
        raw.put(failure(2))
        raw.put(cut(1))
        raw.put(result(5))
        raw.commit()
        raw.put(result(0))
        assert [line["idx"] for line in lines_of(to)] == [5, 2, 1]
        assert raw.statistics().done == 2
    assert [line["idx"] for line in lines_of(to)] == [0, 1, 2, 5]
    assert [line["truncated"] for line in lines_of(to)] == [False, True, None, False]


def test_a_life_that_tries_failed_rows_again_never_shows_two_lines_of_one(tmp_path: Path) -> None:
    out, to = tmp_path / "run", tmp_path / "raw.jsonl"
    with open_run(out) as sink, RawFile(sink, out, to, model="asked") as raw:
        for record in (result(1), failure(0)):
            raw.put(record)
    assert [line["idx"] for line in lines_of(to)] == [0, 1]
    to.write_bytes(to.read_bytes() + b'{"torn')
    with open_run(out, resume=True, retry_failed=True) as sink, RawFile(sink, out, to, model="asked") as raw:
        assert [line["idx"] for line in lines_of(to)] == [1]
        raw.put(result(0))
        raw.commit()
        assert [(line["idx"], line["status"]) for line in lines_of(to)] == [(1, "ok"), (0, "ok")]
    assert [line["idx"] for line in lines_of(to)] == [0, 1]
    assert to.stat().st_mode & 0o777 == 0o600


class _Full(Files):
    """A disk that takes nothing once it is told so."""

    full = False

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, data)


def test_a_file_that_cannot_be_written_stops_no_run_and_is_said_in_the_end(tmp_path: Path) -> None:
    out, to, files = tmp_path / "run", tmp_path / "raw.jsonl", _Full()
    with open_run(out) as sink:
        raw = RawFile(sink, out, to, model="asked", files=files)
        with pytest.raises(SinkBroken, match="holds every answer"), raw:  # noqa: PT012 - the end of the context raises
            raw.put(result(0))
            raw.commit()
            files.full = True
            raw.put(result(1))
            assert raw.commit() == 1
            assert raw.trouble is not None
            assert "No space left" in raw.trouble
        assert [line["idx"] for line in lines_of(to)] == [0], "what stood there still does"
        assert not to.with_name(to.name + ".partial").exists()
        files.full = False
        assert write_raw(out, to, files=files) == 2


def test_the_error_that_ended_a_run_is_not_hidden_by_one_of_the_file(tmp_path: Path) -> None:
    out, to, files = tmp_path / "run", tmp_path / "raw.jsonl", _Full()
    with open_run(out) as sink:
        raw = RawFile(sink, out, to, model="m", files=files)
        with pytest.raises(BudgetSpent), raw:  # noqa: PT012 - as above
            raw.put(result(0))
            files.full = True
            raise BudgetSpent("no more")


def test_videos_without_frames_are_named_and_counted() -> None:
    sight = Sight()
    for row in range(7):
        sight.ended(result(row, degraded=("text_only:no_folder",)))
    sight.ended(result(8, degraded=("fewer_frames:4>2",)))
    found = sight.findings()
    words = "No frames found for video id-0, id-1, id-2, id-3, id-4 and 2 more: sent as text alone"
    assert found.lines == (("frames", words),)
    assert found.alarms == ()


@pytest.mark.parametrize(
    ("message", "is_blind"),
    [
        ("HTTP 400: This model does not support image input", True),
        ("HTTP 400: Model does not support images", True),
        ("HTTP 400: image input is not supported - hint: provide the mmproj", True),
        ("HTTP 400: m is not a multimodal model", True),
        ("HTTP 400: At most 0 image(s) may be provided; only text is supported", True),
        ("HTTP 400: no thanks", False),
        ("HTTP 400: temperature is not supported", False),
    ],
)
def test_a_model_that_takes_no_pictures_raises_an_alarm(message: str, is_blind: bool) -> None:  # noqa: FBT001 - a column
    sight = Sight()
    sight.ended(failure(0, message=message))
    assert sight.findings().alarms == ((BLIND,) if is_blind else ())
    sight.ended(failure(1, message=message))
    assert len(sight.findings().alarms) == int(is_blind)


class _Answering:
    """A client that meets these one after the other."""

    def __init__(self, *ends: ApiError | Reply) -> None:
        self._ends = list(ends)
        self.calls = 0

    async def attempt(self, *body: bytes) -> Reply:
        assert b"max_tokens" in b"".join(body)
        self.calls += 1
        end = self._ends.pop(0)
        if isinstance(end, ApiError):
            raise end
        return end


READY = Reply(
    text="ok",
    finish_reason="stop",
    usage=Usage(prompt_tokens=10, completion_tokens=2),
    model="m",
    request_id=None,
    latency_s=0.1,
)
COLD = ServerError("HTTP 503: loading", status=503)


def warm_up(client: _Answering, books: Books, *, calls: int = 3) -> tuple[int, float]:
    """Which call was answered, and after how many seconds."""

    async def main() -> tuple[int, float]:
        started_s = anyio.current_time()
        answered = await until_ready(client, make_lane(), calls=calls, books=books)
        return answered, anyio.current_time() - started_s

    return run_in_virtual_time(main)


@pytest.mark.parametrize(
    ("ends", "answered", "waited_s"),
    [
        ((READY,), 1, 0.0),
        ((COLD, COLD, READY), 3, 3.0),
        ((COLD, RequestRefused("HTTP 400: ping?", status=400)), 2, 1.0),
        ((RateLimited("HTTP 429: slow", status=429, retry_after_s=900.0), READY), 2, 30.0),
    ],
)
def test_any_answer_ends_the_wait_for_an_address(
    ends: Sequence[ApiError | Reply], answered: int, waited_s: float
) -> None:
    call, took_s = warm_up(_Answering(*ends), Books())
    assert call == answered
    assert took_s == pytest.approx(waited_s)


def test_the_wait_for_an_address_is_bounded_and_ends_at_once_where_the_key_is_refused() -> None:
    client = _Answering(*[COLD] * 9)
    with pytest.raises(ServerError):
        warm_up(client, Books(), calls=4)
    assert client.calls == 4
    client = _Answering(LaneRefused("HTTP 401: no such key", status=401))
    with pytest.raises(LaneRefused):
        warm_up(client, Books())
    assert client.calls == 1


def test_what_a_wait_costs_is_in_the_books() -> None:
    books = Books()
    warm_up(_Answering(NetworkError("cut", paid=True), COLD, READY), books)
    assert (books.usage.prompt_tokens, books.usage.completion_tokens) == (10, 2)
    assert books.cost_usd == pytest.approx((10 * 1.0 + 2 * 2.0) / 1e6)
    assert (books.unknown_calls, books.reserved_usd) == (1, 0.0)
    client = _Answering(READY)
    with pytest.raises(BudgetSpent):
        warm_up(client, Books(1e-9))
    assert client.calls == 0
