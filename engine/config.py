"""What a run is told, frozen and checked once; and what of it makes two runs the same run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from engine.clouds import NoticeConfig
from engine.encode import EncodeConfig
from engine.errors import ConfigError
from engine.secret import Secret
from engine.source import SourceConfig

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceConfig:
    """Dollars per million tokens; None is unknown, which is not zero."""

    input_usd_per_m: float | None = None
    output_usd_per_m: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--price-in", self.input_usd_per_m), ("--price-out", self.output_usd_per_m)):
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be 0 or more dollars per million tokens, not {value}")

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Dollars for so many tokens, or None where the price is unknown."""
        if self.input_usd_per_m is None or self.output_usd_per_m is None:
            return None
        return (prompt_tokens * self.input_usd_per_m + completion_tokens * self.output_usd_per_m) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """One lane: an address, a key and a model that calls may go to."""

    base_url: str
    """With or without `/v1` and a trailing slash; the calls go to `{base_url}/chat/completions`."""
    model: str
    key: Secret | None = field(default=None, repr=False)
    """None sends no Authorization header (a local server without keys)."""
    allow_plaintext: bool = False
    """Whether `http://` may leave this machine."""
    connect_timeout_s: float = 10.0
    """TCP and TLS together."""
    call_timeout_s: float = 600.0
    """From sending to the last byte of the reply. Below the provider's own limit every expiry is paid for nothing."""
    max_reply_bytes: int = 8 << 20
    """A chat completion is a few KB; beyond this the reply is dropped unread."""
    weight: float = 1.0
    """The share of the work this lane gets while every lane takes more."""
    requests_per_min: float | None = None
    """A ceiling of this lane's own; None takes the one for all lanes. Likewise below."""
    tokens_per_min: float | None = None
    price: PriceConfig = field(default_factory=PriceConfig)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ConfigError(f"--base-url {self.base_url!r} is no http(s) address, as in https://api.together.xyz/v1")
        if url.username or url.password or url.query:
            raise ConfigError("--base-url must hold neither a password nor a query; keys come from the environment")
        if url.scheme == "http" and url.hostname not in LOOPBACK and not self.allow_plaintext:
            raise ConfigError(
                f"--base-url {self.base_url} would send key and frames unencrypted; use https:// or --allow-plaintext"
            )
        if not self.model:
            raise ConfigError("--model must not be empty")
        _positive(
            {
                "--per-call-timeout": self.call_timeout_s,
                "connect timeout": self.connect_timeout_s,
                "weight": self.weight,
                "rpm": self.requests_per_min,
                "tpm": self.tokens_per_min,
            }
        )

    @property
    def completions_url(self) -> str:
        return self.base_url.rstrip("/") + "/chat/completions"

    @property
    def name(self) -> str:
        """What the lane is called in messages and in what is learnt about it."""
        return f"{self.model} at {urlsplit(self.base_url).netloc.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConfig:
    """How many and how fast, at most. None means no limit of ours: the server's word and conduct still count."""

    concurrency: int | None = None
    """Requests in flight, over all lanes; None adapts each lane between 1 and `max_concurrency`."""
    max_concurrency: int = 2048
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    max_open_bytes: int = 512 << 20
    """Encoded requests held at once, those waiting for a retry included."""

    def __post_init__(self) -> None:
        _positive(
            {
                "--concurrency": self.concurrency,
                "--rpm": self.requests_per_min,
                "--tpm": self.tokens_per_min,
                "--max-open-mb": self.max_open_bytes,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """When a row is tried again, and with how many tokens."""

    attempts: int = 6
    """Calls for one row that the provider or the network may fail, and, counted apart, that may come back cut off.
    Being told to slow down counts as neither, nor does a call while no call gets through."""
    row_deadline_s: float = 1800.0
    """No new attempt of a row starts later than this after its first."""
    first_wait_s: float = 1.0
    """Full jitter: the n-th wait is uniform in 0 to min(longest_wait_s, first_wait_s * 2**n)."""
    longest_wait_s: float = 60.0
    max_tokens: int | None = None
    """What the first call may answer with; None learns it from the answers that come."""
    on_truncation: bool = True
    growth: float = 2.0
    """After a truncated answer: max(now, min(int(now * growth), max_tokens_cap))."""
    max_tokens_cap: int = 4096

    def __post_init__(self) -> None:
        _positive(
            {
                "--retries": self.attempts,
                "--row-deadline-seconds": self.row_deadline_s,
                "--max-tokens": self.max_tokens,
                "--max-tokens-cap": self.max_tokens_cap,
            }
        )
        if self.growth <= 1:
            raise ConfigError(f"--growth {self.growth} would never grow; it must be above 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakeConfig:
    """When a run stops because too much goes wrong."""

    max_failed_share: float | None = 0.05
    """Failed rows over ended rows."""
    max_failed_rows: int | None = None
    probation_rows: int = 200
    """The share is not judged before so many rows have ended: one early failure is not 100 %."""
    alike_rows: int = 20
    """If the first so many rows all fail alike, it is the settings and not the rows."""
    max_cost_usd: float | None = None
    """What all lives of the run together may cost."""
    max_outage_s: float = 6 * 3600.0
    """For how long no lane may answer before the run ends, to be resumed."""

    def __post_init__(self) -> None:
        _positive({"--max-cost": self.max_cost_usd, "--max-outage": self.max_outage_s})


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatConfig:
    """The `response_format` that asks a provider to hold an answer to its form."""

    value: Mapping[str, object] | None = None
    """None asks for none."""
    optional: bool = False
    """Whether a lane that refuses it is asked without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConfig:
    """When records become safe."""

    commit_interval_s: float = 1.0
    commit_records: int = 2000
    """A commit starts early at so many uncommitted records."""
    max_pending_bytes: int = 16 << 20
    """Above this the write stage waits for the disk, and so does everything before it."""
    drain_s: float = 20.0
    """How long answers in flight are waited for after the first signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything a run is told."""

    source: SourceConfig
    encode: EncodeConfig
    lanes: tuple[ApiConfig, ...]
    """At least one; answers may come from any."""
    recipe: Mapping[str, object]
    """What decides the bytes of a request besides the row: prompt digest, media settings, sampling. JSON values."""
    limits: LimitConfig = field(default_factory=LimitConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    brake: BrakeConfig = field(default_factory=BrakeConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    format: FormatConfig = field(default_factory=FormatConfig)
    share: bool = True
    """Whether identical requests are sent once."""
    notices: NoticeConfig = field(default_factory=NoticeConfig)
    processes: int = 1
    """Engine processes that share the work, and every limit above."""

    def __post_init__(self) -> None:
        if not self.lanes:
            raise ConfigError("a run needs at least one address and model to ask")
        if self.processes < 1:
            raise ConfigError(f"--processes must be at least 1, not {self.processes}")
        for name, whole in (("--concurrency", self.limits.concurrency), ("--workers", self.encode.workers)):
            if whole is not None and whole < self.processes:
                raise ConfigError(f"{name} {whole} is less than --processes {self.processes}; each needs one")
        unpriced = [lane.name for lane in self.lanes if lane.price.cost_usd(1, 1) is None]
        if self.brake.max_cost_usd is not None and unpriced:
            raise ConfigError(
                f"--max-cost needs to know what {unpriced[0]} charges; set --price-in and --price-out, "
                "in dollars per million tokens"
            )

    @property
    def models(self) -> str | list[str]:
        """The model that is asked, or all of them."""
        names = sorted({lane.model for lane in self.lanes})
        return names[0] if len(names) == 1 else names


SEMANTIC = frozenset({"recipe", "source.skip", "source.limit"})
"""Fields that change what a result says, beside the models. A resume with another value is refused."""

PRIVATE = frozenset({"key"})
"""Fields of a lane that are written nowhere."""

DESCRIBED = frozenset(
    {
        "source.path",
        "source.id_column",
        "source.transcript_column",
        "source.description_column",
        "source.embedded_text_column",
        "source.video_column",
        "source.carried",
        "source.whole_lines",
        "source.part",
        "format.value",
    }
)
"""Fields that `describe_input` resolves into the identity of the input, or that `recipe` stands for; and the part of it
that one of several processes has, which no run is told."""


def fields_of(config: RunConfig) -> dict[str, object]:
    """Every field with its dotted name, such as `limits.concurrency`; lanes as a list of objects, without keys."""
    flat: dict[str, object] = {}
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if part.name == "lanes":
            flat["lanes"] = [
                {f.name: getattr(lane, f.name) for f in dataclasses.fields(lane) if f.name not in PRIVATE}
                for lane in config.lanes
            ]
        elif dataclasses.is_dataclass(value):
            flat |= {f"{part.name}.{f.name}": getattr(value, f.name) for f in dataclasses.fields(value)}
        else:
            flat[part.name] = value
    return flat


def manifest_of(config: RunConfig, *, input_identity: Mapping[str, object]) -> dict[str, object]:
    """What `run.json` says of a run: the input, the settings a resume must match, and those it may change."""
    flat = fields_of(config)
    settings = {"model": config.models} | {name: flat[name] for name in sorted(SEMANTIC)}
    operational = {name: value for name, value in flat.items() if name not in SEMANTIC | DESCRIBED}
    return {"input": dict(input_identity), "settings": settings, "operational": operational}


def _positive(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} must be above 0, not {value}")
