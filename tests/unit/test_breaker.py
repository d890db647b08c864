"""When a lane is left alone, and when it is taken back."""

from __future__ import annotations

from engine.breaker import FIRST_REST_S, IN_A_ROW, LONGEST_REST_S, Breaker


def fail(breaker: Breaker, now: float, *, row: int = 1, unreached: bool = False) -> bool:
    return breaker.failed(now, row=row, unreached=unreached, words="HTTP 503: busy")


def opened(at_s: float = 10.0) -> Breaker:
    breaker = Breaker()
    for at in range(IN_A_ROW):
        fail(breaker, at_s - 3 + 3 * at / (IN_A_ROW - 1), row=at)
    assert breaker.is_open
    return breaker


def test_a_wave_that_a_full_server_turns_away_at_once_is_no_outage() -> None:
    breaker = Breaker()
    for row in range(500):
        fail(breaker, 1.0 + row / 1000, row=row)
    assert not breaker.is_open


def test_one_row_that_always_fails_is_no_outage() -> None:
    breaker = Breaker()
    for at in range(50):
        fail(breaker, float(at), row=7)
    assert not breaker.is_open


def test_failures_of_several_rows_in_a_row_over_a_while_open_it_once() -> None:
    breaker = Breaker()
    opened_at = [at for at in range(30) if fail(breaker, at / 3, row=at)]
    assert opened_at == [IN_A_ROW - 1]
    assert breaker.probe_s(3.0) == FIRST_REST_S


def test_an_answer_between_failures_keeps_it_closed() -> None:
    breaker = Breaker()
    for at in range(100):
        fail(breaker, float(at), row=at)
        if at % 5 == 0:
            breaker.answered()
    assert not breaker.is_open


def test_without_any_connection_a_few_failures_of_one_row_are_enough() -> None:
    breaker = Breaker()
    for at in (0.0, 1.0, 2.5):
        fail(breaker, at, unreached=True)
    assert breaker.is_open


def test_a_failed_probe_doubles_the_rest_up_to_a_minute() -> None:
    breaker, now, rests = opened(0.0), 0.0, []
    for _ in range(6):
        now += breaker.rest_s
        breaker.probe_failed(now, words="still down")
        rests.append(breaker.probe_s(now))
    assert rests == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert max(rests) == LONGEST_REST_S
    assert breaker.words == "still down"


def test_late_failures_from_before_change_nothing() -> None:
    breaker = opened(0.0)
    assert not fail(breaker, 4.0)
    assert breaker.probe_s(4.0) == FIRST_REST_S - 4.0


def test_an_answer_closes_it_whoever_brings_it_and_the_next_rest_is_short_again() -> None:
    breaker = opened(0.0)
    breaker.probe_failed(5.0, words="")
    breaker.answered()
    assert not breaker.is_open
    assert breaker.probe_s(5.0) == 0.0
    assert breaker.rest_s == FIRST_REST_S
    breaker.probe_failed(6.0, words="too late")
    assert not breaker.is_open


def test_a_row_is_blamed_after_three_failures_on_a_healthy_lane_and_later_on_a_shaky_one() -> None:
    healthy, shaky = Breaker(), Breaker()
    for at in range(1000):
        healthy.answered()
        fail(shaky, float(at), row=at)
        for _ in range(4):
            shaky.answered()
    assert not healthy.blames_row(2)
    assert healthy.blames_row(3)
    assert not shaky.blames_row(6)
