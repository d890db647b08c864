"""What each record of a raw file was asked: the whole codebook, or one group of it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from labels.codebook import Codebook
from labels.raw_answers import RawAnswer
from labels.reading import CodebookReader
from labels.which import SINGLE
from sinks.one_file import GROUP_MARK

NO_GROUP, UNKNOWN_GROUP = "no_group", "unknown_group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a record was asked."""

    reader: CodebookReader | None
    """None if nobody can tell."""
    group: tuple[str, str] | None = None
    """Mode and id."""
    error: str | None = None


class Readers:
    """Finds what each record was asked, by its group.

    Args:
        book: the codebook.
        mode: how it was asked in parts; None finds that out from the group ids, which must fit one mode alone.
    """

    def __init__(self, book: Codebook, mode: str | None) -> None:
        self.book = book
        self.mode = mode
        self._whole = Asked(reader=CodebookReader(codebook=book))
        self._known: dict[str, Asked] = {}

    def of(self, answer: RawAnswer) -> Asked:
        """What this record was asked.

        Raises:
            ConfigError: its group could belong to several modes.
        """
        if self.mode == SINGLE:
            return self._whole
        group = answer.group_id
        if group is None:
            _, mark, group = answer.meta_id.rpartition(GROUP_MARK)
            if not mark or (self.mode is None and not self.book.modes_of(group)):
                return self._whole if self.mode is None else Asked(reader=None, error=NO_GROUP)
        return self._known.get(group) or self._look_up(group)

    def _look_up(self, group: str) -> Asked:
        modes = self.book.modes_of(group) if self.mode is None else [self.mode]
        if len(modes) > 1:
            raise ConfigError(
                f"the group {group} stands in {', '.join(modes)} of {self.book.name}; say which with --group-mode"
            )
        if not modes or group not in self.book.groups[modes[0]]:
            # Not kept: there may be as many of them as records.
            return Asked(reader=None, error=f"{UNKNOWN_GROUP}:{group}")
        part = (modes[0], group)
        found = self._known[group] = Asked(reader=CodebookReader(codebook=self.book, group=part), group=part)
        return found


def original_of(answer: RawAnswer) -> str:
    """The id of the video: without the group, where that is part of the id."""
    if answer.original_meta_id is not None:
        return answer.original_meta_id
    video, mark, _ = answer.meta_id.rpartition(GROUP_MARK)
    return video if mark else answer.meta_id
