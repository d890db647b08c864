"""Compares, for nothing, what a server counts with what was reckoned: the first replies to requests with pictures.

Only the sum of a prompt is reported, so the text stands between: it is taken at the least and at the most tokens that
its bytes can be. A warning needs a difference that no text explains.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pybase64

from encoders.image import size_of
from engine.ports import Client
from engine.types import Reply
from labels.probe_tokens import TOLERATED

REPLIES = 20
"""Enough that one odd row decides nothing."""
MOST_BYTES_A_TOKEN = 8.0
"""Of text: English takes about four, long runs of common words six."""
LEAST_BYTES_A_TOKEN = 1.5
"""Scripts of three bytes a letter come at one or two tokens a letter under the older vocabularies."""
UNSEEN_TOKENS = 64
"""Of a chat template, at most, with two messages."""
PICTURE = b'{"type":"image_url"'
"""Inside a text the quotes would be escaped. A body without it is not worth reading."""

Counts = Callable[[int, int], int | None]
"""Width and height in pixels to tokens."""


class Audit:
    """Looks at the first replies of one model, and says once if its pictures cost another number of tokens.

    Args:
        counts: what is reckoned for a picture.
        model: its name.
        say: takes the one warning.
    """

    def __init__(self, counts: Counts, *, model: str, say: Callable[[str], None]) -> None:
        self._counts = counts
        self._model = model
        self._say = say
        self._reckoned = self._pictures = self._replies = 0
        self._least = self._most = 0.0
        """What the server can have counted for the pictures, given the text, summed over the replies."""

    @property
    def is_over(self) -> bool:
        return self._replies >= REPLIES

    def add(self, body: bytes, prompt_tokens: int) -> None:
        """Take one more request and what its server says it took, until there are enough."""
        if self.is_over or PICTURE not in body:
            return
        reckoned, pictures, text_bytes = self._read(body)
        if not reckoned:
            return
        self._replies += 1
        self._pictures += pictures
        self._reckoned += reckoned
        self._least += prompt_tokens - text_bytes / LEAST_BYTES_A_TOKEN - UNSEEN_TOKENS
        self._most += prompt_tokens - text_bytes / MOST_BYTES_A_TOKEN
        if self.is_over and (words := self._words()):
            self._say(words)

    def _words(self) -> str | None:
        off = self._most < (1 - TOLERATED) * self._reckoned or self._least > (1 + TOLERATED) * self._reckoned
        if not off:
            return None
        each = self._reckoned / self._pictures
        low, high = max(0.0, self._least) / self._pictures, max(0.0, self._most) / self._pictures
        return (
            f"Warning: {self._model} counts {low:,.0f} to {high:,.0f} tokens a frame in its first {self._replies} "
            f"replies, {each:,.0f} were reckoned with. Costs are booked as the server reports them; estimates are off"
        )

    def _read(self, body: bytes) -> tuple[int, int, int]:
        """Tokens reckoned for the pictures, how many there are, and the bytes of all else; zeros if one is unknown."""
        said = orjson.loads(body)
        urls = [
            part["image_url"]["url"]
            for message in said["messages"]
            if isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "image_url"
        ]
        reckoned = 0
        for url in urls:
            size = size_of(pybase64.b64decode(url.partition(",")[2]))
            tokens = None if size is None else self._counts(*size)
            if tokens is None:
                return 0, 0, 0
            reckoned += tokens
        return reckoned, len(urls), len(body) - sum(map(len, urls))


class AuditedClient:
    """A client whose first replies an audit sees."""

    def __init__(self, client: Client, audit: Audit) -> None:
        self._client = client
        self._audit = audit

    async def attempt(self, *body: bytes) -> Reply:
        reply = await self._client.attempt(*body)
        if reply.usage is not None:
            self._audit.add(b"".join(body), reply.usage.prompt_tokens)
        return reply
