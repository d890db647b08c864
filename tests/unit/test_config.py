"""What makes two runs the same run: every setting has exactly one place."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest

from engine.config import (
    DESCRIBED,
    PRIVATE,
    SEMANTIC,
    ApiConfig,
    BrakeConfig,
    LimitConfig,
    PriceConfig,
    RetryConfig,
    RunConfig,
    fields_of,
    manifest_of,
)
from engine.errors import ConfigError
from engine.secret import Secret
from tests.fakes.calls import make_config, make_lane

OPERATIONAL = {
    *(
        "source.path",
        "source.max_line_bytes",
        "encode.variables",
        "encode.workers",
        "encode.row_timeout_s",
        "encode.worker_memory_mb",
        "encode.batch_rows",
    ),
    *("lanes.base_url", "lanes.allow_plaintext", "lanes.connect_timeout_s", "lanes.call_timeout_s"),
    *("lanes.max_reply_bytes", "lanes.weight", "lanes.requests_per_min", "lanes.tokens_per_min", "lanes.price"),
    *("limits.concurrency", "limits.max_concurrency", "limits.requests_per_min", "limits.tokens_per_min"),
    *("limits.max_open_bytes", "retry.attempts", "retry.row_deadline_s", "retry.first_wait_s"),
    *("retry.longest_wait_s", "retry.max_tokens", "retry.on_truncation", "retry.growth", "retry.max_tokens_cap"),
    *("brake.max_failed_share", "brake.max_failed_rows", "brake.probation_rows", "brake.alike_rows"),
    *("brake.max_cost_usd", "brake.max_outage_s", "write.commit_interval_s", "write.commit_records"),
    *("write.max_pending_bytes", "write.drain_s", "format.optional", "share"),
    *("notices.cloud", "notices.endpoint", "notices.interval_s", "processes"),
}
"""Settings a resume may change. A new setting must be named here, or in one of the sets of the engine."""


def test_every_setting_is_semantic_described_private_or_operational() -> None:
    names = set(fields_of(make_config())) - {"lanes"}
    names |= {f"lanes.{field.name}" for field in dataclasses.fields(ApiConfig)}
    private = {f"lanes.{name}" for name in PRIVATE}
    classes = (set(SEMANTIC) | {"lanes.model"}, private, set(DESCRIBED), OPERATIONAL - DESCRIBED)
    assert names == set().union(*classes)
    assert sum(map(len, classes)) == len(names), "a setting stands in two classes"


def test_the_manifest_holds_no_private_setting() -> None:
    config = make_config(lanes=(dataclasses.replace(make_lane(), key=Secret("sk-canary")),))
    manifest = manifest_of(config, input_identity={"size_bytes": 3})
    assert b"canary" not in orjson.dumps(manifest, default=str)
    assert "canary" not in repr(config)


def test_only_semantic_settings_and_the_input_decide_whether_a_run_is_the_same() -> None:
    config = make_config()
    faster = dataclasses.replace(
        config, limits=LimitConfig(concurrency=99), retry=RetryConfig(max_tokens=99), share=False
    )
    elsewhere = make_config(lanes=(make_lane(port=10), make_lane(port=11, weight=3.0)))
    other = make_config(lanes=(make_lane(), make_lane(model="other")))

    def identity(told: RunConfig) -> dict[str, Any]:
        manifest = manifest_of(told, input_identity={})
        return {part: manifest[part] for part in ("input", "settings")}

    assert identity(config) == identity(faster) == identity(elsewhere)
    assert identity(config) != identity(other)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"])
def test_the_address_of_completions_is_joined_once(url: str) -> None:
    assert ApiConfig(base_url=url, model="m").completions_url == "http://127.0.0.1:8000/v1/chat/completions"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "https://", "https://a:b@c/v1", "https://c/v1?key=x"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        ApiConfig(base_url=url, model="m")


def test_plaintext_leaves_the_machine_only_when_allowed() -> None:
    with pytest.raises(ConfigError, match="--allow-plaintext"):
        ApiConfig(base_url="http://10.0.0.7/v1", model="m")
    ApiConfig(base_url="http://10.0.0.7/v1", model="m", allow_plaintext=True)
    ApiConfig(base_url="http://[::1]:8000/v1", model="m")


def test_a_config_does_not_change() -> None:
    config = make_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.limits.concurrency = 3  # type: ignore[misc]  # that it cannot be set is the point


def test_a_money_ceiling_without_a_price_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="--price-in and --price-out"):
        make_config(lanes=(make_lane(price=PriceConfig()),), brake=BrakeConfig(max_cost_usd=1.0))


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_is_a_number_of_dollars(price: float) -> None:
    with pytest.raises(ConfigError, match="--price-in"):
        PriceConfig(input_usd_per_m=price, output_usd_per_m=1.0)
