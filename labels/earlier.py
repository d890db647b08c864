"""Answers that a run need not ask for again: those of its own folder and, if it has one, of a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import orjson

from engine.config import RunConfig
from engine.ports import Answers
from sinks.answers import Cache, RunAnswers
from sinks.batch import Answered
from sinks.shards import ShardSink


@contextmanager
def earlier_answers(
    sink: ShardSink, settings: RunConfig, *, out: Path, cache: Path | None, say: Callable[[str], None]
) -> Iterator[Sequence[Answers]]:
    """Where answers are looked for, in order; while the context lasts, what the sink commits goes there as well.

    Args:
        sink: open, in `out`.
        settings: of the run; none are shared if they say so.
        out: the run folder.
        cache: the folder of the cache, or None.
        say: told once of each place that cannot be used.
    """
    with ExitStack() as opened:
        places: list[RunAnswers | Cache] = []
        if settings.share:
            places.append(opened.enter_context(RunAnswers(out, shards=sink.shards)))
            if cache is not None:
                places.append(opened.enter_context(Cache(cache, salt=salt_of(settings))))
        working = [place for place in places if place.trouble is None]
        _tell(places, say)

        def remember(answered: Sequence[Answered]) -> None:
            for place in working:
                place.remember(answered)

        sink.remember = remember
        try:
            yield working
        finally:
            _tell(working, say)


@contextmanager
def answers_of_others(
    settings: RunConfig, *, out: Path, shards: int, cache: Path | None
) -> Iterator[Sequence[RunAnswers | Cache]]:
    """The same places, read by a process beside the one that keeps them; what is wrong with them that one says.

    Args:
        settings: of the run.
        out: the run folder.
        shards: how many it has.
        cache: the folder of the cache, or None.
    """
    with ExitStack() as opened:
        places: list[RunAnswers | Cache] = []
        if settings.share:
            places.append(opened.enter_context(RunAnswers(out, shards=shards, reads_only=True)))
            if cache is not None:
                places.append(opened.enter_context(Cache(cache, salt=salt_of(settings), reads_only=True)))
        yield [place for place in places if place.trouble is None]


def salt_of(settings: RunConfig) -> bytes:
    """What of a run's settings decides an answer and is not in the body of a request; the same in every process."""
    form = settings.format
    said = {"models": settings.models, "format": form.value, "optional": form.optional}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _tell(places: Sequence[RunAnswers | Cache], say: Callable[[str], None]) -> None:
    for place in places:
        if place.trouble is not None:
            say(place.trouble)
