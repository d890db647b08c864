"""Commands about a run folder: `status`, `verify`, `export`, `reshard`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import orjson

from labels.export import ExportOptions
from labels.export import export as export_table
from labels.flags import Switch
from labels.terminal import EXIT_IO, program, say
from sinks.reshard import reshard as reshard_folder
from sinks.summary import summarise
from sinks.verify import verify as verify_folder


def status(out: Path, *, json: Annotated[bool, Switch] = False) -> int:
    """What a run folder holds: rows done, rows failed by kind, rows left, tokens and dollars.

    Args:
        out: the run folder; a run may be going on in it.
        json: print one JSON object instead of text.
    """
    summary = summarise(out)
    print(orjson.dumps(summary).decode() if json else summary.text())
    return 0


def verify(out: Path, *, json: Annotated[bool, Switch] = False) -> int:
    """Check every committed line of a run folder, and its checkpoint against them. Changes nothing.

    Ends with 0 if all is as promised, with 74 if something is not; it is named by file and byte.

    Args:
        out: the run folder; a run may be going on in it.
        json: print one JSON object instead of text.
    """
    verdict = verify_folder(out)
    print(orjson.dumps(verdict).decode() if json else verdict.text())
    if verdict.sound:
        return 0
    say(
        f"{out} is not as it was committed. Nothing was changed, and whatever is not named here is safe.\n"
        "If the machine crashed while the run was writing, let it set torn bytes aside: start the `run` command again\n"
        "with --resume. Otherwise restore the files that are named from a copy. Then:\n"
        f"  {program()} {shlex.join(['verify', str(out)])}"
    )
    return EXIT_IO


def export(
    out: Path,
    *,
    to: Path,
    failures: Annotated[bool, Switch] = False,
    csv_raw: Annotated[bool, Switch] = False,
    force: Annotated[bool, Switch] = False,
) -> int:
    """Write the results of a run as one table, in the order of the input, each label a column of its own.

    Args:
        out: the run folder; a run may be going on in it.
        to: the file to write: .parquet, .csv or .jsonl.
        failures: include rows that failed, with kind, status and message.
        csv_raw: write CSV cells to the letter; otherwise text that a spreadsheet might run gets a leading apostrophe.
        force: replace the file if it is there.
    """
    options = ExportOptions(failures=failures, csv_raw=csv_raw, force=force)
    written = export_table(out, to, options=options)
    failed = f", {written.failed:,} of them failed" if failures else ""
    say(f"{to}: {written.rows:,} rows{failed}, {len(written.columns)} columns")
    return 0


def reshard(out: Path, new: Path, *, shards: int) -> int:
    """Write a run into a new folder with another number of shards, lines in the order of rows.

    The old folder stays as it is. The new one gets its run.json last, after every line was read back: if this is
    killed, what it leaves is no run, and is to be deleted.

    Args:
        out: the run folder; no run may be going on in it.
        new: the new folder; it must not exist, or be empty.
        shards: output files; row modulo shards names the file.
    """
    done = reshard_folder(out, new, shards=shards, say=say)
    for note in done.notes:
        say(f"{out}: {note}")
    say(
        f"{new}: {done.results:,} results and {done.failures:,} failure lines, {done.shards_before} shards before, "
        f"{done.shards} now; every line was read back. Go on in it with the `run` command, --resume and:\n"
        f"  {shlex.join(['--out', str(new)])}"
    )
    return 0
