"""The controller against simulated providers, five minutes of virtual time each: goodput, refusals, no hot loop."""

from __future__ import annotations

import dataclasses

import pytest

from bench.limit_traces import TRACES, Trace, ideal, ideal_per_s, mean_service_s, steps
from bench.limits import CONTROLLERS, tried

SHORT_S = 300
BY_NAME = {trace.name: trace for trace in TRACES}


def short(name: str, **changes: object) -> Trace:
    """The first five minutes; with them the start weighs three times as much as in the full table."""
    return dataclasses.replace(BY_NAME[name], duration_s=SHORT_S, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trace", "goodput"),
    [
        (short("steady"), 0.90),
        (short("step down x0.2", limit_per_s=steps((0, 40), (100, 8))), 0.78),
        (short("step up x2", limit_per_s=steps((0, 40), (100, 80))), 0.80),
        (short("step up x5", limit_per_s=steps((0, 20), (100, 100))), 0.80),
        (short("sawtooth"), 0.90),
        (short("capacity waves"), 0.80),
        (short("longer outputs", output_tokens=steps((0, 100), (100, 400))), 0.90),
        (short("outage 2 min", down=((100, 160),)), 0.75),
        (short("self-hosted queue"), 0.90),
        (short("strict 100 ms"), 0.80),
        (short("stragglers"), 0.90),
        (short("8 slots"), 0.90),
        (short("wild high hints"), 0.90),
        (short("wild low hints"), 0.90),
    ],
    ids=lambda value: value.name if isinstance(value, Trace) else "",
)
def test_goodput_is_near_the_ideal_and_few_requests_are_refused(trace: Trace, goodput: float) -> None:
    outcome = tried(trace)
    assert outcome.share_of_ideal >= goodput
    assert outcome.rejected_share <= 0.03
    assert outcome.asked <= 5 * outcome.sent


@pytest.mark.parametrize("name", ["429 for 40 s", "503 for 60 s"])
def test_a_storm_of_refusals_is_left_behind_soon(name: str) -> None:
    changes = {"limit_per_s": steps((0, 40), (60, 0.01), (100, 40))}
    if name.startswith("503"):
        changes = {"slots": steps((0, 400), (60, 0), (120, 400))}
    outcome = tried(short(name, **changes))
    assert outcome.share_of_ideal >= 0.65
    assert outcome.rejected_share <= 0.05


def test_a_trace_gives_the_same_figures_again() -> None:
    assert tried(short("steady"), seed=3) == tried(short("steady"), seed=3)


def test_the_right_fixed_rate_reaches_the_ideal() -> None:
    """The yardstick itself: who knows the limit gets all of it."""
    outcome = tried(short("steady"), controller="fixed rate")
    assert outcome.share_of_ideal == pytest.approx(1.0, abs=0.02)
    assert outcome.rejected_share == 0


def test_the_ideal_is_the_lower_of_limit_and_slots() -> None:
    assert ideal_per_s(short("steady"), 0.0) == 40
    waves = short("capacity waves")
    assert ideal_per_s(waves, 0.0) == pytest.approx(800 / mean_service_s(waves, 0.0))
    assert ideal(short("outage 2 min", down=((0, SHORT_S),))) == 0


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_contender_runs(controller: str) -> None:
    trace = dataclasses.replace(BY_NAME["sawtooth"], duration_s=30)
    assert tried(trace, controller=controller).answered > 0


@pytest.mark.parametrize("name", ["3 % random 503, wait 1 s", "10 % random 503", "2 % random 500", "1 % random 429"])
def test_errors_that_come_whatever_the_load_do_not_close_the_window(name: str) -> None:
    assert tried(dataclasses.replace(BY_NAME[name], duration_s=600)).share_of_ideal >= 0.6
