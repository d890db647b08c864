"""A table to a file of chats: what to fine-tune on, or what to ask.

Rows stream through; nothing grows with their number. The file gets its name once it is whole and on the disk. A row
whose gold is wrong or incomplete is left out and counted: a guess, or an answer with a key missing, would be learnt.
"""

from __future__ import annotations

from contextlib import ExitStack

from encoders.media import SKIPPED_FRAMES
from engine.signals import Signals
from engine.types import Failure, Record, Request, Row
from labels.build.lines import Told, answer_of, told_of
from labels.build.plan import Plan
from labels.build.stream import stream
from labels.build.tally import GOLD_INCOMPLETE, LITTLE_TEXT, NO_GOLD_AT_ALL, Tally
from labels.gold import Gold
from labels.new_file import Put, new_file
from sinks.files import OS_FILES, Files


def build(plan: Plan, *, signals: Signals | None = None, files: Files = OS_FILES) -> Tally:
    """Write the file or files of a plan.

    Raises:
        ConfigError, InputError: the table is wrong.
        SinkBroken: a file cannot be written.
        EncoderBroken: no worker can be kept alive.
        Stopped: a signal came. In each case no file was made or changed.
    """
    with ExitStack() as opened:
        # The merged file gets its name first: where the output is, the other is.
        put = opened.enter_context(new_file(plan.output, files=files))
        put_merged = opened.enter_context(new_file(plan.merged, files=files)) if plan.merged else None
        builder = _Builder(plan, put, put_merged)
        stream(plan.source, builder.take, pictures=plan.pictures, workers=plan.workers, signals=signals)
    return builder.tally


class _Builder:
    """Takes rows in their order and writes their lines."""

    def __init__(self, plan: Plan, put: Put, put_merged: Put | None) -> None:
        self._plan = plan
        self._put = put
        self._put_merged = put_merged
        self.tally = Tally()

    def take(self, item: Row | Request | Record) -> None:
        self.tally.rows += 1
        match item:
            case Record(outcome=Failure() as failure):
                who = f"{item.id}: " if item.id else ""
                self.tally.fail(failure.kind, f"{who}{failure.message}")
            case Request(made_of=Row() as row):
                self._tell(row, item)
            case Row():
                self._tell(item, None)

    def _tell(self, row: Row, shown: Request | None) -> None:
        told, chars = told_of(
            row.id, row.fields, pictures=shown.head if shown else b"", n_pictures=shown.n_frames if shown else 0
        )
        if shown is not None:
            self._look(row, shown)
        if not told.n_pictures and chars < self._plan.min_text_len:
            self.tally.drop(LITTLE_TEXT, row.id)
            return
        if self._plan.gold is None:
            self._write(told, None)
            return
        cells = self._plan.gold.cells(row.fields)
        gold = self._plan.gold.read(cells)
        self.tally.judge(gold.problems, [key for key in self._plan.whole.keys if key not in gold.labels], cells)
        if not self._write(told, gold):
            nothing = not gold.labels and not gold.problems
            self.tally.drop(NO_GOLD_AT_ALL if nothing else GOLD_INCOMPLETE, row.id)

    def _look(self, row: Row, shown: Request) -> None:
        """Count what there is to see of a row."""
        self.tally.framed += shown.n_frames > 0
        self.tally.frames += shown.n_frames
        if not shown.n_frames:
            self.tally.frameless += 1
            self.tally.name("frameless", row.id)
        for code in shown.degraded:
            kind, _, count = code.partition(":")
            self.tally.skipped_frames += int(count) if kind == SKIPPED_FRAMES else 0

    def _write(self, told: Told, gold: Gold | None) -> bool:
        """Write the lines that have an answer, or all if none is wanted; whether there were any."""
        plan, written = self._plan, 0
        for asked in plan.asked:
            if gold is not None and not gold.labels.keys() >= set(asked.keys):
                if asked.group is not None:
                    self.tally.groups_left_out[asked.group] += 1
                continue
            answer = None if gold is None else answer_of(gold.labels, asked.keys)
            line = plan.form.line(told, asked, answer)
            self._put(line)
            written += 1
            self.tally.line_bytes += len(line)
        self.tally.lines += written
        if self._put_merged and (gold is None or gold.labels.keys() >= set(plan.whole.keys)):
            answer = None if gold is None else answer_of(gold.labels, plan.whole.keys)
            self._put_merged(plan.form.line(told, plan.whole, answer))
            self.tally.merged_lines += 1
        return written > 0
