"""The peers, and the environment each of them has of its own: below `.venv-peers/`, with every version pinned."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VENVS = ROOT / ".venv-peers"
PINS = HERE / "environments"
"""What each environment holds, a requirements file each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to send the rows."""

    name: str
    package: str
    """The distribution whose version counts."""
    environment: str
    module: str
    """Of bench.peers, to be run by the environment's Python."""
    licence: str
    rows: Mapping[str, int]
    """By size of the body, how many rows a full measurement takes."""
    words: Sequence[str] = ()
    """Further flags of the script."""
    venvs: Path = VENVS
    """Where environments are."""

    @property
    def pins(self) -> Path:
        """The requirements of its environment, all of them."""
        return PINS / f"{self.environment}.txt"

    @property
    def version(self) -> str:
        """As pinned."""
        for line in self.pins.read_text(encoding="utf-8").splitlines():
            package, _, version = line.partition("==")
            if package == self.package:
                return version
        raise LookupError(f"{self.package} is not pinned in {self.pins.name}")

    @property
    def python(self) -> Path:
        """The interpreter of its environment, whether that is there or not."""
        return self.venvs / self.environment / "bin" / "python"

    @property
    def ready(self) -> Path:
        """A copy of the pins, there since all of them were installed."""
        return self.venvs / self.environment / ".ready"

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here; None if it can."""
        if self.ready.exists() and self.ready.read_bytes() == self.pins.read_bytes():
            return None
        return "not installed, or not as pinned: make bench-peers, or python -m bench.peers --install"


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """One that was looked at and cannot be measured."""

    name: str
    why_not: str


@cache
def peers() -> tuple[Sequence[Peer], Sequence[Absent]]:
    """All of `peers.toml`."""
    told = tomllib.loads((HERE / "peers.toml").read_text(encoding="utf-8"))
    return [Peer(**peer) for peer in told["peer"]], [Absent(**absent) for absent in told["absent"]]


def install(peer: Peer) -> None:
    """Make its environment if it is not there as pinned; what goes wrong is said, and the peer stays missing."""
    if peer.missing is None:
        return
    pip: list[str | Path] = [peer.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", peer.ready.parent],
        [*pip, "--only-binary", ":all:", "-r", peer.pins],
    ]
    print(f"Installing {peer.package} {peer.version} into {peer.ready.parent}.", flush=True)
    if all(subprocess.run(command, check=False).returncode == 0 for command in commands):
        shutil.copyfile(peer.pins, peer.ready)
