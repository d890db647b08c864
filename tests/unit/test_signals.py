"""Signals, from the first step of a command to its last."""

from __future__ import annotations

import os
import signal
import threading

import anyio
import pytest

from engine.signals import Interrupted, Signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_before_the_run_breaks_off_the_opening_and_names_itself() -> None:
    with Signals(), pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)


def test_signals_of_a_run_wait_in_line() -> None:
    came = []

    async def hear() -> None:
        with Signals() as signals:
            signals.hand_over(drain_s=1.0)
            send(signal.SIGTERM)
            send(signal.SIGINT)
            with anyio.fail_after(5):
                async for number in signals:
                    came.append(number)
                    if len(came) == 2:
                        return

    anyio.run(hear)
    assert sorted(came) == [signal.SIGINT, signal.SIGTERM]


def test_what_is_ignored_already_stays_so_and_handlers_are_given_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_third_signal_ends_the_process_whatever_the_others_wait_for() -> None:
    ended = threading.Event()
    with Signals(overdue=ended.set) as signals:
        signals.hand_over(drain_s=60.0)
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert not ended.wait(0.1)
        send(signal.SIGTERM)
        assert ended.wait(5)


def test_an_end_in_time_calls_nobody() -> None:
    ended = threading.Event()
    with Signals(overdue=ended.set) as signals:
        signals.hand_over(drain_s=60.0)
        send(signal.SIGTERM)
    assert not ended.is_set()


def test_an_orderly_end_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.signals.GRACE_S", 0.0)
    ended = threading.Event()
    with Signals(overdue=ended.set) as signals:
        signals.hand_over(drain_s=0.05)
        send(signal.SIGTERM)
        assert ended.wait(5)
