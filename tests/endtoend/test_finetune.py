"""`finetune` as a user has it: real processes, a provider in another one, every way it may end."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labels.finetune.state import state_path
from tests.fakes.commands import CLI, KEY, Said, cli, environment, finished, start_cli
from tests.fakes.finetuning import Provider, chat, picture, provider_apart, twelve, write_chats

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CREATE = "POST /v1/fine_tuning/jobs"
FOR_EVER = {"queue_s": 1e9}
QUICK: dict[str, object] = {"queue_s": 0.1, "run_s": 0.1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider_apart(tmp_path_factory.mktemp("provider")) as server:
        yield server


@pytest.fixture
def provider(server: Provider) -> Provider:
    server.tell(key=KEY, **QUICK)
    return server


@pytest.fixture
def train(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return twelve(tmp_path / "train.jsonl", request.node.name)


def arguments(provider: Provider, train: Path, *more: object) -> list[str]:
    words = ("--train", train, "--model", "m", "--poll-sec", 0.05, "--base-url", provider.url, *more)
    return ["finetune", *map(str, words)]


def with_key() -> dict[str, str]:
    return environment(TOGETHER_API_KEY=KEY)


def finetune(provider: Provider, train: Path, *more: object) -> Said:
    said = cli(*arguments(provider, train, *more), env=with_key())
    assert KEY not in said.out + said.err
    assert "Traceback" not in said.err
    return said


def jobs_of(provider: Provider, train: Path) -> list[str]:
    """The jobs on the files that came from one training file."""
    ledger = provider.ledger()
    known = json.loads(state_path(train, None).read_text())["addresses"][provider.url]["files"]
    return [job["id"] for job in ledger["jobs"] if job["training_file"] in known.values()]


def typed(said: Said) -> list[str]:
    """The command it tells to type, without the program."""
    command = shlex.split(said.err.strip().splitlines()[-1])
    return command[next(at for at, word in enumerate(command) if word == "finetune") :]


@pytest.mark.parametrize("api", ["openai", "together"])
def test_a_job_is_started_followed_and_its_model_named(tmp_path: Path, train: Path, api: str) -> None:
    val = write_chats(tmp_path / "val.jsonl", [chat(pictures=[picture()])])
    with provider_apart(tmp_path, api=api, key=KEY, **QUICK) as provider:
        said = finetune(provider, train, "--val", val, "--suffix", "s", "--api", api, "--watch")
        again = finetune(provider, train, "--val", val, "--suffix", "s", "--api", api, "--watch")
        ledger = provider.ledger()
    assert (said.code, said.out) == (0, "ft-job-1\nft:m:s:ft-job-1\n")
    assert (again.code, again.out) == (0, said.out)
    assert (len(ledger["files"]), len(ledger["jobs"])) == (2, 1)
    for words in ("12 examples", "left out: meta_id", "list of parts", "uploaded as file-1", "The job has succeeded"):
        assert said.err.count(words) == 1, words
    assert "no other was created" in again.err
    assert KEY not in state_path(train, None).read_text()


def test_without_watch_it_ends_once_the_job_is_there_and_says_how_to_follow_it(provider: Provider, train: Path) -> None:
    said = finetune(provider, train)
    assert said.code == 0
    assert [said.out.strip()] == jobs_of(provider, train)
    followed = cli(*typed(said), "--poll-sec", 0.05, env=with_key())
    assert (followed.code, followed.out) == (0, f"ft:m::{said.out}")


def test_a_dry_run_needs_no_key_and_no_provider(tmp_path: Path, train: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = cli("finetune", "--train", train, "--model", "m", "--n-epochs", 3, "--dry-run", env=environment())
    assert said.code == 0
    body = json.loads(said.out)
    assert (body["model"], body["n_epochs"], body["learning_rate"]) == ("m", 3, 1e-4)
    assert "Nothing was sent" in said.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("ends", "words"), [("failed", "the loss is not a number"), ("cancelled", "was cancelled")])
def test_a_job_that_ends_badly_ends_with_1(provider: Provider, train: Path, ends: str, words: str) -> None:
    provider.tell(key=KEY, ends=ends, **QUICK)
    said = finetune(provider, train, "--watch")
    assert said.code == 1
    assert words in said.err
    assert "--new-job" in said.err
    assert said.out.count("\n") == 1


def test_a_job_can_be_looked_at_and_cancelled(provider: Provider, train: Path) -> None:
    provider.tell(key=KEY, **FOR_EVER)
    job = finetune(provider, train).out.strip()
    at = ("finetune", "--job", job, "--base-url", provider.url)
    assert cli(*at, env=with_key()).out == "queued\n"
    ended = cli(*at, "--cancel", env=with_key())
    assert (ended.code, ended.out) == (0, "cancelled\n")
    assert cli(*at, "--watch", env=with_key()).code == 1


def test_a_refused_key_ends_with_69_before_anything_is_uploaded(provider: Provider, train: Path) -> None:
    provider.tell(key="sk-of-somebody-else")
    files = len(provider.ledger()["files"])
    said = finetune(provider, train)
    assert said.code == 69
    assert "401" in said.err
    assert "no job was created by this" in said.err
    assert len(provider.ledger()["files"]) == files


def test_a_refused_job_ends_with_69_and_the_upload_is_kept(provider: Provider, train: Path) -> None:
    provider.tell(key=KEY, blows=[{"call": CREATE, "status": 400, "message": "not this model"}], **QUICK)
    said = finetune(provider, train)
    assert said.code == 69
    assert "not this model" in said.err
    assert finetune(provider, train).code == 0
    assert len(jobs_of(provider, train)) == 1


def test_failures_on_the_way_are_overcome_and_one_job_is_created(provider: Provider, train: Path) -> None:
    provider.tell(
        key=KEY,
        blows=[
            {"call": "POST /v1/files", "status": 500},
            {"call": "POST /v1/files", "kind": "reset", "after": 1},
            {"call": CREATE, "status": 429, "retry_after_s": 1},
            {"call": CREATE, "kind": "cut", "after": 1},
        ],
        **QUICK,
    )
    said = finetune(provider, train, "--watch")
    assert said.code == 0
    assert len(jobs_of(provider, train)) == 1


def test_a_job_that_nobody_heard_of_ends_with_75_and_the_command_again_creates_one(
    provider: Provider, train: Path
) -> None:
    provider.tell(key=KEY, blows=[{"call": CREATE, "status": 500}], **QUICK)
    said = finetune(provider, train)
    assert (said.code, said.out) == (75, "")
    assert jobs_of(provider, train) == []
    assert "not known" in said.err
    assert cli(*typed(said), env=with_key()).code == 0
    assert len(jobs_of(provider, train)) == 1


def test_a_provider_that_cannot_be_reached_ends_with_75(train: Path) -> None:
    said = finetune(Provider("http://127.0.0.1:9/v1"), train)
    assert said.code == 75
    assert "no job was created by this" in said.err


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Wait for words on stderr; all that was said until then."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_watching_leaves_the_job_and_says_how_to_watch_again(
    provider: Provider, train: Path, number: signal.Signals
) -> None:
    provider.tell(key=KEY, **FOR_EVER)
    process = start_cli(*arguments(provider, train, "--watch"), env=with_key())
    line_with(process, ": queued")
    process.send_signal(number)
    said = finished(process)
    assert said.code == 75
    assert f"Stopped by {number.name}. The job goes on" in said.err
    assert "Traceback" not in said.err
    provider.tell(key=KEY, **QUICK)
    again = cli(*typed(said), "--poll-sec", 0.05, env=with_key())
    assert again.code == 0
    assert again.out == f"ft:m::{said.out}"
    assert len(jobs_of(provider, train)) == 1


def test_a_large_file_is_sent_in_flat_memory_and_arrives_whole(tmp_path: Path) -> None:
    pictures = [picture(1200, 1200)] * 3
    line = json.dumps({"meta_id": "7", "messages": chat(pictures=pictures)}) + "\n"
    train = tmp_path / "train.jsonl"
    rows = (120 << 20) // len(line) + 1
    with train.open("w") as file:
        file.writelines(line for _ in range(rows))
    with provider_apart(tmp_path, **FOR_EVER) as provider:
        process = start_cli(*arguments(provider, train, "--watch"), env=environment())
        said = line_with(process, ": queued")
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGINT)
        assert finished(process).code == 75
        ledger = provider.ledger()
    assert ledger["files"][0]["examples"] == rows
    assert ledger["files"][0]["bytes"] > 115 << 20
    assert "(50 %)" in said
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    assert int(found[1]) < 110_000, "the file was held in memory"
    assert ledger["peak_bytes"] < 110 << 20


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--train-id", "file-1"), 64, "--train FILE, or --train-id"),
        (("--n-epochs", 0), 64, "--n-epochs must be from 1"),
        (("--learning-rate", 0.1), 64, "learning_rate_multiplier"),
        (("--poll-sec", 0), 64, "--poll-sec"),
        (("--extra", "x"), 64, "--extra"),
        (("--val", "no/such/file"), 64, "--val no/such/file: No such file"),
        (("--val-id", "../files"), 64, "is no id"),
        (("--job", "ft-1"), 64, "leave the files"),
        (("--cancel",), 64, "goes with --job"),
        (("--val", CLI), 65, "no JSON"),
    ],
)
def test_what_is_told_wrongly_sends_nothing(
    provider: Provider, train: Path, more: tuple[object, ...], code: int, words: str
) -> None:
    before = provider.ledger()["calls"]
    said = finetune(provider, train, *more)
    assert said.code == code
    assert words in said.err
    assert ("Nothing was sent" if code == 64 else "No job was created") in said.err
    assert provider.ledger()["calls"] == before


def test_the_keys_of_the_wrong_place_are_told_apart(train: Path) -> None:
    without = cli("finetune", "--train", train, "--model", "m", env=environment())
    assert without.code == 64
    assert "no API key" in without.err
    plain = cli("finetune", "--train", train, "--model", "m", "--base-url", "http://example.org", env=with_key())
    assert plain.code == 64
    assert "unencrypted" in plain.err


def test_the_server_says_what_it_is() -> None:
    said = subprocess.run([sys.executable, "-m", "bench.finetuning", "--help"], capture_output=True, check=True)
    assert b"nothing is trained" in said.stdout
