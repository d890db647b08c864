"""The store ended at every operation, in every way, with every damage: tens of thousands of states."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.fakes.disk import MORE_DAMAGES
from tests.faults.test_sink_mutants import FAILED, MUTANTS
from tests.properties.test_sink_machine import compare
from tests.soak.checks import CHECKS, passed
from tests.soak.explore import Tally, crashed_recoveries, kills, points, power_losses
from tests.soak.failing import ERRORS, KINDS, fail_each
from tests.soak.report import note

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

EXAMPLES, STEPS = 1000, 50
SEEDS = 3
"""Of each damage at each point: which names and which bytes last."""


def test_ten_thousand_power_losses_lose_and_double_nothing() -> None:
    began, tally, found = time.monotonic(), Tally(), points()
    power_losses(found, tally, damages=len(MORE_DAMAGES), seeds=SEEDS)
    assert tally.states >= 10_000
    assert tally.steps == Counter(point.step for point in found), "a point was left out"
    note(
        "power cut at every operation and in the middle of every write",
        time.monotonic() - began,
        tried=tally.states,
        lost=0,
        doubled=0,
        points=len(found),
        kinds_of_step=len(tally.steps),
        of_them_crashed=sum(1 for times in tally.steps.values() if times),
        damages=len(tally.damages),
        seeds=f"0 to {len(found) + len(MORE_DAMAGES) + SEEDS - 3}",
    )


def test_a_killed_run_gone_on_with_survives_a_power_loss_wherever_it_was_killed() -> None:
    began, tally, found = time.monotonic(), Tally(), points()
    kills(found, tally, damages=MORE_DAMAGES)
    assert tally.states >= 4_000
    note(
        "killed at every point, gone on with on the same machine, then power cut",
        time.monotonic() - began,
        tried=tally.states,
        lost=0,
        doubled=0,
    )


def test_a_recovery_may_crash_at_every_operation() -> None:
    began, tally = time.monotonic(), Tally()
    crashed_recoveries(points()[::12], tally, damages=("nothing", "half", "mixed"))
    assert tally.states >= 4_000
    note(
        "power cut, then again at every operation of the recovery",
        time.monotonic() - began,
        tried=tally.states,
        lost=0,
        doubled=0,
    )


def test_every_call_fails_in_turn_with_every_error() -> None:
    began, tally = time.monotonic(), Tally()
    fail_each(tally, thin=False)
    note(
        "one call fails, gone on with, then power cut",
        time.monotonic() - began,
        tried=tally.states,
        lost=0,
        doubled=0,
        calls=len(KINDS),
        errors=len(ERRORS),
    )


def test_every_mutant_is_killed() -> None:
    began, killed = time.monotonic(), {}
    for check in CHECKS:
        passed(check)
    for name, (mutate, check) in MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            with pytest.raises(FAILED):
                CHECKS[check](Tally())
        killed[name] = check
    note("mutants", time.monotonic() - began, tried=len(MUTANTS), killed=killed)


def test_a_sink_holds_what_a_dictionary_would_for_long() -> None:
    began = time.monotonic()
    compare(EXAMPLES, STEPS)
    note(
        "random sequences of puts, commits, crashes and lives against a dictionary",
        time.monotonic() - began,
        tried=EXAMPLES,
        lost=0,
        doubled=0,
        steps_each_at_most=STEPS,
    )
