"""`generate`: a file of prompts about media to answers. A run like any other, but for its source, encoder and file.

All that the two have in common goes through the flags of `run`: addresses, keys, prices, limits, brakes.
"""

from __future__ import annotations

from dataclasses import replace

from encoders.asking import AskingEncoder
from encoders.chat import ChatEncoder, recipe_of
from engine.config import FormatConfig
from engine.source import SourceConfig
from labels.flags import OF_RUNS, RunFlags, handed_on
from labels.generate.answers import AnswerRows
from labels.generate.order import Order, body_of
from labels.generate.prompts import MAX_LINE_BYTES, Prompts
from labels.infer.watch import Sight
from labels.quality import NONE as NO_GOLD
from labels.reading import TextReader
from labels.told import Told

SHARDS = 1
"""As in `infer`."""
MAX_OPEN_MB = 256


def generate_job(told: Told, order: Order, prompts: Prompts) -> Told:
    """The job of an order.

    Args:
        told: the job that `run_flags` gave.
        order: what is to be generated.
        prompts: its lines, open for as long as the job lasts.
    """
    base = told.job
    body, notes = body_of(order, [lane.base_url for lane in base.settings.lanes])
    sampled = dict(base.encoder.extra)
    if order.sampling.greedy:
        del sampled["top_p"]
    encoder = replace(base.encoder, system_prompt="", vision_context="", extra=tuple((sampled | body).items()))
    asking = order.asking

    def worker(chat: ChatEncoder) -> AskingEncoder:
        return AskingEncoder(chat=chat, asking=asking)

    flags = order.flags
    settings = replace(
        base.settings,
        source=SourceConfig(
            path=order.prompts,
            whole_lines=True,
            max_line_bytes=MAX_LINE_BYTES,
            skip=flags.skip,
            limit=flags.limit,
        ),
        format=FormatConfig(),
        recipe={
            **recipe_of(encoder),
            "prompts": {"media_type": asking.media_type, "insert_media_token": asking.insert},
            "tokens_to_generate": order.sampling.tokens_to_generate,
        },
    )
    job = replace(
        base,
        settings=settings,
        encoder=encoder,
        reader=TextReader(),
        observer=Sight(),
        worker=worker,
        raw=order.lines,
        raw_form=AnswerRows(prompts=prompts, asking=asking, template=flags.conv_template),
        warmup=flags.warmup,
    )
    return Told(job=job, notes=(*order.notes, *told.notes, *notes))


def run_flags(order: Order) -> RunFlags:
    """The same as told to `run`, as far as the two are alike."""
    flags, sampling = order.flags, order.sampling
    return RunFlags(
        **handed_on(flags, OF_RUNS),
        input=order.prompts,
        out=order.folder,
        serve=flags.serve,
        serve_timeout=flags.serve_timeout,
        gold=(NO_GOLD,),
        videos=order.media,
        num_frames=order.num_frames,
        sampling=flags.sampling,
        splice_single_frame=order.splice,
        max_frames=order.max_frames,
        image_token_len=flags.image_token_len,
        context_tokens=flags.context_tokens,
        auto_frames=flags.auto_frames,
        temperature=0.0 if sampling.greedy else sampling.temperature,
        top_p=sampling.top_p,
        seed=flags.seed,
        response_format="none",
        max_open_mb=MAX_OPEN_MB,
        max_tokens=sampling.tokens_to_generate,
        max_tokens_cap=sampling.tokens_to_generate,
        retry_on_trunc=False,
        shards=SHARDS,
        retry_failed=flags.resume,
    )
