"""Parquet: a batch of rows in memory at a time, and row groups that are done left unread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from engine.cells import Placed, Table, check_width, checked
from engine.errors import ConfigError, InputError
from engine.marks import Marks

PARQUET_BATCH_ROWS = 256
PARQUET_BUFFER_BYTES = 1 << 20
"""Without it a whole row group, often a whole file, is held."""


@contextmanager
def open_parquet(path: Path) -> Iterator[Table]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - 40 MB that only Parquet needs
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"--input {path}: Parquet needs pyarrow: pip install 'reelbatch[parquet]'") from error
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from error
    with file:
        fields = list(file.schema_arrow)
        check_width(path, len(fields))
        passed_rows = 0
        groups = range(file.metadata.num_row_groups)

        def skip_to(row: int, marks: Marks) -> int:
            nonlocal passed_rows, groups
            del marks
            for group in groups:
                rows = file.metadata.row_group(group).num_rows
                if passed_rows + rows > row:
                    break
                passed_rows += rows
                groups = groups[1:]
            return passed_rows

        def records(columns: Sequence[int]) -> Iterator[Placed]:
            nonlocal passed_rows
            names = [fields[at].name for at in columns]
            try:
                batches = file.iter_batches(PARQUET_BATCH_ROWS, list(groups), columns=names) if groups else ()
                for batch in batches:
                    values = [_plain(pa, batch.column(batch.schema.get_field_index(name))) for name in names]
                    for cells in zip(*values, strict=True):
                        passed_rows += 1
                        yield f"row {passed_rows}", checked(cells)
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                raise InputError(f"{path} cannot be read past row {passed_rows}: {error}") from error

        yield Table(
            header=tuple(field.name for field in fields),
            records=records,
            share_read=lambda: passed_rows / max(1, file.metadata.num_rows),
            skip_to=skip_to,
            float_columns=frozenset(at for at, field in enumerate(fields) if pa.types.is_floating(field.type)),
        )


def _plain(pa: Any, column: Any) -> list[Any]:
    """A column's values; text as bytes, so that one value that is no UTF-8 does not cost the others."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.string())
    return cast("list[Any]", column.to_pylist())
