"""A page of every comparison: question, picture, both answers and all reviews side by side.

One file that fetches nothing and runs nothing: pictures are in it, filters are plain CSS, and its policy forbids all
else. What models and strangers wrote is shown as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pybase64

from encoders.fit import Picture
from labels.judge.compare import Pair, by_question, winner
from labels.judge.plan import SWAPPED
from labels.judge.reviews import Review
from labels.judge.table import cells_of
from labels.judge.text import LEGEND, Report, findings, grid, named, omissions

MOST_CARDS = 2000
"""A browser shows some thousand; the rest is in the file of reviews."""
OPEN_REVIEWS = 2
"""As many are shown without being asked for."""
WINNERS = ("first", "tie", "second", "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One question, for people; what is not known is None."""

    question: str
    """Its id."""
    category: str
    text: str | None = None
    context: str | None = None
    media: str | None = None
    """The name of its picture or video."""
    answers: tuple[str | None, str | None] = (None, None)


Put = Callable[[bytes], None]


def write_page(
    report: Report, cards: Sequence[Card], reviews: Sequence[Review], pictures: Mapping[str, Picture], put: Put
) -> None:
    """Write the page, a card at a time.

    Args:
        report: the table.
        cards: what is shown, in order.
        reviews: of whatever status.
        pictures: by the id of the question.
        put: takes the bytes.
    """
    shown = cards[:MOST_CARDS]
    by_id: dict[str, list[Review]] = {}
    for review in reviews:
        by_id.setdefault(review.question, []).append(review)
    scores = by_question(by_id, cells_of(reviews), report.table.wanted.cells)
    categories = list(dict.fromkeys(card.category for card in shown))
    for piece in (_head(report, categories), _summary(report), _filters(report, categories)):
        put(piece.encode("utf-8", "replace"))
    if len(shown) < len(cards):
        put(f"<p class=note>The first {len(shown):,} of {len(cards):,} questions are shown.</p>".encode())
    put(b"<main>")
    for card in shown:
        put(
            _card(
                report.names,
                card,
                scores.get(card.question),
                reviews=by_id.get(card.question, []),
                picture=pictures.get(card.question),
                category=categories.index(card.category),
            ).encode("utf-8", "replace")
        )
    put(b"</main></body></html>\n")


