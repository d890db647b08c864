"""Follows a job to its end: each event is told once, and an outage of the provider is waited out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from engine.errors import (
    ApiError,
    BadReply,
    CertificateError,
    NetworkError,
    ProviderDown,
    RateLimited,
    ServerError,
)
from engine.printable import span
from labels.finetune.api import OPENAI, Dialect, Event, Job, events_in, items_in, job_in
from labels.finetune.http import Provider

Say = Callable[[str], None]
PAGE = 100
"""Events asked for at once; a job that tells a hundred between two looks has more pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long is waited, and for how long."""

    poll_s: float = 10.0
    """Between two looks at a job."""
    first_wait_s: float = 1.0
    """After a failure, doubled after each further one."""
    longest_wait_s: float = 300.0
    outage_s: float = 6 * 3600.0
    """For so long a provider may be silent while a job is followed."""
    attempts: int = 5
    """Of what may safely be sent again."""
    looks: int = 4
    """For a job that may have been created although nobody heard so, one poll apart."""
    sleep: Callable[[float], None] = time.sleep

    def wait_s(self, failures: int, error: ApiError) -> float:
        """What to wait after so many failures in a row; what the server asks for counts."""
        doubled = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 20))
        return max(error.retry_after_s or 0.0, doubled * random.uniform(0.8, 1.2))


def passes_with_time(error: ApiError) -> bool:
    """Whether the same call may meet another answer later."""
    if isinstance(error, CertificateError):
        return False
    return isinstance(error, NetworkError | ServerError | RateLimited | BadReply)


def look_at(provider: Provider, dialect: Dialect, job_id: str) -> Job:
    """A job as it stands.

    Raises:
        ApiError: there is none, or no answer came.
    """
    job = job_in(provider.get(f"{dialect.jobs_path}/{quote(job_id, safe='')}"), dialect)
    if not job.id:
        raise BadReply("the reply tells of no job")
    return job


def follow(provider: Provider, dialect: Dialect, job_id: str, *, pace: Pace, say: Say) -> Job:
    """Wait until a job has ended, and tell what happens to it.

    Raises:
        ApiError: the provider refuses to tell.
        ProviderDown: it has not answered for too long.
    """
    events = Events(provider, dialect, job_id)
    status, failures, silent_since_s = "", 0, time.monotonic()
    while True:
        try:
            job = look_at(provider, dialect, job_id)
            for event in events.new(say=say):
                say(f"{_clock(event.at_s)}{event.text}")
        except ApiError as error:
            if not passes_with_time(error):
                raise
            failures += 1
            pace.sleep(_outage(error, failures, silent_since_s, pace=pace, say=say))
            continue
        if failures:
            say(f"{job_id}: the provider answers again")
        failures, silent_since_s = 0, time.monotonic()
        if job.status != status:
            status = job.status
            say(f"{job_id}: {status}")
        if job.phase != "going":
            return job
        pace.sleep(pace.poll_s)


class Events:
    """The events of one job, each given once."""

    def __init__(self, provider: Provider, dialect: Dialect, job_id: str) -> None:
        self._provider, self._dialect = provider, dialect
        self._path = f"{dialect.jobs_path}/{quote(job_id, safe='')}/events"
        self._given: set[str] = set()
        self._are_told = True

    def new(self, *, say: Say) -> list[Event]:
        """Those that were not given yet, the oldest first.

        Raises:
            ApiError: they cannot be asked for now. Where they never can, that is said once, and there are none.
        """
        found: dict[str, Event] = {}
        try:
            for page in self._pages():
                events = events_in(page, self._dialect)
                fresh = {event.key: event for event in events if event.key not in self._given}
                # A later page holds older ones.
                found = fresh | found
                if len(fresh) < len(events):
                    break
        except ApiError as error:
            if passes_with_time(error):
                raise
            self._are_told = False
            say(f"The provider tells no events ({error}); its status is followed alone.")
        self._given.update(found)
        return sorted(found.values(), key=lambda event: event.at_s)

    def _pages(self) -> Iterator[Mapping[str, Any]]:
        if not self._are_told:
            return
        if self._dialect.name != OPENAI:
            yield self._provider.get(self._path)
            return
        after = ""
        while True:
            page = self._provider.get(f"{self._path}?limit={PAGE}{after}")
            yield page
            items = items_in(page)
            if not page.get("has_more") or not items or not isinstance(items[-1].get("id"), str):
                return
            after = f"&after={quote(items[-1]['id'], safe='')}"


def _outage(error: ApiError, failures: int, since_s: float, *, pace: Pace, say: Say) -> float:
    """What to wait; told at the first failure alone."""
    silent_s = time.monotonic() - since_s
    if silent_s > pace.outage_s:
        raise ProviderDown(f"the provider has told nothing of the job for {span(silent_s)}: {error}")
    if failures == 1:
        say(f"The provider does not tell how the job stands ({error}). The job goes on; asking again until it does.")
    return pace.wait_s(failures, error)


def _clock(at_s: float) -> str:
    if not at_s:
        return ""
    try:
        return f"{datetime.fromtimestamp(at_s, tz=UTC):%Y-%m-%d %H:%M:%SZ}  "
    except (ValueError, OverflowError, OSError):
        return ""
