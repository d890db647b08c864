"""What a file of reviews says: the figures of all questions and of each category, and what is missing from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labels.judge.compare import Block, Cell, Pair, block_of
from labels.judge.reviews import ERROR, Review

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What there should be."""

    cells: tuple[Cell, ...]
    """Judges and orders."""
    samples: int
    questions: Mapping[str, str]
    """Id to category."""

    @property
    def reviews(self) -> int:
        return len(self.cells) * self.samples * len(self.questions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All there is to say of a set of reviews."""

    blocks: tuple[Block, ...]
    """All questions first, then each category in the order of the alphabet."""
    wanted: Wanted
    scored: int
    """Reviews with scores."""
    without_scores: Mapping[str, int]
    """Reviews in which no scores could be read, by the reason."""
    failed: Mapping[str, int]
    """Calls that failed, by kind."""
    not_asked: int
    """Reviews that are not there."""
    incomplete: tuple[str, ...]
    """Questions that do not count, by id."""
    cost_usd: float | None
    """Of the reviews; None if the cost of none is known."""


def wanted_of(reviews: Iterable[Review]) -> Wanted:
    """What a file of reviews seems to have been meant to hold."""
    cells: dict[Cell, None] = {}
    samples = 1
    questions: dict[str, str] = {}
    for review in reviews:
        cells[review.judge_model, review.order] = None
        samples = max(samples, review.sample + 1)
        questions.setdefault(review.question, review.category)
    return Wanted(cells=tuple(cells), samples=samples, questions=questions)


def table_of(reviews: Sequence[Review], *, wanted: Wanted, seed: int = 42) -> Table:
    """The figures of these reviews; none without scores is averaged in.

    Args:
        reviews: of whatever status.
        wanted: what there should be.
        seed: of the bootstrap.
    """
    cells = cells_of(reviews)
    failed = [review for review in reviews if review.pair is None]
    costs = [review.cost_usd for review in reviews if review.cost_usd is not None]
    return Table(
        blocks=tuple(
            block_of(name, ids, cells, wanted=wanted.cells, seed=seed) for name, ids in _groups(wanted).items()
        ),
        wanted=wanted,
        scored=len(reviews) - len(failed),
        without_scores=Counter(review.score_error or "unknown" for review in failed if review.status != ERROR),
        failed=Counter(review.error_kind or "unknown" for review in failed if review.status == ERROR),
        not_asked=max(0, wanted.reviews - len(reviews)),
        incomplete=tuple(
            question for question in wanted.questions if any((question, cell) not in cells for cell in wanted.cells)
        ),
        cost_usd=sum(costs) if costs else None,
    )


def cells_of(reviews: Iterable[Review]) -> dict[tuple[str, Cell], list[Pair]]:
    """The scores of each question by judge and order, one pair a sample; what has none is not there."""
    cells: dict[tuple[str, Cell], list[Pair]] = {}
    for review in reviews:
        if review.pair is not None:
            cells.setdefault((review.question, (review.judge_model, review.order)), []).append(review.pair)
    return cells


def _groups(wanted: Wanted) -> dict[str, list[str]]:
    """The questions of all and of each category."""
    found: dict[str, list[str]] = {}
    for question, category in sorted(wanted.questions.items(), key=lambda item: item[1]):
        found.setdefault(category, []).append(question)
    # A category of this name would hide behind the whole.
    named = {f"category {name}" if name == ALL else name: ids for name, ids in found.items()}
    return {ALL: list(wanted.questions)} | named
