"""What the clouds say of the end of a machine, and what is made of it: in virtual time, and over real sockets."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import anyio
import orjson
import pytest
from anyio import to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clouds import METADATA, Cloud, NoticeConfig, cloud_of, notice_config
from engine.errors import ConfigError
from engine.notices import (
    GIVE_UP_MISSES,
    MOST_BYTES,
    PATIENT_MISSES,
    SELDOM_S,
    TELLERS,
    Answer,
    Metadata,
    NoAnswerError,
    Question,
    heed,
    watch_for_notices,
)
from engine.stop import Stop
from tests.fakes.clouds import DMI_OF, MACHINE, CloudServer, event, write_dmi
from tests.fakes.servers import (
    RawServer,
    Script,
    Wire,
    answering,
    http_reply,
    saying_then_closing,
    saying_then_resetting,
    saying_then_stalling,
)
from tests.fakes.virtual import run_in_virtual_time

NONE_YET: dict[Cloud, dict[str, Answer]] = {
    Cloud.AWS: {
        "/latest/api/token": Answer(status=200, body=b"token"),
        "/latest/meta-data/spot/instance-action": Answer(status=404, body=b"<html>"),
    },
    Cloud.GCP: {
        "/computeMetadata/v1/instance/preempted": Answer(status=200, body=b"FALSE"),
        "/computeMetadata/v1/instance/maintenance-event": Answer(status=200, body=b"NONE"),
    },
    Cloud.AZURE: {
        "/metadata/instance/compute/name": Answer(status=200, body=MACHINE.encode()),
        "/metadata/scheduledevents": Answer(status=200, body=b'{"DocumentIncarnation":1,"Events":[]}'),
    },
}
"""All that each cloud may be asked for, and its answers while there is no notice."""
INTERVAL_S = {cloud: notice_config(cloud.value, environment={}).interval_s for cloud in Cloud}
each_cloud = pytest.mark.parametrize("cloud", Cloud)


def events(*listed: object) -> Answer:
    return Answer(status=200, body=orjson.dumps({"DocumentIncarnation": 2, "Events": listed}))


class Service:
    """Answers from a table that a test may change; other paths are a mistake of the asker."""

    def __init__(self, cloud: Cloud) -> None:
        self.says: dict[str, Answer | None] = dict(NONE_YET[cloud])
        """None is no answer within the time."""
        self.latency_s: dict[str, float] = {}
        """By path; others are answered at once."""
        self.asked: list[tuple[float, Question]] = []

    async def ask(self, question: Question) -> Answer:
        self.asked.append((anyio.current_time(), question))
        path = question.path.partition("?")[0]
        answer = self.says[path]
        latency_s = math.inf if answer is None else self.latency_s.get(path, 0.0)
        await anyio.sleep(min(latency_s, question.timeout_s))
        if answer is None or latency_s > question.timeout_s:
            raise NoAnswerError
        return answer


class Scene:
    """One cloud, one run that may be stopped, and what was noted."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.service = Service(cloud)
        self.stop = Stop(drain_s=20)
        self.notes: list[str] = []
        self.began_s = anyio.current_time()

    async def heed(self) -> None:
        config = NoticeConfig(cloud=self.cloud, interval_s=INTERVAL_S[self.cloud])
        await heed(config, TELLERS[self.cloud](self.service.ask), stop=self.stop, note=self.notes.append)

    async def change(self, path: str, answer: Answer, *, after_s: float) -> None:
        await anyio.sleep(after_s)
        self.service.says[path] = answer

    @property
    def now_s(self) -> float:
        return anyio.current_time() - self.began_s


async def notice_of(cloud: Cloud, **says: Answer | None) -> str | None:
    """What is made of one round of answers, paths given by their last word."""
    service = Service(cloud)
    for path in service.says:
        word = path.rpartition("/")[2].replace("-", "_")
        service.says[path] = says.get(word, service.says[path])
    return await TELLERS[cloud](service.ask).notice()


