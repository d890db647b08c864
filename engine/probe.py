"""Finds out whether a lane that rests is back, by a call of a few tokens that carries no row."""

from __future__ import annotations

import anyio

from engine.errors import ApiError, NetworkError, ServerError
from engine.gate import Gate
from engine.lanes import Lane, Lanes
from engine.lengths import LEAST_TOKENS
from engine.stop import Stop

PING = b'{"messages":[{"role":"user","content":"ping"}],"stream":false,"max_tokens":%d,"model":%b}'
PING_TOKENS = 32
"""Prompt and answer, generously."""
PING_TIMEOUT_S = 30.0
"""A server that takes longer for one word is not back."""


class Prober:
    """Sends the probes of resting lanes."""

    def __init__(self, lanes: Lanes, *, gate: Gate, stop: Stop) -> None:
        self._lanes = lanes
        self._gate = gate
        self._stop = stop

    async def until_back(self, lane: Lane) -> None:
        """Return some time after the lane has answered, or when the run is to stop."""
        await self._stop.sleep(lane.breaker.rest_s)
        while lane.breaker.is_open and not self._stop.asked:
            words = await self._ping(lane)
            now = anyio.current_time()
            if words is None:
                lane.breaker.answered()
            else:
                lane.breaker.probe_failed(now, words=words)
            self._lanes.look(now)
            self._gate.wake()
            await self._stop.sleep(lane.breaker.rest_s)

    async def _ping(self, lane: Lane) -> str | None:
        """None if the server is there, whatever it thinks of the ping; else what went wrong."""
        books = self._lanes.books
        worst_usd = lane.config.price.cost_usd(PING_TOKENS, LEAST_TOKENS) or 0.0
        if not books.reserve(worst_usd):
            return lane.breaker.words
        with anyio.move_on_after(PING_TIMEOUT_S):
            try:
                reply = await lane.client.attempt(PING % (LEAST_TOKENS, lane.model_json))
            except (NetworkError, ServerError) as error:
                books.free(worst_usd)
                return str(error)
            except ApiError:
                books.free(worst_usd)
                return None
            if reply.usage is None:
                books.charged_unknown(worst_usd)
            else:
                usage = reply.usage
                price = lane.config.price
                books.charged(worst_usd, usage, price.cost_usd(usage.prompt_tokens, usage.completion_tokens))
            return None
        books.free(worst_usd)
        return f"no answer within {PING_TIMEOUT_S:g} s"
