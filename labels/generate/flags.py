"""What `generate` may be told: the settings of NeVA's inference with their defaults, and some that `run` has too.

A setting that NeMo's config file can give has no default here, so that a file, then words, then flags decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from labels.flags import BRAKES, INPUT, MEDIA, OUTPUT, PROVIDER, QUESTIONS, SPEED, TOKENS, Switch
from labels.generate.clean import Template


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateFlags:
    """What `generate` is told."""

    prompt_file: Annotated[Path | None, Parameter(group=INPUT)] = None
    """The prompts: .jsonl with an object a line, or .json with a list of them. Each has "video" or "image", a file
    below --media-base-path, and "prompt", "text" or "question"; all else passes through to the answers."""
    config_file: Annotated[Path | None, Parameter(group=INPUT)] = None
    """A YAML file in the shape of NeMo's neva_inference.yaml; words such as inference.temperature=0.2 beat it, and
    flags beat both."""
    output_file: Annotated[Path | None, Parameter(name=("--output-file", "--output"), group=OUTPUT)] = None
    """The answers: .jsonl, a line each as they come, or .json, a list written at the end. Beside it OUTPUT.run keeps
    the run itself, for --resume, status, verify and export."""
    media_base_path: Annotated[str | None, Parameter(group=MEDIA)] = None
    """Holds the files that prompts name: a folder, a .tar or .zip file, or an address such as s3://bucket/videos."""
    media_type: Annotated[Literal["image", "video"] | None, Parameter(group=MEDIA)] = None
    """What a prompt is about that names both; otherwise video."""
    num_frames: Annotated[int | None, Parameter(group=MEDIA)] = None
    """Frames to take of a video; otherwise 8. -1 takes all, as far as --max-frames allows."""
    splice_single_frame: Annotated[Literal["first", "middle", "last"] | None, Parameter(group=MEDIA)] = None
    """Take this one frame of a video instead."""
    sampling: Annotated[Literal["neva", "uniform", "keyframes"], Parameter(group=MEDIA)] = "neva"
    """Which: by number as Video NeVA, the last repeated in a video that is too short; uniform by time, none repeated;
    keyframes alone, far cheaper."""
    insert_media_token: Annotated[Literal["left", "right"] | None, Parameter(group=MEDIA)] = None
    """Put the medium before the words, or after them; otherwise where they have <video> or <image>, or else before."""
    max_frames: Annotated[int | None, Parameter(group=MEDIA)] = None
    """At most so many frames a prompt, evenly thinned; otherwise --num-frames, and 16 with -1."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """tokens: the largest size that costs no further image tile; WxH in pixels; none: bytes untouched."""
    image_token_len: Annotated[int | None, Parameter(group=MEDIA)] = None
    """Tokens the model counts for one frame, whatever its size, such as 256; otherwise by the formula of the model."""
    context_tokens: Annotated[int | None, Parameter(group=MEDIA)] = None
    """What the model's context holds; a prompt that is reckoned to need more is not sent and fails as too_large."""
    auto_frames: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """With --context-tokens: send fewer frames of such a prompt instead."""
    temperature: Annotated[float | None, Parameter(group=QUESTIONS)] = None
    """Sampling temperature; otherwise 0.2."""
    top_k: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """Sample from so many likeliest tokens; otherwise 0, which is all. Sent where --server-params allows."""
    top_p: Annotated[float | None, Parameter(group=QUESTIONS)] = None
    """Nucleus sampling; otherwise 0.9."""
    greedy: Annotated[bool | None, Parameter(group=QUESTIONS)] = None
    """Take the likeliest token always: temperature 0, and neither top_p nor top_k."""
    repetition_penalty: Annotated[float | None, Parameter(group=QUESTIONS)] = None
    """1.0 is none; otherwise 1.2. Sent where --server-params allows."""
    tokens_to_generate: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """What an answer may take; otherwise 256."""
    min_tokens_to_generate: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """What it takes at least; otherwise 0. Sent where --server-params allows."""
    end_strings: Annotated[tuple[str, ...] | None, Parameter(group=QUESTIONS, negative=(), consume_multiple=True)] = (
        None
    )
    """Texts at which an answer ends; sent as "stop", and not sent unless given."""
    seed: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """Sampling seed; not sent unless given."""
    server_params: Annotated[Literal["auto", "vllm", "openai"], Parameter(group=QUESTIONS)] = "auto"
    """vllm sends top_k, repetition_penalty and min_tokens, which many providers refuse; openai sends none of them; auto
    sends them to servers on this machine alone."""
    conv_template: Annotated[Template, Parameter(group=QUESTIONS)] = "none"
    """Whose marks are taken off an answer, where a server gives back the whole conversation."""
    share: Annotated[bool, Parameter(group=QUESTIONS)] = True
    """Send identical requests once and give the answer to all their prompts; without, each is sampled for itself."""
    cache: Annotated[Path | None, Parameter(group=QUESTIONS)] = None
    """A folder that keeps answers for other runs, and gives those it has; several runs may use it at once."""
    model: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The model's name, as the provider spells it; required unless every --endpoint names one, or --serve."""
    base_url: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """Any OpenAI-compatible address, up to and with /v1; otherwise https://api.together.xyz/v1."""
    endpoint: Annotated[tuple[str, ...], Parameter(group=PROVIDER, negative=())] = ()
    """An address to share the work with, once for each, in the place of --base-url, as in `run`."""
    api_key_env: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The environment variable that holds the key; otherwise TOGETHER_API_KEY, then OPENAI_API_KEY."""
    api_key_file: Annotated[Path | None, Parameter(group=PROVIDER)] = None
    """A file that holds the key, readable by you alone."""
    allow_plaintext: Annotated[bool, Switch, Parameter(group=PROVIDER)] = False
    """Let an http:// address leave this machine."""
    serve: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """Start a server by this command, wait until it answers, and end it with the run, as in `run`."""
    serve_timeout: Annotated[float, Parameter(group=PROVIDER)] = 900.0
    """Seconds until a server of --serve must answer."""
    warmup: Annotated[int, Parameter(group=PROVIDER)] = 0
    """Before any prompt is sent, wait for an address that is not ready yet by at most so many small calls."""
    skip: Annotated[int, Parameter(group=INPUT)] = 0
    """Leave out so many prompts at the beginning."""
    limit: Annotated[int, Parameter(group=INPUT)] = 0
    """Read at most so many prompts; 0 reads all."""
    concurrency: Annotated[int | Literal["auto"], Parameter(group=SPEED)] = "auto"
    """Requests in flight; auto adapts."""
    rpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many requests a minute."""
    tpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many tokens a minute."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Encoder processes; otherwise one a core."""
    retries: Annotated[int, Parameter(group=TOKENS)] = 6
    """Calls a prompt that may fail; being told to slow down is not counted."""
    per_call_timeout: Annotated[float, Parameter(group=TOKENS)] = 600.0
    """Seconds until a call is given up."""
    price_in: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million prompt tokens; otherwise what the provider's price list said when this version was made."""
    price_out: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million completion tokens; likewise."""
    max_cost: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Stop before the run has cost more dollars than this, all its lives together."""
    max_failed: Annotated[str, Parameter(group=BRAKES)] = "5%"
    """Stop when more prompts than this have failed: a number, or a share of those ended."""
    max_outage: Annotated[str, Parameter(group=BRAKES)] = "6h"
    """Stop when no call has got through for so long: 90s, 30m, 6h, 2d."""
    drain_seconds: Annotated[float, Parameter(group=BRAKES)] = 20.0
    """How long answers in flight are waited for after the first signal."""
    resume: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Go on with the run behind --output-file: prompts without an answer, and those that failed. Without it a run that
    is there is refused."""
    extend: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """With --resume: the file has grown at its end; go on with the new prompts too."""
    only: Annotated[tuple[str, ...], Parameter(group=OUTPUT, negative=())] = ()
    """With --resume: work on prompts with this kind of failure alone, once for each kind."""


NOTHING_TOLD = GenerateFlags()
