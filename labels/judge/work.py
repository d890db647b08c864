"""A comparison from its inputs to its reviews: what is known is kept, what is not is asked, the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import FolderInUse, RunError
from labels.judge.calls import Asker, Ended, has_calls
from labels.judge.plan import Ask
from labels.judge.reviews import ERROR, NO_SCORES, OK, Heard, Review, read_reviews, review_of, write_reviews
from labels.judge.table import Wanted

RUN = ".run"
BEFORE = "reviews-before"
Key = tuple[str, str, int, str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a life of a comparison came to."""

    reviews: tuple[Review, ...]
    """Of every ask that something came back for, in order."""
    kept: int
    """Of these, scored before this life."""
    stopped_by: str | None
    trouble: RunError | None


def run_folder(output: Path) -> Path:
    """Where the calls behind a file of reviews are kept."""
    return output.with_name(output.name + RUN)


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse to begin where something is, or to go on with what is not ours.

    Raises:
        FolderInUse: so it is.
        InputError: what is there are no reviews.
    """
    folder = run_folder(output)
    if output.is_dir():
        raise FolderInUse(f"--output {output} is a folder; name a file")
    there = output if output.exists() else folder if has_calls(folder) else None
    if there is None:
        return
    if not resume:
        raise FolderInUse(
            f"{there} is there already. --resume goes on with it, and judges again only what has changed or has no "
            f"scores; for a new comparison take another --output, or move {output} and {folder.name} away"
        )
    if output.exists() and any(review.digest is None for review in read_reviews(output)):
        raise FolderInUse(
            f"{output} holds reviews that do not say who made them and of what, so nobody can tell whether they still "
            "hold. Take another --output; --table-only shows the table of these"
        )


def judge(asks: Sequence[Ask], output: Path, asker: Asker, *, say: Callable[[str], None]) -> Outcome:
    """Get the reviews of these asks, and write them in their order.

    Args:
        asks: what is wanted.
        output: the file of reviews; what it has of these is kept.
        asker: asks judges.
        say: takes what the user should know.

    Raises:
        SinkBroken: the reviews cannot be written; what judges said is kept all the same.
    """
    earlier = read_reviews(output) if output.exists() else []
    kept = {review.key: review for review in earlier if review.pair is not None}
    heard = asker.heard()
    known = _known(asks, kept, heard)
    pending = [
        (ask, sum(back.text is not None for back in heard.get(ask.name, ())))
        for ask in asks
        if ask.number not in known or known[ask.number].pair is None
    ]
    if earlier or known:
        say(f"{len(asks) - len(pending):,} of {len(asks):,} reviews are there already")
    ended = Ended()
    try:
        if pending:
            ended = asker.ask(pending)
    finally:
        reviews = tuple(_known(asks, kept, asker.heard()).values())
        _set_aside(output, earlier, asks, say=say)
        # What never began leaves nothing to go on with.
        if reviews or earlier:
            write_reviews(output, reviews)
    return Outcome(
        reviews=reviews,
        kept=len(asks) - len(pending),
        stopped_by=ended.stopped_by,
        trouble=ended.trouble,
    )


def wanted_from(asks: Sequence[Ask]) -> Wanted:
    """What there should be once all of these are scored."""
    cells = dict.fromkeys((ask.judge_model, ask.order) for ask in asks)
    return Wanted(
        cells=tuple(cells),
        samples=max((ask.sample + 1 for ask in asks), default=1),
        questions={ask.pair.question.id: ask.rule.category for ask in asks},
    )


def _known(asks: Iterable[Ask], kept: Mapping[Key, Review], heard: Mapping[str, Sequence[Heard]]) -> dict[int, Review]:
    """The best that is known of each ask, by its number: scores, then the newest answer, then the newest failure."""
    found: dict[int, Review] = {}
    for ask in asks:
        review = _again(kept[ask.key], ask) if ask.key in kept else _best(ask, heard.get(ask.name, ()))
        if review is not None:
            found[ask.number] = review
    return found


def _again(review: Review, ask: Ask) -> Review:
    """An earlier review under its number of now: more samples may have moved it."""
    return replace(review, id=ask.number, category=ask.rule.category)


def _best(ask: Ask, heard: Sequence[Heard]) -> Review | None:
    reviews = [review_of(ask, back) for back in reversed(heard)]
    ranks = {OK: 0, NO_SCORES: 1, ERROR: 2}
    return min(reviews, key=lambda review: ranks[review.status], default=None)


def _set_aside(output: Path, earlier: Sequence[Review], asks: Sequence[Ask], *, say: Callable[[str], None]) -> None:
    """Keep a copy of scored reviews that are none of what is wanted now: they were paid for."""
    wanted = {ask.key for ask in asks}
    others = [review for review in earlier if review.pair is not None and review.key not in wanted]
    if not others:
        return
    folder = run_folder(output)
    number = 1 + sum(1 for _ in folder.glob(f"{BEFORE}-*.jsonl"))
    aside = folder / f"{BEFORE}-{number}.jsonl"
    write_reviews(aside, others)
    say(f"{len(others):,} reviews are of other answers, judges or settings than now; they were set aside in {aside}")
