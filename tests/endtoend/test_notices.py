"""A cloud takes the machine away while a run goes on: real processes, and a metadata service on a real socket."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.clouds import Cloud
from tests.fakes.clouds import DMI_OF, VARIABLE_OF, CloudServer, write_dmi
from tests.fakes.commands import (
    cli,
    environment,
    finished,
    lines_of,
    run_arguments,
    simulated,
    start_cli,
    write_table,
)
from tests.fakes.servers import RawServer, saying_then_stalling

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ROWS = 48
SLOW: dict[str, object] = {"latency": {"kind": "fixed", "median": 0.15}}
WORDS = {
    Cloud.AWS: "an AWS spot interruption notice (terminate)",
    Cloud.GCP: "a Google Cloud preemption notice",
    Cloud.AZURE: "an Azure notice (Preempt)",
}
DEAF = "http://127.0.0.1:9"
"""A proxy that is not there."""


def variables(cloud: Cloud, endpoint: str, *, dmi: Path) -> dict[str, str]:
    """The environment of a machine that stands in this cloud."""
    own = {"REELBATCH_DMI_FOLDER": str(dmi), "REELBATCH_NOTICE_INTERVAL_SECONDS": "0.1"}
    return environment(**own, **{VARIABLE_OF[cloud]: endpoint}, http_proxy=DEAF, HTTP_PROXY=DEAF, no_proxy="")


@pytest.mark.parametrize(("cloud", "choice"), [(Cloud.AWS, "aws"), (Cloud.GCP, "auto"), (Cloud.AZURE, "auto")])
def test_a_notice_drains_commits_exits_75_and_resume_finishes(tmp_path: Path, cloud: Cloud, choice: str) -> None:
    table, out = write_table(tmp_path / "videos.csv", ROWS), tmp_path / "out"
    dmi = write_dmi(tmp_path / "dmi", DMI_OF[cloud] if choice == "auto" else {})
    with simulated(tmp_path, SLOW) as provider:
        arguments = run_arguments(table, out, provider.url, "--concurrency", 8, "--spot-notices", choice)
        with CloudServer() as service:
            env = variables(cloud, service.endpoint, dmi=dmi)
            process = start_cli(*arguments, env=env)
            while provider.ledger()["delivered"] < 10 and process.poll() is None:
                time.sleep(0.02)
            service.give_notice()
            noticed_s = time.monotonic()
            said = finished(process)
            took_s = time.monotonic() - noticed_s
            assert service.refused == []
        assert said.code == 75, said.err
        assert f"Watching for spot notices of {cloud.full_name}." in said.err
        assert f"Stopped by {WORDS[cloud]};" in said.err
        assert "--resume" in said.err
        assert took_s < 6
        ledger = provider.ledger()
        assert ledger["requests"] == ledger["delivered"] == len(lines_of(out)) < ROWS
        provider.tell({"latency": {"kind": "fixed", "median": 0.01}})
        with RawServer(saying_then_stalling(b"")) as hanging:
            env = variables(cloud, hanging.base_url.removesuffix("/v1"), dmi=dmi)
            said = cli(*arguments, "--resume", env=env)
            assert hanging.requests, "the new life asked nobody"
        assert said.code == 0, said.err
        assert "Unclosed" not in said.err
        assert "metadata" not in said.err
        assert provider.ledger()["requests"] == ROWS, "a row was sent twice"
    assert sorted(line["row"] for line in lines_of(out)) == list(range(ROWS))


def test_outside_a_cloud_nobody_is_asked_and_nothing_said(tmp_path: Path) -> None:
    table, out = write_table(tmp_path / "videos.csv", 3), tmp_path / "out"
    dmi = write_dmi(tmp_path / "dmi", {})
    with simulated(tmp_path) as provider, CloudServer() as service:
        env = variables(Cloud.AWS, service.endpoint, dmi=dmi)
        said = cli(*run_arguments(table, out, provider.url), env=env)
        assert service.asked == []
    assert said.code == 0, said.err
    assert "spot" not in said.err