COMING: list[tuple[Cloud, str, Answer, str]] = [
    (
        Cloud.AWS,
        "/latest/meta-data/spot/instance-action",
        Answer(status=200, body=b'{"action": "terminate", "time": "2017-09-18T08:22:00Z"}'),
        "an AWS spot interruption notice (terminate)",
    ),
    (
        Cloud.GCP,
        "/computeMetadata/v1/instance/preempted",
        Answer(status=200, body=b"TRUE\n"),
        "a Google Cloud preemption notice",
    ),
    (
        Cloud.GCP,
        "/computeMetadata/v1/instance/maintenance-event",
        Answer(status=200, body=b"TERMINATE_ON_HOST_MAINTENANCE"),
        "a Google Cloud host maintenance notice",
    ),
    (Cloud.AZURE, "/metadata/scheduledevents", events(event("Preempt", MACHINE)), "an Azure notice (Preempt)"),
    (
        Cloud.AZURE,
        "/metadata/scheduledevents",
        events("?", event("Freeze", MACHINE), event("Terminate", "other", MACHINE.upper())),
        "an Azure notice (Terminate)",
    ),
]


@pytest.mark.parametrize(("cloud", "path", "answer", "words"), COMING, ids=[words for *_, words in COMING])
def test_a_notice_asks_the_run_to_stop_within_six_seconds(cloud: Cloud, path: str, answer: Answer, words: str) -> None:
    async def main() -> None:
        scene = Scene(cloud)
        scene.service.latency_s = dict.fromkeys(scene.service.says, 0.2)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: scene.change(path, answer, after_s=3600.1))
            await scene.heed()
        assert scene.stop.reason == words
        assert 3600.1 < scene.now_s <= 3606.1
        assert scene.notes == []
        scene.stop.ask("SIGTERM")
        assert scene.stop.bounded().deadline == pytest.approx(anyio.current_time() + 20), "the machine's own signal"

    run_in_virtual_time(main)


@pytest.mark.parametrize("action", ["stop", "hibernate"])
def test_every_kind_of_interruption_counts(action: str) -> None:
    answer = Answer(status=200, body=orjson.dumps({"action": action, "time": "2017-09-18T08:22:00Z"}))
    assert action in str(run_in_virtual_time(lambda: notice_of(Cloud.AWS, instance_action=answer)))


@pytest.mark.parametrize(
    ("cloud", "says"),
    [
        (Cloud.GCP, {"maintenance_event": Answer(status=200, body=b"MIGRATE_ON_HOST_MAINTENANCE")}),
        (Cloud.AZURE, {"scheduledevents": events(event("Preempt", "another-vm", MACHINE + "0"))}),
        (Cloud.AZURE, {"scheduledevents": events(*(event(k, MACHINE) for k in ("Freeze", "Reboot", "Redeploy")))}),
        (Cloud.AZURE, {"scheduledevents": events(event("Preempt"), 3, None, {"EventType": ["Preempt"]})}),
    ],
    ids=["live migration", "another machine", "other events", "events without a machine"],
)
def test_what_leaves_this_machine_where_it_is_is_no_notice(cloud: Cloud, says: dict[str, Answer]) -> None:
    assert run_in_virtual_time(lambda: notice_of(cloud, **says)) is None


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"action": "none"}', b'{"action": ["stop"]}', b"terminate", b""]
)
def test_a_body_without_an_action_is_no_notice(body: bytes) -> None:
    async def main() -> None:
        with pytest.raises(NoAnswerError):
            await notice_of(Cloud.AWS, instance_action=Answer(status=200, body=body))

    run_in_virtual_time(main)


def test_one_token_serves_until_it_is_refused() -> None:
    async def main() -> list[str]:
        service = Service(Cloud.AWS)
        aws = TELLERS[Cloud.AWS](service.ask)
        for _ in range(3):
            assert await aws.notice() is None
        action = "/latest/meta-data/spot/instance-action"
        service.says[action] = Answer(status=401, body=b"")
        service.says["/latest/api/token"] = Answer(status=200, body=b"second")
        with pytest.raises(NoAnswerError):
            await aws.notice()
        service.says[action] = Answer(status=404, body=b"")
        assert await aws.notice() is None
        assert service.asked[-1][1].headers == {"X-aws-ec2-metadata-token": "second"}
        return [question.method for _, question in service.asked]

    assert run_in_virtual_time(main) == ["PUT", "GET", "GET", "GET", "GET", "PUT", "GET", "GET"]


