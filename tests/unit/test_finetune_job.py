"""Uploading, starting and following a job at a provider that fails at each step: nothing is paid for twice."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import (
    ApiError,
    BadReply,
    CallTimeout,
    CertificateError,
    ConfigError,
    InputError,
    LaneRefused,
    NetworkError,
    ProviderDown,
    RateLimited,
    RequestRefused,
    SinkBroken,
)
from labels.finetune.api import DIALECTS, OPENAI, TOGETHER
from labels.finetune.http import Provider as Asked
from labels.finetune.job import Desk, Started, UnheardError, start
from labels.finetune.order import Order
from labels.finetune.plan import plan
from labels.finetune.state import State, state_path
from labels.finetune.watch import Pace, follow
from sinks.files import Files
from tests.fakes.attempts import KEY, api_config
from tests.fakes.finetuning import Provider, chat, picture, provider_here, twelve, write_chats
from tests.fakes.servers import (
    RawServer,
    Script,
    Wire,
    answering,
    http_reply,
    saying_then_closing,
    saying_then_stalling,
)

pytestmark = pytest.mark.slow

JOBS = {OPENAI: "/v1/fine_tuning/jobs", TOGETHER: "/v1/fine-tunes"}
UPLOADS = {OPENAI: "/v1/files", TOGETHER: "/v1/files/upload"}
CREATE = f"POST {JOBS[OPENAI]}"
LIST = f"GET {JOBS[OPENAI]}"


@dataclass
class Told:
    """What was said, and how long was waited, without waiting."""

    lines: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def pace(self, **changes: Any) -> Pace:
        return replace(Pace(poll_s=7.0, sleep=self.waits_s.append), **changes)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_here() as server:
        yield server


def begin(
    server: Provider,
    train: Path,
    told: Told,
    *,
    api: str = OPENAI,
    val: Path | str | None = None,
    new_job: bool = False,
    **order: Any,
) -> Started:
    """One command up to the job."""
    asked = Asked(api_config(server.url))
    found = plan(Order(model="m", **order), DIALECTS[api], training=train, validation=val)
    desk = Desk(
        provider=asked,
        state=State(state_path(train, None), base_url=asked.base_url),
        pace=told.pace(),
        say=told.lines.append,
    )
    return start(found, desk, new_job=new_job)


def follow_it(server: Provider, job_id: str, told: Told, *, api: str = OPENAI, **pace: Any) -> Any:
    asked = Asked(api_config(server.url))
    return follow(asked, DIALECTS[api], job_id, pace=told.pace(**pace), say=told.lines.append)


@pytest.mark.parametrize("api", [OPENAI, TOGETHER])
def test_both_files_are_uploaded_and_one_job_is_created(tmp_path: Path, told: Told, api: str) -> None:
    train = twelve(tmp_path / "train.jsonl")
    val = write_chats(tmp_path / "val.jsonl", [chat(pictures=[picture()])])
    with provider_here(api=api) as server:
        started = begin(server, train, told, api=api, val=val, suffix="s")
        ledger = server.ledger()
        job = follow_it(server, started.id, told, api=api)
    assert not started.earlier
    assert [(file["examples"], file["name"].split("-")[0]) for file in ledger["files"]] == [(12, "train"), (1, "val")]
    assert [(job["training_file"], job["validation_file"], job["suffix"]) for job in ledger["jobs"]] == [
        ("file-1", "file-2", "s")
    ]
    assert (job.phase, job.model) == ("done", f"ft:m:s:{started.id}")


def test_what_arrives_is_what_the_state_remembers(tmp_path: Path, told: Told, provider: Provider) -> None:
    train = write_chats(tmp_path / "train.jsonl", [chat(pictures=[picture()])] * 11, meta_id="7")
    begin(provider, train, told)
    stored = provider.ledger()["files"][0]
    known = json.loads(state_path(train, None).read_text())["addresses"][provider.url]
    assert known["files"] == {stored["sha256"]: stored["id"]}
    parts = [
        {**m, "content": as_parts(m["content"])} for m in json.loads(train.read_text().splitlines()[0])["messages"]
    ]
    assert stored["sha256"] == hashlib.sha256((orjson.dumps({"messages": parts}) + b"\n") * 11).hexdigest()


def as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def test_the_same_command_again_uploads_and_creates_nothing(tmp_path: Path, told: Told, provider: Provider) -> None:
    train, val = twelve(tmp_path / "train.jsonl"), twelve(tmp_path / "val.jsonl", "val")
    first = begin(provider, train, told, val=val)
    again = begin(provider, train, told, val=val)
    ledger = provider.ledger()
    assert again == Started(id=first.id, earlier=True)
    assert (len(ledger["files"]), len(ledger["jobs"])) == (2, 1)
    assert ledger["calls"][f"POST {UPLOADS[OPENAI]}"] == 2


def test_another_job_needs_other_settings_or_to_be_asked_for(tmp_path: Path, told: Told, provider: Provider) -> None:
    train = twelve(tmp_path / "train.jsonl")
    ids = [
        begin(provider, train, told).id,
        begin(provider, train, told, n_epochs=3).id,
        begin(provider, train, told, new_job=True).id,
        begin(provider, train, told).id,
    ]
    assert ids == ["ft-job-1", "ft-job-2", "ft-job-3", "ft-job-3"]
    assert len(provider.ledger()["files"]) == 1


def test_a_file_that_has_changed_is_uploaded_and_taught_anew(tmp_path: Path, told: Told, provider: Provider) -> None:
    train = twelve(tmp_path / "train.jsonl")
    begin(provider, train, told)
    begin(provider, twelve(train, "other"), told)
    assert [job["training_file"] for job in provider.ledger()["jobs"]] == ["file-1", "file-2"]


def test_a_remembered_file_that_is_gone_is_uploaded_again_and_the_job_still_known(tmp_path: Path, told: Told) -> None:
    train = twelve(tmp_path / "train.jsonl")
    state = state_path(train, None)
    with provider_here() as server:
        begin(server, train, told)
        state.write_text(state.read_text().replace('"file-1"', '"file-9"'))
        again = begin(server, train, told)
        assert again == Started(id="ft-job-1", earlier=True)
        assert len(server.ledger()["files"]) == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_upload_that_fails_is_sent_again(tmp_path: Path, told: Told, provider: Provider, status: int) -> None:
    provider.tell(blows=[{"call": f"POST {UPLOADS[OPENAI]}", "status": status, "times": 2, "retry_after_s": 3}])
    begin(provider, twelve(tmp_path / "train.jsonl"), told)
    ledger = provider.ledger()
    assert (len(ledger["files"]), len(ledger["jobs"]), ledger["calls"][f"POST {UPLOADS[OPENAI]}"]) == (1, 1, 3)
    assert len(told.waits_s) == 2
    assert min(told.waits_s) >= 3


def test_an_upload_that_fails_for_good_creates_no_job(tmp_path: Path, told: Told, provider: Provider) -> None:
    provider.tell(blows=[{"call": f"POST {UPLOADS[OPENAI]}", "times": 99}])
    with pytest.raises(ApiError, match="something went wrong"):
        begin(provider, twelve(tmp_path / "train.jsonl"), told)
    ledger = provider.ledger()
    assert ledger["jobs"] == []
    assert ledger["calls"][f"POST {UPLOADS[OPENAI]}"] == 5


def test_an_upload_whose_answer_was_lost_is_found_and_not_sent_again(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    provider.tell(blows=[{"call": f"POST {UPLOADS[OPENAI]}", "kind": "cut"}])
    begin(provider, twelve(tmp_path / "train.jsonl"), told)
    ledger = provider.ledger()
    assert (len(ledger["files"]), ledger["calls"][f"POST {UPLOADS[OPENAI]}"]) == (1, 1)


def test_an_upload_that_broke_off_and_is_not_there_is_sent_again(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    provider.tell(blows=[{"call": f"POST {UPLOADS[OPENAI]}", "kind": "reset"}])
    begin(provider, twelve(tmp_path / "train.jsonl"), told)
    assert len(provider.ledger()["files"]) == 1
    assert "At worst a file lies unused" in told.text


def test_a_wrong_key_is_noticed_before_a_byte_of_a_file_is_sent(tmp_path: Path, told: Told) -> None:
    with provider_here(key="sk-another-key") as server:
        with pytest.raises(LaneRefused, match="401"):
            begin(server, twelve(tmp_path / "train.jsonl"), told)
        assert list(server.ledger()["calls"]) == [LIST]


def test_a_job_whose_answer_was_lost_is_found_and_not_created_again(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    provider.tell(blows=[{"call": CREATE, "kind": "cut"}])
    train = twelve(tmp_path / "train.jsonl")
    started = begin(provider, train, told)
    assert started.id == "ft-job-1"
    assert begin(provider, train, told) == Started(id="ft-job-1", earlier=True)
    ledger = provider.ledger()
    assert (len(ledger["jobs"]), ledger["calls"][CREATE]) == (1, 1)


def test_an_earlier_job_on_the_same_file_is_not_taken_for_the_one_that_was_lost(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    begin(provider, train, told)
    provider.tell(blows=[{"call": CREATE, "kind": "cut"}])
    assert begin(provider, train, told, n_epochs=3).id == "ft-job-2"


def test_a_job_that_is_not_remembered_here_is_not_taken_for_the_one_that_was_lost(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    begin(provider, train, told)
    begin(provider, train, told, new_job=True)  # the first is remembered no longer
    provider.tell(blows=[{"call": CREATE, "status": 500}])
    with pytest.raises(UnheardError):
        begin(provider, train, told, n_epochs=3)


@pytest.mark.parametrize(
    "blow", [{"kind": "reset"}, {"status": 500}, {"status": 502}, {"status": 503}, {"status": 504}]
)
def test_a_job_that_nobody_heard_of_is_looked_for_and_not_asked_for_again(
    tmp_path: Path, told: Told, provider: Provider, blow: dict[str, Any]
) -> None:
    provider.tell(blows=[{"call": CREATE, **blow}])
    train = twelve(tmp_path / "train.jsonl")
    with pytest.raises(UnheardError):
        begin(provider, train, told)
    assert provider.ledger()["calls"][CREATE] == 1
    assert told.waits_s == [7.0, 7.0, 7.0]
    # Typed again it looks once more, and then asks.
    assert begin(provider, train, told) == Started(id="ft-job-1", earlier=False)
    assert len(provider.ledger()["jobs"]) == 1
    assert "It is not there" in told.text


def test_a_job_that_shows_up_only_when_the_command_is_typed_again_is_taken_up(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    # It is created, nobody hears so, and then nobody can be asked.
    blows = [{"call": CREATE, "kind": "cut"}, {"call": LIST, "after": 2, "times": 99, "status": 401}]
    train = twelve(tmp_path / "train.jsonl")
    begin(provider, train, told, n_epochs=1)
    provider.tell(blows=blows)
    with pytest.raises(UnheardError):
        begin(provider, train, told, new_job=True)
    provider.tell()
    assert begin(provider, train, told, new_job=True) == Started(id="ft-job-2", earlier=True)
    assert len(provider.ledger()["jobs"]) == 2


def test_a_job_with_other_settings_is_not_taken_for_the_one_that_nobody_heard_of(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    provider.tell(blows=[{"call": CREATE, "status": 500}])
    with pytest.raises(UnheardError):
        begin(provider, train, told)
    assert begin(provider, train, told, n_epochs=3).id == "ft-job-1"
    assert "with other settings" in told.text
    assert begin(provider, train, told) == Started(id="ft-job-2", earlier=False)


class FullDisk(Files):
    """Takes so many files, and then no more."""

    def __init__(self, files: int) -> None:
        self._left = files

    def open_new(self, path: Path) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open_new(path)


def test_a_job_that_a_full_disk_could_not_remember_is_taken_up_with_room_again(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    asked = Asked(api_config(provider.url))
    # The file's id and what is about to be asked for fit; the job's id does not.
    state = State(state_path(train, None), base_url=asked.base_url, files=FullDisk(2))
    desk = Desk(provider=asked, state=state, pace=told.pace(), say=told.lines.append)
    with pytest.raises(SinkBroken, match="cannot be written"):
        start(plan(Order(model="m"), DIALECTS[OPENAI], training=train, validation=None), desk, new_job=False)
    assert begin(provider, train, told) == Started(id="ft-job-1", earlier=True)
    assert len(provider.ledger()["jobs"]) == 1


def test_a_refused_job_is_forgotten_and_may_be_asked_for_with_the_cause_gone(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    provider.tell(blows=[{"call": CREATE, "status": 400, "message": "the model is not for you"}])
    with pytest.raises(RequestRefused, match="not for you"):
        begin(provider, train, told)
    lists = provider.ledger()["calls"][LIST]
    assert begin(provider, train, told).id == "ft-job-1"
    assert "Looking for the job" not in told.text
    assert provider.ledger()["calls"][LIST] == lists + 2


def test_a_job_is_asked_for_again_where_the_provider_only_wants_it_slower(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    provider.tell(blows=[{"call": CREATE, "status": 429, "times": 2, "retry_after_s": 11}])
    begin(provider, twelve(tmp_path / "train.jsonl"), told)
    ledger = provider.ledger()
    assert (len(ledger["jobs"]), ledger["calls"][CREATE]) == (1, 3)
    assert min(told.waits_s) >= 11


def test_a_provider_that_asks_for_more_patience_than_there_is_creates_nothing(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    provider.tell(blows=[{"call": CREATE, "status": 429, "times": 99}])
    with pytest.raises(RateLimited):
        begin(provider, twelve(tmp_path / "train.jsonl"), told)
    assert provider.ledger()["calls"][CREATE] == 5


def test_a_file_is_waited_for_until_the_provider_has_looked_through_it(tmp_path: Path, told: Told) -> None:
    with provider_here(file_s=1e9) as server:
        begin(server, twelve(tmp_path / "train.jsonl"), told)
    assert told.waits_s == [7.0] * 12
    assert told.text.count("looks through it") == 1


def test_files_that_were_uploaded_elsewhere_need_none_here(tmp_path: Path, told: Told, provider: Provider) -> None:
    begin(provider, twelve(tmp_path / "train.jsonl"), told)
    asked = Asked(api_config(provider.url))
    found = plan(Order(model="m"), DIALECTS[OPENAI], training="file-1", validation=None)
    state = State(tmp_path / state_path(None, "file-1"), base_url=asked.base_url)
    desk = Desk(provider=asked, state=state, pace=told.pace(), say=told.lines.append)
    assert start(found, desk, new_job=False).id == "ft-job-2"
    assert start(found, desk, new_job=False) == Started(id="ft-job-2", earlier=True)


@pytest.mark.parametrize("change", [Path.unlink, lambda path: twelve(path, "other")])
def test_a_file_that_changes_between_checking_and_sending_creates_no_job(
    tmp_path: Path, told: Told, provider: Provider, change: Callable[[Path], object]
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    asked = Asked(api_config(provider.url))
    desk = Desk(
        provider=asked,
        state=State(state_path(train, None), base_url=asked.base_url),
        pace=told.pace(),
        say=told.lines.append,
    )
    found = plan(Order(model="m"), DIALECTS[OPENAI], training=train, validation=None)
    change(train)
    with pytest.raises(InputError, match="changed while it was read"):
        start(found, desk, new_job=False)
    assert provider.ledger()["files"] == []


def test_a_folder_that_takes_no_copy_ends_it_before_anything_is_sent(
    tmp_path: Path, told: Told, provider: Provider
) -> None:
    train = twelve(tmp_path / "train.jsonl")
    asked = Asked(api_config(provider.url))
    state = State(tmp_path / "gone" / "state.json", base_url=asked.base_url)
    desk = Desk(provider=asked, state=state, pace=told.pace(), say=told.lines.append)
    with pytest.raises(SinkBroken, match="no room"):
        start(plan(Order(model="m"), DIALECTS[OPENAI], training=train, validation=None), desk, new_job=False)
    assert provider.ledger()["files"] == []


@pytest.mark.parametrize("api", [OPENAI, TOGETHER])
@pytest.mark.parametrize(("ends", "phase"), [("failed", "failed"), ("cancelled", "cancelled")])
def test_a_job_that_ends_badly_is_followed_to_that_end(
    tmp_path: Path, told: Told, api: str, ends: str, phase: str
) -> None:
    with provider_here(api=api, ends=ends) as server:
        job = follow_it(server, begin(server, twelve(tmp_path / "train.jsonl"), told, api=api).id, told, api=api)
    assert job.phase == phase
    assert job.error == ("the loss is not a number" if (api, ends) == (OPENAI, "failed") else "")


@pytest.mark.parametrize("api", [OPENAI, TOGETHER])
def test_each_event_is_told_once_and_in_order_however_many_there_are(tmp_path: Path, told: Told, api: str) -> None:
    with provider_here(api=api, steps=250, queue_s=1e9) as server:
        started = begin(server, twelve(tmp_path / "train.jsonl"), told, api=api)
        told.lines.clear()

        def end_it(_: float) -> None:
            server.tell(api=api, steps=250, queue_s=0.0, run_s=0.0)

        follow_it(server, started.id, told, api=api, sleep=end_it)
    steps = [line.split("  ")[1] for line in told.lines if "Step" in line]
    assert steps == [f"Step {number}/250: loss=0.5" for number in range(1, 251)]
    assert sum("Created" in line for line in told.lines) == 1
    assert sum("The job has" in line for line in told.lines) == 1


def test_an_outage_is_waited_out_and_told_once(tmp_path: Path, told: Told, provider: Provider) -> None:
    started = begin(provider, twelve(tmp_path / "train.jsonl"), told)
    look = f"GET {JOBS[OPENAI]}/{started.id}"
    provider.tell(
        queue_s=0.0,
        run_s=0.0,
        blows=[
            {"call": look, "kind": "reset", "times": 2},
            {"call": look, "status": 503, "times": 2},
            {"call": f"{look}/events", "status": 429, "retry_after_s": 400},
        ],
    )
    assert follow_it(provider, started.id, told).phase == "done"
    assert told.text.count("does not tell how the job stands") == 1
    assert told.text.count("answers again") == 1
    assert len(told.waits_s) == 5
    assert told.waits_s[:4] == sorted(told.waits_s[:4])
    assert told.waits_s[4] >= 400


def test_an_outage_does_not_last_for_ever(tmp_path: Path, told: Told, provider: Provider) -> None:
    started = begin(provider, twelve(tmp_path / "train.jsonl"), told)
    provider.tell(blows=[{"call": f"GET {JOBS[OPENAI]}/{started.id}", "times": 10_000}])
    with pytest.raises(ProviderDown, match="nothing of the job"):
        follow_it(provider, started.id, told, outage_s=0.02)


def test_a_job_that_does_not_exist_is_not_waited_for(told: Told, provider: Provider) -> None:
    with pytest.raises(LaneRefused, match="404"):
        follow_it(provider, "ft-none", told)
    assert told.waits_s == []


def test_a_provider_without_events_is_followed_by_its_status(tmp_path: Path, told: Told, provider: Provider) -> None:
    started = begin(provider, twelve(tmp_path / "train.jsonl"), told)
    events = f"GET {JOBS[OPENAI]}/{started.id}/events"
    provider.tell(queue_s=0.0, run_s=0.0, blows=[{"call": events, "status": 404, "times": 99}])
    assert follow_it(provider, started.id, told).phase == "done"
    assert told.text.count("tells no events") == 1


def ask(server: RawServer, **config: Any) -> ApiError:
    with pytest.raises(ApiError) as found:
        Asked(api_config(server.base_url, **config)).post("/fine_tuning/jobs", {"model": "m"})
    assert KEY not in "".join(map(str, (found.value, found.value.__cause__, found.value.__context__)))
    assert found.value.__cause__ is None
    assert found.value.__context__ is None
    return found.value


def echoing(wire: Wire) -> None:
    request = wire.request()
    wire.send(http_reply(orjson.dumps({"error": {"message": request.decode("latin-1")}}), status="400 Bad Request"))


def hanging_up(wire: Wire) -> None:
    wire.request()
    wire.reset()


@pytest.mark.parametrize(
    ("script", "kind", "paid"),
    [
        (echoing, RequestRefused, False),
        (hanging_up, NetworkError, True),
        (saying_then_closing(b""), NetworkError, True),
        (saying_then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"), NetworkError, True),
        (saying_then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), NetworkError, True),
        (saying_then_closing(b"no HTTP\r\n\r\n"), NetworkError, True),
        (saying_then_closing(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000), NetworkError, True),
        (saying_then_stalling(b"HTTP/1.1 200 OK\r\n"), CallTimeout, True),
        (answering(http_reply(b"[]")), BadReply, True),
        (answering(http_reply(b'{"error":{"message":"no"}}')), BadReply, True),
        (answering(http_reply(b" " * 5000)), BadReply, True),
        (
            answering(http_reply(b"{}", status="302 Found", headers=("Location: http://127.0.0.1:1/",))),
            LaneRefused,
            False,
        ),
    ],
    ids=[
        *("echo", "reset", "closed", "cut_length", "cut_chunk", "no_http", "endless_header", "stall"),
        *("no_object", "error_in_200", "blanks", "redirect"),
    ],
)
def test_whatever_a_server_does_is_one_error_of_ours_without_the_key(
    script: Script, kind: type[ApiError], *, paid: bool
) -> None:
    with RawServer(script) as server:
        error = ask(server, call_timeout_s=0.3, max_reply_bytes=4000)
    assert type(error) is kind
    assert error.paid is paid


def test_what_never_reached_a_server_was_not_done(told: Told) -> None:
    with RawServer(hanging_up) as server:
        url = server.base_url
    with pytest.raises(NetworkError, match="cannot connect") as found:
        Asked(api_config(url)).post("/fine_tuning/jobs", {})
    assert not found.value.paid


def test_a_certificate_that_nobody_signed_is_not_accepted() -> None:
    def over_tls(wire: Wire) -> None:
        wire.secure()
        wire.request()

    with RawServer(over_tls, scheme="https", host="localhost") as server, pytest.raises(CertificateError):
        Asked(api_config(server.base_url)).get("/files")
    assert server.requests == []


def test_an_echoed_key_is_not_taken_into_what_is_shown() -> None:
    reply = http_reply(orjson.dumps({"id": "ft-1", "status": f"seen {KEY}"}))
    with RawServer(answering(reply)) as server:
        assert Asked(api_config(server.base_url)).get("/x")["status"] == "seen ***"


@pytest.mark.parametrize("key", ["sk-two\nlines-of-it", "sk-with-\u00e9"])
def test_a_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as found:
        Asked(api_config("http://127.0.0.1:1/v1", key=key))
    assert key not in str(found.value)
