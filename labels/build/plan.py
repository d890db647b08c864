"""Flags to what a build does: which codebook, which columns hold its gold, what frames, which files."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from encoders.fit import parse_fit
from encoders.media import Media
from encoders.places import frame_store
from encoders.storage import variables_for
from engine.encode import EncodeConfig
from engine.errors import ConfigError, InputError
from engine.readers import open_table
from engine.source import SourceConfig, choose_columns
from labels.build.lines import SINGLE, Asked, ChatForm, Form, LlavaForm, asked_in
from labels.build.pictures import INLINE, PATHS, REFERENCES, PictureEncoder
from labels.build.stream import BATCH_ROWS
from labels.codebook import Codebook, load_codebook
from labels.commands.build_flags import BuildFlags
from labels.gold import GoldColumns
from labels.media import prepared

GROUP_MODES = (SINGLE, "by-category", "binary", "per-item")
"""Of the shipped codebooks; others may have others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One build."""

    source: SourceConfig
    output: Path
    merged: Path | None
    """Where one ungrouped line a row goes besides; None in ungrouped builds."""
    asked: tuple[Asked, ...]
    """A line for each, of every row."""
    whole: Asked
    """For the merged lines."""
    gold: GoldColumns | None
    """None if no labels are wanted."""
    form: Form
    pictures: PictureEncoder | None
    workers: EncodeConfig
    min_text_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, and what its user should know before it begins."""

    plan: Plan
    notes: tuple[str, ...]


def planned(flags: BuildFlags) -> Planned:
    """What these flags ask for.

    Raises:
        ConfigError: a flag, or a file it names, is wrong.
        InputError: the table has no gold, and it is wanted.
    """
    notes: list[str] = []
    if flags.input is None or flags.output is None:
        raise ConfigError(f"--{'input' if flags.input is None else 'output'} is missing; or --check FILE to audit one")
    mode = _mode(flags, notes)
    codebook = asked_codebook(flags)
    if mode not in codebook.groups:
        raise ConfigError(
            f"--group-mode {mode}: the codebook {codebook.name} has no such groups; it has {', '.join(codebook.groups)}"
        )
    pictures, found = _pictures(flags)
    notes += found
    source = _source(flags, flags.input)
    header = _header(source, text_needed=pictures is None)
    gold = None if flags.no_labels else _gold(flags, codebook, header)
    asked, whole = asked_in(codebook, mode), asked_in(codebook, SINGLE)[0]
    merged = _merged(flags, flags.output, mode, notes)
    if gold is not None:
        asked, merged = _answerable(gold, flags.input, asked, merged, notes)
    _check_outputs(flags.input, flags.output, merged)
    plan = Plan(
        source=source if gold is None else replace(source, carried=gold.carried),
        output=flags.output,
        merged=merged,
        asked=asked,
        whole=whole,
        gold=gold,
        form=_form(flags, notes),
        pictures=pictures,
        workers=EncodeConfig(
            workers=_cores() if flags.workers is None else flags.workers,
            batch_rows=BATCH_ROWS,
            variables=tuple(variables_for(flags.frames_dir)) if flags.frames_dir else (),
        ),
        min_text_len=flags.min_text_len,
    )
    return Planned(plan=plan, notes=tuple(notes))


def asked_codebook(flags: BuildFlags) -> Codebook:
    """The codebook the flags name, by its own flag or by those of the scripts this takes over."""
    if flags.codebook is not None:
        return load_codebook(flags.codebook)
    return load_codebook(
        {
            (False, False): "standard",
            (False, True): "numeric",
            (True, False): "comprehensive",
            (True, True): "numeric-comprehensive",
        }[flags.comprehensive, flags.numeric_labels]
    )


def _mode(flags: BuildFlags, notes: list[str]) -> str:
    if flags.group_mode in GROUP_MODES[1:] and not flags.comprehensive and flags.codebook is None:
        notes.append(f"--group-mode {flags.group_mode} is for --comprehensive or --codebook, and is ignored without")
        return SINGLE
    return flags.group_mode


def _pictures(flags: BuildFlags) -> tuple[PictureEncoder | None, tuple[str, ...]]:
    if not flags.include_images:
        if flags.image_refs:
            raise ConfigError("--image-refs says how --include-images writes them: give both")
        return None, ("--frames-dir is not used without --include-images",) if flags.frames_dir else ()
    if not flags.frames_dir:
        raise ConfigError("--include-images needs --frames-dir: where the frames are")
    if flags.max_frames < 1:
        raise ConfigError("--max-frames must be at least 1; leave --include-images out for text alone")
    form = PATHS if flags.format == "llava" else REFERENCES if flags.image_refs else INLINE
    # A reference names the frame as it is: it is made small when it is sent.
    fit = parse_fit(flags.fit, model=flags.model or "")
    if form != INLINE:
        fit = parse_fit("none", model="")
    media = Media(fit=fit, frames=frame_store(flags.frames_dir), max_frames=flags.max_frames)
    notes = prepared(media)
    # The last one says by what pictures are made small.
    return PictureEncoder(media=media, form=form), notes if form == INLINE else notes[:-1]


