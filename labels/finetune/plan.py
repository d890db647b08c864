"""What is to be sent for a fine-tuning job, checked before anything is."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.errors import ConfigError, InputError, SinkBroken
from labels.finetune.api import Dialect
from labels.finetune.check import Facts, check_file, check_size, lines_to_send
from labels.finetune.order import Order, check_order, evaluations, job_body

_ID = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the two files."""

    flag: str
    facts: Facts | None = None
    """None for one that was uploaded already."""
    known_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be sent, checked."""

    order: Order
    dialect: Dialect
    training: Part
    validation: Part | None
    parts: bool
    """Whether every content is sent as a list of parts."""

    @property
    def files(self) -> tuple[Part, ...]:
        return (self.training,) if self.validation is None else (self.training, self.validation)

    def body(self, training: str, validation: str | None) -> dict[str, Any]:
        return job_body(self.order, self.dialect, training=training, validation=validation)


def plan(order: Order, dialect: Dialect, *, training: Path | str, validation: Path | str | None) -> Plan:
    """Check the order and both files.

    Args:
        order: what the job is told.
        dialect: the API it is told to.
        training: a file, or the id of one that was uploaded.
        validation: likewise.

    Raises:
        ConfigError: a flag is wrong.
        InputError: a file would be refused.
    """
    check_order(order, dialect, validated=validation is not None)
    first = _part(training, "--train", order, dialect)
    second = None if validation is None else _part(validation, "--val", order, dialect)
    told = [part.facts for part in (first, second) if part is not None and part.facts is not None]
    if len({facts.identity for facts in told}) < len(told):
        raise ConfigError("--train and --val are the same file; evaluate with examples that were not taught")
    parts = any(facts.parts for facts in told)
    for facts in told:
        check_size(facts, parts=parts, rules=dialect.rules)
    found = Plan(order=order, dialect=dialect, training=first, validation=second, parts=parts)
    found.body("", None)  # --extra may lead nowhere
    return found


def summary(plan: Plan) -> str:
    """What was found in the files, and what will roughly be charged."""
    lines, total, unknown = [], 0, False
    evals = evaluations(plan.order, plan.dialect, validated=plan.validation is not None)
    for part, times in zip(plan.files, (plan.order.n_epochs, evals), strict=False):
        facts = part.facts
        if facts is None:
            lines.append(f"{part.flag}: {part.known_id}, uploaded before; it is not looked into")
            unknown = True
            continue
        total += times * facts.tokens
        unknown = unknown or bool(facts.uncounted)
        lines.append(_facts_line(part.flag, facts, parts=plan.parts))
    if plan.parts:
        lines.append("Every content is sent as a list of parts, since some are")
    many = _counted(plan.order.n_epochs, "epoch") + (f" and {_counted(evals, 'evaluation')}" if evals else "")
    rest = ", and what could not be counted" if unknown else ""
    lines.append(f"{many}: about {total:,} tokens{rest} are charged; the provider's own count decides")
    return "\n".join(lines)


@contextmanager
def copy_of(facts: Facts, *, flag: str, plan: Plan, folder: Path) -> Iterator[tuple[BinaryIO, int, str]]:
    """The bytes that are sent of a file: a file without a name, gone with this process; its size and SHA-256.

    Raises:
        InputError: the file was changed since it was checked.
        SinkBroken: there is no room for a copy.
    """
    digest = hashlib.sha256()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for line in _lines(facts, flag=flag, plan=plan):
                digest.update(line)
                file.write(line)
            file.flush()
            yield cast("BinaryIO", file), file.tell(), digest.hexdigest()
    except OSError as error:
        raise SinkBroken(f"{folder} has no room for the copy of {facts.path} that is sent: {error.strerror}") from error


def _lines(facts: Facts, *, flag: str, plan: Plan) -> Iterator[bytes]:
    try:
        yield from lines_to_send(facts, flag=flag, parts=plan.parts, rules=plan.dialect.rules)
    except InputError:
        raise
    except ConfigError as error:
        # It was there when it was checked; by now the other file may have been sent.
        raise InputError(f"{facts.path} was changed while it was read: {error}") from error


def checked_id(told: str, flag: str) -> str:
    """The id of a file or a job, which becomes part of an address.

    Raises:
        ConfigError: it can be none.
    """
    if not _ID.fullmatch(told):
        raise ConfigError(f"{flag} {told!r} is no id")
    return told


def _part(told: Path | str, flag: str, order: Order, dialect: Dialect) -> Part:
    if isinstance(told, str):
        return Part(flag=f"{flag}-id", known_id=checked_id(told, f"{flag}-id"))
    facts = check_file(told, flag=flag, rules=dialect.rules, model=order.model, teaches=flag == "--train")
    return Part(flag=flag, facts=facts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _facts_line(flag: str, facts: Facts, *, parts: bool) -> str:
    words = f"{flag} {facts.path}: {facts.examples:,} examples"
    if facts.pictures:
        words += f", {facts.pictured:,} of them with pictures, {facts.pictures:,} in all"
    words += f", {facts.sent_bytes(parts=parts):,} bytes to send, about {facts.tokens:,} tokens"
    if facts.uncounted:
        words += f" beside {facts.uncounted:,} pictures, of which nobody knows what this model counts for them"
    if facts.dropped:
        words += f"; left out: {', '.join(sorted(facts.dropped))}"
    return words
