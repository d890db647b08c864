"""What `judge` may be told: the flags of the script it takes over, with its defaults, and those that `run` has too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from labels.flags import BRAKES, INPUT, MEDIA, OUTPUT, PROVIDER, SPEED, TOKENS, Switch

JUDGING = Group("How to judge", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFlags:
    """What `judge` is told."""

    output: Annotated[Path, Parameter(group=OUTPUT)] = Path("output.json")
    """The reviews, one JSON object a line; beside it OUTPUT.run keeps the calls, for --resume."""
    report: Annotated[tuple[Path, ...], Parameter(group=OUTPUT, negative=())] = ()
    """Also write the table here, once for each file: .md, .json, or .html with every question, its picture, both
    answers and all reviews. Replaced if it is there."""
    table_only: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Ask nothing: show the table of the reviews in --output, those of older programs too."""
    resume: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Go on with --output: ask for reviews that are missing or have no scores, and for those whose answers, judge or
    settings have changed. Without it reviews that are there are refused."""
    answers_dir: Annotated[Path | None, Parameter(group=OUTPUT)] = None
    """A folder for the joined answers of each model, as NAME_answer.jsonl, and a list of where they came from."""
    model_name_list: Annotated[tuple[str, str] | None, Parameter(group=INPUT, negative=())] = None
    """The names of the two models, as the table shows them; otherwise the names of their files."""
    question_file: Annotated[Path | None, Parameter(group=INPUT)] = None
    """The questions: .jsonl or one JSON list; question_id, text, category, and image or video."""
    responses_list: Annotated[tuple[Path, Path] | None, Parameter(group=INPUT, negative=())] = None
    """The answers of the two models: question_id or response_id, and pred_answer, response or text."""
    context_file: Annotated[Path | None, Parameter(group=INPUT)] = None
    """What is known of each picture or video, for judges that do not see it: caption, and question_id, video or
    image. Without it judges read question and answers alone."""
    rule_file: Annotated[Path | None, Parameter(group=INPUT)] = None
    """What judges are told, by category: {"conv": {"role": ..., "prompt": ...}}; otherwise the rules that come with
    this program."""
    media_type: Annotated[Literal["image", "video"], Parameter(group=MEDIA)] = "image"
    """Accepted for old command lines; what a question is about follows from the name it gives."""
    media_base_path: Annotated[Path | None, Parameter(group=MEDIA)] = None
    """Where the pictures and videos lie that questions name; for --with-media, and for the page."""
    with_media: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """Show judges the picture, or frames of the video. They need a vision model."""
    num_frames: Annotated[int, Parameter(group=MEDIA)] = 8
    """With --with-media: frames of a video, at the middles of equal parts of its time."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """With --with-media. tokens: the largest size that costs no further image tile; WxH in pixels; none."""
    judge_model: Annotated[tuple[str, ...], Parameter(group=JUDGING, negative=())] = ()
    """A judge, as the provider spells it, once for each; otherwise the models that --endpoint names, or Mixtral 8x7B at
    NVIDIA, with the key in API_TOKEN."""
    swap: Annotated[bool, Switch, Parameter(group=JUDGING)] = False
    """Have every pair judged in both orders, average the two, and report what standing first is worth."""
    samples: Annotated[int, Parameter(group=JUDGING)] = 1
    """Reviews of each pair in each order by each judge."""
    temperature: Annotated[float, Parameter(group=JUDGING)] = 0.2
    """Sampling temperature."""
    top_p: Annotated[float | None, Parameter(group=JUDGING)] = 0.7
    """Nucleus sampling; "none" sends none, for judges that do not take it."""
    seed: Annotated[int | None, Parameter(group=JUDGING)] = 42
    """Sampling seed of the first sample; further samples count up; "none" sends none."""
    num_chunks: Annotated[int, Parameter(group=JUDGING)] = 1
    """Judge one of so many parts of the questions; each needs an --output of its own."""
    chunk_idx: Annotated[int, Parameter(group=JUDGING)] = 0
    """Which part, from 0."""
    base_url: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """Any OpenAI-compatible address, up to and with /v1; otherwise https://api.together.xyz/v1, and without
    --judge-model that of NVIDIA."""
    endpoint: Annotated[tuple[str, ...], Parameter(group=PROVIDER, negative=())] = ()
    """An address in the place of --base-url, once for each, as in `run`; with model=M it serves that judge alone."""
    api_key_env: Annotated[str | None, Parameter(group=PROVIDER)] = None
    """The environment variable that holds the key; otherwise TOGETHER_API_KEY, OPENAI_API_KEY, then API_TOKEN."""
    api_key_file: Annotated[Path | None, Parameter(group=PROVIDER)] = None
    """A file that holds the key, readable by you alone."""
    allow_plaintext: Annotated[bool, Switch, Parameter(group=PROVIDER)] = False
    """Let an http:// address leave this machine."""
    concurrency: Annotated[int | Literal["auto"], Parameter(group=SPEED)] = "auto"
    """Requests in flight; auto adapts."""
    rpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many requests a minute."""
    tpm: Annotated[float | None, Parameter(group=SPEED)] = None
    """At most so many tokens a minute."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Encoder processes; otherwise one a core."""
    max_tokens: Annotated[int, Parameter(group=TOKENS)] = 1024
    """What a review may take; scores come first, so one that is cut off still has them."""
    retries: Annotated[int, Parameter(group=TOKENS)] = 6
    """Calls of a review that may fail; being told to slow down is not counted."""
    base_sleep: Annotated[float, Parameter(group=TOKENS)] = 1.0
    """Seconds that the first wait after a failure takes at most; later ones double."""
    per_call_timeout: Annotated[float, Parameter(group=TOKENS)] = 600.0
    """Seconds until a call is given up."""
    price_in: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million prompt tokens; otherwise what the provider's price list said when this version was made."""
    price_out: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Dollars per million completion tokens; likewise."""
    max_cost: Annotated[float | None, Parameter(group=BRAKES)] = None
    """Stop before all calls behind --output have cost more dollars than this."""
    max_failed: Annotated[str, Parameter(group=BRAKES)] = "50%"
    """Stop when more reviews of a judge than this have failed: a number, or a share of those ended."""
    max_outage: Annotated[str, Parameter(group=BRAKES)] = "6h"
    """Stop when no call has got through for so long: 90s, 30m, 6h, 2d."""
    drain_seconds: Annotated[float, Parameter(group=BRAKES)] = 20.0
    """How long answers in flight are waited for after the first signal."""