def _source(flags: BuildFlags, path: Path) -> SourceConfig:
    return SourceConfig(
        path=path,
        id_column=flags.id_column,
        transcript_column=flags.transcript_column,
        description_column=flags.description_column,
        embedded_text_column=flags.embedded_text_column,
        skip=flags.skip,
        limit=flags.limit,
    )


def _header(source: SourceConfig, *, text_needed: bool) -> tuple[str, ...]:
    """The names of the table's columns, once it is sure that its rows can be read.

    Raises:
        ConfigError: there is no such file.
        InputError: it has no column of ids, or none of text where text is all there is.
    """
    if source.path.exists() and not source.path.is_file():
        raise ConfigError(f"--input {source.path} is not a regular file; give a .csv, .tsv, .parquet or .jsonl file")
    try:
        with open_table(source.path) as table:
            columns = choose_columns(source, table.header)
            header = table.header
    except OSError as error:
        raise ConfigError(f"--input {source.path}: {error.strerror}") from error
    if text_needed and not {"transcript", "description", "embedded_text"} & set(columns):
        raise InputError(
            f"{source.path} has no column of texts; it has {', '.join(header)}. Name one with --transcript-column or "
            "--description-column"
        )
    return header


def _gold(flags: BuildFlags, codebook: Codebook, header: tuple[str, ...]) -> GoldColumns:
    told: dict[str, str] = {}
    for text in flags.gold:
        key, equals, column = text.partition("=")
        if not equals:
            raise ConfigError(f"--gold {text}: write KEY=COLUMN, a dimension of the codebook and a column of the table")
        told[key.strip()] = column
    if not 0 <= flags.yn_thresh <= 1:
        raise ConfigError(f"--yn-thresh must be from 0 to 1, not {flags.yn_thresh:g}")
    return GoldColumns.find(codebook, header, told, yn_thresh=flags.yn_thresh)


def _answerable(
    gold: GoldColumns, path: Path, asked: tuple[Asked, ...], merged: Path | None, notes: list[str]
) -> tuple[tuple[Asked, ...], Path | None]:
    """The lines that some row can have an answer for; none of them lacks a column that every row would need."""
    always = {dimension.key for dimension in gold.codebook.dimensions if dimension.when is None}
    lacking = always.intersection(gold.missing)
    kept = tuple(part for part in asked if not lacking.intersection(part.keys))
    if not gold.columns or not kept:
        raise InputError(_no_gold(gold, path))
    left = [part.group or "" for part in asked if part not in kept]
    if left:
        notes.append(f"No lines of the groups {', '.join(left)}: {_looked_for(gold, lacking)}")
    if lacking and merged is not None:
        notes.append(f"No {merged}: {_looked_for(gold, lacking)}")
        merged = None
    if rest := [key for key in gold.missing if key not in lacking]:
        notes.append(f"Rows that are asked for {', '.join(rest)} have no answer: {_looked_for(gold, rest)}")
    return kept, merged


def _no_gold(gold: GoldColumns, path: Path) -> str:
    return (
        f"{path} has not all columns of gold labels that {gold.codebook.name} asks for: "
        f"{_looked_for(gold, gold.missing)}. Name them with --gold KEY=COLUMN, choose a codebook that asks for less, "
        "or build without labels by --no-labels"
    )


def _looked_for(gold: GoldColumns, keys: Collection[str]) -> str:
    names = {dimension.key: " or ".join(dimension.gold) for dimension in gold.codebook.dimensions}
    return "there is no column " + ", none ".join(name for key, name in names.items() if key in keys)


def _merged(flags: BuildFlags, output: Path, mode: str, notes: list[str]) -> Path | None:
    if mode == SINGLE:
        if flags.merged_output is not None:
            notes.append("--merged-output is for grouped builds, and is ignored in others")
        return None
    return flags.merged_output or output.with_name(f"{output.stem}_merged{output.suffix}")


def _form(flags: BuildFlags, notes: list[str]) -> Form:
    if flags.format == "openai":
        return ChatForm(bare=flags.strip_meta_id)
    if flags.strip_meta_id:
        notes.append("--strip-meta-id is ignored with --format llava, whose lines need their id")
    if flags.image_refs:
        notes.append("--image-refs is ignored with --format llava, which names files in any case")
    return LlavaForm(videos=not flags.include_images)


def _check_outputs(table: Path, output: Path, merged: Path | None) -> None:
    files = {"--input": table, "--output": output} | ({"--merged-output": merged} if merged else {})
    for flag, path in files.items():
        if flag != "--input" and not path.parent.is_dir():
            raise ConfigError(f"{flag} {path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise ConfigError(f"{flag} {path} is a folder; name a file")
    if len({path.resolve() for path in files.values()}) < len(files):
        raise ConfigError(f"{', '.join(files)} must be different files")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
