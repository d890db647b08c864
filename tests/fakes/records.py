"""Records as the engine makes them."""

from __future__ import annotations

from engine.types import Answer, Failure, FailureKind, Record, Reply, Usage


def result(row: int, text: str = '{"a":"yes"}', **changes: object) -> Record:
    reply = Reply(
        text=text,
        finish_reason="stop",
        usage=Usage(prompt_tokens=100, completion_tokens=3),
        model="m",
        request_id=f"r{row}",
        latency_s=1.25,
    )
    settings: dict[str, object] = {"answer": Answer(labels={"a": "yes"}), "attempts": 1, "max_tokens_used": 512}
    return Record(row=row, id=f"id-{row}", outcome=reply, usage=reply.usage, **(settings | changes))  # type: ignore[arg-type]  # names are checked by the dataclass


def cut(row: int, text: str = '{"a":"y', **changes: object) -> Record:
    """A result whose answer was cut off."""
    return result(row, text, **({"truncated": True, "answer": Answer(labels=None, error="cut")} | changes))


def failure(row: int, message: str = "HTTP 400: no", kind: FailureKind = FailureKind.REFUSED) -> Record:
    outcome = Failure(kind=kind, message=message, status=400)
    return Record(row=row, id=f"id-{row}", outcome=outcome, attempts=2)
