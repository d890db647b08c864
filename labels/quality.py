"""What a run shows of the quality of its answers: agreement with gold labels where there are any, and drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ConfigError
from engine.ports import Findings
from engine.source import header_of
from engine.types import Failure, FailureKind, Record, Row
from labels.agreement import Agreement
from labels.codebook import Codebook
from labels.drift import Drift
from labels.flags import RunFlags
from labels.gold import GoldColumns

NONE = "none"
ANSWERED_KINDS = frozenset({FailureKind.BLOCKED, FailureKind.REFUSED})
"""Failures in which the model or its provider would not answer."""


def gold_of(flags: RunFlags, codebook: Codebook | None) -> GoldColumns | None:
    """Where the gold is, as told or as the codebook names it; None where there is none, or none is wanted.

    Raises:
        ConfigError: a flag is wrong, or the input cannot be read.
    """
    told = dict(_named(text) for text in flags.gold if text != NONE)
    if told and (NONE in flags.gold or codebook is None):
        raise ConfigError(f"--gold {flags.gold[0]} needs a codebook, and no --gold {NONE}")
    if NONE in flags.gold or codebook is None or flags.dry_run:
        return None
    found = GoldColumns.find(codebook, header_of(flags.input), told)
    return found if found.columns else None


def _named(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not equals or not column:
        raise ConfigError(f'--gold {text}: write it as KEY=COLUMN, such as hate_speech=coder_1, or "{NONE}"')
    return key.strip(), column


class Quality:
    """An observer: gold as rows are read, labels as they end.

    Args:
        codebook: what was asked.
        gold: where the gold is; None if there is none.
    """

    def __init__(self, codebook: Codebook, *, gold: GoldColumns | None) -> None:
        self._columns = gold
        self._agreement = Agreement(codebook)
        self._drift = Drift(codebook)
        self._gold: dict[int, Mapping[str, Any]] = {}
        """Of the rows that have not ended: as many as the run has open."""
        self._problems: Counter[str] = Counter()

    def read(self, batch: Sequence[Row | Record]) -> None:
        """Keep the gold of these rows until they end."""
        if self._columns is None:
            return
        for row in batch:
            if isinstance(row, Row):
                found = self._columns.read(self._columns.cells(row.fields))
                self._problems.update(found.problems)
                if found.labels:
                    self._gold[row.row] = found.labels

    def ended(self, record: Record) -> None:
        """Hold the labels of a row against its gold and against those before."""
        gold = self._gold.pop(record.row, {})
        failure = record.outcome if isinstance(record.outcome, Failure) else None
        labels = record.answer.labels if record.answer is not None and failure is None else None
        # Of a row that no model was asked about nothing can be said.
        if failure is None or failure.kind in ANSWERED_KINDS:
            self._drift.add(labels)
            self._agreement.add(gold, labels)

    def findings(self) -> Findings:
        line = self._agreement.line()
        refused = self._drift.refused_share
        lines = [("agreement", line)] if line else []
        if refused:
            lines.append(("no labels", f"{refused:.1%} of the answers"))
        values = self._drift.as_json()
        if self._columns is not None:
            agreement = self._agreement.as_json() | {"gold_problems": dict(self._problems)}
            values = {"agreement": agreement} | values
        return Findings(lines=tuple(lines), alarms=tuple(self._drift.alarms), values=values)
