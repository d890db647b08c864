"""What `build` may be told: each flag with its group, its default and its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from labels.flags import INPUT, MEDIA, OUTPUT, QUESTIONS, SPEED, Switch
from labels.gold import DEFAULT_YN_THRESH

AUDIT = Group("What to audit instead", sort_key=9)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFlags:
    """What `build` is told."""

    input: Annotated[Path | None, Parameter(group=INPUT)] = None
    """The rows: .csv, .tsv, .parquet or .jsonl; text also .gz and .zst. Required, unless --check is given."""
    output: Annotated[Path | None, Parameter(group=OUTPUT)] = None
    """The .jsonl file to write. Required, unless --check is given. One that is there is replaced, once the new one is
    whole."""
    merged_output: Annotated[Path | None, Parameter(group=OUTPUT)] = None
    """With groups: one line a row, ungrouped, goes here besides; otherwise to the output's name with _merged."""
    strip_meta_id: Annotated[bool, Switch, Parameter(group=OUTPUT)] = False
    """Write `messages` and nothing else, as providers want it for fine-tuning."""
    format: Annotated[Literal["openai", "llava"], Parameter(group=OUTPUT)] = "openai"
    """openai: chats; llava: the conversations that LLaVA and NeVA train on, frames as paths below --frames-dir."""
    id_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """The column of ids; otherwise meta_id, id, tt_video_id, yt_video_id or video_id."""
    transcript_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise the last column whose name holds "transcript" or "subtitle"."""
    description_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise meta_desc, description, processed_desc, or the first whose name holds "desc"."""
    embedded_text_column: Annotated[str | None, Parameter(group=INPUT)] = None
    """Otherwise embedded_text or stickersonitem_stickertext."""
    skip: Annotated[int, Parameter(group=INPUT)] = 0
    """Leave out so many rows at the beginning."""
    limit: Annotated[int, Parameter(group=INPUT)] = 0
    """Read at most so many rows; 0 reads all."""
    min_text_len: Annotated[int, Parameter(group=INPUT)] = 10
    """Leave out rows with fewer characters of text, headings not counted, unless they have frames."""
    include_images: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """Put each row's frames before its text; rows without any are written as text alone."""
    frames_dir: Annotated[str | None, Parameter(group=MEDIA)] = None
    """Holds one folder of frame_0.jpg, frame_1.jpg ... per id: a folder, a .tar or .zip file, or an address such as
    s3://bucket/frames. Required with --include-images."""
    image_refs: Annotated[bool, Switch, Parameter(group=MEDIA)] = False
    """Name the frames instead of holding their bytes; `infer --frames-dir` puts them in when it sends."""
    max_frames: Annotated[int, Parameter(group=MEDIA)] = 16
    """At most so many frames a row, evenly thinned."""
    fit: Annotated[str, Parameter(group=MEDIA)] = "tokens"
    """tokens: the largest size that costs no further image tile; WxH in pixels; none: bytes untouched."""
    model: Annotated[str | None, Parameter(group=MEDIA)] = None
    """The model that will be sent the frames, for --fit tokens; otherwise they fit a square of 560 pixels."""
    codebook: Annotated[str | None, Parameter(group=QUESTIONS)] = None
    """The questions: standard, numeric, comprehensive, numeric-comprehensive, or a TOML file; otherwise as the two
    flags below say, and standard without them."""
    comprehensive: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = False
    """The codebook comprehensive; with --numeric-labels numeric-comprehensive."""
    numeric_labels: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = False
    """The codebook numeric; with --comprehensive numeric-comprehensive."""
    group_mode: Annotated[str, Parameter(group=QUESTIONS)] = "single"
    """single: one line a row; by-category, binary, per-item, or a mode of your codebook: one for each group of
    questions, with --comprehensive or --codebook."""
    label_mode: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = True
    """With gold labels, which is the default: this changes nothing."""
    no_labels: Annotated[bool, Switch, Parameter(group=QUESTIONS)] = False
    """Without gold labels: lines to be answered, not to be learnt from."""
    gold: Annotated[tuple[str, ...], Parameter(group=QUESTIONS, negative=())] = ()
    """KEY=COLUMN: where the gold of a dimension stands, once for each; otherwise under its names in the codebook."""
    yn_thresh: Annotated[float, Parameter(group=QUESTIONS)] = DEFAULT_YN_THRESH
    """A number in the gold of a yes-or-no dimension means yes from here on."""
    workers: Annotated[int | None, Parameter(group=SPEED)] = None
    """Processes that make frames ready; otherwise one a core."""
    check: Annotated[Path | None, Parameter(group=AUDIT)] = None
    """Audit this file of chats instead of building one: errors by line, what the labels are, texts and frames."""
    json: Annotated[bool, Switch, Parameter(group=AUDIT)] = False
    """With --check: print one JSON object instead of text."""
