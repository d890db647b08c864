"""What a server counts for a picture, found out by asking: the same few words twice, alone and with a picture.

The difference of the prompt tokens that it reports is the picture's. Asked for at the start of a run whose model no
formula is known for, and of any other on `--probe-tokens`. Nothing depends on an answer: without one the run goes on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import orjson
import pybase64

from encoders.chat import UNKNOWN_IMAGE_TOKENS, ChatEncoder
from encoders.tokens import UNKNOWN_MODEL_BOX_PX, Measured, Size, image_tokens
from engine.client import HttpClient
from engine.config import ApiConfig
from engine.errors import ApiError
from engine.lengths import LEAST_TOKENS
from engine.money import Books
from engine.ports import Client
from engine.types import Usage
from sinks.files import OS_FILES
from sinks.folder import MANIFEST, MEASURED, note_measured, read_manifest

WORDS = "Answer with one word."
SHAPE: Size = (9, 16)
"""Of the picture that is sent: a phone held upright."""
TIMEOUT_S = 30.0
"""A server that takes longer for one word does not keep a run waiting for it."""
TOLERATED = 0.05
"""Formula and measurement may differ by this share; markers around a picture, and scaling, make up less."""
WORST_TOKENS = 20_000
"""More than both calls can take: what is set aside of `--max-cost` for them."""
IMAGE_TOKENS = "image_tokens"
"""Where `run.json` keeps what was found, under `measured`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the two calls gave."""

    model: str
    measured: Measured | None
    """None where the server did not say, or does not count pictures."""
    usages: tuple[Usage, ...] = ()
    """Of the calls that reported one."""
    unknown_calls: int = 0
    """Calls that may have been charged and reported nothing."""
    trouble: str | None = None
    """Why nothing was measured."""
    lasting: bool = False
    """Whether to ask again would give the same."""

    def as_json(self) -> dict[str, Any]:
        """For `run.json`."""
        found = self.measured
        size = {} if found is None else {"width": found.width, "height": found.height, "tokens": found.tokens}
        return {"model": self.model, "trouble": self.trouble} | size

    def note(self) -> str:
        """For a person, in one line."""
        found = self.measured
        if found is None:
            return (
                f"What {self.model} counts for a picture could not be measured ({self.trouble}); "
                f"{UNKNOWN_IMAGE_TOKENS:,} tokens a frame are reckoned with"
            )
        spent = sum(usage.prompt_tokens + usage.completion_tokens for usage in self.usages)
        told = (
            f"{self.model} counts {found.tokens:,} tokens for a picture of {found.width}x{found.height} "
            f"(measured by two calls of {spent:,} tokens together)"
        )
        formula = image_tokens(self.model, found.width, found.height)
        if formula is None:
            return f"{told}; frames are reckoned so"
        if abs(found.tokens - formula) <= TOLERATED * formula:
            return f"{told}; its formula says {formula:,}"
        return (
            f"Warning: {told}, but its formula says {formula:,}. Estimates go by the formula; what is spent is booked "
            "as the server reports it"
        )


def wanted(encoder: ChatEncoder, *, always: bool) -> bool:
    """Whether a run with this encoder has a use for the two calls."""
    if not encoder.media.is_wanted:
        return False
    return always or (encoder.media.fit.rule == "tokens" and encoder.image_tokens(1, 1) is None)


def stored(manifest: Mapping[str, Any], model: str) -> tuple[bool, Measured | None]:
    """Whether a run has measured this model before, and what it found."""
    said = manifest.get(MEASURED)
    said = said.get(IMAGE_TOKENS) if isinstance(said, dict) else None
    if not isinstance(said, dict) or said.get("model") != model:
        return False, None
    sizes = [size for name in ("width", "height", "tokens") if isinstance(size := said.get(name), int) and size > 0]
    if len(sizes) < 3:  # noqa: PLR2004 - the three names above
        return True, None
    width, height, tokens = sizes
    return True, Measured(width=width, height=height, tokens=tokens)


def stored_in(out: Path, model: str) -> tuple[bool, Measured | None]:
    """The same of the run in a folder, if there is one."""
    return stored(read_manifest(out), model) if (out / MANIFEST).exists() else (False, None)


def keep(out: Path, probe: Probe) -> None:
    """Write what was found into the `run.json` of a folder that is held, unless asking again may give more.

    Raises:
        SinkBroken: it cannot be written.
    """
    if probe.measured is not None or probe.lasting:
        note_measured(out, {IMAGE_TOKENS: probe.as_json()}, files=OS_FILES)


def book(probe: Probe, lane: ApiConfig, books: Books) -> None:
    """Enter the calls, for which `worst_cost_usd` was set aside."""
    books.free(worst_cost_usd(lane))
    for usage in probe.usages:
        books.charged(0.0, usage, lane.price.cost_usd(usage.prompt_tokens, usage.completion_tokens))
    for _ in range(probe.unknown_calls):
        books.charged_unknown(worst_cost_usd(lane) / 2)


def worst_cost_usd(lane: ApiConfig) -> float:
    return lane.price.cost_usd(WORST_TOKENS, 2 * LEAST_TOKENS) or 0.0


async def probe_lane(lane: ApiConfig) -> Probe:
    """Make the two calls over a connection of their own."""
    async with HttpClient(lane) as client:
        return await measure(client, model=lane.model)


async def measure(client: Client, *, model: str) -> Probe:
    """Make the two calls. What an `ApiError` says becomes the trouble."""
    width, height = UNKNOWN_MODEL_BOX_PX * SHAPE[0] // SHAPE[1], UNKNOWN_MODEL_BOX_PX
    nothing = Probe(model=model, measured=None)
    usages: list[Usage] = []
    for picture in (None, grey_png(width, height)):
        nothing = replace(nothing, usages=tuple(usages))
        try:
            with anyio.fail_after(TIMEOUT_S):
                reply = await client.attempt(_body(model, picture))
        except ApiError as error:
            return replace(nothing, unknown_calls=int(error.paid), trouble=str(error))
        except TimeoutError:
            return replace(nothing, unknown_calls=1, trouble=f"no answer within {TIMEOUT_S:g} s")
        if reply.usage is None or not reply.usage.prompt_tokens:
            return replace(nothing, unknown_calls=1, trouble="the server reports no usage", lasting=True)
        usages.append(reply.usage)
    tokens = usages[1].prompt_tokens - usages[0].prompt_tokens
    if tokens <= 0:
        trouble = "the server counts no tokens for one"
        return replace(nothing, usages=tuple(usages), trouble=trouble, lasting=True)
    return Probe(model=model, measured=Measured(width=width, height=height, tokens=tokens), usages=tuple(usages))


def _body(model: str, picture: bytes | None) -> bytes:
    content: list[dict[str, object]] = [{"type": "text", "text": WORDS}]
    if picture is not None:
        url = f"data:image/png;base64,{pybase64.b64encode(picture).decode()}"
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    said = {"model": model, "messages": [{"role": "user", "content": content}]}
    return orjson.dumps(said | {"stream": False, "max_tokens": LEAST_TOKENS})


def grey_png(width: int, height: int) -> bytes:
    """A grey picture of this size in pixels, a few hundred bytes; made here, since it needs no encoder."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = (b"\0" + b"\x80" * width) * height
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
