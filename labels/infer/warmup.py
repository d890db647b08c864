"""Waits for addresses whose model is not loaded yet, by a few calls that carry no row; at most so many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import orjson

from engine.client import HttpClient
from engine.config import ApiConfig
from engine.errors import (
    ApiError,
    AuthRejected,
    BudgetSpent,
    LaneRefused,
    NetworkError,
    ProviderDown,
    RateLimited,
    ServerError,
)
from engine.lengths import LEAST_TOKENS
from engine.money import Books
from engine.ports import Client
from engine.probe import PING, PING_TOKENS

LONGEST_PAUSE_S = 30.0
"""Between two calls; it begins at a second and doubles."""


async def warm_up(lanes: Sequence[ApiConfig], *, calls: int, books: Books, say: Callable[[str], None]) -> None:
    """Return once one of the addresses has answered.

    Args:
        lanes: whom to ask, one after the other.
        calls: at most so many calls to each.
        books: take what they cost.
        say: told how each stands.

    Raises:
        AuthRejected: every address refuses the key, the account or the model.
        ProviderDown: none has answered.
        BudgetSpent: there is no money for a call.
    """
    troubles: list[str] = []
    refused = 0
    for lane in lanes:
        async with HttpClient(lane) as client:
            started_s = anyio.current_time()
            try:
                made = await until_ready(client, lane, calls=calls, books=books)
            except LaneRefused as error:
                refused += 1
                troubles.append(f"{lane.name}: {error}")
            except ApiError as error:
                troubles.append(f"{lane.name}: {error}")
            else:
                took_s = anyio.current_time() - started_s
                say(f"{lane.name} is ready: call {made} of at most {calls} was answered after {took_s:.1f} s")
    if len(troubles) < len(lanes):
        for trouble in troubles:
            say(f"Not ready, left to the run: {trouble}")
        return
    words = "; ".join(troubles)
    if refused == len(lanes):
        raise AuthRejected(words)
    raise ProviderDown(f"no answer to {calls} warm-up calls. {words}")


async def until_ready(client: Client, lane: ApiConfig, *, calls: int, books: Books) -> int:
    """Which call was answered, be it by a refusal of its words.

    Raises:
        LaneRefused: the address refuses whatever is sent.
        ApiError: what the last call met.
        BudgetSpent: there is no money for a call.
    """
    for call in range(1, calls):
        try:
            return await _answered(client, lane, books, call)
        except (NetworkError, ServerError, RateLimited) as error:
            await anyio.sleep(min(LONGEST_PAUSE_S, max(error.retry_after_s or 0.0, 2.0 ** (call - 1))))
    return await _answered(client, lane, books, calls)


async def _answered(client: Client, lane: ApiConfig, books: Books, call: int) -> int:
    try:
        await _call(client, lane, books)
    except (NetworkError, ServerError, RateLimited, LaneRefused):
        raise
    except ApiError:
        pass  # It is there, whatever it thinks of the ping.
    return call


async def _call(client: Client, lane: ApiConfig, books: Books) -> None:
    """One call, entered in the books however it ends."""
    worst_usd = lane.price.cost_usd(PING_TOKENS, LEAST_TOKENS) or 0.0
    if not books.reserve(worst_usd):
        raise BudgetSpent("a warm-up call could pass --max-cost. Raise it to go on")
    try:
        reply = await client.attempt(PING % (LEAST_TOKENS, orjson.dumps(lane.model)))
    except ApiError as error:
        if error.paid:
            books.charged_unknown(worst_usd)
        else:
            books.free(worst_usd)
        raise
    except BaseException:
        books.charged_unknown(worst_usd)
        raise
    if reply.usage is None:
        books.charged_unknown(worst_usd)
    else:
        usage = reply.usage
        books.charged(worst_usd, usage, lane.price.cost_usd(usage.prompt_tokens, usage.completion_tokens))
