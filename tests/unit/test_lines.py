"""The lines users read, to the letter."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Answer, Failure, FailureKind, MediaNote, Record, Shares
from sinks.lines import FAILURE_KEYS, RESULT_KEYS, cut_answer, kind_of, line_of, row_of, withdrawal_line
from tests.fakes.records import cut, failure, result

NOTE = MediaNote(index=3, time_s=1.5, digest="ab12", width=315, height=560, tokens=1601)


def test_a_result_line_has_its_keys_in_order() -> None:
    record = result(7, media=(NOTE,), degraded=("skipped_frames:1",), cost_usd=0.25, truncated=True)
    said = json.loads(line_of(record))
    assert list(said.items()) == [
        ("row", 7),
        ("meta_id", "id-7"),
        ("raw", '{"a":"yes"}'),
        ("labels", {"a": "yes"}),
        ("label_error", None),
        ("finish_reason", "stop"),
        ("truncated", True),
        ("attempt", 1),
        ("max_tokens_used", 512),
        ("latency_s", 1.25),
        ("model", "m"),
        ("usage", {"prompt_tokens": 100, "completion_tokens": 3, "cached_tokens": 0}),
        ("cost_usd", 0.25),
        ("frames", [{"index": 3, "time_s": 1.5, "digest": "ab12", "width": 315, "height": 560, "tokens": 1601}]),
        ("degraded", ["skipped_frames:1"]),
        ("request_id", "r7"),
    ]
    assert list(said) == RESULT_KEYS


@pytest.mark.parametrize(("row", "said"), [(0, 0), (12, 12), (None, "cache")])
def test_a_line_that_shares_says_so_in_one_key_more_and_is_read_as_a_result(row: int | None, said: int | str) -> None:
    line = line_of(result(7, shares=Shares(row=row, spared_usd=None)))
    assert list(json.loads(line).items())[-1] == ("shared_with", said)
    assert list(json.loads(line))[:-1] == RESULT_KEYS
    assert row_of(line, keys=RESULT_KEYS) == 7
    assert row_of(line, keys=FAILURE_KEYS) is None
    other = json.loads(line)
    other["shared"] = other.pop("shared_with")
    assert row_of(orjson.dumps(other) + b"\n", keys=RESULT_KEYS) is None


def test_a_failure_line_has_its_keys_in_order() -> None:
    said = json.loads(line_of(failure(9)))
    assert list(said.items()) == [
        ("row", 9),
        ("meta_id", "id-9"),
        ("kind", "refused"),
        ("status", 400),
        ("message", "HTTP 400: no"),
        ("attempt", 2),
        ("usage", None),
    ]
    assert list(said) == FAILURE_KEYS


def test_what_is_unknown_is_null() -> None:
    said = json.loads(line_of(result(0, answer=Answer(labels=None, error="not_json"))))
    assert (said["labels"], said["label_error"], said["cost_usd"], said["degraded"]) == (None, "not_json", None, None)


@given(st.text(st.characters()), st.text(), st.integers())
def test_any_text_makes_one_line_that_is_read_back(text: str, identity: str, number: int) -> None:
    answer = Answer(labels={"a": text, "n": number})
    record = result(3, text, answer=answer)
    object.__setattr__(record, "id", identity)
    line = line_of(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    assert row_of(line, keys=RESULT_KEYS) == 3
    said = json.loads(line)
    if text.isprintable() and text.isascii():
        assert (said["raw"], said["labels"]["a"]) == (text, text)


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert json.loads(line_of(result(0, "a\ud800b")))["raw"] == "a�b"


def test_a_message_is_cut_to_two_thousand_characters() -> None:
    record = Record(row=0, id="x", outcome=Failure(kind=FailureKind.SERVER, message="m" * 9000))
    assert len(json.loads(line_of(record))["message"]) == 2000


@pytest.mark.parametrize(
    "line",
    [
        line_of(result(3))[:-1],
        line_of(result(3))[:-9] + b"\n",
        b"{}\n",
        b"\n",
        b"[3]\n",
        b"\x00" * 40 + b"\n",
        line_of(failure(3)),
        orjson.dumps(dict.fromkeys(RESULT_KEYS, -1)) + b"\n",
        orjson.dumps(dict.fromkeys(RESULT_KEYS, True)) + b"\n",
    ],
)
def test_what_is_no_whole_line_of_ours_has_no_row(line: bytes) -> None:
    assert row_of(line, keys=RESULT_KEYS) is None


def test_a_cut_answer_is_told_by_its_key_and_not_by_what_it_says() -> None:
    said = cut_answer(line_of(cut(3)))
    assert said is not None
    assert (said["row"], said["truncated"]) == (3, True)
    for text in ('"truncated":true', '{"truncated":true}', '\\"truncated":true'):
        assert cut_answer(line_of(result(3, text))) is None
        assert cut_answer(line_of(result(3, text, answer=Answer(labels={"truncated": True})))) is None
    assert cut_answer(line_of(cut(3))[:-2] + b"\n") is None
    assert cut_answer(line_of(failure(3, '"truncated":true'))) is None


def test_the_failure_line_of_a_withdrawn_answer_says_where_it_was_cut_and_what_it_took() -> None:
    said = cut_answer(line_of(cut(7, max_tokens_used=512, attempts=2)))
    assert said is not None
    failed = withdrawal_line(said)
    assert json.loads(failed) == {
        "row": 7,
        "meta_id": "id-7",
        "kind": "truncated",
        "status": None,
        "message": "the answer was cut off at 512 tokens and withdrawn to be asked for again (request r7)",
        "attempt": 2,
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "cached_tokens": 0},
    }
    assert row_of(failed, keys=FAILURE_KEYS) == 7
    assert kind_of(failed) == (7, "truncated")
    assert kind_of(failed[:-1]) is None
    unnamed = json.loads(withdrawal_line(said | {"request_id": None}))
    assert unnamed["message"] == "the answer was cut off at 512 tokens and withdrawn to be asked for again"
