"""Writes and shows the tables when a soak has measured something."""

from __future__ import annotations

import pytest

from tests.soak.report import KEPT, tables, write_page


def _kept() -> bytes:
    return KEPT.read_bytes() if KEPT.exists() else b""


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = _kept()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(BEFORE, _kept()) != _kept():
        write_page()
        terminalreporter.section("soak")
        terminalreporter.write_line(tables())


BEFORE = pytest.StashKey[bytes]()
