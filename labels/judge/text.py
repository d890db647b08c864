"""The table for people: in the terminal, and as Markdown. First as the scripts printed it, then what they left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labels.judge.compare import Agreement, Block, Judge, Means
from labels.judge.inputs import SHOWN_IDS, LeftOut
from labels.judge.numbers import Interval
from labels.judge.table import Table

RULE = "=" * 33
NONE = "n/a"
HEADINGS = ("", "counted", "{0}", "{1}", "{1} / {0}", "{0} - {1}", "won-tied-lost", "sign test", "wins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A table and whose it is."""

    names: tuple[str, str]
    """Of the two models."""
    table: Table
    left_out: tuple[LeftOut, ...] = ()
    """Records that took no part."""
    missing_media: Mapping[str, str] | None = None
    """Questions that judges had to answer without pictures, and why; None where no pictures are sent."""


def as_text(report: Report) -> str:
    """For the terminal."""
    parts = ["\n".join([*plain_rows(report.table), RULE]), "\n".join(_aligned(grid(report)))]
    parts += ["\n".join(lines) for lines in (list(findings(report)), list(omissions(report))) if lines]
    return "\n\n".join(parts)


def as_markdown(report: Report) -> str:
    """As a document."""
    first, *rest = grid(report)
    head = [_piped(first), "|" + "---|" * len(first), *map(_piped, rest)]
    parts = [
        f"# {_escaped(report.names[0])} and {_escaped(report.names[1])}, judged",
        "\n".join(["```", *plain_rows(report.table), "```"]),
        "\n".join(head),
    ]
    for title, lines in (("What judges did", findings(report)), ("What is left out", omissions(report))):
        listed = [f"- {_escaped(line)}" for line in lines]
        if listed:
            parts += [f"## {title}", "\n".join(listed)]
    parts.append(_escaped(LEGEND))
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Scores are from 1 to 10, shown times ten, each question weighing the same. In brackets: 95 % intervals, of means "
    "by drawing whole questions again, of wins (among questions with a winner) by Wilson. The sign test says how often "
    "chance alone would decide as unevenly."
)


def plain_rows(table: Table) -> Iterator[str]:
    """The rows as they always were: name and both means."""
    for block in table.blocks:
        means = block.means
        yield (
            f"{block.name} {NONE} {NONE}"
            if means is None
            else (f"{block.name} {_tenfold(means.first)} {_tenfold(means.second)}")
        )


def grid(report: Report) -> list[list[str]]:
    """Every figure of each block, with a row of headings."""
    rows = [[heading.format(*report.names) for heading in HEADINGS]]
    for block in report.table.blocks:
        verdicts = block.verdicts
        rows.append(
            [
                block.name,
                f"{block.counted:,} of {block.questions:,}",
                *_means(block.means),
                f"{verdicts.wins:,}-{verdicts.ties:,}-{verdicts.losses:,}",
                NONE if verdicts.p_value is None else _p_value(verdicts.p_value),
                NONE
                if verdicts.win_share is None
                else f"{verdicts.win_share:.0%}{_between(verdicts.win_interval, '{:.0%}')}",
            ]
        )
    return rows


def _means(means: Means | None) -> list[str]:
    if means is None:
        return [NONE] * 4
    return [
        _tenfold(means.first) + _between(_times_ten(means.first_interval), "{:.1f}"),
        _tenfold(means.second) + _between(_times_ten(means.second_interval), "{:.1f}"),
        f"{means.ratio:.1f}%" + _between(means.ratio_interval, "{:.1f}"),
        f"{10 * means.difference:+.1f}" + _between(_times_ten(means.difference_interval), "{:+.1f}"),
    ]


def _tenfold(mean: float) -> str:
    # Rounded as the scripts did, in this order: some tables differ in the last digit otherwise.
    return f"{round(round(mean, 3) * 10, 1):.1f}"


def _times_ten(between: Interval | None) -> Interval | None:
    return None if between is None else (10 * between[0], 10 * between[1])


def _between(between: Interval | None, form: str) -> str:
    return "" if between is None else f" ({form.format(between[0])}..{form.format(between[1])})"


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"  # noqa: PLR2004 - no more digits are shown


def findings(report: Report) -> Iterator[str]:
    """What the reviews say of the judges: position bias, steadiness, agreement."""
    for block in report.table.blocks:
        if (position := block.position) is not None:
            turned = f", {position.turned:,} of them to the other model" if position.turned else ""
            yield (
                f"{block.name}: standing first is worth {10 * position.bias:+.1f}"
                f"{_between(_times_ten(position.bias_interval), '{:+.1f}')}; the order changes the verdict in "
                f"{position.flipped:,} of {position.pairs:,} pairs ({position.flipped / position.pairs:.0%}){turned}"
            )
        if block.steady is not None:
            yield f"{block.name}: {block.steady:.0%} of repeated reviews have the same winner each time"
        if block.agreement is not None:
            yield from _agreeing(block, block.agreement, report.names)


def _agreeing(block: Block, agreement: Agreement, names: tuple[str, str]) -> Iterator[str]:
    alpha = NONE if agreement.alpha is None else f"{agreement.alpha:.2f}"
    means = "; ".join(
        f"{judge} {_tenfold(first)} {_tenfold(second)}" for judge, (first, second) in agreement.means.items()
    )
    yield f"{block.name}: by judge ({names[0]}, {names[1]}): {means or NONE}; Krippendorff's alpha {alpha}"
    for two in agreement.two:
        rank = NONE if two.rank_correlation is None else f"{two.rank_correlation:.2f}"
        yield (
            f"{block.name}: {named(two.judges[0])} and {named(two.judges[1])}: same verdict in {two.same_verdict:.0%} "
            f"of {two.questions:,} questions, rank correlation {rank}"
        )


def omissions(report: Report) -> Iterator[str]:
    """What is not in the figures, and why."""
    table = report.table
    if table.incomplete:
        yield (
            f"{len(table.incomplete):,} questions do not count, since a review of them is missing "
            f"({_some(table.incomplete)})"
        )
    if table.failed:
        yield f"{sum(table.failed.values()):,} reviews failed: {_counted(table.failed)}"
    if table.without_scores:
        yield f"{sum(table.without_scores.values()):,} reviews have no scores: {_counted(table.without_scores)}"
    if table.not_asked:
        yield f"{table.not_asked:,} reviews have not been asked for yet"
    for left_out in report.left_out:
        yield left_out.text()
    if report.missing_media:
        yield (
            f"{len(report.missing_media):,} questions were judged without their picture or video "
            f"({_some(list(report.missing_media))}): {next(iter(report.missing_media.values()))}"
        )


def named(judge: Judge) -> str:
    """A judge, for people."""
    return "an unnamed judge" if judge is None else judge


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _piped(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = "".join(f"\\{char}" if char in "\\`*_[]<>#|~" else char for char in text)
    return " ".join(text.split())
