"""Which server of the user's own is to be started, where it will answer, and whether it does."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engine.errors import ConfigError

DEFAULT_PORT = 8000
"""Where vLLM and others listen that are told nothing else."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CHECK_TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20
MISSING = frozenset({404, 405, 501})
"""How a server says that it has no such address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServePlan:
    """Which server is to be started, and where it will answer."""

    command: tuple[str, ...]
    base_url: str
    """Up to and with /v1."""
    log: Path
    timeout_s: float
    """How long it may take until it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The first model that a server says it has."""

    name: str
    context_tokens: int | None
    """Of prompt and answer together; None where it does not say."""


def serve_plan(command: str, *, base_url: str | None, log: Path, timeout_s: float) -> ServePlan:
    """What `--serve` asks for.

    Args:
        command: as it was typed; split as a shell would, and read by none.
        base_url: of `--base-url`; None derives it from the `--port` of the command.
        log: takes what the server says.
        timeout_s: of `--serve-timeout`.

    Raises:
        ConfigError: the command cannot be run, or the address is none of this machine.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--serve {command!r}: {error}") from error
    if not words:
        raise ConfigError('--serve is empty: give the command that starts the server, such as "vllm serve MODEL"')
    if shutil.which(words[0]) is None:
        raise ConfigError(
            f"--serve: there is no program {words[0]!r}. No shell reads the command; variables are set by "
            '"env NAME=VALUE ..." at its beginning'
        )
    if not timeout_s > 0:
        raise ConfigError(f"--serve-timeout must be above 0 seconds, not {timeout_s:g}")
    url = f"http://127.0.0.1:{_port(words)}/v1" if base_url is None else base_url.rstrip("/")
    return ServePlan(command=tuple(words), base_url=_checked(url), log=log, timeout_s=timeout_s)


def _port(words: Sequence[str]) -> int:
    """What follows `--port`, the last one counting."""
    said = [word.removeprefix("--port=") for word in words if word.startswith("--port=")]
    said += [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--port"]
    if not said:
        return DEFAULT_PORT
    if not said[-1].isdecimal() or not 0 < int(said[-1]) < 1 << 16:
        raise ConfigError(f"--serve: {said[-1]!r} is no port; give the address by --base-url")
    return int(said[-1])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in LOCAL_NAMES and parts.port != 0
    except ValueError as error:
        raise ConfigError(f"--base-url {url}: {error}") from error
    if not local:
        raise ConfigError(
            f"--serve starts a server on this machine, and --base-url {url} leads elsewhere: give an address such as "
            f"http://127.0.0.1:{DEFAULT_PORT}/v1"
        )
    return url if parts.path not in {"", "/"} else f"{url}/v1"


def is_healthy(base_url: str) -> bool:
    """Whether a server is ready for requests: by its `/health`, or, where it has none, by its list of models."""
    parts = urlsplit(base_url)
    status, _ = _get(base_url, "/health")
    if status in MISSING:
        status, _ = _get(base_url, f"{parts.path}/models")
    return status == http.HTTPStatus.OK


def first_model(base_url: str) -> Listed:
    """The first model that the server lists.

    Raises:
        ConfigError: it lists none.
    """
    _, body = _get(base_url, f"{urlsplit(base_url).path}/models")
    with suppress(ValueError, LookupError, TypeError):
        model = json.loads(body)["data"][0]
        context = model.get("max_model_len")
        return Listed(name=str(model["id"]), context_tokens=context if type(context) is int else None)
    raise ConfigError(f"the server at {base_url} does not say which models it has; give one by --model")


def _get(base_url: str, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 if no answer came. Straight to the server, whatever proxy the environment names."""
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=CHECK_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def is_taken(base_url: str) -> bool:
    """Whether anything listens there."""
    parts = urlsplit(base_url)
    with suppress(OSError), socket.create_connection((parts.hostname, parts.port or 80), timeout=CHECK_TIMEOUT_S):
        return True
    return False