def test_the_first_events_of_azure_may_take_two_minutes_and_the_later_ones_a_second() -> None:
    async def main() -> None:
        scene = Scene(Cloud.AZURE)
        scene.service.latency_s = {"/metadata/scheduledevents": 120.0}
        teller = TELLERS[Cloud.AZURE](scene.service.ask)
        assert await teller.notice() is None
        assert scene.now_s == 120
        with pytest.raises(NoAnswerError):
            await teller.notice()
        assert scene.now_s == 121

    run_in_virtual_time(main)


@each_cloud
def test_a_service_that_never_answers_is_asked_seldom_and_then_given_up_with_a_note(cloud: Cloud) -> None:
    async def main() -> None:
        scene = Scene(cloud)
        scene.service.says = dict.fromkeys(scene.service.says)
        await scene.heed()
        pauses = (PATIENT_MISSES - 1) * INTERVAL_S[cloud] + (GIVE_UP_MISSES - PATIENT_MISSES) * SELDOM_S
        assert scene.now_s == pauses + GIVE_UP_MISSES
        assert len(scene.service.asked) == GIVE_UP_MISSES
        assert not scene.stop.asked
        [note] = scene.notes
        assert cloud.full_name in note
        assert "--spot-notices off" in note

    run_in_virtual_time(main)


@each_cloud
def test_a_service_that_has_answered_is_asked_for_ever(cloud: Cloud) -> None:
    async def main() -> None:
        scene = Scene(cloud)
        answers = scene.service.says
        async with anyio.create_task_group() as group:
            group.start_soon(scene.heed)
            await anyio.sleep(1)
            scene.service.says = {path: Answer(status=500, body=b"") for path in answers}
            await anyio.sleep(24 * 3600)
            assert scene.notes == []
            scene.service.says = answers
            await anyio.sleep(SELDOM_S)
            before = len(scene.service.asked)
            await anyio.sleep(60)
            assert len(scene.service.asked) - before >= 60 / INTERVAL_S[cloud] - 1, "the old pace comes back"
            scene.stop.ask("SIGTERM")
        assert scene.stop.reason == "SIGTERM"

    run_in_virtual_time(main)


ANSWERS = st.builds(
    Answer,
    status=st.sampled_from([200, 204, 301, 400, 401, 403, 404, 410, 429, 500, 503]),
    body=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["terminate", "TRUE", "Preempt", MACHINE]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["action", "Events", "EventType", "Resources"]), inner, max_size=4)
        ),
        max_leaves=12,
    ).map(orjson.dumps),
)


@each_cloud
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_answer_whatever_it_says_raises_anything_but_that_it_is_none(cloud: Cloud, data: st.DataObject) -> None:
    async def main() -> None:
        service = Service(cloud)
        for path in service.says:
            service.says[path] = data.draw(ANSWERS)
        teller = TELLERS[cloud](service.ask)
        for _ in range(2):
            try:
                words = await teller.notice()
            except NoAnswerError:
                continue
            assert words is None or cloud.full_name in words

    anyio.run(main)


def test_a_token_that_is_none_is_not_sent_on() -> None:
    async def main() -> None:
        service = Service(Cloud.AWS)
        service.says["/latest/api/token"] = Answer(status=200, body=b"a\r\nHost: elsewhere")
        with pytest.raises(NoAnswerError):
            await TELLERS[Cloud.AWS](service.ask).notice()
        assert [question.method for _, question in service.asked] == ["PUT"]

    run_in_virtual_time(main)


def test_a_notice_and_the_signal_that_follows_it_are_one_request_to_stop() -> None:
    async def main() -> None:
        began_s = anyio.current_time()
        stop = Stop(drain_s=20)
        stop.ask("a notice", is_notice=True)
        stop.ask("SIGTERM")
        with stop.bounded() as drain:
            await anyio.sleep(19)
            stop.ask("another notice", is_notice=True)
            await anyio.sleep_forever()
        assert drain.cancelled_caught
        assert anyio.current_time() - began_s == 20
        assert stop.reason == "a notice"

    run_in_virtual_time(main)


