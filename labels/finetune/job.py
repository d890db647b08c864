"""From files of chats that were checked to a fine-tuning job, without paying for anything twice.

An upload that broke off may be sent again: at worst a file lies unused at the provider. A job costs, so it is asked for
once. Where no answer is heard, the jobs there are say whether it exists; where they do not, the command ends rather
than ask again, and looks once more when it is typed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from engine.errors import (
    ApiError,
    BadReply,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
)
from labels.finetune.api import (
    OPENAI,
    Dialect,
    Job,
    items_in,
    job_in,
    stored_in,
    upload_fields,
)
from labels.finetune.http import Provider, Upload
from labels.finetune.plan import Part, Plan, copy_of
from labels.finetune.state import Creating, State, digest_of
from labels.finetune.watch import Pace, Say, passes_with_time

T = TypeVar("T")
NOT_FOUND = 404
FILE_LOOKS = 12
"""A provider that has not looked through a file by then may be asked for the job all the same: it looks again."""
TOLD_FROM_BYTES = 10 << 20
"""A smaller upload is over before anybody has read how far it is."""
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job that is there."""

    id: str
    earlier: bool
    """Whether an earlier command created it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What it takes to start a job."""

    provider: Provider
    state: State
    pace: Pace
    say: Say


class UnheardError(Exception):
    """A job was asked for, and nobody knows whether it exists; `str()` says what was heard."""


def start(plan: Plan, desk: Desk, *, new_job: bool) -> Started:
    """Upload what is not there yet, and create the job unless it exists.

    Args:
        plan: what was checked.
        desk: whom to ask, and what is remembered.
        new_job: create another one although an earlier command did.

    Raises:
        ApiError: the provider refuses, or cannot be reached. No job was created.
        UnheardError: nobody knows whether a job was created.
        SinkBroken: the disk is full, or what was done cannot be remembered.
    """
    # Before gigabytes are sent: is it the right address, and the right key?
    patiently(lambda: desk.provider.get(_jobs_page(plan.dialect)), desk)
    ids, contents = [], []
    for part in plan.files:
        file_id, content = _placed(part, plan, desk)
        ids.append(file_id)
        contents.append(content)
    validation = ids[1] if len(ids) > 1 else None
    body = plan.body(ids[0], validation)
    asked = digest_of(desk.provider.base_url, body, [contents[0], contents[1] if len(contents) > 1 else None])
    pending = desk.state.creating(asked)
    if pending is not None:
        desk.say("An earlier command asked for this job and heard no answer; looking whether it is there")
        found = _looked_for(plan, pending, desk, looks=1)
        if found is not None:
            desk.state.keep_job(asked, found.id)
            return Started(id=found.id, earlier=True)
        desk.say("It is not there")
    earlier = desk.state.job_id(asked)
    if earlier is not None and not new_job:
        return Started(id=earlier, earlier=True)
    if desk.state.other_creating(asked, training_file=ids[0]):
        desk.say("An earlier command, with other settings, asked for a job on these examples and heard no answer.")
        desk.say("Whether that one exists, and costs, says the provider's own list of jobs.")
    return Started(id=_created(plan, body, asked, desk), earlier=False)


def patiently(call: Callable[[], T], desk: Desk) -> T:
    """Make a call that may be made again, until it is answered or refused.

    Raises:
        ApiError: it is refused, or failed too often.
    """
    for failures in range(1, desk.pace.attempts):
        try:
            return call()
        except ApiError as error:
            if not passes_with_time(error):
                raise
            _pause(error, failures, desk)
    return call()


def _placed(part: Part, plan: Plan, desk: Desk) -> tuple[str, str]:
    """The id of a file at the provider, and what stands for its content."""
    if part.facts is None:
        known = str(part.known_id)
        return known, known
    folder = desk.state.path.absolute().parent
    with copy_of(part.facts, flag=part.flag, plan=plan, folder=folder) as (file, size, digest):
        known_id = desk.state.file_id(digest)
        if known_id is not None and _is_there(known_id, desk):
            desk.say(f"{part.facts.path}: uploaded before, as {known_id}")
            return known_id, digest
        stem = _ODD.sub("-", part.facts.path.stem)[:40].strip("-.") or "chats"
        name = f"{stem}-{digest[:12]}.jsonl"
        upload = Upload(
            name=name,
            fields=upload_fields(plan.dialect, name),
            file=file,
            size=size,
            progress=_Progress(str(part.facts.path), size, desk.say),
        )
        file_id = _uploaded(upload, plan.dialect, desk)
    desk.state.keep_file(digest, file_id)
    desk.say(f"{part.facts.path}: uploaded as {file_id}")
    _wait_until_ready(file_id, desk)
    return file_id, digest


def _is_there(file_id: str, desk: Desk) -> bool:
    try:
        said = patiently(lambda: desk.provider.get(f"/files/{quote(file_id, safe='')}"), desk)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return False
    return not stored_in(said).broken


