"""What became of the rows of a build, counted; and said at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.types import FailureKind

SHOWN = 5
"""So many of each kind are named; the others are counted."""
DISTINCT = 200
"""Different wrong values that are kept for each dimension: a wrong column may hold as many as there are rows."""
VALUE_CHARS = 40
OTHERS = "(others)"
LITTLE_TEXT = "too little text, and no frames"
NO_GOLD_AT_ALL = "no gold at all"
GOLD_INCOMPLETE = "gold that is incomplete or wrong"
UNREADABLE = {
    FailureKind.BAD_ROW: "a line that cannot be read",
    FailureKind.INVALID_ID: "an id that cannot name a frame folder",
    FailureKind.MEDIA_LIMIT: "frames larger than a decoder may open",
    FailureKind.MEDIA_UNREADABLE: "frames that could not be reached",
    FailureKind.POISON_MEDIA: "frames that killed their decoder twice",
}
"""In the words of the summary; these rows count as failed."""


@dataclass(slots=True)
class Tally:
    """Counts; it only ever grows, and no faster than the kinds of things there are to count."""

    rows: int = 0
    lines: int = 0
    line_bytes: int = 0
    merged_lines: int = 0
    framed: int = 0
    """Rows with pictures."""
    frames: int = 0
    frameless: int = 0
    """Rows for which pictures were wanted and none were found."""
    skipped_frames: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[FailureKind] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    """The first few rows of each kind of trouble."""
    groups_left_out: Counter[str] = field(default_factory=Counter)
    """Lines that a row with incomplete gold has no answer for, by group."""
    without_gold: Counter[str] = field(default_factory=Counter)
    """Rows whose cell for a dimension says nothing, by key."""
    problems: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """Wrong cells by code and key, and what they said."""

    def name(self, trouble: str, who: str) -> None:
        names = self.named.setdefault(trouble, [])
        if len(names) < SHOWN:
            names.append(who)

    def drop(self, why: str, who: str) -> None:
        self.dropped[why] += 1
        self.name(why, who)

    def fail(self, kind: FailureKind, message: str) -> None:
        self.failed[kind] += 1
        self.name(kind, message)

    def judge(self, problems: Iterable[str], missing: Iterable[str], cells: Mapping[str, str]) -> None:
        """Count what is wrong with the gold of one row, and what it lacks."""
        wrong = set()
        for problem in problems:
            code, _, key = problem.partition(":")
            wrong.add(key)
            values = self.problems.setdefault((code, key), Counter())
            value = " ".join(cells.get(key, "").split())[:VALUE_CHARS]
            values[value if value in values or len(values) < DISTINCT else OTHERS] += 1
        self.without_gold.update(key for key in missing if key not in wrong)

    @property
    def has_failed(self) -> bool:
        """Whether rows are missing for another reason than what they say."""
        return bool(self.failed)

    def text(self, *, wanted_frames: bool, output: str, merged: str | None) -> str:
        """For a person, in a few lines."""
        lines = [f"{output}: {self.rows:,} rows read, {self.lines:,} lines written, {self.line_bytes:,} bytes"]
        if merged is not None:
            lines.append(f"{merged}: {self.merged_lines:,} lines, one a row")
        if wanted_frames:
            skipped = f", {self.skipped_frames:,} unusable ones left out" if self.skipped_frames else ""
            lines.append(f"{self.framed:,} rows with {self.frames:,} frames{skipped}")
        if self.frameless:
            lines.append(f"No frames found for {self.frameless:,} rows, for videos {_first(self.named, 'frameless')}")
        lines += [
            f"Left out: {count:,} rows with {why}: {_first(self.named, why)}"
            for why, count in self.dropped.most_common()
        ]
        lines += [
            f"Failed: {count:,} rows with {UNREADABLE.get(kind, kind)}: {_first(self.named, kind, '; ')}"
            for kind, count in self.failed.most_common()
        ]
        lines += [
            f"Left out: {count:,} lines of group {group}, whose gold is incomplete or wrong"
            for group, count in self.groups_left_out.most_common()
        ]
        lines += [f"No gold for {key}: {count:,} rows" for key, count in self.without_gold.most_common()]
        for (code, key), values in self.problems.items():
            shown = ", ".join(f"{value!r} {count:,}" for value, count in values.most_common(SHOWN))
            more = ", ..." if len(values) > SHOWN else ""
            lines.append(f"Wrong gold, {code} for {key}: {values.total():,} rows: {shown}{more}")
        return "\n".join(lines)


def _first(named: Mapping[str, Sequence[str]], trouble: str, between: str = ", ") -> str:
    names = named.get(trouble, ())
    return between.join(names) + (" ..." if len(names) == SHOWN else "")
