"""One tiny model and one vLLM for all tests that need no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labels.serve.address import serve_plan
from labels.serve.server import served
from tests.fakes.serving import free_port
from tests.vllm.tiny_server import ENVIRONMENT, START_S, Vllm, serve_command

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ENVIRONMENT / "bin" / "vllm").exists():
        pytest.skip("needs the environment that `make test-vllm` makes")
    folder = tmp_path_factory.mktemp("model") / "tiny-qwen2.5-vl"
    words = [ENVIRONMENT / "bin" / "python", HERE / "make_tiny_model.py", folder]
    subprocess.run(words, check=True, capture_output=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def vllm(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    plan = serve_plan(serve_command(tiny_model, free_port()), base_url=None, log=log, timeout_s=START_S)
    with served(plan, say=lambda _: None):
        yield Vllm(base_url=plan.base_url, log=log)