def _uploaded(upload: Upload, dialect: Dialect, desk: Desk) -> str:
    """Send a file until it is there."""
    failures = 0
    while True:
        try:
            stored = stored_in(desk.provider.upload(dialect.upload_path, upload))
            if stored.id:
                return stored.id
            failure: ApiError = BadReply("the reply to an upload names no file", paid=True)
        except ApiError as error:
            failure = error
        found = _same_file(upload, desk) if failure.paid else None
        if found is not None:
            return found
        failures += 1
        if not passes_with_time(failure) or failures >= desk.pace.attempts:
            raise failure
        if failure.paid:
            desk.say("The upload broke off, and is sent again. At worst a file lies unused at the provider.")
        _pause(failure, failures, desk)


def _same_file(upload: Upload, desk: Desk) -> str | None:
    """A file of the same name, which holds a digest, and size: an upload whose answer was lost."""
    try:
        files = [stored_in(item) for item in items_in(desk.provider.get("/files"))]
    except ApiError:
        return None
    whole = (f.id for f in files if f.name == upload.name and f.size == upload.size and f.id and not f.broken)
    return next(whole, None)


def _wait_until_ready(file_id: str, desk: Desk) -> None:
    for look in range(FILE_LOOKS):
        stored = stored_in(patiently(lambda: desk.provider.get(f"/files/{quote(file_id, safe='')}"), desk))
        if stored.broken:
            raise RequestRefused(f"the provider cannot use {file_id}: {stored.broken}")
        if stored.ready:
            return
        if look == 0:
            desk.say(f"{file_id}: the provider looks through it")
        desk.pace.sleep(desk.pace.poll_s)


def _created(plan: Plan, body: Mapping[str, Any], asked: str, desk: Desk) -> str:
    """Ask for a job, once."""
    training = str(body["training_file"])
    before = tuple(job.id for job in _jobs(plan.dialect, desk) if job.training_file == training)
    creating = Creating(training_file=training, before=before)
    desk.state.begin(asked, creating)
    failures = 0
    while True:
        try:
            job = job_in(desk.provider.post(plan.dialect.jobs_path, body), plan.dialect)
            if job.id:
                break
            failure: ApiError = BadReply("the reply names no job", paid=True)
        except ApiError as error:
            failure = error
        if not _surely_none(failure):
            job = _heard_of(failure, plan, creating, desk)
            break
        failures += 1
        if not passes_with_time(failure) or failures >= desk.pace.attempts:
            desk.state.forget(asked)
            raise failure
        _pause(failure, failures, desk)
    desk.state.keep_job(asked, job.id)
    return job.id


def _heard_of(failure: ApiError, plan: Plan, creating: Creating, desk: Desk) -> Job:
    """The job that was created although nobody heard so."""
    desk.say(f"{failure}: the job may have been created all the same")
    with suppress(ApiError):
        found = _looked_for(plan, creating, desk, looks=desk.pace.looks)
        if found is not None:
            return found
    raise UnheardError(str(failure))


def _surely_none(error: ApiError) -> bool:
    """Whether no job can have come of the call: it was refused, or never reached the provider."""
    if isinstance(error, RequestRefused | LaneRefused | RateLimited):
        return True
    return isinstance(error, NetworkError) and not error.paid


def _looked_for(plan: Plan, creating: Creating, desk: Desk, *, looks: int) -> Job | None:
    """The job that was asked for, should it be there; a list may show it a little late."""
    known = {*creating.before, *desk.state.job_ids()}
    for look in range(looks):
        if look:
            desk.pace.sleep(desk.pace.poll_s)
        else:
            desk.say("Looking for the job among those there are")
        for job in _jobs(plan.dialect, desk):
            ours = job.training_file == creating.training_file and job.id not in known
            suffix = plan.order.suffix or ""
            if ours and job.id and (not job.suffix or job.suffix == suffix):
                return job
    return None


def _jobs(dialect: Dialect, desk: Desk) -> list[Job]:
    """The jobs there are, or the newest hundred of them."""
    said = patiently(lambda: desk.provider.get(_jobs_page(dialect)), desk)
    return [job_in(item, dialect) for item in items_in(said)]


def _jobs_page(dialect: Dialect) -> str:
    return f"{dialect.jobs_path}?limit=100" if dialect.name == OPENAI else dialect.jobs_path


def _pause(error: ApiError, failures: int, desk: Desk) -> None:
    wait_s = desk.pace.wait_s(failures, error)
    desk.say(f"{error}; asking again in {wait_s:.0f} s" if wait_s >= 1 else f"{error}; asking again")
    desk.pace.sleep(wait_s)


class _Progress:
    """Tells of an upload at each tenth of it."""

    def __init__(self, what: str, size: int, say: Say) -> None:
        self._what, self._size, self._say = what, size, say
        self._tenths = 0

    def __call__(self, done: int) -> None:
        if self._size < TOLD_FROM_BYTES:
            return
        tenths = done * 10 // self._size
        if tenths < self._tenths:
            self._tenths = 0  # sent again
        if tenths > self._tenths:
            self._tenths = tenths
            self._say(f"{self._what}: {done / 1e6:,.1f} of {self._size / 1e6:,.1f} MB sent ({tenths * 10} %)")
