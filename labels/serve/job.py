"""A run with a server of its own: checked before minutes of loading, begun when the server answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

from engine.errors import ConfigError, FolderInUse
from engine.source import header_of
from labels.flags import RunFlags
from labels.serve.address import ServePlan, first_model, serve_plan
from labels.serve.server import served
from labels.told import Told, job_of
from sinks.folder import MANIFEST, SERVER_LOGS, FolderLock

F = TypeVar("F", bound=RunFlags)

TO_BE_ASKED = "the server's first model"
"""In the place of a model's name until the server has said it."""


def told_by(flags: RunFlags, *, say: Callable[[str], None]) -> AbstractContextManager[Told]:
    """The job of these flags, with the server it needs, if it needs one, while the context lasts."""
    if flags.serve is None or flags.dry_run:
        return nullcontext(job_of(addressed(flags)))
    return told_with_server(flags, say=say)


@contextmanager
def told_with_server(flags: RunFlags, *, say: Callable[[str], None]) -> Iterator[Told]:
    """The job of these flags, and the server it needs, while the context lasts.

    Raises:
        ConfigError: a flag, or a file it names, is wrong, or the server cannot be started as it says.
        FolderInUse: the run folder cannot be had.
        AuthRejected: the server did not come up.
    """
    assert flags.serve is not None
    plan = _plan(flags, flags.serve)
    flags = replace(flags, base_url=plan.base_url)
    told = _checked(flags)
    with served(plan, say=say) as server:
        if flags.model is None or (flags.auto_frames and flags.context_tokens is None):
            listed = first_model(plan.base_url)
            context = flags.context_tokens or (listed.context_tokens if flags.auto_frames else None)
            told = job_of(replace(flags, model=flags.model or listed.name, context_tokens=context))
        yield replace(told, job=replace(told.job, server=server))


def addressed(flags: F) -> F:
    """The same flags, with the address that a server of theirs would have.

    Raises:
        ConfigError: the server could not be started as they say.
    """
    return flags if flags.serve is None else replace(flags, base_url=_plan(flags, flags.serve).base_url)


def _plan(flags: RunFlags, command: str) -> ServePlan:
    if flags.endpoint:
        raise ConfigError("--serve starts one server, whose address is --base-url; it does not go with --endpoint")
    log = flags.out / SERVER_LOGS[0]
    return serve_plan(command, base_url=flags.base_url, log=log, timeout_s=flags.serve_timeout)


def _checked(flags: RunFlags) -> Told:
    """The job, so far as it can be told without the server: a wrong flag shows before the server is started."""
    if (flags.out / MANIFEST).exists() and not flags.resume:
        raise FolderInUse(f"{flags.out} holds a run already; go on with it by --resume, or take another --out")
    header_of(flags.input)
    auto = flags.auto_frames and flags.context_tokens is not None
    told = job_of(replace(flags, model=flags.model or TO_BE_ASKED, auto_frames=auto))
    # Last, for it makes the folder.
    FolderLock(flags.out).release()
    return told
