"""The decisions of the simulated provider, without a server."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.buckets import TokenBucket
from bench.faults import Fault
from bench.invented import damaged, made_answer
from bench.limit_headers import NONSENSE, Tally, nonsense
from bench.scenario import PROFILES, Lengths, Scenario, scenario_from_dict
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
        ({"faults": [{}]}, r"scenario.faults\[0\].kind is missing"),
        ({"faults": [{"kind": "status", "headers": {"a b": "c"}}]}, "'a b' is no name of a header"),
        ({"faults": [{"kind": "status", "headers": {"Content-Length": "1"}}]}, "'Content-Length'"),
        ({"faults": [{"kind": "status", "headers": {"x": "a\nb"}}]}, "headers.x must be printable ASCII"),
        ({"faults": [{"kind": "status", "headers": {"x": 1}}]}, r"faults\[0\].headers.x must be str"),
        ({"structured": "maybe"}, "scenario.structured 'maybe' is none of enforced, ignored, refused"),
        ({"malformed_share": 1.5}, "scenario.malformed_share must be between 0 and 1"),
        ({"max_images": -1}, "scenario.max_images must not be negative"),
        ({"max_body_bytes": -1}, "scenario.max_body_bytes must not be negative"),
        ({"context_tokens": -1}, "scenario.context_tokens must not be negative"),
        ({"context_clamps": True}, "scenario.context_clamps needs context_tokens"),
        ({"context_clamps": 1}, "scenario.context_clamps must be bool"),
        ({"known_models": "m"}, "scenario.known_models must be a list"),
        ({"keys_spent": [""]}, "scenario.keys_spent must not hold an empty key"),
        ({"keys_spent": ["ö"]}, "keys_spent must be ASCII"),
        ({"slot_steps": [[0, 2]]}, "scenario.slot_steps needs slots"),
        ({"slots": 1, "slot_steps": [[5, 2], [1, 2]]}, "scenario.slot_steps must be in rising order"),
        ({"latency_steps": [[0, 0]]}, "scenario.latency_steps must be in rising order of seconds from 0 on"),
        ({"outage": [[3, 2]]}, "scenario.outage must be pairs"),
        ({"outage": [3, 2]}, r"scenario.outage\[0\] must be a list"),
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


def test_steps_of_slots_and_latency_count_like_those_of_limits_and_leave_one_slot() -> None:
    scenario = Scenario(slots=4, slot_steps=((5.0, 0.5), (9.0, 0.01)), latency_steps=((3.0, 10.0),))
    assert [scenario.slots_at(at) for at in (0, 5, 9)] == [4, 2, 1]
    assert [scenario.latency_factor(at) for at in (0, 3)] == [1.0, 10.0]
    assert Scenario().slots_at(7.0) == 0


def test_an_outage_has_a_beginning_and_an_end() -> None:
    scenario = Scenario(outage=((1.0, 2.0), (5.0, 6.0)))
    assert [scenario.is_out(at) for at in (0.9, 1.0, 1.9, 2.0, 5.5, 6.0)] == [False, True, True, False, True, False]


def test_looking_at_a_bucket_takes_nothing_from_it() -> None:
    bucket = TokenBucket()
    assert bucket.standing(per_min=0.0, now_s=1.0) is None
    assert bucket.take(3.0, per_min=600.0, now_s=1.0) == 0
    for _ in range(3):
        standing = bucket.standing(per_min=600.0, now_s=1.1)
        assert standing is not None
        assert (standing.here, standing.missing) == pytest.approx((8.0, 2.0))
        assert standing.left_of_minute == 598
        assert standing.full_in_s == pytest.approx(0.2)
    assert bucket.take(8.0, per_min=600.0, now_s=1.1) == 0


def test_a_damaged_answer_differs_from_the_valid_one_in_one_key() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x"]}, "b": {"items": {"enum": ["p"]}}, "c": {"type": "null"}},
    }
    whole = {"a": "x", "b": ["p"], "c": None}
    kinds = set()
    for seed in range(100):
        spoiled = damaged(whole, schema, random.Random(seed))
        wrong = [key for key in whole if spoiled.get(key, "missing") != whole[key]]
        assert len(wrong) == 1
        kinds.add((wrong[0], wrong[0] in spoiled))
    assert kinds == {("a", True), ("b", True), ("a", False), ("b", False), ("c", False)}
    assert damaged(3, {"type": "integer"}, random.Random(1)) != 3


@pytest.mark.parametrize("seed", range(len(NONSENSE)))
def test_nonsense_can_be_sent_over_http(seed: int) -> None:
    for profile in PROFILES:
        for _, value in nonsense(profile, Tally(requests=None, tokens=None, waits="token"), seed):
            assert value in NONSENSE
            assert value.isascii()
            assert not value or value.isprintable()
