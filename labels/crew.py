"""What each engine process of a labelling job is given. `member.py` is their program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from encoders.chat import ChatEncoder
from engine.ports import Encoder, Reader
from sinks.rows import DoneRows

PROGRAM = "labels.member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What a member needs beside its share of the settings."""

    encoder: ChatEncoder
    worker: Encoder
    """What its encoder processes run."""
    reader: Reader
    audits: bool
    """Whether replies may be held against what the encoder reckons with."""
    done: DoneRows
    out: Path
    shards: int
    cache: Path | None
