"""Where a provider stands and the key to it: from the environment or a file, never from a flag."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from urllib.parse import urlsplit

from engine.config import LOOPBACK
from engine.errors import ConfigError
from engine.secret import Secret

DEFAULT_URL = "https://api.together.xyz/v1"
KEY_VARIABLES = ("TOGETHER_API_KEY", "OPENAI_API_KEY")


def key_for(url: str, *, variable: str | None, file: Path | None) -> Secret | None:
    """The key, or None where a server on this machine needs none.

    Args:
        url: the provider's address.
        variable: the one to read; otherwise the usual ones.
        file: to read it from instead.

    Raises:
        ConfigError: there is none, or others can read the file.
    """
    if file is not None:
        return Secret(key_in(file))
    names = (variable,) if variable else KEY_VARIABLES
    value = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if value is None and (variable or urlsplit(url).hostname not in LOOPBACK):
        raise ConfigError(
            f"no API key: set {' or '.join(names)} in the environment, or name a file with --api-key-file"
        )
    return None if value is None else Secret(value.strip())


def key_in(path: Path) -> str:
    """The key in a file that its user alone can read.

    Raises:
        ConfigError: it cannot be read, or by others too.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"--api-key-file {path}: {reason}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"--api-key-file {path} can be read by others; run: chmod 600 {shlex.quote(str(path))}")
    return text


def address(url: str) -> str:
    """With `/v1` where only a host was given.

    Raises:
        ConfigError: it is no address.
    """
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    return url.rstrip("/") + "/v1" if "://" in url and path in {"", "/"} else url
