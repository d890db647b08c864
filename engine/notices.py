"""Spot notices: the clouds say two minutes or half a minute ahead that they take a machine away.

A notice ends the run in the way of a first SIGTERM. Whoever is asked here must never end or slow a run otherwise: an
answer that is none, or none at all, means no notice. Questions go to the metadata service alone, past any proxy, for a
second at most; redirects are not followed, and bodies are read up to a cap.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import aiohttp
import orjson

from engine.clouds import Cloud, NoticeConfig
from engine.stop import Stop

TIMEOUT_S = 1.0
"""The service answers from the host beneath, in milliseconds."""
FIRST_EVENTS_S = 130.0
"""Azure prepares its events when they are first asked for, and says that this may take two minutes."""
MOST_BYTES = 64 << 10
"""A notice is below 1 KB, and so are a few dozen events."""
PATIENT_MISSES = 10
"""So many questions in a row go unanswered, at the usual pace, before the service counts as away."""
SELDOM_S = 60.0
GIVE_UP_MISSES = 20
"""A service that has never answered is switched off or out of reach: ten minutes more at the slower pace."""
TOKEN_TTL_S = 6 * 3600
"""The longest that AWS grants. A token that has run out is answered with 401, and a new one fetched."""
EVENTS_VERSION, INSTANCE_VERSION = "2020-07-01", "2021-02-01"
OK, UNAUTHORIZED, NOT_FOUND = 200, 401, 404
_TOKEN = re.compile(r"[!-~]{1,1024}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to a metadata service."""

    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    """Until the whole answer is there; a connection has `TIMEOUT_S` in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class NoAnswerError(Exception):
    """The service gave no answer that says whether there is a notice."""


Ask = Callable[[Question], Awaitable[Answer]]
"""Raises NoAnswerError where nothing whole comes back."""


class Teller(Protocol):
    """Knows how one cloud tells."""

    async def notice(self) -> str | None:
        """The notice in words, or None while there is none.

        Raises:
            NoAnswerError: it cannot be said.
        """
        ...


class Aws:
    """Answers 404 until there is a notice. A recommendation to rebalance is none: the machine may stay for hours."""

    PATH = "/latest/meta-data/spot/instance-action"
    ACTIONS = frozenset({"terminate", "stop", "hibernate"})

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._token: str | None = None

    async def notice(self) -> str | None:
        answer = await self._asked()
        if answer.status == UNAUTHORIZED:
            self._token = None
            answer = await self._asked()
        if answer.status == NOT_FOUND:
            return None
        said = _json(answer)
        action = said.get("action") if isinstance(said, dict) else None
        if isinstance(action, str) and action in self.ACTIONS:
            return f"an AWS spot interruption notice ({action})"
        raise NoAnswerError

    async def _asked(self) -> Answer:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
            token = _text(await self._ask(Question(path="/latest/api/token", method="PUT", headers=ttl)))
            if not _TOKEN.fullmatch(token):
                raise NoAnswerError
            self._token = token
        return await self._ask(Question(path=self.PATH, headers={"X-aws-ec2-metadata-token": self._token}))


class Gcp:
    """Says TRUE once the machine is being preempted, and apart from it whether maintenance ends the machine."""

    NOTICES = (
        ("preempted", "TRUE", "a Google Cloud preemption notice"),
        ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "a Google Cloud host maintenance notice"),
    )

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def notice(self) -> str | None:
        headers = {"Metadata-Flavor": "Google"}
        for name, sign, words in self.NOTICES:
            answer = await self._ask(Question(path=f"/computeMetadata/v1/instance/{name}", headers=headers))
            if _text(answer) == sign:
                return words
        return None


class Azure:
    """Lists what will happen to a whole group of machines; only what names this one counts."""

    EVENTS = f"/metadata/scheduledevents?api-version={EVENTS_VERSION}"
    NAME = f"/metadata/instance/compute/name?api-version={INSTANCE_VERSION}&format=text"
    HEADERS: ClassVar = {"Metadata": "true"}
    ENDS = ("Preempt", "Terminate")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._name = ""
        self._first = True

    async def notice(self) -> str | None:
        self._name = self._name or _text(await self._ask(Question(path=self.NAME, headers=self.HEADERS))).lower()
        if not self._name:
            raise NoAnswerError
        timeout_s = FIRST_EVENTS_S if self._first else TIMEOUT_S
        said = _json(await self._ask(Question(path=self.EVENTS, headers=self.HEADERS, timeout_s=timeout_s)))
        events = said.get("Events") if isinstance(said, dict) else None
        if not isinstance(events, list):
            raise NoAnswerError
        self._first = False
        coming = {event.get("EventType") for event in events if isinstance(event, dict) and self._is_here(event)}
        return next((f"an Azure notice ({kind})" for kind in self.ENDS if kind in coming), None)

    def _is_here(self, event: dict[str, Any]) -> bool:
        names, kind = event.get("Resources"), event.get("EventType")
        return (
            isinstance(kind, str)
            and isinstance(names, list)
            and any(isinstance(name, str) and name.lower() == self._name for name in names)
        )


TELLERS: dict[Cloud, Callable[[Ask], Teller]] = {Cloud.AWS: Aws, Cloud.GCP: Gcp, Cloud.AZURE: Azure}


async def watch_for_notices(config: NoticeConfig, *, stop: Stop, note: Callable[[str], None]) -> None:
    """Ask the cloud, if there is one, until it gives notice or the run is to stop; a notice asks the run to stop.

    Args:
        config: whom to ask.
        stop: what a notice asks.
        note: told in a sentence if the service never answers.
    """
    if config.cloud is not None:
        async with Metadata(config.endpoint) as metadata:
            await heed(config, TELLERS[config.cloud](metadata.ask), stop=stop, note=note)


async def heed(config: NoticeConfig, teller: Teller, *, stop: Stop, note: Callable[[str], None]) -> None:
    """As `watch_for_notices`, of a service that is at hand."""
    misses, answered = 0, False
    while not stop.asked:
        try:
            notice = await teller.notice()
        except NoAnswerError:
            misses += 1
            if misses >= GIVE_UP_MISSES and not answered:
                note(_nobody_there(config))
                return
        else:
            misses, answered = 0, True
            if notice is not None:
                stop.ask(notice, is_notice=True)
                return
        await stop.sleep(config.interval_s if misses < PATIENT_MISSES else max(SELDOM_S, config.interval_s))


class Metadata:
    """Asks one metadata service over a kept connection. An async context manager."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": "reelbatch", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, question: Question) -> Answer:
        """Ask once.

        Raises:
            NoAnswerError: nothing came back in time, or too much.
        """
        if self._session is None:
            raise RuntimeError("the service is asked outside its context")
        try:
            async with self._session.request(
                question.method,
                self._endpoint + question.path,
                headers=question.headers,
                timeout=aiohttp.ClientTimeout(total=question.timeout_s, sock_connect=TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                return Answer(status=response.status, body=await _read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; leaving early closes the connection."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            raise NoAnswerError
    return body


def _text(answer: Answer) -> str:
    if answer.status != OK:
        raise NoAnswerError
    return answer.body.decode("utf-8", "replace").strip()


def _json(answer: Answer) -> Any:
    try:
        return orjson.loads(_text(answer))
    except ValueError:
        raise NoAnswerError from None


def _nobody_there(config: NoticeConfig) -> str:
    cloud = "" if config.cloud is None else config.cloud.full_name
    return (
        f"The metadata service of {cloud} gave no answer, so nobody watched for its spot notices any longer; "
        "a SIGTERM still ends the run in time. --spot-notices off asks nobody."
    )
