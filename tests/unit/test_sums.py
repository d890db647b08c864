"""Several snapshots as one."""

from __future__ import annotations

from dataclasses import replace

from engine.link import LinkStatistics
from engine.stats import EncodeSnapshot
from engine.sums import Said, sum_of
from tests.fakes.snapshots import CALLS, LANE, LIMITS, snapshot


def test_counts_add_up_and_shares_of_time_stay_shares() -> None:
    slower = replace(CALLS, calls=27, mean_latency_s=5.0)
    busy = replace(LANE, limits=replace(LIMITS, rate_per_s=7.0), calls=27, structured="works", most_images=4)
    said = sum_of(
        [
            Said(snapshot=snapshot(), goes_on=True),
            Said(snapshot=snapshot(calls=slower, lane=busy, held="room"), goes_on=True),
        ]
    )
    assert (said.in_flight, said.window, said.open_rows, said.open_bytes, said.held) == (6, 16, 8, 800, "room")
    assert said.call.calls == 36
    assert said.call.mean_latency_s == 4.0
    assert said.encode == EncodeSnapshot(workers=4, crashes=2, timeouts=0, cpu_s=3.0)
    assert said.links["call-write"] == LinkStatistics(items=12, blocked_put_s=2.0, blocked_get_s=4.0, waiting=2)
    (lane,) = said.lanes
    assert (lane.calls, lane.structured, lane.most_images, lane.limits.rate_per_s) == (36, "works", 4, 7.0)
    assert (lane.limits.window, lane.limits.admitted, lane.limits.cuts) == (16, 18, 2)


def test_who_has_ended_counts_with_what_it_did_and_not_with_what_it_held() -> None:
    gone = snapshot(rows_known=True, rows_total=90, outage_s=0.0)
    resting = replace(LANE, state="resting", why="HTTP 503")
    said = sum_of(
        [Said(snapshot=gone, goes_on=False), Said(snapshot=snapshot(lane=resting, outage_s=7.0), goes_on=True)]
    )
    assert (said.in_flight, said.window, said.outage_s) == (3, 8, 7.0)
    assert (said.lanes[0].state, said.lanes[0].why, said.lanes[0].limits.in_flight) == ("resting", "HTTP 503", 3)
    assert said.lanes[0].calls == 18
    assert (said.rows_total, said.rows_known) == (90, True), "it has read the input to its end"


def test_a_lane_is_open_as_long_as_it_is_for_one_of_them() -> None:
    resting = replace(LANE, state="resting", why="HTTP 503", probe_s=4.0)
    said = sum_of(
        [
            Said(snapshot=snapshot(lane=resting, outage_s=7.0), goes_on=True),
            Said(snapshot=snapshot(rows_total=120), goes_on=True),
        ]
    )
    assert (said.lanes[0].state, said.outage_s, said.rows_total) == ("open", 0.0, 120)


def test_when_all_have_ended_the_last_words_stand() -> None:
    said = sum_of([Said(snapshot=snapshot(), goes_on=False)])
    assert (said.window, said.lanes[0].limits.window) == (8, 8)


def test_before_any_has_spoken_there_is_nothing() -> None:
    said = sum_of([])
    assert (said.lanes, said.links, said.rows_total, said.rows_known, said.in_flight) == ((), {}, 0, False, 0)
    assert said.call.mean_latency_s is None