STYLE = """
:root{color-scheme:light dark;--ground:#fbfaf8;--card:#fff;--text:#1d1c1a;--soft:#6a665f;--line:#dedad3;--first:#1f6f8b;
--second:#a4552a;--tie:#6a665f;--tint:#f3f1ec}
@media(prefers-color-scheme:dark){:root{--ground:#171614;--card:#201f1c;--text:#ebe8e2;--soft:#a09b92;--line:#3a3833;
--first:#6fc0dc;--second:#e59b6c;--tie:#a09b92;--tint:#292723}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem 1.25rem 4rem;background:var(--ground);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem;text-wrap:balance;overflow-wrap:anywhere}
h2{font-size:1rem;margin:0;overflow-wrap:anywhere}h3{font-size:.8rem;margin:0 0 .35rem;color:var(--soft)}
.first{color:var(--first)}.second{color:var(--second)}.tie,.open{color:var(--tie)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem}
th,td{padding:.35rem .9rem .35rem 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}ul{padding-left:1.1rem;margin:.75rem 0}.note{color:var(--soft);font-size:.85rem}
nav{position:sticky;top:0;z-index:1;background:var(--ground);border-bottom:1px solid var(--line);padding:.6rem 0;
margin:1.5rem 0 1rem;display:grid;gap:.4rem}
nav div{display:flex;flex-wrap:wrap;gap:.35rem}
nav label{border:1px solid var(--line);border-radius:1rem;padding:.15rem .7rem;font-size:.85rem;cursor:pointer;
background:var(--card);overflow-wrap:anywhere}
nav input{position:absolute;opacity:0;pointer-events:none}
nav label:has(:checked){background:var(--text);color:var(--ground);border-color:var(--text)}
nav label:has(:focus-visible){outline:2px solid var(--first);outline-offset:2px}
article{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0 0 1rem;
content-visibility:auto;contain-intrinsic-size:auto 30rem}
header{display:flex;flex-wrap:wrap;gap:.3rem 1rem;align-items:baseline;margin-bottom:.75rem}
header .score{margin-left:auto;font-variant-numeric:tabular-nums}
.asked{display:flex;gap:1rem;align-items:flex-start;margin-bottom:.75rem}
.asked img{max-width:min(14rem,35%);max-height:14rem;width:auto;height:auto;border-radius:.3rem;flex:none}
.asked>div{min-width:0;flex:1}
.said{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.two>*{min-width:0}
.answer{background:var(--tint);border-radius:.3rem;padding:.6rem .75rem;max-height:22rem;overflow:auto}
details{margin-top:.75rem}summary{cursor:pointer;color:var(--soft);font-size:.85rem}
.reviews{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:.75rem;margin-top:.6rem}
.review{border-left:3px solid var(--line);padding-left:.75rem;font-size:.9rem;max-height:22rem;overflow:auto}
@media(max-width:40rem){nav{position:static}.two{grid-template-columns:1fr}
.asked{flex-direction:column}.asked img{max-width:100%}}
@media print{nav{display:none}.answer,.review{max-height:none}}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _head(report: Report, categories: Sequence[str]) -> str:
    first, second = map(escape, report.names)
    hidden = [f"body:has(#c{at}:checked) article:not(.c{at})" for at in range(len(categories))]
    hidden += [f"body:has(#w-{name}:checked) article:not(.w-{name})" for name in (*WINNERS, "flipped")]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{first} and {second}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<style>{STYLE}{','.join(hidden)}{{display:none}}</style></head><body>"
        f"<h1><span class=first>{first}</span> and <span class=second>{second}</span>, judged</h1>"
    )


def _summary(report: Report) -> str:
    first, *rest = grid(report)
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in first)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rest)
    lists = "".join(
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        for lines in (list(findings(report)), list(omissions(report)))
        if lines
    )
    return (
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{lists}"
        f"<p class=note>{escape(LEGEND)}</p>"
    )


def _filters(report: Report, categories: Sequence[str]) -> str:
    first, second = report.names
    winners = [("w-all", "All"), ("w-first", f"{first} wins"), ("w-second", f"{second} wins"), ("w-tie", "Tie")]
    if report.table.incomplete:
        winners.append(("w-open", "Not counted"))
    if any(block.position is not None for block in report.table.blocks):
        winners.append(("w-flipped", "Changes with the order"))
    named = [("c-all", "All categories"), *((f"c{at}", category) for at, category in enumerate(categories))]
    return f'<nav aria-label="Filters">{_choices("category", named)}{_choices("winner", winners)}</nav>'


def _choices(name: str, choices: Sequence[tuple[str, str]]) -> str:
    labels = "".join(
        f'<label><input type=radio name={name} id="{key}"{"" if at else " checked"}>{escape(text)}</label>'
        for at, (key, text) in enumerate(choices)
    )
    return f'<div role=radiogroup aria-label="{name}">{labels}</div>'


def _card(
    names: tuple[str, str],
    card: Card,
    scores: Pair | None,
    *,
    reviews: Sequence[Review],
    picture: Picture | None,
    category: int,
) -> str:
    won = "open" if scores is None else ("second", "tie", "first")[winner(scores[0] - scores[1]) + 1]
    words = {"open": "not counted", "tie": "tie", "first": f"{names[0]} wins", "second": f"{names[1]} wins"}[won]
    said = "" if scores is None else f"{scores[0]:.3g} : {scores[1]:.3g} &nbsp; "
    flipped = " w-flipped" if _flipped(reviews) else ""
    answers = "".join(map(_answer, ("first", "second"), names, card.answers))
    return (
        f'<article class="c{category} w-{won}{flipped}"><header><h2>Question {escape(card.question)}</h2>'
        f"<span class=note>{escape(card.category)}</span>"
        f"<span class=score>{said}<b class={won}>{escape(words)}</b></span></header>"
        f"{_asked(card, picture)}"
        f"<div class=two>{answers}</div>{_reviews(names, reviews)}</article>"
    )


def _asked(card: Card, picture: Picture | None) -> str:
    image = ""
    if picture is not None:
        data = pybase64.b64encode_as_string(picture.data)
        image = (
            f'<img src="data:{picture.mime};base64,{data}" width={picture.width} height={picture.height} '
            f'alt="{escape(card.media or "")}">'
        )
    media = f"<p class=note>{escape(card.media)}</p>" if card.media else ""
    text = "" if card.text is None else f"<p class=said>{escape(card.text)}</p>"
    context = (
        f"<details><summary>Context</summary><p class=said>{escape(card.context)}</p></details>" if card.context else ""
    )
    return f"<div class=asked>{image}<div>{text}{media}{context}</div></div>" if text or image or media else ""


def _answer(side: str, name: str, answer: str | None) -> str:
    text = (
        "<p class=note>The answer is not in the file of reviews.</p>"
        if answer is None
        else (f"<p class=said>{escape(answer)}</p>")
    )
    return f"<section><h3 class={side}>{escape(name)}</h3><div class=answer>{text}</div></section>"


def _reviews(names: tuple[str, str], reviews: Sequence[Review]) -> str:
    if not reviews:
        return "<p class=note>There is no review yet.</p>"
    count = "1 review" if len(reviews) == 1 else f"{len(reviews):,} reviews"
    opened = " open" if len(reviews) <= OPEN_REVIEWS else ""
    listed = "".join(_review(names, review) for review in reviews)
    return f"<details{opened}><summary>{count}</summary><div class=reviews>{listed}</div></details>"


def _review(names: tuple[str, str], review: Review) -> str:
    shown_first = names[review.order == SWAPPED]
    scores = f"{review.pair[0]:g} : {review.pair[1]:g}" if review.pair else f"no scores: {_why(review)}"
    sample = f", sample {review.sample + 1}" if review.sample else ""
    title = escape(f"{named(review.judge_model)}, {shown_first} shown first{sample}")
    return (
        f"<div class=review><h3>{title} &nbsp; <b>{escape(scores)}</b></h3>"
        f"<p class=said>{escape(review.content or review.error or '')}</p></div>"
    )


def _why(review: Review) -> str:
    return review.error_kind or review.score_error or "unknown"


def _flipped(reviews: Iterable[Review]) -> bool:
    """Whether any judge's verdict changes with the order."""
    verdicts: dict[str | None, set[int]] = {}
    for judge, sign in _signs(reviews):
        verdicts.setdefault(judge, set()).add(sign)
    return any(len(signs) > 1 for signs in verdicts.values())


def _signs(reviews: Iterable[Review]) -> Iterator[tuple[str | None, int]]:
    """Who wins, by judge and order, over all samples."""
    sums: dict[tuple[str | None, str], float] = {}
    for review in reviews:
        if review.pair is not None:
            key = review.judge_model, review.order
            sums[key] = sums.get(key, 0.0) + review.pair[0] - review.pair[1]
    return ((judge, winner(total)) for (judge, _), total in sums.items())
