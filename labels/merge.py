"""The answers about one video's groups as one record, with the rules between labels applied across groups.

A video is held until each of its groups has an answer, and written then; those that stay incomplete are written at the
end, in the order in which they came. Where the groups of a video stand together memory stays flat; where the file has
one group after the other, all videos are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engine.errors import InputError
from labels.codebook import Codebook
from labels.consistency import rules_of
from labels.reading import Reading
from labels.repairs import BAD_VALUE, RefusedError

NO_GROUP_PARSED, CONFLICT = "no_group_parsed", "conflict"


@dataclass(slots=True, kw_only=True)
class Merged:
    """How many records came of it."""

    videos: int = 0
    complete: int = 0
    """Of those, the ones of which every group has labels."""
    refused: int = 0
    """Of those, the ones whose groups contradict each other."""
    empty: int = 0
    """Of those, the ones of which no group has labels."""
    left_out: int = 0
    """Not written, as they were incomplete."""
    repeated: int = 0
    """Answers to a group that had labels already."""
    first_repeated: str = ""

    def text(self) -> str:
        """For a person."""
        notes = [f"merged {self.videos:,} videos: {self.complete:,} complete"]
        if partly := self.videos - self.complete - self.empty:
            notes.append(f"{partly:,} with groups missing")
        notes += [f"{self.empty:,} without any labels"] if self.empty else []
        notes += [f"{self.refused:,} refused, as their groups contradict each other"] if self.refused else []
        notes += [f"{self.left_out:,} left out as incomplete"] if self.left_out else []
        again = ""
        if self.repeated:
            again = (
                f"\n{self.repeated:,} answers came to a group that had labels already, first for "
                f"{self.first_repeated}; the earlier ones count"
            )
        return ", ".join(notes) + again


class Merger:
    """Joins answers by video.

    Args:
        codebook: whose groups they are about.
        mode: of the groups; None is that of the first answer.
        require_complete: give no record of a video of which a group has no labels.
    """

    def __init__(self, codebook: Codebook, mode: str | None, *, require_complete: bool = False) -> None:
        self._book = codebook
        self._mode = mode
        self._keys = [dimension.key for dimension in codebook.dimensions]
        self._rules = rules_of(codebook, codebook.dimensions)
        self._require_complete = require_complete
        self._open: dict[str, dict[str, str]] = {}
        """Video to group to what was read, as JSON, which takes less than the objects would."""
        self._closed: set[str] = set()
        self.merged = Merged()

    def add(self, video: str, group: tuple[str, str] | None, reading: Reading) -> Iterator[dict[str, Any]]:
        """Take one answer; gives the record of the video if it was the last one.

        Args:
            video: the id.
            group: mode and id; None where the answer's group is none of the codebook's.
            reading: the answer.

        Raises:
            InputError: it is about another kind of group than the ones before.
        """
        mode, name = group or (self._mode, "")
        self._mode = self._mode or mode
        if mode != self._mode:
            raise InputError(f"{video}: the group {name} is one of {mode}, and those before are of {self._mode}")
        if video in self._closed:
            self._repeat(video)
            return
        known = self._open.setdefault(video, {})
        if known.get(name, "").startswith(_WITH_LABELS):
            self._repeat(video)
            return
        known[name] = _kept(reading)
        if reading.labels is not None and self._is_complete(known):
            del self._open[video]
            self._closed.add(video)
            yield from self._record(video, known)

    def rest(self) -> Iterator[dict[str, Any]]:
        """The records of the videos that stayed incomplete."""
        for video, known in self._open.items():
            yield from self._record(video, known)
        self._open.clear()

    def _is_complete(self, known: Mapping[str, str]) -> bool:
        """Whether every group of the mode has labels."""
        assert self._mode is not None
        groups = self._book.groups[self._mode]
        return len(known) >= len(groups) and all(known.get(name, "").startswith(_WITH_LABELS) for name in groups)

    def _repeat(self, video: str) -> None:
        self.merged.repeated += 1
        self.merged.first_repeated = self.merged.first_repeated or video

    def _record(self, video: str, known: dict[str, str]) -> Iterator[dict[str, Any]]:
        parts, reasons, notes = _taken_apart(known)
        labels, reason, followed = self._joined(parts, reasons)
        complete = self._mode is not None and set(parts) >= set(self._book.groups[self._mode])
        if self._require_complete and not complete:
            self.merged.left_out += 1
            return
        self.merged.videos += 1
        self.merged.complete += complete
        self.merged.empty += not parts
        self.merged.refused += bool(parts) and labels is None
        yield {
            "meta_id": video,
            "parsed": labels is not None,
            "complete": complete,
            "groups_present": sorted(parts),
            "json": labels,
            "reason": reason,
            "reasons": dict(sorted(reasons.items())),
            "repairs": [*(f"{name}:{note}" for name in parts for note in notes[name]), *followed],
        }

    def _joined(
        self, parts: dict[str, dict[str, Any]], reasons: dict[str, str]
    ) -> tuple[dict[str, Any] | None, str | None, list[str]]:
        """All labels in the order of the codebook, or why there are none, and what followed from the rules.

        A group that is wrong in the light of another has no labels after all: it goes from `parts` to `reasons`.
        """
        while parts:
            found: dict[str, Any] = {}
            for part in parts.values():
                for key, value in part.items():
                    if found.setdefault(key, value) != value:
                        return None, f"{CONFLICT}:{key}", []
            labels, notes = {key: found[key] for key in self._keys if key in found}, list[str]()
            try:
                self._rules.apply(labels, notes)
            except RefusedError as refusal:
                code, _, key = str(refusal).partition(":")
                if code != BAD_VALUE:
                    return None, str(refusal), []
                for name in [name for name, part in parts.items() if key in part]:
                    del parts[name]
                    reasons[name] = str(refusal)
            else:
                return labels, None, notes
        return None, NO_GROUP_PARSED, []


_WITH_LABELS = "[{"
"""How the JSON of a reading begins that has labels."""


def _kept(reading: Reading) -> str:
    # As text, because the bytes that orjson gives hold on to the 4 KB they were made in.
    return orjson.dumps([reading.labels, reading.error, reading.repairs]).decode()


def _taken_apart(
    known: Mapping[str, str],
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, list[str]]]:
    """Labels, reasons and repairs, by group."""
    parts: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    repairs: dict[str, list[str]] = {}
    for name, said in sorted(known.items()):
        labels, error, repairs[name] = orjson.loads(said)
        if labels is None:
            reasons[name or "?"] = error
        else:
            parts[name] = labels
    return parts, reasons, repairs
