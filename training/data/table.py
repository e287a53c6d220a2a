"""Labels in a CSV or Parquet table: one row an image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from giqa.errors import TableInvalidError, UsageError
from training.data.checks import Row, Scale, check, check_columns, identity, some
from training.data.samples import Sample
from training.data.splits import hold_out, hold_out_share

__all__ = ["Sample", "hold_out", "hold_out_share", "read_csv", "read_table"]

COLUMNS = ("path", "mos", "subset", "reference", "split")
"""What is read of a table; the first two must be there."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Texts in the column `split`, in small letters."""


def read_table(
    path: Path,
    *,
    low: float = 0,
    high: float = 100,
    higher_is_better: bool = True,
    columns: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Read labelled images from a table.

    Args:
        path: a `.parquet` file; or text, UTF-8 with a header, whose fields are parted by commas,
            tabs or semicolons (`.csv`, `.tsv`, `.txt`). Columns: `path` (absolute, or relative to
            the table's folder), `mos`, optionally `subset` (a part of the data set or a type of
            distortion), `reference` (the content: what shows one stays together) and `split`
            (train, validation or test); others are ignored.
        low: the smallest label that may occur.
        high: the largest one.
        higher_is_better: False for difference scores (DMOS), which are turned round.
        columns: what the table calls them, by these names; empty: that one is not read.

    Returns:
        One sample a row, in the table's order, low..high scaled linearly to 0..100.

    Raises:
        FileNotFoundError: no such table.
        TableInvalidError: (a ValueError) it is neither text nor Parquet, lacks a column, a row is
            wrong (see `training.data.checks.check`), or a content is on two sides of the split.
        UsageError: low is not below high, or `columns` has a name that is not one of those.
    """
    scale = Scale(low, high, higher_is_better)
    called = {name: name for name in COLUMNS} | dict(columns or {})
    if unknown := sorted(set(called) - set(COLUMNS)):
        raise UsageError(
            f"no such column: {', '.join(unknown)}", remedy=f"name some of {', '.join(COLUMNS)}"
        )
    # What is named must be there; of the rest only path and mos.
    needed = [called[n] for n in COLUMNS if n in ("path", "mos", *(columns or ())) and called[n]]
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv", ".txt"):
        records = read_csv(path, needed, delimiter=None)
    elif kind == ".parquet":
        records = _read_parquet(path, needed, [*called.values()])
    else:
        raise TableInvalidError("a table is a .csv, .tsv or .parquet file", item=str(path))
    rows = list(_rows(path, records, called))
    samples = check(path, rows, scale)
    _check_sides(path, samples)
    return samples


def read_csv(
    table: Path, needed: Sequence[str], *, delimiter: str | None = ","
) -> list[dict[str, object]]:
    """Read a text file of fields strictly.

    Args:
        table: UTF-8, a header; lines without anything are no rows.
        needed: columns that must be there.
        delimiter: between fields; None: the comma, tab or semicolon that the header has most of.

    Returns:
        One record a data row; None where a row is too short.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: a needed column is missing, a row has more fields than the header, a
            quote is not closed, or the file is not UTF-8.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            if delimiter is None:
                header = f.readline()
                delimiter = max(",\t;", key=header.count)
                f.seek(0)
            # Strict: an unclosed quote would swallow all rows below it.
            reader = csv.DictReader(f, strict=True, delimiter=delimiter)
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


def _read_parquet(
    table: Path, needed: Sequence[str], known: Sequence[str]
) -> list[dict[str, object]]:
    try:
        with table.open("rb") as f, pq.ParquetFile(f) as file:
            names = file.schema_arrow.names
            check_columns(table, names, needed)
            records: list[dict[str, object]] = file.read(
                [c for c in dict.fromkeys(known) if c in names]
            ).to_pylist()
    except (pa.ArrowException, OSError) as e:
        # Arrow calls a damaged page an OSError, without a number.
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise TableInvalidError(f"not Parquet: {e}", item=str(table)) from e
    return records


def _rows(
    table: Path, records: Sequence[dict[str, Any]], called: Mapping[str, str]
) -> Iterator[Row]:
    wrong = []
    for number, record in enumerate(records, 1):
        name, mos, *others = (
            record.get(called[column]) if called[column] else None for column in COLUMNS
        )
        subset, reference, split = ("" if value is None else str(value) for value in others)
        name = None if name is None else str(name)
        path = table.parent / (name or "")
        side = SPLITS.get(split.strip().lower(), "")
        if split.strip() and not side:
            wrong.append(f"row {number} {split!r}")
        yield Row(number, name, path, identity(path), mos, subset, reference=reference, split=side)
    if wrong:
        told = f"no split of {', '.join(sorted(set(SPLITS.values())))}:"
        raise TableInvalidError(some(told, wrong), item=str(table))


def _check_sides(table: Path, samples: Sequence[Sample]) -> None:
    """A content on two sides would be known before it is tested on."""
    if (split := [s for s in samples if s.split]) and len(split) < len(samples):
        raise TableInvalidError(
            f"{len(samples) - len(split)} of {len(samples)} rows have no split", item=str(table)
        )
    sides: dict[str, set[str]] = {}
    for sample in split:
        if sample.reference:
            sides.setdefault(sample.reference, set()).add(sample.split)
    wrong = [f"{name!r} in {' and '.join(sorted(s))}" for name, s in sides.items() if len(s) > 1]
    if wrong:
        raise TableInvalidError(some("one content on two sides:", wrong), item=str(table))
