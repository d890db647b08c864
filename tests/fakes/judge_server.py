"""A judge that knows the truth: answers say what they are worth, and it may favour the one that stands first."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.fakes.servers import RawServer, Wire, chat_body, header_of, http_reply

_ANSWER = re.compile(r"\[(\w+) (\d)\]\n(.*?)\n\n\[End of \1 \2\]", re.DOTALL)
_WORTH = re.compile(r"worth (\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call, as the judge saw it."""

    model: str
    text: str
    """Of the user."""
    images: int
    seed: int | None
    times: int
    """How often this judge was asked the very same before, with whatever seed."""
    body: dict[str, Any]

    def chance(self, salt: str = "") -> float:
        """From 0 to 1, the same for the same question to the same judge."""
        digest = hashlib.sha256(f"{salt}|{self.model}|{self.text}|{self.times}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How it judges."""

    first_bonus: float = 0.0
    """What it gives the answer that stands first, besides what it is worth."""
    fails: Callable[[Asked], bool] = field(default=lambda _: False)
    """Whether a call ends with a 400, which no retry helps."""
    stumbles: Callable[[Asked], bool] = field(default=lambda _: False)
    """Whether a call ends with a 500."""
    mumbles: Callable[[Asked], bool] = field(default=lambda _: False)
    """Whether a review has no scores."""
    holds: Callable[[Asked], bool] = field(default=lambda _: False)
    """Whether it keeps its caller waiting."""

    def reply(self, asked: Asked) -> bytes:
        if self.fails(asked):
            return http_reply(
                b'{"error":{"message":"no judgement today","type":"invalid_request_error"}}', status="400 Bad Request"
            )
        if self.stumbles(asked):
            return http_reply(b'{"error":{"message":"overloaded"}}', status="500 Internal Server Error")
        worth = [float(found[1]) for found in map(_WORTH.search, self.answers(asked.text)) if found]
        assert len(worth) == 2, asked.text
        first, second = min(10.0, worth[0] + self.first_bonus), worth[1]
        scores = "I would rather not say." if self.mumbles(asked) else f"{first:g} {second:g}"
        return http_reply(chat_body(f"{scores}\nBoth were read with care.", model=asked.model))

    @staticmethod
    def answers(text: str) -> list[str]:
        return [answer for _, _, answer in _ANSWER.findall(text)]


class JudgeServer:
    """The judge on a real socket. A context manager."""

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge or Judge()
        self.asked: list[Asked] = []
        self._times: Counter[tuple[str, str]] = Counter()
        self._server = RawServer(self._serve)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def keys(self) -> set[str | None]:
        """What callers showed."""
        return {header_of(request, "Authorization") for request in self._server.requests}

    @property
    def url(self) -> str:
        return self._server.base_url

    def _serve(self, wire: Wire) -> None:
        while True:
            said = json.loads(wire.request().partition(b"\r\n\r\n")[2])
            content = said["messages"][-1]["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            text = "".join(part["text"] for part in parts if part["type"] == "text")
            if not Judge.answers(text):
                # What the engine asks to find out how pictures are counted.
                wire.send(http_reply(chat_body("yes")))
                continue
            key = said["model"], text
            asked = Asked(
                model=said["model"],
                text=text,
                images=sum(part["type"] == "image_url" for part in parts),
                seed=said.get("seed"),
                times=self._times[key],
                body=said,
            )
            self._times[key] += 1
            self.asked.append(asked)
            if self.judge.holds(asked):
                wire.hold()
            wire.send(self.judge.reply(asked))