@pytest.mark.parametrize("first", ["notice", "signal"])
def test_a_second_signal_waits_for_nothing_whenever_the_notice_came(first: str) -> None:
    async def main() -> None:
        began_s = anyio.current_time()
        stop = Stop(drain_s=20)
        stop.ask("SIGTERM", is_notice=first == "notice")
        stop.ask("SIGTERM", is_notice=first == "signal")
        assert stop.bounded().deadline == began_s + 20
        stop.ask("SIGTERM")
        with stop.bounded():
            await anyio.sleep_forever()
        assert anyio.current_time() == began_s

    run_in_virtual_time(main)


def asked_of(endpoint: str, *, timeout_s: float = 0.3) -> Answer:
    """One question over a real socket."""

    async def main() -> Answer:
        async with Metadata(endpoint) as metadata:
            return await metadata.ask(Question(path="/latest/x?a=b", headers={"Metadata": "true"}, timeout_s=timeout_s))

    return anyio.run(main)


def flood(wire: Wire) -> None:
    """A body without an end."""
    wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        wire.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")


WHOLE = http_reply(b"FALSE")
BROKEN: dict[str, Script] = {
    "hangs": saying_then_stalling(b""),
    "hangs in the body": saying_then_stalling(WHOLE[:-2]),
    "closed without an answer": saying_then_closing(b""),
    "cut": saying_then_closing(WHOLE[:-2]),
    "reset": saying_then_resetting(WHOLE[:20]),
    "no HTTP": saying_then_closing(b"\x00\xff no such protocol\r\n\r\n"),
    "a header without an end": saying_then_closing(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000),
    "a body without an end": flood,
    "a body above the cap": saying_then_stalling(http_reply(b"x" * (MOST_BYTES + 1))),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_a_service_that_breaks_off_hangs_or_floods_is_no_answer_and_costs_no_time(script: Script) -> None:
    with RawServer(script) as server:
        began_s = time.monotonic()
        with pytest.raises(NoAnswerError):
            asked_of(server.base_url.removesuffix("/v1"))
        assert time.monotonic() - began_s < 3
        assert server.sent_bytes < 4 << 20


def test_a_body_at_the_cap_is_read_whole() -> None:
    with RawServer(answering(http_reply(b"x" * MOST_BYTES))) as server:
        assert len(asked_of(server.base_url.removesuffix("/v1"), timeout_s=5).body) == MOST_BYTES


def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(NoAnswerError):
        asked_of("http://127.0.0.1:9")


def test_a_redirect_is_not_followed() -> None:
    moved = http_reply(b"", status="302 Found", headers=("Location: /latest/elsewhere",))
    with RawServer(answering(moved, WHOLE)) as server:
        assert asked_of(server.base_url.removesuffix("/v1"), timeout_s=5).status == 302
        assert len(server.requests) == 1


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer(answering(WHOLE)) as server:
        assert asked_of(server.base_url.removesuffix("/v1"), timeout_s=5).body == b"FALSE"
        assert server.requests[0].startswith(b"GET /latest/x?a=b HTTP/1.1\r\n")


@each_cloud
def test_each_cloud_is_asked_as_it_wants_to_be(cloud: Cloud) -> None:
    async def main() -> None:
        stop, notes = Stop(drain_s=20), list[str]()
        with CloudServer() as server:
            server.notice_after = 6
            config = NoticeConfig(cloud=cloud, endpoint=server.endpoint, interval_s=0.02)
            with anyio.fail_after(5):
                await watch_for_notices(config, stop=stop, note=notes.append)
            assert cloud.full_name in str(stop.reason)
            assert notes == server.refused == []
            assert {path.partition(" ")[2] for path in server.asked} <= set(NONE_YET[cloud])

    anyio.run(main)


def test_a_question_that_hangs_ends_with_the_run() -> None:
    heard = threading.Event()

    def listen_only(wire: Wire) -> None:
        wire.request()
        heard.set()
        wire.hold()

    async def main() -> None:
        with RawServer(listen_only) as server:
            config = NoticeConfig(cloud=Cloud.GCP, endpoint=server.base_url.removesuffix("/v1"))
            began_s = time.monotonic()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: watch_for_notices(config, stop=Stop(drain_s=20), note=print))
                await to_thread.run_sync(heard.wait)
                group.cancel_scope.cancel()
            assert time.monotonic() - began_s < 0.9

    anyio.run(main)


