"""What a person sees."""

from __future__ import annotations

import dataclasses
import io

import pytest

from engine.console import Panel, PlainLines, closing_summary, money, panel_rows, status_line
from engine.lanes import LaneStatistics
from engine.limits import LimitStatistics
from engine.link import LinkStatistics
from engine.ports import SinkStatistics
from engine.printable import printable, span
from engine.stats import CallSnapshot, EncodeSnapshot, Snapshot
from engine.types import Usage

LANE = LaneStatistics(
    name="m at api.example.com",
    state="open",
    why="",
    probe_s=0.0,
    limits=LimitStatistics(
        in_flight=60,
        window=64,
        rate_per_s=None,
        paused_s=0,
        cuts=0,
        blocked=None,
        admitted=310,
        admitted_tokens=99,
    ),
    calls=310,
    max_tokens=512,
    structured="works",
    most_images=None,
)
QUIET = LinkStatistics(items=0, blocked_put_s=0, blocked_get_s=0, waiting=0)


def make_snapshot(**changes: object) -> Snapshot:
    snapshot = Snapshot(
        elapsed_s=125.0,
        rows_total=1000,
        rows_known=True,
        done_before=100,
        ended=300,
        failed=2,
        truncated=0,
        shared=0,
        spared_usd=0.0,
        unlabelled=0,
        rows_per_s=2.4,
        eta_s=250.0,
        usage=Usage(prompt_tokens=12_345, completion_tokens=678),
        cost_usd=1.5,
        unpriced_calls=0,
        unknown_calls=0,
        unknown_usd=0.0,
        failures={"refused": 2},
        examples={"refused": "HTTP 400: \x1b[2Jno"},
        degraded={},
        in_flight=60,
        window=64,
        open_rows=70,
        open_bytes=3 << 20,
        lanes=(LANE,),
        outage_s=0.0,
        encode=EncodeSnapshot(workers=2, crashes=0, timeouts=0, cpu_s=3.0),
        call=CallSnapshot(
            calls=310,
            retries=7,
            rate_limited=3,
            server_errors=4,
            network_errors=0,
            grown=0,
            reduced=0,
            repairs=0,
            repaired=0,
            unfinished=0,
            mean_latency_s=1.0,
        ),
        sink=SinkStatistics(done=298, failed=2, finished=400, pending=0, pending_bytes=0, duplicates=0, salvaged=0),
        links={"source-encode": QUIET, "encode-call": QUIET, "call-write": QUIET},
        bottleneck="call",
        commit_s=0.1,
        findings=None,
        held=None,
        stopping=None,
    )
    return dataclasses.replace(snapshot, **changes)  # type: ignore[arg-type]  # names are checked by replace


def test_the_status_line_says_how_far_how_fast_how_dear_and_what_it_waits_for() -> None:
    assert status_line(make_snapshot()) == (
        "2 min 05 s  298 done · 2 failed · 600 left  2.4 rows/s  4 min 10 s left  60/64 in flight  $1.50  "
        "waiting for the provider"
    )


def test_rows_are_only_about_until_the_input_is_read_to_its_end() -> None:
    assert "about 600 left" in status_line(make_snapshot(rows_known=False))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "$1.50"),
        ({"cost_usd": 0.0123}, "$0.0123"),
        ({"unpriced_calls": 3}, "$1.50 + 3 calls without a price"),
        ({"unknown_calls": 2, "unknown_usd": 0.25}, "$1.50 + 2 calls of unknown cost, at most $0.2500"),
        ({"unpriced_calls": 300, "cost_usd": 0.0}, "unknown (no price; set --price-in and --price-out)"),
    ],
)
def test_a_cost_that_is_not_known_is_never_shown_as_zero(changes: dict[str, object], said: str) -> None:
    assert money(make_snapshot(**changes)) == said


def lane_with(**limits: object) -> LaneStatistics:
    return dataclasses.replace(LANE, limits=dataclasses.replace(LANE.limits, **limits))  # type: ignore[arg-type]  # as above


def test_what_the_provider_limits_is_named() -> None:
    assert "the limit of requests" in status_line(make_snapshot(lanes=(lane_with(blocked="rate"),)))
    assert "asked for a pause of 12 s" in status_line(make_snapshot(lanes=(lane_with(paused_s=12.2),)))


def test_while_no_lane_answers_it_says_why_and_when_it_tries_again() -> None:
    down = dataclasses.replace(LANE, state="resting", why="no connection within 10 s", probe_s=23.0)
    line = status_line(make_snapshot(lanes=(down,), outage_s=75.0))
    assert "waiting for the provider, down for 1 min 15 s (no connection within 10 s); next try in 23 s" in line
    shut = dataclasses.replace(LANE, state="shut", why="HTTP 401")
    assert "refuses every call" in status_line(make_snapshot(lanes=(shut,)))
    assert "pause" not in status_line(make_snapshot(lanes=(down, LANE)))


def test_the_panel_shows_each_of_several_lanes_and_what_a_server_says_cannot_drive_it() -> None:
    shut = dataclasses.replace(lane_with(rate_per_s=12.5), state="shut", why="HTTP 401: \x1b[2J")
    rows = dict(panel_rows(make_snapshot(lanes=(LANE, shut))))
    assert rows["lane 1"] == "m at api.example.com · 60 of 64"
    assert rows["lane 2"] == "m at api.example.com · 60 of 64 · 12.5/s · shut: HTTP 401: �[2J"
    assert "lane 1" not in dict(panel_rows(make_snapshot()))


def test_the_summary_shows_each_failure_with_an_example_that_cannot_drive_the_terminal() -> None:
    text = closing_summary(make_snapshot(), out="out/run1")
    assert "failed    2 refused, for example: HTTP 400: �[2Jno" in text
    assert "100 were done before" in text
    assert "out/run1/results/" in text


def test_the_summary_says_how_many_rows_shared_an_answer_and_what_that_saved() -> None:
    assert "shared" not in closing_summary(make_snapshot(), out="out")
    text = closing_summary(make_snapshot(shared=1234, spared_usd=1.2), out="out")
    assert "  shared    1,234 rows shared an answer, saving about $1.20\n" in text
    assert "1,234 rows shared an answer\n" in closing_summary(make_snapshot(shared=1234), out="out")


def test_the_panel_names_what_it_waits_for_when_stopping() -> None:
    rows = dict(panel_rows(make_snapshot(stopping="SIGTERM")))
    assert rows["stopping"] == "SIGTERM; waiting for 60 answers"
    assert rows["calls"] == "310 · 7 retried, 3 rate-limited, 4 server errors"


def test_the_panel_draws_and_gives_the_terminal_back() -> None:
    stream = io.StringIO()
    with Panel(stream, title="model → out\x1b[31m") as panel:
        panel.show(make_snapshot(degraded={"text_only": 3}))
        panel.show(make_snapshot(degraded={"text_only": 4}))
    assert stream.getvalue().count("warning: rows without a usable frame are sent as text alone") == 1
    assert "\x1b[31m" not in stream.getvalue()


def test_plain_lines_come_every_ten_seconds() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for second in range(1, 36):
        lines.show(make_snapshot(elapsed_s=float(second)))
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.9, "59 s"), (200, "3 min 20 s"), (18_420, "5 h 07 min"), (187_200, "2 d 04 h")],
)
def test_a_span_of_time_reads_well(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_control_characters_are_made_harmless() -> None:
    assert printable("a\x1b]0;title\x07b\u202ec") == "a�]0;title�b�c"
