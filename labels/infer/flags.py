"""What `infer` may be told: the flags of the scripts it takes over with their defaults, and some that `run` has too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from labels.flags import BRAKES, INPUT, MEDIA, OUTPUT, PROVIDER, QUESTIONS, SPEED, TOKENS, Switch


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class InferFlags:
    """What `infer` is told."""

    val_file: Annotated[Path, Parameter(group=INPUT)]
    """The chats, one JSON object with "messages" a line, as `build` writes them: .jsonl, also .gz and .zst. A last
    message of the assistant is the answer that is wanted, and is not sent."""
    out: Annotated[Path, Parameter(name=("--out", "--out-path"), group=OUTPUT)]
    """The raw records, one a line; beside it OUT.run keeps the run itself, for --resume, status, verify and export."""
    model: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The model's name, as the provider spells it; required unless every --endpoint names one."""
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
    transport: Annotated[Literal["http", "sdk"], Parameter(group=PROVIDER)] = "http"
    """Accepted for old command lines; either way the calls are made by Reelbatch's own client."""
    warmup: Annotated[int, Parameter(group=PROVIDER)] = 0
    """Before any chat is sent, wait for an address that is not ready yet by at most so many small calls, a second
    apart, then two, up to 30; the first answer ends the wait. They are no rows; what they cost is counted."""
    skip: Annotated[int, Parameter(group=INPUT)] = 0
    """Leave out so many chats at the beginning; the others keep their idx."""
    limit: Annotated[int, Parameter(group=INPUT)] = 0
    """Read at most so many chats; 0 reads all."""
    include_images: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """Put the frames of each chat's video before the text of its first message by a user, if that is text alone; needs
    --frames-dir. The folder is the chat's original_meta_id, or its meta_id without __group_X."""
    frames_dir: Annotated[str | None, Parameter(group=MEDIA)] = None
    """Holds one folder of frame_0.jpg, frame_1.jpg ... per video: a folder, a .tar or .zip file, or an address. Also
    where the frames: references of a file made by `build --image-refs` are looked up."""
    max_frames: Annotated[int, Parameter(group=MEDIA)] = 16
    """Of --include-images at most so many frames a chat, evenly thinned."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """For frames out of --frames-dir. tokens: the largest size that costs no further image tile; WxH in pixels; none:
    bytes untouched. Pictures that stand in the file are always sent as they are."""
    temperature: Annotated[float, Parameter(group=QUESTIONS)] = 0.0
    """Sampling temperature."""
    effort: Annotated[
        Literal["none", "low", "medium", "high"] | None,
        Parameter(name=("--effort", "--reasoning-effort"), group=QUESTIONS),
    ] = None
    """Reasoning effort; not sent unless given, since many providers refuse a field they do not know."""
    append_enforcer: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = False
    """Add a last message of the system that demands JSON alone."""
    codebook: Annotated[str | None, Parameter(group=QUESTIONS)] = None
    """Ask for answers in the form of this codebook, shipped or a TOML file; a chat about a group is asked for that
    group's."""
    response_format: Annotated[Literal["json_schema", "json_object", "none"] | None, Parameter(group=QUESTIONS)] = None
    """How the answer's form is asked for besides the messages; otherwise json_schema with --codebook, none without."""
    no_response_format: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = False
    """The same as --response-format none."""
    share: Annotated[bool, Parameter(group=QUESTIONS)] = True
    """Send identical requests once and give the answer to all their chats; without, each is sampled for itself."""
    cache: Annotated[Path | None, Parameter(group=QUESTIONS)] = None
    """A folder that keeps answers for other runs, and gives those it has; several runs may use it at once."""
    concurrency: Annotated[int | Literal["auto"], Parameter(group=SPEED)] = 4
    """Requests in flight; auto adapts."""
    rpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many requests a minute."""
    tpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many tokens a minute."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Encoder processes; otherwise one a core."""
    max_tokens: Annotated[int | Literal["auto"], Parameter(group=TOKENS)] = 128
    """What a first answer may take; auto starts at 512 and learns from the answers that come."""
    retry_on_trunc: Annotated[bool, Parameter(group=TOKENS)] = False
    """Ask again with more tokens when an answer was cut off."""
    growth: Annotated[float, Parameter(group=TOKENS)] = 1.8
    """Next max_tokens = max(now, min(int(now * growth), cap)): a cap below the start changes nothing."""
    max_tokens_cap: Annotated[int, Parameter(group=TOKENS)] = 512
    """The most that --retry-on-trunc asks for."""
    retries: Annotated[int, Parameter(group=TOKENS)] = 5
    """Calls a chat that may fail, and as many that may come back cut off; being told to slow down is not counted."""
    base_sleep: Annotated[float, Parameter(group=TOKENS)] = 1.0
    """Seconds that the first wait after a failure takes at most; later ones double, up to 60, each drawn at random from
    0 on. What the server asks for counts more."""
    per_call_timeout: Annotated[float, Parameter(group=TOKENS)] = 60.0
    """Seconds until a call is given up."""
    price_in: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million prompt tokens; otherwise what the provider's price list said when this version was made."""
    price_out: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million completion tokens; likewise."""
    max_cost: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Stop before the run has cost more dollars than this, all its lives together."""
    max_failed: Annotated[str, Parameter(group=BRAKES)] = "5%"
    """Stop when more chats than this have failed: a number, or a share of those ended."""
    max_outage: Annotated[str, Parameter(group=BRAKES)] = "6h"
    """Stop when no call has got through for so long: 90s, 30m, 6h, 2d."""
    drain_seconds: Annotated[float, Parameter(group=BRAKES)] = 20.0
    """How long answers in flight are waited for after the first signal."""
    resume: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Go on with the run behind --out: chats without an answer, and those that failed. Without it a run that is there
    is refused."""
    extend: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """With --resume: the file has grown at its end; go on with the new chats too."""
    only: Annotated[tuple[str, ...], Parameter(group=OUTPUT, negative=())] = ()
    """With --resume: work on chats with this kind of failure alone, once for each kind; "truncated" takes up the
    answers that were cut off."""
