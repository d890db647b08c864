"""`score`: how right the labels are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from engine.errors import ConfigError
from labels.flags import ConfigFile, Switch
from labels.score import first, points
from labels.score.files import check_target, write_examples, write_report
from labels.score.gold import read_truth
from labels.score.options import CD_MAP, Options, Resampling, parsed_cd_map
from labels.score.predictions import model_names, read_predictions
from labels.score.report import Report, report
from labels.score.tables import brief_grid, count_grid, difference_grid, headline_grid, notes, text_of
from labels.terminal import say

READ = Group("What to read", sort_key=0)
MEASURE = Group("How to measure", sort_key=1)
INTERVALS = Group("Intervals", sort_key=2)
WRITE = Group("What to write", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFlags:
    """What `score` is told."""

    val_file: Annotated[Path, Parameter(group=READ)]
    """The gold: chats in a .jsonl file whose last message is the answer wanted, as `build` writes them; or a table
    with gold columns, .csv, .tsv or .parquet."""
    preds: Annotated[Path | None, Parameter(group=READ)] = None
    """One file of predictions or run folder; prints parse rate, exact match and a line for each label."""
    compare: Annotated[Path | None, Parameter(group=READ)] = None
    """With --preds: a second one, and how it differs from the first."""
    codebook: Annotated[str | None, Parameter(group=READ)] = None
    """A shipped codebook, or a file; otherwise the shipped one that fits the gold."""
    id_column: Annotated[str | None, Parameter(group=READ)] = None
    """Of a table of gold; otherwise meta_id, id, tt_video_id, yt_video_id or video_id."""
    min_text_len: Annotated[int, Parameter(group=READ)] = 0
    """Leave out rows whose users say fewer characters, headings not counted."""
    stance_thresh: Annotated[float, Parameter(group=MEASURE)] = 0.3
    """Numbers whose range is even around 0: above it positive, below its opposite negative."""
    eps: Annotated[float, Parameter(group=MEASURE)] = 1e-6
    """Numbers that differ by no more match exactly."""
    yn_metric: Annotated[str, Parameter(group=MEASURE)] = "f1"
    """Yes-or-no questions: f1, or r2 for yes and no as numbers. With china_related among the questions always f1."""
    yn_thresh: Annotated[float | None, Parameter(group=MEASURE)] = None
    """A number from 0 to 1 in the place of yes or no, or under KEY_score, says yes from here on; otherwise no number
    is taken for a label."""
    cd_map: Annotated[str, Parameter(group=MEASURE)] = CD_MAP
    """With --yn-metric r2: what numbers labels stand for."""
    ci: Annotated[bool, Switch, Parameter(group=INTERVALS)] = False
    """Show bootstrap intervals, and those of the differences to the first model."""
    ci_n: Annotated[int, Parameter(group=INTERVALS)] = 1000
    """Replicates."""
    ci_alpha: Annotated[float, Parameter(group=INTERVALS)] = 0.05
    """Of so many replicates the interval leaves out half on each side."""
    ci_seed: Annotated[int | None, Parameter(group=INTERVALS)] = None
    """The same seed gives the same intervals; otherwise one is drawn, and told."""
    out: Annotated[Path | None, Parameter(group=WRITE)] = None
    """The report: .csv (one line a figure), .json, .md, or .html with plots. Replaced if it is there."""
    dump_csv: Annotated[Path | None, Parameter(group=WRITE)] = None
    """Every row with its gold and what the first model answered. Replaced if it is there."""


def score(*predictions: Path, flags: ScoreFlags, config: ConfigFile = None) -> int:
    """Hold labels against gold: every metric with its support, both readings of missing answers, and intervals.

    Args:
        predictions: files that `parse` wrote, or run folders; several are compared with the first.
        flags: see there.
        config: see there.
    """
    del config  # read by `flags_from_file`
    if flags.compare is not None and flags.preds is None:
        raise ConfigError("--compare is held against --preds, which is missing")
    paths = [path for path in (flags.preds, flags.compare, *predictions) if path is not None]
    if not paths:
        raise ConfigError("nothing to score: name files that `parse` wrote, or run folders, or one with --preds")
    for path in paths:
        if not path.exists():
            raise ConfigError(f"the predictions {path}: no such file or run folder")
    _check_targets(flags, paths)
    points.check_installed()
    found = _scored(flags, paths)
    _write(flags, found)
    if flags.preds is not None:
        print(first.block(found), end="\n\n")
    differences = difference_grid(found)
    grids = [count_grid(found), headline_grid(found), *([differences] if differences else []), brief_grid(found)]
    print("\n\n".join(map(text_of, grids)))
    for note in notes(found):
        say(note)
    return 0


def _check_targets(flags: ScoreFlags, paths: list[Path]) -> None:
    for flag, path in (("--out", flags.out), ("--dump-csv", flags.dump_csv)):
        if path is not None:
            check_target(flag, path, [flags.val_file, *paths])
    if flags.out is not None and flags.dump_csv is not None and flags.out.resolve() == flags.dump_csv.resolve():
        raise ConfigError(f"--out and --dump-csv are both {flags.out}; choose two names")


def _scored(flags: ScoreFlags, paths: list[Path]) -> Report:
    options = Options(
        stance_thresh=flags.stance_thresh,
        eps=flags.eps,
        yn_metric=flags.yn_metric,
        yn_thresh=flags.yn_thresh,
        cd_map=parsed_cd_map(flags.cd_map),
        min_text_len=flags.min_text_len,
    )
    seed = secrets.randbelow(1 << 32) if flags.ci_seed is None else flags.ci_seed
    resampling = Resampling(n=flags.ci_n, alpha=flags.ci_alpha, seed=seed)
    truth = read_truth(flags.val_file, codebook=flags.codebook, id_column=flags.id_column, options=options)
    models = [
        read_predictions(path, name, truth, options) for path, name in zip(paths, model_names(paths), strict=True)
    ]
    return report(truth, models, options=options, resampling=resampling if flags.ci else None)


def _write(flags: ScoreFlags, found: Report) -> None:
    if flags.out is not None:
        write_report(found, flags.out)
        say(f"{flags.out}: {len(found.models)} models, {len(found.headlines) + len(found.details)} figures each")
    if flags.dump_csv is not None:
        first_form = flags.preds is not None
        write_examples(found.truth, found.models[0].predictions, flags.dump_csv, first_form=first_form)
        say(f"{flags.dump_csv}: {len(found.truth):,} rows")
