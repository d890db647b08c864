"""What each of several processes gets: together never more than the whole, and every row exactly once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ApiConfig, BrakeConfig, LimitConfig, PriceConfig, RunConfig
from engine.encode import EncodeConfig
from engine.limits import Limits
from engine.money import Books
from engine.secret import Secret
from engine.shares import (
    lanes_learnt_for,
    lanes_learnt_of,
    money_left,
    opened_for,
    part_of,
    settings_for,
    spent_of,
)
from engine.source import Part, SourceConfig
from engine.types import Failure, FailureKind, Record, Row, Usage

PRICE = PriceConfig(input_usd_per_m=1.0, output_usd_per_m=1.0)
FIELDS = st.dictionaries(st.sampled_from(["transcript", "description", "gold"]), st.text(max_size=5))


def make_config(
    *, processes: int = 3, limits: LimitConfig | None = None, brake: BrakeConfig | None = None
) -> RunConfig:
    lane = ApiConfig(
        base_url="https://one", model="m", key=Secret("a secret"), requests_per_min=90, tokens_per_min=9e5, price=PRICE
    )
    return RunConfig(
        source=SourceConfig(path=Path("videos.csv"), skip=3, limit=50),
        encode=EncodeConfig(workers=7),
        lanes=(lane,),
        recipe={},
        limits=limits or LimitConfig(),
        brake=brake or BrakeConfig(),
        processes=processes,
    )


@given(whole=st.integers(1, 10_000), of=st.integers(1, 40))
def test_parts_add_up_and_none_is_smaller_when_fewer_share(whole: int, of: int) -> None:
    parts = [part_of(whole, at, of) for at in range(of)]
    if whole >= of:
        assert sum(parts) == whole
    # Whoever goes on stands at the same place or one further to the front.
    fewer = [part_of(whole, at, of - 1) for at in range(of - 1)]
    assert all(now >= before for now, before in zip(fewer, parts, strict=False))
    assert all(now >= before for now, before in zip(fewer, parts[1:], strict=True))


@given(of=st.integers(1, 8), concurrency=st.integers(8, 500), per_min=st.floats(1, 1e6), open_mb=st.integers(8, 900))
def test_the_shares_of_all_members_never_pass_the_ceilings(
    of: int, concurrency: int, per_min: float, open_mb: int
) -> None:
    limits = LimitConfig(
        concurrency=concurrency, requests_per_min=per_min, tokens_per_min=per_min, max_open_bytes=open_mb << 20
    )
    whole = make_config(processes=min(of, 7), limits=limits)
    n = whole.processes
    shares = [settings_for(whole, at, n, money_usd=None) for at in range(n)]
    assert sum(each.limits.concurrency or 0 for each in shares) == concurrency
    assert sum(each.encode.workers for each in shares) == 7
    assert sum(each.limits.max_open_bytes for each in shares) == open_mb << 20
    for rate in ("requests_per_min", "tokens_per_min"):
        assert math.isclose(sum(getattr(each.limits, rate) for each in shares), per_min)
        assert math.isclose(sum(getattr(each.lanes[0], rate) for each in shares), getattr(whole.lanes[0], rate))


def test_a_member_has_no_key_no_brake_no_notices_and_a_part_of_the_same_rows() -> None:
    whole = make_config(brake=BrakeConfig(max_failed_rows=3, max_cost_usd=9.0, max_outage_s=60.0))
    share = opened_for(whole, 1, money_usd=3.0)
    assert share.lanes[0].key is None
    assert (share.brake.max_failed_rows, share.brake.max_failed_share, share.brake.alike_rows) == (None, None, 0)
    assert (share.brake.max_cost_usd, share.brake.max_outage_s) == (3.0, 60.0)
    assert (share.source.part, share.source.skip, share.source.limit) == (Part(at=1, of=3), 3, 50)
    assert share.processes == 1


@given(fields=FIELDS, other=FIELDS, of=st.integers(1, 9), row=st.integers(0, 10**9))
def test_every_row_is_in_one_part_and_the_same_words_are_in_the_same(
    fields: dict[str, str], other: dict[str, str], of: int, row: int
) -> None:
    parts = [Part(at=at, of=of) for at in range(of)]
    items: list[Row | Record] = [
        Row(row=row, id="one", fields=fields),
        Record(row=row, id="", outcome=Failure(kind=FailureKind.BAD_ROW, message="")),
    ]
    for item in items:
        assert sum(part.has(item, ignored={"gold"}) for part in parts) == 1
    alike = Row(row=row + 1, id="another", fields={**fields, "gold": other.get("gold", "")})
    if any(text for name, text in fields.items() if name != "gold"):
        assert [part.has(items[0], ignored={"gold"}) for part in parts] == [
            part.has(alike, ignored={"gold"}) for part in parts
        ]


def test_rows_of_pictures_alone_are_spread_by_their_ids() -> None:
    part = Part(at=0, of=2)
    mine = [part.has(Row(row=row, id=str(row), fields={"transcript": ""}), ignored=()) for row in range(1000)]
    assert 400 < sum(mine) < 600


@given(
    window=st.floats(1, 5000),
    rate=st.none() | st.floats(0.1, 5000),
    lengths=st.dictionaries(st.integers(1, 400).map(str), st.integers(1, 5000)),
    of=st.integers(1, 8),
)
def test_what_is_split_for_a_life_is_whole_again_after_it(
    window: float, rate: float | None, lengths: dict[str, int], of: int
) -> None:
    lane = {
        "answered": True,
        "limits": {"window": window, "rate_per_s": rate},
        "lengths": lengths,
        "structured": "off",
        "most_images": 4,
        "context_tokens": None,
    }
    share = lanes_learnt_for({"m at one": lane}, of)
    merged = lanes_learnt_of([share] * of)["m at one"]
    assert math.isclose(merged["limits"]["window"], window)
    assert merged["limits"]["rate_per_s"] == (rate if rate is None else pytest.approx(rate))
    assert all(count <= merged["lengths"][bucket] < count + of for bucket, count in lengths.items())
    assert {name: merged[name] for name in ("answered", "structured", "most_images", "context_tokens")} == {
        name: lane[name] for name in ("answered", "structured", "most_images", "context_tokens")
    }


def test_what_one_member_has_found_out_all_will_know() -> None:
    new = {"answered": False, "structured": "untried", "most_images": None, "context_tokens": None}
    wiser = {"answered": True, "structured": "works", "most_images": 3, "context_tokens": 900, "lengths": {"7": 2}}
    merged = lanes_learnt_of([{"a": new}, {"a": wiser}, {"b": new}])
    assert merged["a"] == {**wiser, "limits": {"window": None, "rate_per_s": None}}
    assert merged["b"]["structured"] == "untried"


def test_the_money_of_all_lives_and_members_is_summed_and_what_is_in_flight_now_stays_so() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=1)
    earlier, first, second = Books(), Books(), Books()
    earlier.reserve(0.5)
    first.reserve(0.2)
    first.charged(0.2, usage, 0.1)
    second.reserve(0.3)
    spent = spent_of(earlier.as_json(), [first.as_json(), second.as_json()])
    # What an earlier life left in flight is unknown; what a member has in flight will be known.
    assert (spent["unknown_calls"], spent["unknown_usd"]) == (1, 0.5)
    assert (spent["in_flight"], spent["reserved_usd"]) == (1, 0.3)
    assert (spent["cost_usd"], spent["prompt_tokens"]) == (0.1, 10)
    assert money_left(1.0, earlier.as_json()) == 0.5
    assert money_left(None, earlier.as_json()) is None


def test_a_ceiling_that_is_spent_lets_no_call_out() -> None:
    whole = make_config(brake=BrakeConfig(max_cost_usd=1.0))
    share = settings_for(whole, 0, 3, money_usd=-0.2)
    assert not Books(share.brake.max_cost_usd).reserve(1e-9)


def test_limits_hold_to_other_ceilings_from_now_on() -> None:
    limits = Limits(LimitConfig(concurrency=2, requests_per_min=60), now=0.0)
    assert limits.try_admit(0.0, 1) == 0.0
    limits.answered(1.0, reserved_tokens=1, used_tokens=1, latency_s=1.0, output_tokens=1)
    assert limits.window == 2
    limits.hold_to(LimitConfig(concurrency=5, requests_per_min=6000), 1.0)
    assert limits.window == 5
    admitted = [limits.try_admit(1.0 + at / 10, 1) for at in range(1, 10)]
    assert admitted.count(0.0) == 5, "at the old rate there would be one"


def test_a_window_that_adapts_may_grow_as_far_as_the_new_ceiling() -> None:
    limits = Limits(LimitConfig(max_concurrency=8), now=0.0)
    limits.try_admit(0.0, 1)
    limits.answered(1.0, reserved_tokens=1, used_tokens=1, latency_s=1.0, output_tokens=1)
    assert limits.window == 8
    limits.hold_to(LimitConfig(max_concurrency=4), 1.0)
    assert limits.window == 4
