"""`parse`: raw answers to labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engine.printable import printable
from labels.flags import ConfigFile, Switch
from labels.parse import ParseOptions
from labels.parse import parse as parse_answers
from labels.terminal import say


def parse(  # noqa: PLR0913 - one flag each
    *,
    raw: Annotated[Path, Parameter(name=("--raw", "--raw-path"))],
    out: Annotated[Path, Parameter(name=("--out", "--out-path"))],
    codebook: str | None = None,
    numeric_labels: Annotated[bool, Switch] = False,
    group_mode: str | None = None,
    merge: Annotated[bool, Switch] = False,
    require_complete: Annotated[bool, Switch] = False,
    original_data: Path | None = None,
    print_bad: int = 0,
    fail_log: Path | None = None,
    limit: int = 0,
    config: ConfigFile = None,
) -> int:
    """Read raw answers: one line an answer, with its labels or the reason why there are none.

    Ends with 0 however many answers have no labels: the file says so of each.

    Args:
        raw: what `infer` wrote, or a run folder.
        out: the JSONL to write; it gets its name once it is whole.
        codebook: the questions: standard, numeric, comprehensive, numeric-comprehensive, or a TOML file; otherwise that
            of the run folder, or the shipped one that reads most of the first 200 answers.
        numeric_labels: choose among the shipped codebooks whose answers are numbers.
        group_mode: how the codebook was asked in parts: by-category, binary, per-item; single if it was asked whole.
            Otherwise each record's group says so.
        merge: write one record a video, with the labels of all its groups.
        require_complete: with --merge, leave out videos of which a group has no labels.
        original_data: a table (.csv, .tsv, .jsonl, .parquet) with an id column; --out, .csv or .parquet, is then a copy
            of it with the columns pred_<key>, pred_parsed and, with --merge, pred_complete.
        print_bad: print the first so many answers that have no labels.
        fail_log: a file for all answers that have none.
        limit: read at most so many answers; 0 reads all.
        config: a TOML file whose keys are the flag names; flags beat it.
    """
    del config  # read by `flags_from_file`
    options = ParseOptions(
        raw=raw,
        out=out,
        codebook=codebook,
        group_mode=group_mode,
        numeric_labels=numeric_labels,
        print_bad=print_bad,
        fail_log=fail_log,
        limit=limit,
        merge=merge,
        require_complete=require_complete,
        original_data=original_data,
    )
    tally = parse_answers(options, say=say)
    print(tally.text())
    for block in tally.bad:
        print("\n".join(map(printable, block.split("\n"))), end="")
    return 0
