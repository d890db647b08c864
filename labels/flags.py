"""What `run` may be told: each flag with its group, its default and its help. `told.py` makes settings of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

INPUT = Group("What to read", sort_key=1)
MEDIA = Group("Frames", sort_key=2)
QUESTIONS = Group("What to ask", sort_key=3)
PROVIDER = Group("Whom to ask", sort_key=4)
SPEED = Group("How fast", sort_key=5)
TOKENS = Group("Tokens and retries", sort_key=6)
BRAKES = Group("When to stop", sort_key=7)
OUTPUT = Group("What to write", sort_key=0)
ESTIMATE = Group("What to reckon with", sort_key=0)

Switch = Parameter(negative=())
ConfigFile = Annotated[Path | None, Parameter(help="A TOML file whose keys are the flag names; flags beat it.")]
NOT_GIVEN = Path()
"""In the place of a path that may be left out."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """What `run` is told."""

    input: Annotated[Path, Parameter(group=INPUT)]
    """The rows: .csv, .tsv, .parquet or .jsonl; text also .gz and .zst."""
    out: Annotated[Path, Parameter(group=OUTPUT)]
    """The run folder; created if missing."""
    model: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The model's name, as the provider spells it; required unless every --endpoint names one."""
    base_url: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """Any OpenAI-compatible address, up to and with /v1; otherwise https://api.together.xyz/v1."""
    endpoint: Annotated[tuple[str, ...], Parameter(group=PROVIDER, negative=())] = ()
    """An address to share the work with, once for each, in the place of --base-url: "URL,model=M,key-env=VARIABLE,
    weight=1,price-in=USD,price-out=USD,rpm=N,tpm=N"; all but the URL may be left out."""
    api_key_env: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The environment variable that holds the key; otherwise TOGETHER_API_KEY, then OPENAI_API_KEY."""
    api_key_file: Annotated[Path | None, Parameter(group=PROVIDER)] = None
    """A file that holds the key, readable by you alone."""
    allow_plaintext: Annotated[bool, Switch, Parameter(group=PROVIDER)] = False
    """Let an http:// address leave this machine."""
    serve: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """Start a server by this command, such as "vllm serve MODEL --port 8123", wait until it answers, and end it with
    the run. Its address is --base-url, or follows from its --port, otherwise 8000; without --model its first model is
    asked. What it says is in server.log in --out."""
    serve_timeout: Annotated[float, Parameter(group=PROVIDER)] = 900.0
    """Seconds until a server of --serve must answer."""
    id_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """The column of ids; otherwise meta_id, id, tt_video_id, yt_video_id or video_id."""
    transcript_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise the last column whose name holds "transcript" or "subtitle"."""
    description_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise meta_desc, description, processed_desc, or the first whose name holds "desc"."""
    embedded_text_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise embedded_text or stickersonitem_stickertext."""
    gold: Annotated[tuple[str, ...], Parameter(group=INPUT, negative=())] = ()
    """Where true labels stand, once for each: "KEY=COLUMN"; otherwise the columns that the codebook names. They are
    never sent; agreement with them is shown while the run lasts. "none" looks for none."""
    skip: Annotated[int, Parameter(group=INPUT)] = 0
    """Leave out so many rows at the beginning."""
    limit: Annotated[int, Parameter(group=INPUT)] = 0
    """Read at most so many rows; 0 reads all."""
    frames_dir: Annotated[str | None, Parameter(group=MEDIA)] = None
    """Holds one folder of frame_0.jpg, frame_1.jpg ... per id: a folder, a .tar or .zip file, or an address such as
    s3://bucket/frames. Without it and --videos only text is sent."""
    videos: Annotated[str | None, Parameter(group=MEDIA)] = None
    """Holds ID.mp4, .mov, .webm or .mkv, or the files that a video column names: a folder, a .tar or .zip file, or an
    address. Looked at for rows without frames."""
    num_frames: Annotated[int, Parameter(group=MEDIA)] = 8
    """Frames to take of a video; -1 takes all, as far as --max-frames allows."""
    sampling: Annotated[Literal["uniform", "neva", "keyframes"], Parameter(group=MEDIA)] = "uniform"
    """Which: uniform by time, at the middles of equal parts; by number as Video NeVA; keyframes alone, far cheaper."""
    splice_single_frame: Annotated[Literal["first", "middle", "last"] | None, Parameter(group=MEDIA)] = None
    """Take this one frame of a video instead."""
    max_frames: Annotated[int, Parameter(group=MEDIA)] = 16
    """At most so many frames a row, evenly thinned."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """tokens: the largest size that costs no further image tile; WxH in pixels; none: bytes untouched."""
    probe_tokens: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """Ask the server by two small calls what it counts for a picture, and say if the formula of the model says
    otherwise; without this only a model that has none is asked about."""
    image_token_len: Annotated[int | None, Parameter(group=MEDIA)] = None
    """Tokens the model counts for one frame, whatever its size, such as 256; otherwise by the formula of the model."""
    context_tokens: Annotated[int | None, Parameter(group=MEDIA)] = None
    """What the model's context holds, prompt and answer together; a row that is reckoned to need more is not sent and
    fails as too_large, with the numbers."""
    auto_frames: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """With --context-tokens, or a server of --serve that says what its context holds: send fewer frames of such a row
    instead."""
    codebook: Annotated[str, Parameter(group=QUESTIONS)] = "comprehensive"
    """The questions: standard, numeric, comprehensive, numeric-comprehensive, or a TOML file."""
    system_prompt: Annotated[Path | None, Parameter(group=QUESTIONS)] = None
    """A text file to ask with instead of a codebook; answers are then kept as text, without labels."""
    temperature: Annotated[float, Parameter(group=QUESTIONS)] = 0.0
    """Sampling temperature."""
    top_p: Annotated[float | None, Parameter(group=QUESTIONS)] = None
    """Nucleus sampling; not sent unless given."""
    seed: Annotated[int | None, Parameter(group=QUESTIONS)] = None
    """Sampling seed; not sent unless given."""
    effort: Annotated[Literal["none", "low", "medium", "high"] | None, Parameter(group=QUESTIONS)] = None
    """Reasoning effort; not sent unless given."""
    response_format: Annotated[Literal["auto", "json_schema", "json_object", "none"], Parameter(group=QUESTIONS)] = (
        "auto"
    )
    """How the answer's form is asked for besides the prompt; auto asks for the codebook's JSON schema where the
    provider takes it, which the first rows find out."""
    share: Annotated[bool, Parameter(group=QUESTIONS)] = True
    """Send identical requests once and give the answer to all their rows; without, each row is sampled for itself."""
    cache: Annotated[Path | None, Parameter(group=QUESTIONS)] = None
    """A folder that keeps answers for other runs, and gives those it has; several runs may use it at once."""
    concurrency: Annotated[int | Literal["auto"], Parameter(group=SPEED)] = "auto"
    """Requests in flight; auto adapts."""
    rpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many requests a minute."""
    tpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many tokens a minute."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Encoder processes; otherwise one a core."""
    processes: Annotated[int, Parameter(group=SPEED)] = 1
    """Engine processes: more than one where a single one fills its core. They share every limit, --concurrency and
    --workers among them, and the run folder stays one."""
    max_open_mb: Annotated[int, Parameter(group=SPEED)] = 512
    """Encoded requests held at once, in MB."""
    max_tokens: Annotated[int | Literal["auto"], Parameter(group=TOKENS)] = "auto"
    """What a first answer may take; auto starts at 512 and learns from the answers that come."""
    retry_on_trunc: Annotated[bool, Parameter(group=TOKENS)] = True
    """Ask again with more tokens when an answer was cut off."""
    growth: Annotated[float, Parameter(group=TOKENS)] = 2.0
    """Next max_tokens = max(now, min(int(now * growth), cap))."""
    max_tokens_cap: Annotated[int, Parameter(group=TOKENS)] = 4096
    """The most an answer may take."""
    retries: Annotated[int, Parameter(group=TOKENS)] = 6
    """Calls a row that may fail, and as many that may come back cut off; being told to slow down is not counted."""
    row_deadline_seconds: Annotated[float, Parameter(group=TOKENS)] = 1800.0
    """No further attempt of a row after so many seconds."""
    per_call_timeout: Annotated[float, Parameter(group=TOKENS)] = 600.0
    """Seconds until a call is given up."""
    price_in: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million prompt tokens; otherwise what the provider's price list said when this version was made."""
    price_out: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million completion tokens; likewise."""
    max_cost: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Stop before the run has cost more dollars than this, all its lives together."""
    max_failed: Annotated[str, Parameter(group=BRAKES)] = "5%"
    """Stop when more rows than this have failed: a number, or a share of the rows ended."""
    max_outage: Annotated[str, Parameter(group=BRAKES)] = "6h"
    """Stop when no call has got through for so long: 90s, 30m, 6h, 2d."""
    drain_seconds: Annotated[float, Parameter(group=BRAKES)] = 20.0
    """How long answers in flight are waited for after the first signal or a spot notice."""
    spot_notices: Annotated[Literal["auto", "off", "aws", "gcp", "azure"], Parameter(group=BRAKES)] = "auto"
    """Stop as after a signal when the cloud says that it takes this machine away; auto asks the cloud that the machine
    says it stands in."""
    shards: Annotated[int, Parameter(group=OUTPUT)] = 64
    """Output files; row modulo shards names the file."""
    resume: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Go on with the run in --out; without it a folder that holds a run is refused."""
    retry_failed: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """With --resume: try the rows in failures/ again."""
    extend: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """With --resume: the input has grown at its end; go on with the new rows too."""
    only: Annotated[tuple[str, ...], Parameter(group=OUTPUT, negative=())] = ()
    """With --resume: work on rows of this kind of failure alone, once for each kind; "truncated" takes up the answers
    that were cut off."""
    dry_run: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Say what would be sent, and for how much; send and write nothing."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateFlags(RunFlags):
    """What `estimate` is told: all that `run` is, so that one command line becomes the other, and a few numbers.

    The one inheritance beside errors: eighty lines of flags repeated would drift apart.
    """

    input: Annotated[Path, Parameter(group=INPUT, show_default=False)] = NOT_GIVEN
    """The rows: .csv, .tsv, .parquet or .jsonl; text also .gz and .zst. Without them: --rows."""
    out: Annotated[Path, Parameter(group=OUTPUT, show_default=False)] = NOT_GIVEN
    """A run folder, with --resume: the rows that are done are left out."""
    sample: Annotated[int, Parameter(group=ESTIMATE)] = 200
    """Look at so many rows, drawn at random from the whole input; the same ones each time."""
    rate: Annotated[float | None, Parameter(group=ESTIMATE)] = None
    """Rows a second that get done, for the time it takes; --rpm and --tpm bound it too."""
    rows: Annotated[int, Parameter(group=ESTIMATE)] = 0
    """In the place of --input: so many rows, all alike."""
    frames: Annotated[int, Parameter(group=ESTIMATE)] = 0
    """Frames that each of --rows has."""
    frame_size: Annotated[str, Parameter(group=ESTIMATE)] = ""
    """Their size in pixels, such as 720x1280."""
    text_tokens: Annotated[int, Parameter(group=ESTIMATE)] = 0
    """Tokens of text that each of --rows has, beside the instructions."""
    json: Annotated[bool, Switch, Parameter(group=ESTIMATE)] = False
    """Print one JSON object instead of text."""


OF_CALLS = (
    *("base_url", "endpoint", "api_key_file", "allow_plaintext", "fit", "concurrency", "rpm", "tpm", "workers"),
    *("retries", "per_call_timeout", "price_in", "price_out", "max_cost", "max_failed", "max_outage", "drain_seconds"),
)
"""What every command that makes calls is told under the same names, and hands on."""
OF_RUNS = (*OF_CALLS, "model", "api_key_env", "skip", "limit", "share", "cache", "resume", "extend", "only")
"""Likewise, every command that is a run with a file of its own."""


def handed_on(flags: object, names: Sequence[str]) -> dict[str, Any]:
    """These flags of one command, for those of another."""
    return {name: getattr(flags, name) for name in names}


NOTHING_TOLD = EstimateFlags()