def test_without_a_cloud_nobody_is_asked() -> None:
    async def main() -> None:
        with CloudServer() as server:
            config = NoticeConfig(endpoint=server.endpoint)
            await watch_for_notices(config, stop=Stop(drain_s=20), note=server.refused.append)
            assert server.asked == server.refused == []

    anyio.run(main)


@each_cloud
def test_a_cloud_is_known_by_the_names_it_gives_the_hardware(cloud: Cloud, tmp_path: Path) -> None:
    environment = {"REELBATCH_DMI_FOLDER": str(write_dmi(tmp_path, DMI_OF[cloud]))}
    assert notice_config("auto", environment=environment).cloud is cloud
    assert notice_config("off", environment=environment).cloud is None
    assert notice_config("aws", environment=environment).cloud is Cloud.AWS


@pytest.mark.parametrize(
    ("strings", "cloud"),
    [
        ({}, None),
        ({"sys_vendor": "Xen", "bios_vendor": "Xen", "bios_version": "4.2.amazon"}, Cloud.AWS),
        ({"sys_vendor": "Xen", "bios_version": "4.17"}, None),
        ({"sys_vendor": "Google", "product_name": "Eve"}, None),
        ({"product_name": "Google"}, Cloud.GCP),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine", "chassis_asset_tag": ""}, None),
        ({"sys_vendor": "OpenStack Foundation", "product_name": "OpenStack Nova"}, None),
    ],
    ids=["no strings", "EC2 on Xen", "Xen", "Chromebook", "older GCE", "Hyper-V", "OpenStack"],
)
def test_other_machines_stand_in_no_cloud(strings: dict[str, str], cloud: Cloud | None, tmp_path: Path) -> None:
    assert cloud_of(write_dmi(tmp_path, strings)) is cloud


def test_names_that_cannot_be_read_name_no_cloud(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").mkdir()
    (tmp_path / "product_name").write_bytes(b"\xff\xfe\n")
    assert cloud_of(tmp_path) is None
    assert cloud_of(tmp_path / "missing") is None


def test_a_service_that_aws_libraries_may_not_ask_is_asked_only_if_named(tmp_path: Path) -> None:
    environment = {
        "REELBATCH_DMI_FOLDER": str(write_dmi(tmp_path, DMI_OF[Cloud.AWS])),
        "AWS_EC2_METADATA_DISABLED": "True",
    }
    assert notice_config("auto", environment=environment).cloud is None
    assert notice_config("aws", environment=environment).cloud is Cloud.AWS


@pytest.mark.parametrize(
    ("told", "endpoint"),
    [
        ("", METADATA),
        ("http://127.0.0.1:1338/", "http://127.0.0.1:1338"),
        ("localhost:8080", "http://localhost:8080"),
        ("169.254.169.254", "http://169.254.169.254:80"),
        ("http://[fd00:ec2::254]/latest", "http://[fd00:ec2::254]:80"),
        ("metadata.google.internal", METADATA),
        ("http://198.51.100.7", METADATA),
        ("http://user:word@198.51.100.7@127.0.0.1.example", METADATA),
        ("https://127.0.0.1", METADATA),
        ("http://127.0.0.1:port", METADATA),
        ("http://[::1", METADATA),
    ],
)
def test_only_an_address_that_leaves_neither_machine_nor_host_is_asked(told: str, endpoint: str) -> None:
    for cloud, name in ((Cloud.AWS, "AWS_EC2_METADATA_SERVICE_ENDPOINT"), (Cloud.GCP, "GCE_METADATA_HOST")):
        assert notice_config(cloud.value, environment={name: told}).endpoint == endpoint


@pytest.mark.parametrize("told", ["soon", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_none_is_refused(told: str) -> None:
    with pytest.raises(ConfigError, match="REELBATCH_NOTICE_INTERVAL_SECONDS"):
        notice_config("aws", environment={"REELBATCH_NOTICE_INTERVAL_SECONDS": told})
