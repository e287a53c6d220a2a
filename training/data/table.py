"""Labels in a CSV or Parquet table: one row an image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from giqa.errors import TableInvalidError
from training.data.checks import Row, Scale, check, check_columns, identity
from training.data.samples import Sample
from training.data.splits import hold_out, hold_out_share

__all__ = ["Sample", "hold_out", "hold_out_share", "read_csv", "read_table"]

_COLUMNS = ("path", "mos")


def read_table(
    path: Path, *, low: float = 0, high: float = 100, higher_is_better: bool = True
) -> list[Sample]:
    """Read labelled images from a table.

    Args:
        path: a `.csv` (UTF-8, commas, a header) or `.parquet` file. Columns: `path` (absolute, or
            relative to the table's folder), `mos`, optionally `subset` (a part of the data set or
            a type of distortion); others are ignored.
        low: the smallest label that may occur.
        high: the largest one.
        higher_is_better: False for difference scores (DMOS), which are turned round.

    Returns:
        One sample a row, in the table's order, low..high scaled linearly to 0..100.

    Raises:
        FileNotFoundError: no such table.
        TableInvalidError: (a ValueError) it is neither CSV nor Parquet, lacks a column, or a row is
            wrong, see `training.data.checks.check`.
        UsageError: low is not below high.
    """
    scale = Scale(low, high, higher_is_better)
    kind = path.suffix.lower()
    if kind == ".csv":
        records = read_csv(path, _COLUMNS)
    elif kind == ".parquet":
        records = _read_parquet(path)
    else:
        raise TableInvalidError("a table is a .csv or a .parquet file", item=str(path))
    return check(path, _rows(path.parent, records), scale)


def read_csv(table: Path, needed: Sequence[str]) -> list[dict[str, object]]:
    """Read a CSV file strictly.

    Args:
        table: UTF-8, commas, a header; lines without anything are no rows.
        needed: columns that must be there.

    Returns:
        One record a data row; None where a row is too short.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: a needed column is missing, a row has more fields than the header, a
            quote is not closed, or the file is not UTF-8.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            # Strict: an unclosed quote would swallow all rows below it.
            reader = csv.DictReader(f, strict=True)
            check_columns(table, reader.fieldnames or [], needed)
            records: list[dict[str, object]] = []
            for number, record in enumerate(reader, 1):
                # A comma in a name or a number would shift what comes after it.
                if extra := record.pop(None, None):
                    raise TableInvalidError(
                        f"row {number} has more fields than the header: {extra}", item=str(table)
                    )
                records.append(dict(record))
    except UnicodeDecodeError as e:
        raise TableInvalidError(f"not UTF-8 at byte {e.start}", item=str(table)) from e
    except csv.Error as e:
        raise TableInvalidError(f"not CSV: {e}", item=str(table)) from e
    return records


def _read_parquet(table: Path) -> list[dict[str, object]]:
    try:
        with table.open("rb") as f, pq.ParquetFile(f) as file:
            names = file.schema_arrow.names
            check_columns(table, names, _COLUMNS)
            columns = [c for c in (*_COLUMNS, "subset") if c in names]
            records: list[dict[str, object]] = file.read(columns).to_pylist()
    except (pa.ArrowException, OSError) as e:
        # Arrow calls a damaged page an OSError, without a number.
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise TableInvalidError(f"not Parquet: {e}", item=str(table)) from e
    return records


def _rows(folder: Path, records: Sequence[dict[str, object]]) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        name, subset = record["path"], record.get("subset")
        name = None if name is None else str(name)
        path = folder / (name or "")
        label = "" if subset is None else str(subset)
        yield Row(number, name, path, identity(path), record["mos"], label)
