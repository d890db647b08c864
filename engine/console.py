"""Snapshots for a person: a live panel on a terminal, plain lines elsewhere, a closing summary for both."""

from __future__ import annotations

import math
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine.lanes import LaneStatistics
from engine.printable import printable, span
from engine.stats import Snapshot

LINE_EVERY_S = 10.0
LIMIT_WORDS = {"rate": "the limit of requests", "tokens": "the limit of tokens"}
STAGE_WORDS = {
    "source": "reading the input",
    "encode": "the encoders (more --workers, smaller --fit)",
    "call": "the provider",
    "write": "the disk",
}


REDUCED_WORDS = {
    "fewer_frames": "rows that the provider cannot take whole are sent with fewer frames",
    "smaller_frames": "rows that the provider cannot take whole are sent with smaller frames",
    "shorter_text": "rows that the provider cannot take whole are sent with a shorter text",
    "repaired": "answers in the wrong form are asked for again as text alone",
    "text_only": "rows without a usable frame are sent as text alone",
    "skipped_frames": "frames that cannot be read are left out",
}


class Warned:
    """What has been warned of, so that a million rows of one kind make one warning."""

    def __init__(self) -> None:
        self._codes: set[str] = set()
        self._alarms = 0

    def new(self, snapshot: Snapshot) -> list[str]:
        """Warnings that have not been given yet."""
        alarms = snapshot.findings.alarms if snapshot.findings else ()
        loud, self._alarms = alarms[self._alarms :], len(alarms)
        fresh = [code for code in snapshot.degraded if code not in self._codes]
        self._codes.update(fresh)
        reduced = [f"warning: {REDUCED_WORDS.get(code, code)}; the lines say so in `degraded`" for code in fresh]
        return reduced + [f"warning: {alarm}" for alarm in loud]


class PlainLines:
    """One line every ten seconds, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown_s = 0.0
        self._warned = Warned()

    def show(self, snapshot: Snapshot) -> None:
        for warning in self._warned.new(snapshot):
            self._stream.write(printable(warning) + "\n")
        if snapshot.elapsed_s - self._shown_s < LINE_EVERY_S:
            return
        self._shown_s = snapshot.elapsed_s
        self._stream.write(status_line(snapshot) + "\n")
        self._stream.flush()


class Panel:
    """The live panel. A context manager: leaving it gives the terminal back."""

    def __init__(self, stream: TextIO, *, title: str) -> None:
        self._live = Live(console=Console(file=stream), auto_refresh=False, transient=True)
        self._title = printable(title)
        self._warned = Warned()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal has gone
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        for warning in self._warned.new(snapshot):
            self._live.console.print(printable(warning), markup=False)
        table = Table(title=self._title, title_justify="left", show_header=False, min_width=64)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, text in panel_rows(snapshot):
            table.add_row(name, text)
        self._live.update(table, refresh=True)


def panel_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What the panel says, line by line."""
    calls = snapshot.call
    rows = [
        ("rows", _rows(snapshot)),
        ("pace", f"{snapshot.rows_per_s:,.1f} rows/s · {_eta(snapshot)} · {span(snapshot.elapsed_s)} so far"),
        ("in flight", f"{snapshot.in_flight:,} of {snapshot.window:,} · {snapshot.open_bytes / 2**20:,.0f} MB held"),
        ("calls", f"{calls.calls:,} · {_trouble(snapshot)}"),
        ("tokens", _tokens(snapshot)),
        ("cost", money(snapshot)),
        ("waiting for", waiting_for(snapshot)),
    ]
    rows += [(f"lane {at}", _lane(lane)) for at, lane in enumerate(snapshot.lanes, 1) if len(snapshot.lanes) > 1]
    if snapshot.failures:
        rows.append(("failures", ", ".join(f"{count:,} {kind}" for kind, count in snapshot.failures.items())))
    if snapshot.degraded:
        rows.append(("reduced", ", ".join(f"{count:,} {code}" for code, count in snapshot.degraded.items())))
    if snapshot.findings is not None:
        rows += [(name, printable(text)) for name, text in snapshot.findings.lines]
    if snapshot.stopping is not None:
        rows.append(("stopping", printable(f"{snapshot.stopping}; waiting for {snapshot.in_flight:,} answers")))
    return rows


def status_line(snapshot: Snapshot) -> str:
    """The same on one line."""
    return (
        f"{span(snapshot.elapsed_s)}  {_rows(snapshot)}  {snapshot.rows_per_s:,.1f} rows/s  {_eta(snapshot)}  "
        f"{snapshot.in_flight}/{snapshot.window} in flight  {money(snapshot)}  "
        f"waiting for {waiting_for(snapshot)}"
    )


