"""A run shows how good its answers are while it lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.types import Answer, Failure, FailureKind, Record, Reply, Row
from labels.codebook import load_codebook
from labels.flags import RunFlags
from labels.gold import GoldColumns
from labels.quality import Quality, gold_of

BOOK = load_codebook("standard")
REPLY = Reply(text="{}", finish_reason="stop", usage=None, model="m", request_id=None, latency_s=0.1)
NO_LABELS = Answer(labels=None, error="not_json")


def row(number: int, sensitive: str) -> Row:
    return Row(row=number, id=str(number), fields={"description": "x", "gold:china_sensitive": sensitive})


def ended(number: int, sensitive: str | None) -> Record:
    labels = {"china_stance_score": 0.0, "china_sensitive": sensitive, "collective_action": "no"}
    return Record(row=number, id=str(number), outcome=REPLY, answer=Answer(labels=labels) if sensitive else NO_LABELS)


def failed(number: int, kind: FailureKind) -> Record:
    return Record(row=number, id=str(number), outcome=Failure(kind=kind, message="no"))


def quality(*, gold: bool = True) -> Quality:
    return Quality(BOOK, gold=GoldColumns.find(BOOK, ["id", "sensitive"]) if gold else None)


def test_gold_meets_the_answer_of_its_row_in_whatever_order_they_end() -> None:
    seen = quality()
    seen.read([row(0, "yes"), row(1, "no"), row(2, "nan"), row(3, "perhaps"), failed(4, FailureKind.BAD_ROW)])
    for record in (ended(1, "no"), ended(3, "no"), ended(0, "no"), ended(2, "yes")):
        seen.ended(record)
    found = seen.findings()
    assert found.lines == (("agreement", "2 rows with gold · 50.0% of labels agree · least china_sensitive, 50.0%"),)
    assert found.values["agreement"]["gold_problems"] == {"unknown_value:china_sensitive": 1}


def test_rows_no_model_was_asked_about_count_nowhere_and_refusals_do() -> None:
    seen = quality()
    seen.read([row(number, "yes") for number in range(4)])
    for record in (
        failed(0, FailureKind.NETWORK),
        failed(1, FailureKind.BLOCKED),
        ended(2, None),
        ended(3, "yes"),
    ):
        seen.ended(record)
    found = seen.findings()
    assert dict(found.lines)["no labels"] == "66.7% of the answers"
    assert found.values["agreement"]["rows"] == 3


def test_gold_of_rows_that_ended_is_not_kept() -> None:
    seen = quality()
    for number in range(1000):
        seen.read([row(number, "yes")])
        seen.ended(ended(number, "yes"))
    assert seen._gold == {}


def test_without_gold_only_drift_is_watched() -> None:
    seen = quality(gold=False)
    seen.read([row(0, "yes")])
    seen.ended(ended(0, "yes"))
    assert seen.findings().lines == ()
    assert "agreement" not in seen.findings().values


def table(tmp_path: Path) -> Path:
    path = tmp_path / "videos.csv"
    path.write_text("id,desc,Sensitive,coder_2\n1,x,yes,no\n")
    return path


def test_columns_that_the_codebook_names_are_found_and_others_can_be_told(tmp_path: Path) -> None:
    flags = RunFlags(input=table(tmp_path), out=tmp_path / "out")
    assert (found := gold_of(flags, BOOK)) is not None
    assert dict(found.columns) == {"china_sensitive": "Sensitive"}
    told = RunFlags(input=flags.input, out=flags.out, gold=("china_sensitive=coder_2",))
    assert (found := gold_of(told, BOOK)) is not None
    assert dict(found.columns) == {"china_sensitive": "coder_2"}
    assert gold_of(RunFlags(input=flags.input, out=flags.out, gold=("none",)), BOOK) is None
    assert gold_of(flags, None) is None


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        (("hate",), "write it as KEY=COLUMN"),
        (("love=coder_2",), "no such dimension"),
        (("china_sensitive=coder_3",), "no such column"),
        (("china_sensitive=coder_2", "none"), "no --gold none"),
    ],
)
def test_a_wrong_gold_flag_says_what_is_wrong(tmp_path: Path, gold: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        gold_of(RunFlags(input=table(tmp_path), out=tmp_path / "out", gold=gold), BOOK)
