"""What one label says of another: what was not asked is blank, and implications are followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labels.codebook import NOT_ASKED, Codebook, Dimension
from labels.repairs import BAD_VALUE, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a codebook that are about some of its dimensions."""

    conditions: tuple[tuple[str, str, str], ...]
    """Key; what is asked only if this other key has this value."""
    implications: tuple[tuple[str, str, str, str], ...]
    """Key and value; the key and the value that follow."""

    def apply(self, labels: dict[str, Any], repairs: list[str]) -> None:
        """Blank what was not asked and follow the implications, where the labels they are about are there.

        Args:
            labels: by key; changed in place.
            repairs: takes a note of each change.

        Raises:
            RefusedError: a label is blank though it was asked, or the rules contradict each other.
        """
        for _ in range(len(self.conditions) + len(self.implications) + 1):
            changed = self._applied_once(labels)
            if not changed:
                break
            repairs += (note for note in changed if note not in repairs)
        else:
            raise RefusedError(f"contradiction:{changed[0].partition(':')[2]}")
        for key, other, value in self.conditions:
            if labels.get(key) == NOT_ASKED and labels.get(other) == value:
                raise RefusedError(f"{BAD_VALUE}:{key}")

    def _applied_once(self, labels: dict[str, Any]) -> list[str]:
        notes = []
        for key, other, value in self.conditions:
            if labels.get(key) and labels.get(other, value) != value:
                labels[key] = NOT_ASKED
                notes.append(f"blanked:{key}")
        for key, value, then, implied in self.implications:
            if labels.get(key) == value and labels.get(then, implied) != implied:
                labels[then] = implied
                notes.append(f"implied:{then}")
        return notes


def rules_of(codebook: Codebook, asked: Sequence[Dimension]) -> Rules:
    """The rules between these dimensions of a codebook; those that reach beyond cannot be applied."""
    keys = {dimension.key for dimension in asked}
    conditioned = ((each.key, each.when) for each in asked)
    return Rules(
        conditions=tuple(
            (key, when.key, when.equals) for key, when in conditioned if when is not None and when.key in keys
        ),
        implications=tuple(
            (each.when.key, each.when.equals, each.then.key, each.then.equals)
            for each in codebook.implications
            if {each.when.key, each.then.key} <= keys
        ),
    )
