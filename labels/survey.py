"""What the rows of an input hold, by a sample of them: how many frames, of what size, how much text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anyio import to_thread

from encoders.chat import UNKNOWN_IMAGE_TOKENS, ChatEncoder
from encoders.fit import parse_fit
from encoders.tokens import Size
from engine.encode import EncoderPool
from engine.types import Failure, Record, Request, Row
from labels.costs import FRAME_CHOICES, Holds
from labels.job import Job
from labels.probe_tokens import probe_lane, stored_in
from labels.sampling import draw

ENCODED_ROWS = 12
"""Really encoded, for the bytes of a body; its tokens are known without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was looked at."""

    rows: int
    """To be sent, as far as they can be read."""
    unreadable: int
    done: int
    looked_at: tuple[Holds, ...]
    unsendable: int
    """Of the sample, besides those looked at."""
    why_unsendable: str | None
    encoded: int
    body_bytes: float | None
    """A row, on average; None where none was encoded."""
    described: bool = False
    """Whether the rows were told of and not looked at."""

    @property
    def sendable(self) -> float:
        """Rows of the whole input, by the share of the sample that can be encoded."""
        seen = len(self.looked_at) + self.unsendable
        return self.rows * len(self.looked_at) / seen if seen else 0.0


async def with_measured(job: Job) -> tuple[Job, tuple[str, ...]]:
    """The job with what is known of its model's pictures, by its run folder or, if it asks for that, by two calls.

    Returns:
        It, and what to say of that.
    """
    _, found = stored_in(job.out, job.encoder.model) if job.resume else (False, None)
    notes: tuple[str, ...] = ()
    if job.probe_tokens:
        probe = await probe_lane(job.settings.lanes[0])
        found, notes = probe.measured or found, (probe.note(),)
    return replace(job, encoder=replace(job.encoder, measured=found)), notes


async def survey(job: Job, most: int) -> Survey:
    """Read the whole input, and of a sample the size of every frame; nothing is decoded for that.

    Raises:
        ConfigError, InputError: as a run would.
    """
    sample = await to_thread.run_sync(draw, job, most)
    untouched = replace(
        job.encoder,
        media=replace(
            job.encoder.media,
            fit=parse_fit("none", model=job.encoder.model),
            max_frames=max(job.encoder.media.max_frames, *FRAME_CHOICES),
        ),
    )
    async with EncoderPool(untouched, job.settings.encode) as pool:
        made = [await pool.encode_again(row) for row in sample.drawn]
    async with EncoderPool(job.encoder, job.settings.encode) as pool:
        bodies = [await pool.encode_again(row) for row in sample.drawn[:ENCODED_ROWS]]
    sizes = [item.n_bytes for item in bodies if isinstance(item, Request)]
    lost = [item.outcome for item in made if isinstance(item, Record)]
    return Survey(
        rows=sample.rows,
        unreadable=sample.unreadable,
        done=sample.done,
        looked_at=tuple(_held(item) for item in made if isinstance(item, Request)),
        unsendable=len(lost),
        why_unsendable=next((end.message for end in lost if isinstance(end, Failure)), None),
        encoded=len(sizes),
        body_bytes=sum(sizes) / len(sizes) if sizes else None,
    )


def alike(encoder: ChatEncoder, *, rows: int, text_tokens: int, sizes: tuple[Size, ...]) -> Survey:
    """Rows that were described and not looked at: all with the same frames and as much text of their own."""
    row = Row(row=0, id="0", fields={"transcript": "-"})
    text_alone = replace(encoder.media, frames=None, videos=None)
    asked = replace(encoder, media=text_alone, system_prompt=_instructions(encoder, framed=bool(sizes)))
    own = asked.encode(row)
    return Survey(
        rows=rows,
        unreadable=0,
        done=0,
        looked_at=(Holds(text_tokens=own.est_tokens + text_tokens, sizes=sizes),),
        unsendable=0,
        why_unsendable=None,
        encoded=0,
        body_bytes=None,
        described=True,
    )


def _instructions(encoder: ChatEncoder, *, framed: bool) -> str:
    return f"{encoder.vision_context}\n\n{encoder.system_prompt}" if framed else encoder.system_prompt


def _held(request: Request) -> Holds:
    images = sum(note.tokens or UNKNOWN_IMAGE_TOKENS for note in request.media)
    return Holds(
        text_tokens=request.est_tokens - images,
        sizes=tuple((note.width, note.height) for note in request.media),
    )
