"""One HTTP attempt: bytes out, a `Reply` or one error of ours back. Only this file and `notices.py` name aiohttp.

Redirects are not followed (a key must not travel on), certificates are always checked, replies are read up to a cap
and asked for uncompressed, so that a few bytes cannot unfold into gigabytes.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from engine.config import ApiConfig
from engine.errors import ApiError, BadReply, CallTimeout, CertificateError, NetworkError
from engine.hints import rate_names
from engine.overdue import Overdue
from engine.replies import Response, reply_from
from engine.types import Reply
from engine.verdicts import one_line

JOINED_BYTES = 16 << 10
"""So few are copied in a microsecond or two, and one write saves several."""
WRITTEN_BYTES = 1 << 20
"""No more is written at once, which lets others on the loop in between."""
KEEPALIVE_S = 15.0
"""Below the idle limit of common front ends (nginx 75 s, uvicorn 5 s is met by one free retry)."""
IDLE_END_S = 1.0
"""The end of a connection that was idle is here within one round trip of the request, 0.3 s around the earth. A
server that took longer may have read the request and worked on it."""

_FOREIGN: tuple[tuple[type[Exception], type[ApiError], str, bool], ...] = (
    (aiohttp.ClientConnectorCertificateError, CertificateError, "certificate not accepted: {reason}", False),
    (ssl.SSLError, CertificateError, "TLS failed: {reason}", False),
    (aiohttp.ConnectionTimeoutError, CallTimeout, "no connection within {config.connect_timeout_s:g} s", False),
    (TimeoutError, CallTimeout, "no whole reply within {config.call_timeout_s:g} s", True),
    (aiohttp.ClientConnectorError, NetworkError, "cannot connect: {reason}", False),
    (aiohttp.ServerDisconnectedError, NetworkError, "the server closed the connection without an answer", True),
    (aiohttp.ClientPayloadError, NetworkError, "the reply was cut off", True),
    (aiohttp.ClientError, NetworkError, "no valid HTTP reply: {reason}", True),
)
"""What a foreign error becomes, what is said, and whether the provider may have charged for the call."""


class HttpClient:
    """Calls one provider over pooled connections. An async context manager; make one per run."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self._url = URL(config.completions_url)
        self._overdue = Overdue(config.call_timeout_s)
        self._names = rate_names(config.base_url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        config = self._config
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "reelbatch",
        }
        if config.key is not None:
            headers["Authorization"] = f"Bearer {config.key.reveal()}"
        self._session = aiohttp.ClientSession(
            # The engine owns concurrency; the connector's own default would cap it at 100.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60, socket_factory=_noted_socket
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A timer for each call would cost a fourteenth of it; the client has one for all.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._overdue.close()
        if self._session is not None:
            await self._session.close()

    async def attempt(self, *body: bytes) -> Reply:
        """Send one body, given in pieces, and read its reply.

        Where the server closes a kept connection just as it is used again, before any byte of an answer, the body is
        sent once more over another one: it closed on an idle client, not on this request.

        Raises:
            ApiError: any of its leaves in `engine/errors.py`. Messages hold no key.
        """
        if self._session is None:
            raise RuntimeError("the client is used outside its context")
        for again in (True, False):
            connection = _Connection()
            _CONNECTION.set(connection)
            try:
                with self._overdue.limited():
                    return await self._send(self._session, body)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                # Connections keep their errors, and these the frames that hold the body.
                error.__traceback__ = None
                if again and connection.ended_idle(error):
                    continue
                failure = self._translated(error)
                break
        # Raised out here it has neither cause nor context: aiohttp's errors hold the request's headers, and so the key.
        raise failure

    async def _send(self, session: aiohttp.ClientSession, body: Sequence[bytes]) -> Reply:
        started = time.perf_counter()
        async with session.post(self._url, data=_payload(body), allow_redirects=False) as response:
            heard = Response(
                status=response.status,
                reason=response.reason or "",
                headers=response.headers,
                payload=await self._read(response),
                latency_s=time.perf_counter() - started,
            )
            return reply_from(heard, key=self._config.key, names=self._names)

    def _translated(self, error: Exception) -> ApiError:
        """One foreign error as ours: the first line of the table that fits, so the most specific stands first."""
        config = self._config
        for foreign, ours, words, paid in _FOREIGN:
            if isinstance(error, foreign):
                said = words.format(reason=_reason(error), config=config)
                return ours(one_line(said, config.key), paid=paid)
        return NetworkError(one_line(f"connection failed: {_reason(error)}", config.key), paid=True)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, or BadReply once it passes the cap; leaving then closes the connection."""
        cap, content = self._config.max_reply_bytes, response.content
        pieces = [await content.readany()]
        size = len(pieces[0])
        while size <= cap and not content.at_eof():
            pieces.append(await content.readany())
            size += len(pieces[-1])
        if size > cap:
            raise BadReply(f"the reply is larger than {cap} bytes", status=response.status, paid=True)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _payload(body: Sequence[bytes]) -> aiohttp.Payload:
    if sum(map(len, body)) <= JOINED_BYTES:
        return aiohttp.BytesPayload(b"".join(body))
    return _Pieces(body)


class _Pieces(aiohttp.Payload):
    """A body that goes from where it lies to the system, not joined with itself or with the request's header."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces)
        self._pieces = pieces

    @property
    def size(self) -> int:
        return sum(map(len, self._pieces))

    @property
    def autoclose(self) -> bool:
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        writer.send_headers()
        for piece in self._pieces:
            whole = memoryview(piece)
            for at in range(0, len(piece), WRITTEN_BYTES):
                await writer.write(whole[at : at + WRITTEN_BYTES])


class _Connection:
    """What one attempt learns of the connection it was given."""

    __slots__ = ("_began_s", "is_new")

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self.is_new = False

    def ended_idle(self, error: Exception) -> bool:
        """Whether the server closed a kept connection at once and without a byte: it never took up the request."""
        if self.is_new or time.perf_counter() - self._began_s > IDLE_END_S:
            return False
        # What came of an answer, if anything did, stands in the place of the words.
        return isinstance(error, aiohttp.ServerDisconnectedError) and isinstance(error.message, str)


_CONNECTION: ContextVar[_Connection] = ContextVar("connection")
"""Of the attempt that a task is making; tracing would tell the same for a seventh of what a call costs."""


def _noted_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for a new connection, noted for the attempt that waits for it."""
    _CONNECTION.get().is_new = True
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


def _reason(error: Exception) -> str:
    """A foreign error's own words, without the address and the status that aiohttp writes around them."""
    if isinstance(error, aiohttp.ClientResponseError):
        # After the colon stand the server's own bytes, cut anywhere: inside an echoed key, too.
        return error.message.partition(":")[0]
    return str(getattr(error, "os_error", error)) or str(error)
