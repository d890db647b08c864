"""The page and the pictures in it: everything is shown, nothing is run, nothing is fetched, nothing is followed."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import BinaryIO

import pytest

from encoders.fit import Picture
from encoders.sample import Choice
from engine.errors import ConfigError
from labels.judge.media import SMALL, MediaPlace, NoMediaError, media_place, shown_to_judges, small_pictures
from labels.judge.page import MOST_CARDS, Card, write_page
from labels.judge.plan import STRAIGHT, SWAPPED
from labels.judge.reviews import ERROR, Review
from labels.judge.table import table_of, wanted_of
from labels.judge.text import Report
from tests.fakes.clips import plain
from tests.fakes.judging import question, scored
from tests.fakes.photos import encoded, phone_photo

NASTY = "<script>alert(1)</script><img src=http://x.example/p onerror=y>&\"'"
PICTURE = Picture(data=b"\xff\xd8jpeg", mime="image/jpeg", width=32, height=24)
CHOICE = Choice(num_frames=4)


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(
    reviews: list[Review],
    *,
    cards: list[Card] | None = None,
    names: tuple[str, str] = ("gpt", "bard"),
    pictures: dict[str, Picture] | None = None,
) -> str:
    wanted = wanted_of(reviews)
    shown = cards or [Card(question=identity, category=name) for identity, name in wanted.questions.items()]
    parts: list[bytes] = []
    report = Report(names=names, table=table_of(reviews, wanted=wanted))
    write_page(report, shown, reviews, pictures or {}, parts.append)
    return b"".join(parts).decode()


def classes(html: str) -> list[set[str]]:
    return [set((attrs["class"] or "").split()) for tag, attrs in Seen(html).tags if tag == "article"]


def test_question_picture_both_answers_and_reviews_are_shown() -> None:
    card = Card(
        question="7", category="conv", text="What is it?", context="A cat.", media="a.jpg", answers=("cat", "dog")
    )
    reviews = [
        scored(7, (9, 4), content="9 4\nA cat it is."),
        scored(7, (6, 5), content="5 6\nHm.", order=SWAPPED),
    ]
    html = page(reviews, cards=[card], pictures={"7": PICTURE})
    seen = Seen(html)
    text = " ".join(seen.texts)
    for words in ("Question 7", "What is it?", "A cat.", "cat", "dog", "9 4\nA cat it is.", "5 6\nHm.", "gpt wins"):
        assert words in text
    (image,) = (attrs for tag, attrs in seen.tags if tag == "img")
    assert image["src"] == "data:image/jpeg;base64,/9hqcGVn"
    assert image["alt"] == "a.jpg"


def test_what_strangers_wrote_is_text_wherever_it_stands() -> None:
    card = Card(question=NASTY, category=NASTY, text=NASTY, context=NASTY, media=NASTY, answers=(NASTY, NASTY))
    review = scored(NASTY, (9, 4), content=NASTY, judge_model=NASTY, category=NASTY)
    html = page([review], cards=[card], names=(NASTY, NASTY + "2"), pictures={NASTY: PICTURE})
    seen = Seen(html)
    assert not {"script", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in seen.tags}
    assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
    assert all((attrs["src"] or "").startswith("data:") for tag, attrs in seen.tags if tag == "img")
    assert not [attrs for _, attrs in seen.tags if "href" in attrs]
    assert "".join(seen.texts).count("<script>alert(1)</script>") >= 9


def test_the_page_forbids_itself_to_run_or_fetch_anything() -> None:
    html = page([scored(0, (9, 4))])
    policy = next(attrs["content"] for _, attrs in Seen(html).tags if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "url(" not in html
    assert "@import" not in html


def test_cards_are_marked_by_category_winner_and_order() -> None:
    reviews = [
        scored(0, (9, 4), category="x"),
        scored(1, (4, 9), category="y"),
        scored(2, (5, 5), category="y"),
        scored(3, None, category="y", status=ERROR, error_kind="server", error="down"),
        scored(4, (9, 4), category="x", order=STRAIGHT, judge_model="k"),
        scored(4, (4, 9), category="x", order=SWAPPED, judge_model="k"),
    ]
    # Each question by its own judge, so none but the first three counts for one that all share.
    first = page(reviews[:4])
    assert classes(first) == [{"c0", "w-first"}, {"c1", "w-second"}, {"c1", "w-tie"}, {"c1", "w-open"}]
    assert classes(page(reviews[4:])) == [{"c0", "w-tie", "w-flipped"}]
    assert "server" in first


def test_every_filter_hides_what_it_does_not_name_and_one_of_each_kind_is_chosen() -> None:
    html = page([scored(0, (9, 4), category="x"), scored(1, (4, 9), category="y"), scored(2, None, category="y")])
    filters = [attrs for tag, attrs in Seen(html).tags if tag == "input"]
    assert [attrs["id"] for attrs in filters if "checked" in attrs] == ["c-all", "w-all"]
    for identity in (str(attrs["id"]) for attrs in filters):
        rule = f"body:has(#{identity}:checked) article:not(.{identity})"
        assert (rule in html) == (identity not in {"c-all", "w-all"})


def test_a_page_stays_one_that_a_browser_can_show() -> None:
    html = page([scored(n, (9, 4)) for n in range(MOST_CARDS + 1)])
    assert html.count("<article") == MOST_CARDS
    assert f"The first {MOST_CARDS:,} of {MOST_CARDS + 1:,} questions are shown" in html


def test_half_a_character_does_not_break_the_page() -> None:
    card = Card(question="0", category="c", text="\ud83d")
    assert "<p class=said>?</p>" in page([scored(0, (9, 4))], cards=[card])


def place(tmp_path: Path) -> MediaPlace:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encoded(phone_photo("coffee", (480, 640))))
    (tmp_path / "in" / "v.mp4").write_bytes(plain())
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "secret.jpg").write_bytes(encoded(phone_photo("coffee", (48, 64))))
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return media_place(tmp_path / "in")


def test_judges_are_shown_a_picture_or_frames_of_a_video_each_decoded_once(tmp_path: Path) -> None:
    questions = [
        question("0", image="a.jpg"),
        question("1", image="a.jpg"),
        question("2", image=None, video="v.mp4"),
        question("3", image="v.mp4"),
    ]
    shown, missing = shown_to_judges(questions, place(tmp_path), choice=CHOICE, folder=tmp_path / "frames")
    assert missing == {}
    assert len(shown["0"].addresses) == 1
    assert len(shown["2"].addresses) == 4
    assert shown["0"] == shown["1"]
    assert shown["2"] == shown["3"], "a video under the key of an image is a video"
    assert re.fullmatch(r"frames:[0-9a-f]{32}/frame_3\.jpg", shown["2"].addresses[3])
    assert sorted(path.name for path in (tmp_path / "frames" / shown["2"].digest).iterdir()) == [
        f"frame_{n}.jpg" for n in range(4)
    ]
    again, _ = shown_to_judges(questions, media_place(tmp_path / "in"), choice=CHOICE, folder=tmp_path / "frames")
    assert again == shown


class Counting:
    """A place of media that counts what is opened."""

    def __init__(self, place: MediaPlace) -> None:
        self._store = place.store
        self.opened: list[str] = []

    def prepare(self) -> tuple[str, ...]:
        return ()

    def open(self, identity: str, named: str = "") -> AbstractContextManager[BinaryIO | None]:
        self.opened.append(named)
        return self._store.open(identity, named)


def test_each_medium_is_decoded_once_however_many_questions_ask_about_it(tmp_path: Path) -> None:
    counting = Counting(place(tmp_path))
    questions = [question(str(n), image=("a.jpg", "none.jpg")[n % 2]) for n in range(6)]
    shown_to_judges(questions, MediaPlace(counting), choice=CHOICE, folder=tmp_path / "frames")
    assert counting.opened == ["a.jpg", "none.jpg"]
    small_pictures({one.id: one for one in questions}, MediaPlace(counting))
    assert len(counting.opened) == 4


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "link.jpg", "none.jpg", "broken.jpg", "broken.mp4", "", None]
)
def test_nothing_outside_the_place_and_nothing_broken_is_shown(tmp_path: Path, name: str | None) -> None:
    there = place(tmp_path)
    with pytest.raises(NoMediaError):
        there.pictures(question(image=name), CHOICE, SMALL)
    shown, missing = shown_to_judges([question("0", image=name)], there, choice=CHOICE, folder=tmp_path / "frames")
    assert shown == {}
    assert list(missing) == ["0"]
    assert not (tmp_path / "frames").exists()


def test_the_page_gets_small_pictures_and_the_middle_frame_of_a_video(tmp_path: Path) -> None:
    questions = {"0": question("0", image="a.jpg"), "1": question("1", image=None, video="v.mp4"), "2": question("2")}
    questions["3"] = question("3", image="../secret.jpg")
    found = small_pictures(questions, place(tmp_path))
    assert sorted(found) == ["0", "1", "2"]
    assert (found["0"].width, found["0"].height) == (240, 320)
    assert len(found["0"].data) < 40_000


def test_a_place_that_is_none_is_named_with_its_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--media-base-path"):
        media_place(tmp_path / "none")
