"""A report as a file: CSV, JSON, Markdown or one HTML page; and every row with its labels as CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ConfigError, SinkBroken
from labels.export import TEXT, CsvTable
from labels.score.columns import Column
from labels.score.matrices import Matrix
from labels.score.page import page
from labels.score.predictions import ANSWERED, Predictions
from labels.score.report import Estimate, Report, Scores
from labels.score.tables import Grid, brief_grid, count_grid, detail_grid, difference_grid, headline_grid, notes
from labels.score.truth import Truth
from sinks.files import OS_FILES, partial_of, writing_new

SUFFIXES = (".csv", ".json", ".md", ".html")
LONG = ("model", "metric", "score", "CI_low", "CI_high")
FIRST_COLUMNS: Mapping[str, str] = {
    "stance_score": "china_stance_score",
    "sensitive": "china_sensitive",
    "collective": "collective_action",
    "languages": "languages",
}
"""What the first scripts called the columns of a table of rows."""
Put = Callable[[bytes], None]


def check_target(flag: str, path: Path, inputs: Sequence[Path]) -> None:
    """Refuse a name that cannot be written, before anything is read.

    Raises:
        ConfigError: the folder is missing, the name is that of a folder or of an input, or its ending is none of ours.
    """
    if flag == "--out" and path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {path}: the name must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{flag} {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"{flag} {path} is a folder; give the name of a file")
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise ConfigError(f"{flag} {path} is one of the files to read; choose another name")


def write_report(report: Report, to: Path) -> None:
    """By the ending of the name; a file of that name is replaced.

    Raises:
        SinkBroken: the disk failed; what stood there before still does.
    """
    match to.suffix:
        case ".csv":
            _write(to, lambda put: _write_rows(put, LONG, long_rows(report)))
        case ".json":
            data = orjson.dumps(as_json(report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            _write(to, lambda put: put(data))
        case ".md":
            _write(to, lambda put: put(as_markdown(report).encode()))
        case _:
            _write(to, lambda put: put(page(report).encode()))


def _write(to: Path, fill: Callable[[Put], None]) -> None:
    partial = partial_of(to)
    try:
        with writing_new(OS_FILES, partial) as put:
            fill(put)
        OS_FILES.rename(partial, to)
    except OSError as error:
        raise SinkBroken(
            f"writing {to} failed: {error.strerror or error}. What stood there before, if anything, still does; "
            "nothing else was touched. Make room or choose another place, then score again"
        ) from error
    finally:
        with suppress(OSError):
            OS_FILES.unlink(partial)
    try:
        OS_FILES.sync_folder(to.parent)
    except OSError as error:
        raise SinkBroken(f"{to} is whole, but may not outlast a crash: {error.strerror}. Score again") from error


def _write_rows(put: Put, head: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    table = CsvTable(put, dict.fromkeys(head, TEXT), raw=False)
    for row in rows:
        table.put(list(row))


def long_rows(report: Report) -> Iterator[tuple[Any, ...]]:
    """One line a model and figure; then one a figure by which a model differs from the first."""
    metrics = (*report.headlines, *report.details)
    first = report.models[0].predictions.name
    for scores in report.models:
        for metric in metrics:
            yield (scores.predictions.name, metric.name, *_values(scores.of(metric)))
    for scores in report.models[1:]:
        for metric in metrics:
            found = scores.differences[metric.key, metric.slot]
            yield (f"{scores.predictions.name} - {first}", metric.name, *_values(found))


def _values(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return _known(estimate.value), _known(estimate.low), _known(estimate.high)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def as_json(report: Report) -> dict[str, Any]:
    """Everything, for other programs; null where a figure is not defined."""
    resampling = report.resampling
    return {
        "codebook": {"name": report.truth.codebook.name, "digest": report.truth.codebook.digest},
        "gold": {"path": str(report.truth.path), "rows": len(report.truth), "support": report.supports},
        "ci": resampling and {"n": resampling.n, "alpha": resampling.alpha, "seed": resampling.seed},
        "models": [_model_json(report, scores) for scores in report.models],
        "notes": list(notes(report)),
    }


def _model_json(report: Report, scores: Scores) -> dict[str, Any]:
    model = scores.predictions
    metrics = (*report.headlines, *report.details)
    return {
        "model": model.name,
        "path": str(model.path),
        "records": model.records,
        "parsed": model.parsed,
        "answered": model.count(ANSWERED),
        "unmatched": model.unmatched,
        "refused": {key: dict(column.refused) for key, column in model.columns.items() if column.refused},
        "metrics": {metric.name: _estimate_json(scores.of(metric)) for metric in metrics},
        "differences": {
            metric.name: _estimate_json(scores.differences[metric.key, metric.slot])
            for metric in metrics
            if scores.differences
        },
        "confusion": {key: _matrix_json(matrix) for key, matrix in scores.matrices.items()},
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    score, low, high = _values(estimate)
    return {"score": score, "CI_low": low, "CI_high": high, "dropped": estimate.dropped}


def _matrix_json(matrix: Matrix) -> dict[str, Any]:
    return {"gold": matrix.golds, "predicted": matrix.saids, "counts": matrix.counts}


def as_markdown(report: Report) -> str:
    """Tables that most viewers of Markdown show."""
    grids = [count_grid(report), headline_grid(report), difference_grid(report), brief_grid(report)]
    grids += [_matrix_grid(scores, key) for scores in report.models for key in scores.matrices]
    grids.append(detail_grid(report))
    told = "".join(f"- {_escaped(note)}\n" for note in notes(report))
    return "\n".join(["# Scores\n", *([f"{told}"] if told else []), *(_markdown(grid) for grid in grids if grid)])


def _matrix_grid(scores: Scores, key: str) -> Grid:
    matrix = scores.matrices[key]
    rows = [
        (gold, *(f"{count:,}" for count in counts)) for gold, counts in zip(matrix.golds, matrix.counts, strict=True)
    ]
    title = f"{scores.predictions.name}: {key}, gold in rows, answers in columns"
    return Grid(title=title, head=("gold", *matrix.saids), rows=tuple(rows))


def _markdown(grid: Grid) -> str:
    rows = [grid.head, ("---", *["---:"] * (len(grid.head) - 1)), *(map(_escaped, row) for row in grid.rows)]
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"## {_escaped(grid.title)}\n\n{body}\n"


def _escaped(text: str) -> str:
    for char in "\\`*_[]|#":
        text = text.replace(char, "\\" + char)
    return escape(" ".join(text.split()), quote=False)


def write_examples(truth: Truth, model: Predictions, to: Path, *, first_form: bool) -> None:
    """Every row with gold, one line each: what is true and what was answered.

    Args:
        truth: the gold.
        model: the answers.
        to: the file; one of that name is replaced.
        first_form: the columns of the first scripts, if the codebook is theirs.
    """
    columns, names = _columns(truth, first_form=first_form)
    head = ["idx", *(["meta_id"] if names else []), "parse_ok"]
    head += [f"{side}_{name}" for name in columns for side in ("gold", "pred")]
    pairs = [(truth.columns.get(key), model.columns.get(key)) for key in columns.values()]

    def rows() -> Iterator[list[Any]]:
        for row, index in enumerate(truth.indexes):
            cells = [_cell(column, row) for pair in pairs for column in pair]
            yield [index, *([names[row]] if names else []), model.states[row] == ANSWERED, *cells]

    _write(to, lambda put: _write_rows(put, head, rows()))


def _columns(truth: Truth, *, first_form: bool) -> tuple[Mapping[str, str], list[str]]:
    """What each column is called and which dimension it holds; and the ids, if they get a column."""
    every = set(FIRST_COLUMNS.values())
    if first_form and every - {"languages"} <= set(truth.coders) <= every:
        return FIRST_COLUMNS, []
    return {key: key for key in truth.coders}, truth.names()


def _cell(column: Column | None, row: int) -> Any:
    if column is None:
        return None
    label = column.coder.label(column.cells[row])
    return "|".join(label) if isinstance(label, list) else label