def closing_summary(snapshot: Snapshot, *, out: str) -> str:
    """What a person wants to know when the run is over."""
    lines = [
        f"{_rows(snapshot)} in {span(snapshot.elapsed_s)}"
        + (f" ({snapshot.done_before:,} were done before)" if snapshot.done_before else ""),
        f"  calls     {snapshot.call.calls:,} · {_trouble(snapshot)}",
        f"  tokens    {_tokens(snapshot)}",
        f"  cost      {money(snapshot)}",
    ]
    if snapshot.shared:
        saving = f", saving about {_dollars(snapshot.spared_usd)}" if snapshot.spared_usd else ""
        lines.append(f"  shared    {snapshot.shared:,} rows shared an answer{saving}")
    if snapshot.unlabelled:
        lines.append(f"  labels    {snapshot.unlabelled:,} answers could not be read as labels (label_error says why)")
    if snapshot.truncated:
        lines.append(f"  truncated {snapshot.truncated:,} answers are cut off at the token cap")
    if snapshot.findings is not None:
        lines += [f"  {name:9} {printable(text)}" for name, text in snapshot.findings.lines]
        lines += [f"  warning   {printable(alarm)}" for alarm in snapshot.findings.alarms]
    for code, count in snapshot.degraded.items():
        lines.append(f"  reduced   {count:,} rows: {printable(code)}")
    for kind, count in snapshot.failures.items():
        lines.append(f"  failed    {count:,} {kind}, for example: {printable(snapshot.examples[kind])[:200]}")
    lines.append(f"  results   {printable(out)}/results/")
    return "\n".join(lines)


def waiting_for(snapshot: Snapshot) -> str:
    """The bottleneck in words; for the provider, which of its limits."""
    if snapshot.held is not None:
        return snapshot.held
    open_lanes = [lane for lane in snapshot.lanes if lane.state == "open"]
    if not open_lanes:
        return printable(_outage(snapshot))
    paused_s = min(lane.limits.paused_s for lane in open_lanes)
    if paused_s > 0:
        return f"the provider, which asked for a pause of {paused_s:.0f} s"
    blocked = open_lanes[0].limits.blocked
    if snapshot.bottleneck == "call" and blocked in LIMIT_WORDS:
        return LIMIT_WORDS[blocked]
    return STAGE_WORDS[snapshot.bottleneck]


def _outage(snapshot: Snapshot) -> str:
    """Why nothing goes on, and when it is tried again."""
    resting = [lane for lane in snapshot.lanes if lane.state == "resting"]
    if not resting:
        return "the provider, which refuses every call"
    lane = min(resting, key=lambda lane: lane.probe_s)
    when = f"next try in {lane.probe_s:.0f} s" if math.isfinite(lane.probe_s) else "being tried"
    return f"the provider, down for {span(snapshot.outage_s)} ({lane.why[:120]}); {when}"


def _lane(lane: LaneStatistics) -> str:
    """One lane of several, in a line."""
    rate = "" if lane.limits.rate_per_s is None else f" · {lane.limits.rate_per_s:,.1f}/s"
    state = "" if lane.state == "open" else f" · {lane.state}: {lane.why[:60]}"
    return printable(f"{lane.name} · {lane.limits.in_flight:,} of {lane.limits.window:,}{rate}{state}")


def money(snapshot: Snapshot) -> str:
    """Dollars so far, and what is not in them."""
    if snapshot.unpriced_calls and snapshot.cost_usd == 0:
        return "unknown (no price; set --price-in and --price-out)"
    text = _dollars(snapshot.cost_usd)
    if snapshot.unpriced_calls:
        text += f" + {snapshot.unpriced_calls:,} calls without a price"
    if snapshot.unknown_calls:
        most = f", at most ${snapshot.unknown_usd:,.4f}" if snapshot.unknown_usd else ""
        text += f" + {snapshot.unknown_calls:,} calls of unknown cost{most}"
    return text


def _dollars(amount: float) -> str:
    return f"${amount:,.4f}" if amount < 1 else f"${amount:,.2f}"


def _rows(snapshot: Snapshot) -> str:
    about = "" if snapshot.rows_known else "about "
    return f"{snapshot.done:,} done · {snapshot.failed:,} failed · {about}{snapshot.left:,} left"


def _eta(snapshot: Snapshot) -> str:
    return "time left unknown" if snapshot.eta_s is None else f"{span(snapshot.eta_s)} left"


def _trouble(snapshot: Snapshot) -> str:
    calls = snapshot.call
    counted = {
        "retried": calls.retries,
        "rate-limited": calls.rate_limited,
        "server errors": calls.server_errors,
        "network errors": calls.network_errors,
        "cut and repeated": calls.grown,
        "made smaller": calls.reduced,
        "answers repaired": calls.repaired,
        "left without an answer": calls.unfinished,
        "worker crashes": snapshot.encode.crashes,
        "worker hangs": snapshot.encode.timeouts,
    }
    return ", ".join(f"{count:,} {word}" for word, count in counted.items() if count) or "no trouble"


def _tokens(snapshot: Snapshot) -> str:
    usage = snapshot.usage
    return f"{usage.prompt_tokens:,} in ({usage.cached_tokens:,} cached) · {usage.completion_tokens:,} out"
