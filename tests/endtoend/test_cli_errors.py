"""What a user does wrong: one clear message, the right exit code, nothing sent, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.commands import KEY, cli, environment, run_arguments, write_table

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:9/v1"


def refused(*arguments: object, code: int, words: str) -> None:
    said = cli(*arguments)
    assert said.code == code, said
    assert words in said.err, said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "videos.csv", 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["--concurrency", "many"], "many"),
        (["--concurrency", "0"], "--concurrency must be above 0"),
        (["--rpm", "-3"], "--rpm must be above 0"),
        (["--shards", "0"], "--shards must be at least 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--fit", "large"], "--fit 'large'"),
        (["--frames-dir", "/no/such/folder"], "/no/such/folder"),
        (["--max-frames", "0"], "--max-frames must be at least 1"),
        (["--codebook", "nonesuch"], "comprehensive"),
        (["--system-prompt", "/no/such/prompt"], "/no/such/prompt"),
        (["--max-failed", "half"], "--max-failed 'half'"),
        (["--growth", "1"], "--growth"),
        (["--retry-failed"], "--resume"),
        (["--id-column", "name"], "--id-column name: no such column"),
        (["--config", "/no/such.toml"], "/no/such.toml"),
        (["--api-key-file", "/no/such.key"], "/no/such.key"),
        (["--skip", "-1"], "--skip"),
        (["--response-format", "yaml"], "--response-format"),
    ],
)
def test_a_wrong_flag_is_named(table: Path, tmp_path: Path, more: list[str], words: str) -> None:
    refused(*run_arguments(table, tmp_path / "out", NOWHERE, *more), code=64, words=words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.org", "no http(s) address"),
        ("http://example.org/v1", "--allow-plaintext"),
        ("https://user:secret@example.org/v1", "environment"),
    ],
)
def test_a_wrong_address_is_named(table: Path, tmp_path: Path, url: str, words: str) -> None:
    said = cli(*run_arguments(table, tmp_path / "out", url), env=environment(TOGETHER_API_KEY=KEY))
    assert (said.code, words in said.err) == (64, True), said.err


def test_a_missing_key_says_where_keys_come_from(table: Path, tmp_path: Path) -> None:
    refused(*run_arguments(table, tmp_path / "out", "https://example.org/v1"), code=64, words="TOGETHER_API_KEY")


def test_a_key_file_that_others_can_read_is_refused(table: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o644)
    said = cli(*run_arguments(table, tmp_path / "out", NOWHERE, "--api-key-file", key))
    assert (said.code, "chmod 600" in said.err, KEY in said.err) == (64, True, False)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("none.csv", None, 64, "no such file"),
        ("folder.csv/", None, 64, "not a regular file"),
        ("rows.xlsx", b"x", 64, "unknown kind"),
        ("empty.csv", b"", 65, "empty"),
        ("noid.csv", b"title,text\na,b\n", 65, "--id-column"),
        ("broken.parquet", b"PAR1 not really", 65, "Parquet"),
        ("broken.jsonl", b"certainly not\n", 65, "JSON"),
        ("broken.csv.gz", b"certainly not", 65, "cannot be read"),
    ],
)
def test_a_wrong_input_is_named(tmp_path: Path, name: str, content: bytes | None, code: int, words: str) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    refused(*run_arguments(path, tmp_path / "out", NOWHERE), code=code, words=words)
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_is_named() -> None:
    refused("frobnicate", code=64, words="frobnicate")


def test_status_of_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    refused("status", tmp_path, code=64, words="holds no run")


def test_a_folder_with_other_things_in_it_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    refused(*run_arguments(table, tmp_path / "out", NOWHERE), code=73, words="thesis.docx")


def test_an_out_folder_that_cannot_be_made_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(*run_arguments(table, tmp_path / "file" / "out", NOWHERE), code=73, words="cannot be created")


def test_a_scenario_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"latencies": 3}')
    refused("simulate", "--port", 0, "--scenario", tmp_path / "s.json", code=64, words="latencies")


def test_a_config_file_gives_flags_and_the_command_line_beats_it(table: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'model = "m"\nbase-url = "{NOWHERE}"\nshards = 0\n')
    arguments = ("run", "--input", table, "--out", tmp_path / "out", "--config", tmp_path / "run.toml")
    refused(*arguments, code=64, words="--shards must be at least 1")
    refused(*arguments, "--shards", 1, "--workers", 0, code=64, words="--workers")


def test_a_config_file_with_an_unknown_key_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("shardz = 3\n")
    refused(
        *run_arguments(table, tmp_path / "out", NOWHERE, "--config", tmp_path / "run.toml"), code=64, words="shardz"
    )


@pytest.mark.parametrize("command", ["run", "status", "simulate", "demo"])
def test_help_goes_to_stdout_and_names_defaults(command: str) -> None:
    said = cli(command, "--help")
    assert said.code == 0
    assert "Usage:" in said.out
    if command == "run":
        for flag in ("--input", "--frames-dir", "--shards", "--resume", "--max-failed", "--base-url"):
            assert flag in said.out
