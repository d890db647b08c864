"""One comparison of two models, from files to table: what it is told, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from encoders.sample import Choice
from engine.errors import ConfigError, InputError
from labels.judge.answers import write_answers
from labels.judge.calls import Calls, Hands
from labels.judge.figures import as_json
from labels.judge.inputs import Files, Joined, Pair, chunk, joined
from labels.judge.media import MediaPlace, media_place, shown_to_judges, small_pictures
from labels.judge.page import Card, write_page
from labels.judge.plan import STRAIGHT, SWAPPED, Ask, Plan, Sampling, Shown
from labels.judge.reviews import Review, read_reviews
from labels.judge.rules import Rules, load_rules
from labels.judge.table import table_of, wanted_of
from labels.judge.text import Report, as_markdown, as_text
from labels.judge.work import Outcome, check_output, judge, run_folder, wanted_from
from labels.new_file import new_file

AS_BEFORE = Sampling()
SUFFIXES = (".json", ".md", ".html")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is to be compared, and how."""

    names: tuple[str, str]
    files: Files | None
    """None where only the table of reviews that are there is wanted."""
    output: Path
    rules: Path | None = None
    answers_dir: Path | None = None
    judges: tuple[str, ...] = ()
    swap: bool = False
    sampling: Sampling = AS_BEFORE
    chunks: int = 1
    chunk_index: int = 0
    with_media: bool = False
    media: Path | None = None
    num_frames: int = 8
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of it."""

    report: Report
    reviews: Sequence[Review]
    pairs: Sequence[Pair]
    """What was judged."""
    outcome: Outcome | None
    """None where nothing was asked."""

    @property
    def is_whole(self) -> bool:
        """Whether every review that is wanted has scores."""
        return self.report.table.scored == self.report.table.wanted.reviews


def check(told: Comparison, reports: Sequence[Path]) -> None:
    """Refuse what cannot be meant, before anything is read.

    Raises:
        ConfigError: a flag is wrong.
    """
    if told.sampling.samples < 1:
        raise ConfigError("--samples must be at least 1")
    if told.num_frames < 1:
        raise ConfigError("--num-frames must be at least 1")
    if told.chunks < 1 or not 0 <= told.chunk_index < told.chunks:
        raise ConfigError(f"--chunk-idx {told.chunk_index}: the chunks of --num-chunks {told.chunks} count from 0")
    if told.with_media and told.media is None:
        raise ConfigError("--with-media needs --media-base-path, the place of the pictures or videos")
    if told.names[0] == told.names[1]:
        raise ConfigError(f"--model-name-list: both models are called {told.names[0]}; a table needs two names")
    for path in reports:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"--report {path}: the name must end in {', '.join(SUFFIXES)}")


def table_only(told: Comparison) -> Compared:
    """The table of the reviews that are there.

    Raises:
        ConfigError, InputError: a file is missing or wrong.
    """
    reviews = read_reviews(told.output)
    if not reviews:
        raise InputError(f"{told.output} holds no review")
    found = _joined(told) if told.files is not None else None
    report = Report(
        names=told.names,
        table=table_of(reviews, wanted=wanted_of(reviews)),
        left_out=() if found is None else found.left_out,
    )
    return Compared(report=report, reviews=reviews, pairs=() if found is None else found.pairs, outcome=None)


def compare(told: Comparison, hands: Hands) -> Compared:
    """Judge what has not been judged, and write the reviews.

    Args:
        told: what to compare.
        hands: what judges are called with.

    Raises:
        ConfigError, InputError: a flag or a file is wrong; nothing was sent.
        FolderInUse: there are reviews already, or somebody is at work on them.
        SinkBroken: the disk failed.
    """
    check_output(told.output, resume=told.resume)
    rules = load_rules() if told.rules is None else load_rules(told.rules)
    found = _joined(told)
    place = media_place(told.media) if told.with_media and told.media is not None else None
    # Every category has its rule before anything is written.
    for pair in found.pairs:
        rules.rule_for(pair.question)
    if told.answers_dir is not None and told.files is not None:
        written = write_answers(told.answers_dir, found.pairs, sources=told.files.responses, names=told.names)
        hands.say(f"Answers are in {written[0]} and {written[1]}")
    with Calls(run_folder(told.output), hands) as calls:
        shown, missing = _shown(told, found.pairs, place, calls.frames)
        asks, pairs = _asks(told, rules, found.pairs, shown)
        outcome = judge(asks, told.output, calls, say=hands.say)
    report = Report(
        names=told.names,
        table=table_of(outcome.reviews, wanted=wanted_from(asks)),
        left_out=found.left_out,
        missing_media=missing if told.with_media else None,
    )
    return Compared(report=report, reviews=outcome.reviews, pairs=pairs, outcome=outcome)


def _joined(told: Comparison) -> Joined:
    assert told.files is not None
    found = joined(told.files, names=told.names, context_needed=not told.with_media)
    if not found.pairs:
        told_out = "".join(f"\n  {left_out.text()}" for left_out in found.left_out)
        raise InputError(f"there is no question that both models have answered and that can be judged:{told_out}")
    return found


def _shown(
    told: Comparison, pairs: Sequence[Pair], place: MediaPlace | None, folder: Path
) -> tuple[dict[str, Shown], dict[str, str]]:
    if place is None:
        return {}, {}
    mine = chunk(pairs, chunks=told.chunks, index=told.chunk_index)
    return shown_to_judges(
        (pair.question for pair in mine), place, choice=Choice(num_frames=told.num_frames), folder=folder
    )


def _asks(
    told: Comparison, rules: Rules, pairs: Sequence[Pair], shown: dict[str, Shown]
) -> tuple[list[Ask], Sequence[Pair]]:
    """What is asked of the pairs of this chunk, and these pairs."""
    plan = Plan(
        rules=rules,
        judges=told.judges,
        orders=(STRAIGHT, SWAPPED) if told.swap else (STRAIGHT,),
        sampling=told.sampling,
        shown=shown,
    )
    mine = chunk(pairs, chunks=told.chunks, index=told.chunk_index)
    if not mine:
        raise ConfigError(f"--chunk-idx {told.chunk_index} has none of the {len(pairs):,} questions; take fewer chunks")
    return list(plan.asks(mine, first=pairs.index(mine[0]))), mine


def write_reports(told: Comparison, compared: Compared, paths: Sequence[Path]) -> None:
    """Write the table as the name of each file says.

    Raises:
        ConfigError: --media-base-path is no place of media.
        SinkBroken: a file cannot be written.
    """
    for path in paths:
        with new_file(path) as put:
            match path.suffix:
                case ".json":
                    put(orjson.dumps(as_json(compared.report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
                case ".md":
                    put(as_markdown(compared.report).encode("utf-8", "replace"))
                case _:
                    _write_page(told, compared, put)


def _write_page(told: Comparison, compared: Compared, put: Callable[[bytes], None]) -> None:
    questions = {pair.question.id: pair.question for pair in compared.pairs}
    pictures = {} if told.media is None else small_pictures(questions, media_place(told.media))
    write_page(compared.report, _cards(compared), compared.reviews, pictures, put)


def _cards(compared: Compared) -> list[Card]:
    """A card for each question that is wanted, in order."""
    pairs = {pair.question.id: pair for pair in compared.pairs}
    cards = []
    for question, category in compared.report.table.wanted.questions.items():
        card = Card(question=question, category=category)
        if (pair := pairs.get(question)) is not None:
            card = replace(
                card,
                text=pair.question.text,
                context=pair.context,
                media=pair.question.media,
                answers=(pair.answers[0].text, pair.answers[1].text),
            )
        cards.append(card)
    return cards


def spoken(compared: Compared) -> str:
    """The table for the terminal."""
    return as_text(compared.report)
