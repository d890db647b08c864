"""Every error of ours, as one tree. A failed row is data; a failed run is an exception.

EngineError
├── ConfigError             a flag, a file or a setting is wrong; nothing was started
│   └── InputError          the input file itself is wrong (exit 65 rather than 64)
├── RowError                this row cannot be encoded; becomes its `Failure`
├── ApiError                one attempt failed; becomes a `Failure` when the retries end
│   ├── RateLimited         429: slow down
│   ├── ServerError         408, 409, 5xx: the server's trouble, worth another try
│   ├── NetworkError        no whole reply came: DNS, refused, reset, cut body
│   │   ├── CallTimeout     a phase of the call took too long
│   │   └── CertificateError  TLS said no; every row would meet it
│   ├── RequestRefused      4xx: this body will never be accepted
│   │   ├── RequestBlocked  a content filter, or the model itself, refuses this row
│   │   └── RequestTooLarge  a smaller body of the same row may be accepted
│   ├── LaneRefused         401, 402, 403, 404, 405: no body will be accepted here
│   └── BadReply            a reply came that is not a chat completion
└── RunError                the run ends, with everything it has written intact
    ├── AuthRejected        the provider refuses this key, account, model or address
    ├── TooManyFailures     the brake
    ├── BudgetSpent         the cost ceiling
    ├── ProviderDown        no lane has answered for as long as the user wants to wait, or will today
    ├── ResumeMismatch      the folder holds a run with other settings or another input
    ├── FolderInUse         another process writes there, it cannot be created, or its disk cannot hold a run
    ├── SinkBroken          the disk failed, the folder has gone from its place, or committed bytes are missing
    ├── EncoderBroken       no worker process can be kept alive
    └── MemberLost          one of the engine processes of the run died
"""

from __future__ import annotations

from engine.types import FailureKind, Fix, Usage


class EngineError(Exception):
    """Base of all. `str()` is one sentence for the user."""


class ConfigError(EngineError):
    """A flag, a setting or a named file is wrong. Nothing was started."""


class InputError(ConfigError):
    """The input cannot be read as rows at all: empty, no id column, not the format it claims."""


class RowError(EngineError):
    """This row cannot be turned into a request; the others are not affected."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[RowError], tuple[FailureKind, str]]:
        return type(self), (self.kind, str(self))


class ApiError(EngineError):
    """One attempt at one call failed.

    Args:
        message: what the server or the network said, without secrets, at most 2 KB.
        status: HTTP status, or None when no status line came.
        retry_after_s: seconds the server asked to wait, or None.
        paid: whether the provider may have charged for it although no answer came.
        usage: what it says it counted all the same, or None.
    """

    kind = FailureKind.SERVER

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        paid: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.paid = paid
        self.usage = usage


class RateLimited(ApiError):
    """The provider asks for a lower rate."""

    kind = FailureKind.RATE


class ServerError(ApiError):
    """The provider is in trouble, or short of capacity; the same body may pass later."""

    kind = FailureKind.SERVER


class NetworkError(ApiError):
    """No whole reply came back."""

    kind = FailureKind.NETWORK


class CallTimeout(NetworkError):
    """A phase of the call took longer than allowed."""

    kind = FailureKind.TIMEOUT


class CertificateError(NetworkError):
    """The server's certificate was not accepted."""

    kind = FailureKind.NETWORK


class RequestRefused(ApiError):
    """The provider will never accept this body."""

    kind = FailureKind.REFUSED


class RequestBlocked(RequestRefused):
    """A content filter, or the model itself, refuses this row."""

    kind = FailureKind.BLOCKED


class RequestTooLarge(RequestRefused):
    """A smaller body of the same row may be accepted.

    Args:
        fix: what it would have to be smaller in.
        limit: what the provider said it takes: tokens for `CONTEXT`, pictures for `IMAGES`; None if it did not say.
        counted: what it said this request has: prompt tokens for `CONTEXT`; None if it did not say.
    """

    kind = FailureKind.TOO_LARGE

    def __init__(
        self, message: str, *, status: int | None, fix: Fix, limit: int | None = None, counted: int | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.fix = fix
        self.limit = limit
        self.counted = counted


class LaneRefused(ApiError):
    """The provider will accept no body from this key, for this model, at this address.

    Args:
        doubtful: whether it may be this row after all (a 403 that does not say); three rows in a row confirm it.
    """

    kind = FailureKind.LANE

    def __init__(self, message: str, *, status: int | None = None, doubtful: bool = False) -> None:
        super().__init__(message, status=status)
        self.doubtful = doubtful


class BadReply(ApiError):
    """A reply came, and it is not a chat completion."""

    kind = FailureKind.BAD_REPLY


class RunError(EngineError):
    """The run ends here. Everything acknowledged is on disk and `--resume` goes on."""


class AuthRejected(RunError):
    """The provider refuses the key, the account, the model or the address."""


class TooManyFailures(RunError):
    """The share of failed rows passed the brake."""


class BudgetSpent(RunError):
    """One more call could pass the cost ceiling."""


class ProviderDown(RunError):
    """No lane has answered for as long as the user wants to wait, or none will before tomorrow."""


class ResumeMismatch(RunError):
    """The run folder belongs to other settings or another input."""


class FolderInUse(RunError):
    """Another process holds the run folder, it holds a run already, or it or its disk cannot be written as a run is."""


class SinkBroken(RunError):
    """Writing failed, the folder has gone from its place, or bytes that were committed are no longer there."""


class EncoderBroken(RunError):
    """Worker processes die as soon as they start."""


class MemberLost(RunError):
    """One of several engine processes ended without a word; the others have delivered what they had."""


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group really ended of: the first error of ours inside, else the first of any kind."""
    ours, others = group.split(EngineError)
    inner: BaseException = ours or others or group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
