"""The arithmetic of an estimate, the two calls that measure a picture, and the comparison with the first replies."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from encoders.tokens import Measured, image_tokens
from engine.config import PriceConfig
from engine.errors import ApiError, LaneRefused, NetworkError
from engine.money import Books
from engine.ports import Client
from engine.types import Reply, Usage
from labels.costs import Answers, Choice, Holds, Range, Terms, bill, choices, hours_needed, mean_range
from labels.estimate_text import _duration, dollars
from labels.probe_tokens import Probe, book, grey_png, measure, stored
from labels.token_audit import REPLIES, Audit, AuditedClient
from tests.fakes.calls import make_lane
from tests.fakes.virtual import run_in_virtual_time

LLAMA32 = "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo"
PRICE = PriceConfig(input_usd_per_m=0.18, output_usd_per_m=0.59)


def terms_of(model: str = LLAMA32, rows: float = 1e6, price: PriceConfig = PRICE) -> Terms:
    return Terms(
        rows=rows,
        model=model,
        tokens=lambda width, height: image_tokens(model, width, height) or 1601,
        answers=Answers(tokens=Range(low=60, middle=100, high=140), basis="told"),
        price=price,
    )


PHONE = Holds(text_tokens=1000, sizes=((720, 1280),) * 4)


def test_a_million_videos_of_four_phone_frames_cost_2305_dollars_in_images() -> None:
    untouched = bill(terms_of(), [PHONE], Choice(fit="none", max_frames=4))
    assert untouched.image_tokens == 12_808_000_000
    assert untouched.image_usd == pytest.approx(2305.44)
    assert dollars(untouched.image_usd) == "$2,305"
    fitted = bill(terms_of(), [PHONE], Choice(fit="tokens", max_frames=4))
    assert fitted.image_usd == pytest.approx(2305.44 / 2)


def test_text_images_and_answers_add_up_to_the_whole() -> None:
    found = bill(terms_of(), [PHONE], Choice(fit="none", max_frames=2))
    assert found.frames == 2
    assert found.usd is not None
    parts = (found.text_usd, found.image_usd, found.answer_usd)
    assert found.usd.middle == pytest.approx(sum(part or 0 for part in parts))
    assert found.usd.low < found.usd.middle < found.usd.high


def test_without_a_price_there_are_tokens_and_no_dollars() -> None:
    found = bill(terms_of(price=PriceConfig()), [PHONE], Choice(fit="tokens", max_frames=4))
    assert found.image_tokens == 4 * 1601 * 1_000_000
    assert found.usd is None
    assert dollars(found.image_usd) == "?"


def test_the_bounds_of_a_bill_are_those_of_its_texts_where_every_row_is_known() -> None:
    found = bill(terms_of(rows=1), [PHONE], Choice(fit="none", max_frames=4))
    assert found.prompt_tokens.low == pytest.approx(12_808 + 800)
    assert found.prompt_tokens.high == pytest.approx(12_808 + 1000 * 4 / 3)


def test_a_sample_that_is_the_whole_input_leaves_nothing_uncertain() -> None:
    values = [float(value) for value in range(50)]
    assert mean_range(values, of=50) == Range(low=24.5, middle=24.5, high=24.5)
    assert mean_range(values, of=51).low < 24.5


def test_the_interval_holds_the_true_mean_about_nineteen_times_in_twenty() -> None:
    rng = random.Random(7)
    population = [rng.lognormvariate(0, 0.5) for _ in range(5000)]
    truth = sum(population) / len(population)
    held = 0
    for _ in range(400):
        found = mean_range(rng.sample(population, 200), of=len(population))
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 400 <= 0.98


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_an_interval_lies_around_its_mean(values: list[float]) -> None:
    found = mean_range(values)
    assert 0 <= found.low <= found.middle * (1 + 1e-9)
    assert found.middle <= found.high


def test_the_table_shows_the_choice_that_was_made_and_no_more_frames_than_there_are() -> None:
    assert choices(Choice(fit="480x480", max_frames=3), 4) == (("480x480", "tokens", "560x560", "none"), (1, 2, 3, 4))
    assert choices(Choice(fit="none", max_frames=16), 60) == (("none", "tokens", "560x560"), (1, 2, 4, 8, 16))


def test_the_slowest_limit_says_how_long_it_takes() -> None:
    limits = {"--rate": 10.0, "--rpm": 60.0, "--tpm": None}
    assert hours_needed(3600, 1e6, limits) == (1.0, "--rpm 60")
    assert hours_needed(3600, 3e8, {"--rate": None, "--rpm": None, "--tpm": 5_000_000.0}) == (1.0, "--tpm 5,000,000")
    assert hours_needed(3600, 1e6, {"--rate": None}) is None


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.01, "36 seconds"), (0.5, "30.0 minutes"), (25.9, "25.9 hours"), (72, "3.0 days")],
)
def test_a_time_is_told_in_the_unit_it_fills_twice(hours: float, words: str) -> None:
    assert _duration(hours) == words


Script = Sequence[int | ApiError | None]
"""Prompt tokens a reply reports, None for no usage, or what goes wrong."""


class Counting:
    """Answers with prompt tokens by script, and keeps the bodies."""

    def __init__(self, script: Script) -> None:
        self._script = list(script)
        self.bodies: list[dict[str, Any]] = []

    async def attempt(self, *body: bytes) -> Reply:
        self.bodies.append(json.loads(b"".join(body)))
        said = self._script.pop(0)
        if isinstance(said, ApiError):
            raise said
        usage = None if said is None else Usage(prompt_tokens=said, completion_tokens=1)
        return Reply(text="yes", finish_reason="stop", usage=usage, model="m", request_id=None, latency_s=0.1)


def measured(client: Client, model: str = "m/unheard-of") -> Probe:
    return run_in_virtual_time(lambda: measure(client, model=model))


def test_the_difference_of_two_calls_is_the_picture() -> None:
    client = Counting([20, 797])
    probe = measured(client)
    assert probe.measured == Measured(width=315, height=560, tokens=777)
    assert "777 tokens for a picture of 315x560" in probe.note()
    assert stored({"measured": {"image_tokens": probe.as_json()}}, "m/unheard-of") == (True, probe.measured)
    assert stored({"measured": {"image_tokens": probe.as_json()}}, "m/another") == (False, None)
    alone, framed = (body["messages"][0]["content"] for body in client.bodies)
    assert [part["type"] for part in alone] == ["text"]
    assert [part["type"] for part in framed] == ["image_url", "text"]
    assert alone[-1] == framed[-1]
    data = base64.b64decode(framed[0]["image_url"]["url"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (315, 560))


@pytest.mark.parametrize(
    ("script", "calls", "lasts", "words"),
    [
        ([None], 1, True, "reports no usage"),
        ([20, None], 2, True, "reports no usage"),
        ([20, 20], 2, True, "counts no tokens"),
        ([NetworkError("cannot connect: refused")], 1, False, "cannot connect"),
        ([20, LaneRefused("this model takes no pictures", status=400)], 2, False, "takes no pictures"),
    ],
)
def test_whatever_comes_back_the_run_goes_on(script: Script, calls: int, *, lasts: bool, words: str) -> None:
    client = Counting(script)
    probe = measured(client)
    assert probe.measured is None
    assert probe.lasting is lasts
    assert len(client.bodies) == calls
    assert words in probe.note()
    assert "1,601 tokens a frame" in probe.note()
    assert "\n" not in probe.note()


@pytest.mark.parametrize(("counted", "warned"), [(1601, False), (1680, False), (1690, True), (1500, True)])
def test_a_formula_that_is_off_by_more_than_five_per_cent_is_warned_of(counted: int, *, warned: bool) -> None:
    note = measured(Counting([20, 20 + counted]), LLAMA32).note()
    assert note.startswith("Warning: " if warned else LLAMA32)


def test_both_calls_are_booked_and_what_was_set_aside_for_them_is_freed() -> None:
    books = Books(100.0)
    lane = make_lane(price=PRICE)
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
    assert books.reserve(0.00362)
    book(Probe(model="m", measured=None, usages=(usage, usage)), lane, books)
    assert books.cost_usd == pytest.approx(0.36)
    assert books.reserved_usd == pytest.approx(0.0, abs=1e-4)
    book(Probe(model="m", measured=None, unknown_calls=1), lane, books)
    assert books.unknown_calls == 1
    assert books.unknown_usd > 0


def body_of(text: str, pictures: int) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(grey_png(315, 559)).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}] * pictures + [{"type": "text", "text": text}]
    return orjson.dumps({"messages": [{"role": "user", "content": parts}]})


def audited(text: str, counted: Callable[[int], int], *, pictures: int = 4, replies: int = REPLIES) -> list[str]:
    """What is said after so many replies, each with `counted(text bytes)` prompt tokens."""
    said: list[str] = []
    audit = Audit(lambda width, height: image_tokens(LLAMA32, width, height), model=LLAMA32, say=said.append)
    for _ in range(replies):
        audit.add(body_of(text, pictures), counted(len(text.encode())))
    return said


ENGLISH = "they walk through the market and talk about the weather " * 80


@pytest.mark.parametrize("bytes_a_token", [2, 3, 4, 6])
def test_no_text_makes_the_first_replies_look_wrong(bytes_a_token: int) -> None:
    assert audited(ENGLISH, lambda size: 4 * 1601 + size // bytes_a_token) == []


def test_twice_the_tokens_a_picture_are_told_once_after_twenty_replies() -> None:
    wrong = lambda size: 4 * 3202 + size // 4  # noqa: E731 - short
    assert audited(ENGLISH, wrong, replies=REPLIES - 1) == []
    said = audited(ENGLISH, wrong, replies=REPLIES + 5)
    assert len(said) == 1
    assert said[0].startswith("Warning: ")
    assert "1,601 were reckoned with" in said[0]


def test_pictures_that_are_hardly_counted_are_told_of() -> None:
    assert len(audited(ENGLISH, lambda size: 4 * 85 + size // 4)) == 1


def test_requests_without_pictures_decide_nothing() -> None:
    assert audited(ENGLISH, lambda _size: 1, pictures=0) == []


def test_an_audited_client_passes_replies_on_and_minds_no_missing_usage() -> None:
    said: list[str] = []
    client = AuditedClient(Counting([5, None]), Audit(lambda _width, _height: 10, model="m", say=said.append))
    replies = [run_in_virtual_time(lambda: client.attempt(body_of("x", 1))) for _ in range(2)]
    assert [reply.usage for reply in replies] == [Usage(prompt_tokens=5, completion_tokens=1), None]


class Silent:
    async def attempt(self, *body: bytes) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError


def test_a_server_that_says_nothing_keeps_a_run_waiting_for_half_a_minute() -> None:
    probe = measured(Silent())
    assert probe.trouble == "no answer within 30 s"
    assert probe.unknown_calls == 1


def test_a_body_without_pictures_is_not_even_read() -> None:
    said: list[str] = []
    audit = Audit(lambda _width, _height: 10, model="m", say=said.append)
    for _ in range(2 * REPLIES):
        audit.add(b'this is no JSON, though "image_url" stands in it', 10_000)
    assert not audit.is_over
    assert said == []
