"""The decisions of the simulated provider, without a server."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenario import Fault, Lengths, Scenario, TokenBucket, made_answer, scenario_from_dict
from engine.errors import ConfigError


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 50)), max_size=100), st.floats(60, 60_000))
def test_a_bucket_never_gives_more_than_its_rate_and_one_burst(plan: list[tuple[float, float]], per_min: float) -> None:
    bucket = TokenBucket(level=per_min / 60)
    now_s, given_out = 0.0, 0.0
    for gap_s, amount in plan:
        now_s += gap_s
        if bucket.take(amount, per_min=per_min, now_s=now_s) == 0:
            given_out += amount
    assert given_out <= per_min / 60 * (now_s + 1) + 50 + 1e-6


@given(st.floats(60, 60_000), st.floats(0.1, 5))
def test_the_wait_a_bucket_names_is_enough(per_min: float, amount: float) -> None:
    bucket = TokenBucket(level=0.0)
    wait_s = bucket.take(amount, per_min=per_min, now_s=0.0)
    assert wait_s > 0
    assert bucket.take(amount, per_min=per_min, now_s=wait_s * (1 + 1e-9) + 1e-9) == 0


def test_lengths_have_the_median_they_are_told() -> None:
    rng = random.Random(1)
    drawn = [Lengths(kind="lognormal", median=200.0, sigma=0.5).draw(rng) for _ in range(4000)]
    assert statistics.median(drawn) == pytest.approx(200, rel=0.05)
    assert sum(value > 200 * math.exp(0.5 * 2.326) for value in drawn) / 4000 == pytest.approx(0.01, abs=0.006)
    assert Lengths(median=3.0).draw(rng) == 3.0


def test_the_first_fault_that_strikes_wins() -> None:
    early = Fault(kind="status", from_s=1.0, until_s=2.0, status=500)
    odd = Fault(kind="close", containing="odd", first_attempts=1)
    scenario = Scenario(faults=(early, odd))
    rng = random.Random(1)

    def fault(elapsed_s: float, text: str, attempt: int = 1) -> Fault | None:
        return scenario.fault_for(elapsed_s=elapsed_s, text=text, attempt=attempt, rng=rng)

    assert fault(0.5, "even") is None
    assert fault(1.0, "odd") is early
    assert fault(2.0, "odd") is odd
    assert fault(2.0, "odd", attempt=2) is None


def test_a_share_of_faults_is_a_share() -> None:
    scenario, rng = Scenario(faults=(Fault(kind="close", share=0.2),)), random.Random(5)
    struck = sum(scenario.fault_for(elapsed_s=0, text="", attempt=1, rng=rng) is not None for _ in range(5000))
    assert struck / 5000 == pytest.approx(0.2, abs=0.02)


def test_limits_are_multiplied_by_the_last_step_reached() -> None:
    scenario = Scenario(limit_steps=((10.0, 0.2), (20.0, 3.0)))
    assert [scenario.limit_factor(at) for at in (0, 9.9, 10, 19, 20, 99)] == [1.0, 1.0, 0.2, 0.2, 3.0, 3.0]


def test_made_answers_keep_to_their_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"enum": ["x", "y"]},
            "b": {"type": "number", "minimum": 0.2, "maximum": 0.25},
            "c": {"type": "array", "items": {"enum": ["p", "q", "r"]}},
            "d": {"type": "integer", "minimum": 3, "maximum": 4},
            "e": {"anyOf": [{"const": 1}, {"type": "boolean"}]},
            "f": {"enum": ["", "z"]},
        },
        "allOf": [{"if": {"properties": {"a": {"const": "x"}}}, "then": {"properties": {"f": {"const": "z"}}}}],
    }
    for seed in range(200):
        made = made_answer(schema, random.Random(seed))
        assert made["a"] in {"x", "y"}
        assert 0.2 <= made["b"] <= 0.25
        assert set(made["c"]) <= {"p", "q", "r"}
        assert len(made["c"]) == len(set(made["c"]))
        assert made["d"] in {3, 4}
        assert made["e"] in {1, False}
        assert made["a"] != "x" or made["f"] == "z"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"latencies": 1}, "unknown key 'latencies'"),
        ({"latency": 3}, "scenario.latency must be an object"),
        ({"latency": {"median": "fast"}}, "scenario.latency.median must be float"),
        ({"faults": [{"kind": "gremlins"}]}, "'gremlins'"),
        ({"faults": {"kind": "stall"}}, "scenario.faults must be a list"),
        ({"faults": [{"kind": "stall", "shar": 1}]}, "unknown key 'shar'"),
        ({"profile": "acme"}, "'acme'"),
        ({"seed": 1.5}, "scenario.seed must be int"),
        ([], "scenario must be an object"),
    ],
)
def test_a_wrong_scenario_is_refused_by_name(said: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        scenario_from_dict(said)  # type: ignore[arg-type]  # that it may be anything is the point


def test_a_scenario_is_built_from_json() -> None:
    scenario = scenario_from_dict(
        {"latency": {"kind": "lognormal", "median": 2}, "limit_steps": [[5, 0.2]], "faults": [{"kind": "stall"}]}
    )
    assert scenario.latency == Lengths(kind="lognormal", median=2.0)
    assert scenario.limit_steps == ((5.0, 0.2),)
    assert scenario.faults == (Fault(kind="stall"),)
