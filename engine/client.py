"""One HTTP attempt: bytes out, a `Reply` or one error of ours back. The only file of the engine that names aiohttp.

Redirects are not followed (a key must not travel on), certificates are always checked, replies are read up to a cap
and asked for uncompressed, so that a few bytes cannot unfold into gigabytes.
"""

from __future__ import annotations

import io
import ssl
import time
from types import TracebackType
from typing import Any, Self, TypeGuard

import aiohttp
import orjson

from engine.config import ApiConfig
from engine.errors import (
    ApiError,
    BadReply,
    CallTimeout,
    CertificateError,
    LaneRefused,
    NetworkError,
    RateLimited,
    RequestRefused,
    ServerError,
)
from engine.hints import wait_hint_s
from engine.secret import Secret
from engine.types import Reply, Usage

MAX_MESSAGE_CHARS = 2000
MAX_PAGE_CHARS = 300
"""Of a body that is no error we know, often a web page of some proxy: its title is in here, its style sheet is not."""
MAX_NAME_CHARS = 200
"""Of a model name, a request id or a finish reason."""
MAX_TOKENS_SAID = 1 << 31
"""A usage number beyond this is no count of tokens."""
WHOLE_BODY_BYTES = 1 << 20
"""A larger body is written in pieces, which lets others on the loop in between; aiohttp warns from here on."""
KEEPALIVE_S = 15.0
"""Below the idle limit of common front ends (nginx 75 s, uvicorn 5 s is met by one free retry)."""

_LANE_STATUSES = frozenset({401, 402, 404, 405, 407, 415, 501})
_RETRIED_STATUSES = frozenset({408, 409, 424, 425, 498, 499})
_RATE_STATUS = 429
_SERVER_ERRORS = 500


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
        self._url = config.completions_url
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
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=config.call_timeout_s, sock_connect=config.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def attempt(self, body: bytes) -> Reply:
        """Send one body and read its reply.

        Raises:
            ApiError: RateLimited, ServerError, NetworkError, CallTimeout, CertificateError, RequestRefused,
                LaneRefused or BadReply. Messages hold no key.
        """
        if self._session is None:
            raise RuntimeError("the client is used outside its context")
        started = time.perf_counter()
        try:
            data = body if len(body) <= WHOLE_BODY_BYTES else io.BytesIO(body)
            async with self._session.post(self._url, data=data, allow_redirects=False) as response:
                payload = await self._read(response)
                if response.status == 200:  # noqa: PLR2004 - HTTP OK
                    return _reply(payload, response, time.perf_counter() - started, key=self._config.key)
                raise self._refusal(response, payload)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._translated(error)
        # Raised out here it has neither cause nor context: aiohttp's errors hold the request's headers, and so the key.
        raise failure

    def _translated(self, error: Exception) -> ApiError:
        """One foreign error as ours: the first line of the table that fits, so the most specific stands first."""
        config = self._config
        for foreign, ours, words, paid in _FOREIGN:
            if isinstance(error, foreign):
                said = words.format(reason=_reason(error), config=config)
                return ours(_shown(said, config.key), paid=paid)
        return NetworkError(_shown(f"connection failed: {_reason(error)}", config.key), paid=True)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, or BadReply once it passes the cap; leaving then closes the connection."""
        cap = self._config.max_reply_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > cap:
                raise BadReply(f"the reply is larger than {cap} bytes", status=response.status, paid=True)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _refusal(self, response: aiohttp.ClientResponse, payload: bytes) -> ApiError:
        status = response.status
        key = self._config.key
        said = error_message(payload, key=key) or _shown(response.reason or "", key) or "no message"
        message = f"HTTP {status}: {said}"[:MAX_MESSAGE_CHARS]
        retry_after_s = wait_hint_s(response.headers, message)
        if status == _RATE_STATUS:
            return RateLimited(message, status=status, retry_after_s=retry_after_s)
        if status >= _SERVER_ERRORS and status not in _LANE_STATUSES:
            return ServerError(message, status=status, retry_after_s=retry_after_s)
        if status in _RETRIED_STATUSES:
            return ServerError(message, status=status, retry_after_s=retry_after_s)
        if status in _LANE_STATUSES or 300 <= status < 400:  # noqa: PLR2004 - HTTP redirects
            return LaneRefused(message, status=status)
        return RequestRefused(message, status=status)


def error_message(payload: bytes, *, key: Secret | None = None) -> str:
    """The words of an error body, whatever its shape; the body's own beginning if it has none. Never raises.

    Without the key, should the server echo it.
    """
    said = _parsed(payload)
    for _ in range(4):
        if isinstance(said, dict):
            said = next((said[part] for part in ("error", "message", "msg", "detail") if said.get(part)), "")
        elif isinstance(said, list):
            said = said[0] if said else ""
    if isinstance(said, str) and said:
        return _shown(said, key)
    return _shown(payload.decode(errors="replace"), key)[:MAX_PAGE_CHARS]


def _parsed(payload: bytes) -> Any:
    """The JSON value, or None where it is none; the parser's error would keep the whole payload."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _shown(text: str, key: Secret | None) -> str:
    """One line that can be printed, written and encoded: no key, no control characters, no lone surrogates."""
    # The key goes before the cut: half a key is still half a key.
    short = (key.redact(text) if key else text)[: 2 * MAX_MESSAGE_CHARS]
    return " ".join("".join(char if char.isprintable() else " " for char in short).split())[:MAX_MESSAGE_CHARS]


def _reason(error: Exception) -> str:
    """A foreign error's own words, without the address and the status that aiohttp writes around them."""
    if isinstance(error, aiohttp.ClientResponseError):
        # After the colon stand the server's own bytes, cut anywhere: inside an echoed key, too.
        return error.message.partition(":")[0]
    return str(getattr(error, "os_error", error)) or str(error)


def _reply(payload: bytes, response: aiohttp.ClientResponse, latency_s: float, *, key: Secret | None) -> Reply:
    if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        raise BadReply("the server compressed a reply that was asked for uncompressed", status=200, paid=True)
    said = _parsed(payload)
    if not isinstance(said, dict):
        raise BadReply("the reply is no JSON object", status=200, paid=True)
    if said.get("error"):
        message = f"HTTP 200 with an error inside: {error_message(payload, key=key)}"[:MAX_MESSAGE_CHARS]
        raise BadReply(message, status=200, paid=True)
    try:
        choice = said["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise BadReply("the reply has no choices[0].message.content", status=200, paid=True) from error
    if content is not None and not isinstance(content, str):
        raise BadReply("choices[0].message.content is no text", status=200, paid=True)
    finish_reason = choice.get("finish_reason")
    return Reply(
        text=content or "",
        finish_reason=finish_reason[:MAX_NAME_CHARS] if isinstance(finish_reason, str) else None,
        usage=_usage(said.get("usage")),
        model=_name(said.get("model"), key) or "",
        request_id=_name(response.headers.get("x-request-id"), key) or _name(said.get("id"), key),
        latency_s=latency_s,
    )


def _usage(said: object) -> Usage | None:
    """Token counts, or None unless both are plain counts."""
    if not isinstance(said, dict):
        return None
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else said.get("cached_tokens")
    prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
    if not _is_count(prompt) or not _is_count(completion):
        return None
    cached = cached if _is_count(cached) and cached <= prompt else 0
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_TOKENS_SAID


def _name(said: object, key: Secret | None) -> str | None:
    return _shown(said, key)[:MAX_NAME_CHARS] if isinstance(said, str) else None
