"""When a run stops because too much goes wrong."""

from __future__ import annotations

from engine.brake import Brake
from engine.config import BrakeConfig
from engine.errors import AuthRejected, RunError, TooManyFailures
from engine.types import Failure, FailureKind, Record
from tests.fakes.calls import make_reply


def ended(row: int, kind: FailureKind | None = None, *, status: int = 400, sent: bool = True) -> Record:
    outcome = make_reply() if kind is None else Failure(kind=kind, message=f"no {row}", status=status)
    return Record(row=row, id=str(row), outcome=outcome, order=row if sent else None)


def judged(brake: Brake, *records: Record) -> list[RunError]:
    return [error for record in records if (error := brake.judge(record)) is not None]


def test_twenty_first_rows_that_fail_alike_end_the_run_with_the_servers_words() -> None:
    brake = Brake(BrakeConfig())
    assert judged(brake, *(ended(row, FailureKind.REFUSED) for row in range(19))) == []
    (error,) = judged(brake, ended(19, FailureKind.REFUSED))
    assert isinstance(error, AuthRejected)
    assert "no 19" in str(error)
    assert "--retry-failed" in str(error)


def test_first_means_sent_first_because_a_refusal_comes_faster_than_an_answer() -> None:
    brake = Brake(BrakeConfig())
    assert judged(brake, *(ended(row, FailureKind.REFUSED) for row in range(1, 60))) == []
    assert judged(brake, ended(0)) == []
    assert judged(brake, *(ended(row, FailureKind.REFUSED) for row in range(60, 90))) == []


def test_one_answer_or_one_other_failure_among_the_first_is_enough_to_go_on() -> None:
    for odd in (ended(7), ended(7, FailureKind.NETWORK), ended(7, FailureKind.REFUSED, status=422)):
        brake = Brake(BrakeConfig())
        records = [odd if row == 7 else ended(row, FailureKind.REFUSED) for row in range(40)]
        assert judged(brake, *records) == []


def test_broken_input_rows_never_look_like_a_broken_provider() -> None:
    brake = Brake(BrakeConfig())
    assert judged(brake, *(ended(row, FailureKind.BAD_ROW, sent=False) for row in range(150))) == []


def test_the_share_is_not_judged_before_probation_is_over() -> None:
    brake = Brake(BrakeConfig(probation_rows=200, max_failed_share=0.05))
    rows = [ended(row, FailureKind.REFUSED if 30 <= row < 60 else None) for row in range(199)]
    assert judged(brake, *rows) == []
    assert judged(brake, ended(199)) == [], "only a failure pulls the brake"
    (error,) = judged(brake, ended(200, FailureKind.REFUSED))
    assert isinstance(error, TooManyFailures)
    assert "31 of 201 rows failed (15.4%), more than --max-failed 5%" in str(error)


def test_a_count_is_judged_from_the_first_row_on() -> None:
    brake = Brake(BrakeConfig(max_failed_share=None, max_failed_rows=2))
    assert judged(brake, ended(0, FailureKind.REFUSED), ended(1, FailureKind.REFUSED)) == []
    assert len(judged(brake, ended(2, FailureKind.REFUSED))) == 1


def test_every_kind_is_counted_with_its_first_message() -> None:
    brake = Brake(BrakeConfig())
    judged(brake, ended(1, FailureKind.SERVER), ended(2, FailureKind.SERVER), ended(3, FailureKind.BLOCKED), ended(4))
    assert brake.by_kind == {FailureKind.SERVER: 2, FailureKind.BLOCKED: 1}
    assert brake.examples == {FailureKind.SERVER: "no 1", FailureKind.BLOCKED: "no 3"}
