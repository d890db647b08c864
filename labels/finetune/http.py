"""One HTTP exchange after another with a provider of fine-tuning: JSON in, JSON or one error of ours out.

A run needs hundreds of calls at once; here there is one at a time, and one of them may send gigabytes. So this is
`http.client` without an event loop, and a signal ends whatever it waits for. The rules are those of `engine/client.py`:
redirects are not followed, certificates are always checked, replies are read up to a cap, and messages hold no key.
"""

from __future__ import annotations

import http.client
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import orjson

from engine.config import ApiConfig
from engine.errors import ApiError, BadReply, CallTimeout, CertificateError, ConfigError, NetworkError
from engine.hints import forbids_retry, wait_hint_s
from engine.verdicts import error_for, one_line, parsed, said_in

PIECE_BYTES = 256 << 10
"""Read from the disk and handed to the network at once."""
STALL_S = 120.0
"""Without a byte that can be sent, an upload is given up."""
UPLOADED_S = 600.0
"""A server may look through a whole file before it answers."""
SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file on its way."""

    name: str
    fields: tuple[tuple[str, str], ...]
    file: BinaryIO
    """Read from its beginning."""
    size: int
    progress: Callable[[int], None]
    """Told how many bytes of it have been handed to the network."""


class Provider:
    """Speaks to one address."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        url = urlsplit(config.base_url)
        self._host, self._path = url.hostname or "", url.path.rstrip("/")
        self._port = url.port
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._headers = {"Accept": "application/json", "User-Agent": "reelbatch", "Connection": "close"}
        if config.key is not None:
            if not config.key.reveal().isascii() or not config.key.reveal().isprintable():
                raise ConfigError("the API key holds characters that no key has; is it the right file or variable?")
            self._headers["Authorization"] = f"Bearer {config.key.reveal()}"

    @property
    def base_url(self) -> str:
        return self._config.base_url

    def get(self, path: str) -> Mapping[str, Any]:
        """What stands at an address.

        Raises:
            ApiError: nothing does, or no answer came. Messages hold no key.
        """
        return self._exchange("GET", path, body=None, headers={}, answer_s=self._config.call_timeout_s)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The answer to one object.

        Raises:
            ApiError: likewise; `paid` says whether the server may have done it all the same.
        """
        data = b"" if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        return self._exchange("POST", path, body=iter([data]), headers=headers, answer_s=self._config.call_timeout_s)

    def upload(self, path: str, upload: Upload) -> Mapping[str, Any]:
        """The answer to a file, which is sent as a form, a piece in memory at a time.

        Raises:
            ApiError: likewise.
        """
        boundary = secrets.token_hex(16)
        head, tail = _around(upload, boundary)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + upload.size + len(tail)),
        }
        return self._exchange("POST", path, body=_pieces(upload, head, tail), headers=headers, answer_s=UPLOADED_S)

    def _exchange(
        self, method: str, path: str, *, body: Iterator[bytes] | None, headers: Mapping[str, str], answer_s: float
    ) -> Mapping[str, Any]:
        """Send one request and read its answer, which must have begun and ended within `answer_s` each."""
        try:
            with closing(self._connected()) as connection:
                with suppress(BrokenPipeError, ConnectionResetError):
                    # It may have refused the rest of a file; its answer is there all the same.
                    connection.request(method, self._path + path, body=body, headers={**self._headers, **headers})
                connection.sock.settimeout(answer_s)
                with closing(connection.getresponse()) as response:
                    return self._answer(response, self._read(response, answer_s))
        except ApiError as error:
            failure = error
        except (http.client.HTTPException, OSError, ValueError) as error:
            failure = self._translated(error)
        # Raised out here it has neither cause nor context: what went before held the headers, and so the key.
        raise failure

    def _connected(self) -> http.client.HTTPConnection:
        """A connection over which nothing was sent yet."""
        config = self._config
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=config.connect_timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(
                self._host, self._port, timeout=config.connect_timeout_s, context=self._tls
            )
        )
        try:
            connection.connect()
        except ssl.SSLError as error:
            failure: ApiError = CertificateError(self._words("TLS failed", error))
        except TimeoutError:
            failure = CallTimeout(f"no connection within {config.connect_timeout_s:g} s")
        except (OSError, ValueError) as error:
            failure = NetworkError(self._words("cannot connect", error))
        else:
            connection.sock.settimeout(STALL_S)
            return connection
        connection.close()
        raise failure

    def _read(self, response: http.client.HTTPResponse, answer_s: float) -> bytes:
        """The whole body, or an error once it passes the cap or takes too long."""
        until_s = time.monotonic() + answer_s
        cap, data = self._config.max_reply_bytes, bytearray()
        while piece := response.read1(PIECE_BYTES):
            data += piece
            if len(data) > cap:
                raise BadReply(f"the reply is larger than {cap} bytes", status=response.status, paid=True)
            if time.monotonic() > until_s:
                raise CallTimeout(f"no whole reply within {answer_s:g} s", paid=True)
        if response.length:
            raise NetworkError("the reply was cut off", paid=True)
        return bytes(data)

    def _answer(self, response: http.client.HTTPResponse, payload: bytes) -> Mapping[str, Any]:
        if response.status in SUCCESS:
            # What a job or an event says is shown, and a server may echo anything.
            key = self._config.key
            said = parsed(key.redact(payload.decode(errors="replace")).encode() if key else payload)
            if isinstance(said, dict) and not (said.get("error") and not said.get("id")):
                return said
            raise BadReply("the reply is no JSON object, or tells of an error", status=response.status, paid=True)
        said_error = said_in(payload, show=partial(one_line, key=self._config.key))
        headers = {name.lower(): value for name, value in response.headers.items()}
        raise error_for(
            response.status,
            said_error,
            retry_after_s=wait_hint_s(headers, said_error.message),
            final=forbids_retry(headers),
            otherwise=one_line(response.reason, self._config.key),
        )

    def _translated(self, error: Exception) -> ApiError:
        """What broke after something may have been sent."""
        if isinstance(error, TimeoutError):
            return CallTimeout("the server said nothing for too long", paid=True)
        if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
            return NetworkError("the server closed the connection without an answer", paid=True)
        if isinstance(error, http.client.IncompleteRead):
            return NetworkError("the reply was cut off", paid=True)
        if isinstance(error, http.client.HTTPException):
            return NetworkError(f"no valid HTTP reply: {type(error).__name__}", paid=True)
        return NetworkError(self._words("the connection failed", error), paid=True)

    def _words(self, what: str, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return one_line(f"{what}: {reason}", self._config.key)


def _around(upload: Upload, boundary: str) -> tuple[bytes, bytes]:
    """What stands before and behind the bytes of the file."""
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in upload.fields
    ]
    lines.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{upload.name}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return "".join(lines).encode(), f"\r\n--{boundary}--\r\n".encode()


def _pieces(upload: Upload, head: bytes, tail: bytes) -> Iterator[bytes]:
    yield head
    upload.file.seek(0)
    done = 0
    while piece := upload.file.read(min(PIECE_BYTES, upload.size - done)):
        yield piece
        done += len(piece)
        upload.progress(done)
    yield tail
