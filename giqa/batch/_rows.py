"""Rows of a batch run, and the files that keep them with their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from giqa.batch._units import Unit
from giqa.errors import (
    GiqaError,
    OverloadedError,
    ServerRefusedError,
    ServerUnavailableError,
    UsageError,
)
from giqa.results import ImageResult, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

ADDRESS = b"giqa.address"
ROWS_SHA256 = b"giqa.rows_sha256"
FAILED = b"giqa.failed"
STRETCHES = b"giqa.stretches"
UNITS = b"giqa.units"
"""Keys of a shard's metadata: what decided its rows, their hash, how many are errors, what is to be
known of its stretches of videos (JSON, `giqa.batch._video.Stretch`), and each unit's digest with
its number of rows (JSON)."""


def row_schema(kept: pa.DataType | None = None) -> pa.Schema:
    """The Arrow schema of a run's rows.

    `input` (the input's place in the run, from 0), then the columns of image rows, then `frame`
    and `pts_s` (a frame's number and time in seconds; null for images), then what is carried
    through; `kept_` stands before names that are taken.

    Args:
        kept: the struct of columns that are carried through, if there are any.
    """
    import pyarrow as pa

    first = pa.field("input", pa.int64(), nullable=False)
    last = [pa.field("frame", pa.int64()), pa.field("pts_s", pa.float64())]
    return with_kept(pa.schema([first, *arrow_schema(), *last]), kept)


def with_kept(schema: pa.Schema, kept: pa.DataType | None) -> pa.Schema:
    """A schema with the columns that are carried through after its own.

    Raises:
        UsageError: two would have the same name.
    """
    import pyarrow as pa

    for field in kept or ():
        name = f"kept_{field.name}" if field.name in schema.names else field.name
        if name in schema.names:
            raise UsageError(f"{name} is there twice", item="--keep")
        schema = schema.append(pa.field(name, field.type))
    return schema


def make_row(
    unit: Unit, result: ImageResult, frame: int | None = None, pts_s: float | None = None
) -> Row:
    """Make the row of a result.

    Args:
        unit: the unit that it is the outcome of.
        result: the outcome.
        frame: the frame's number, of a video.
        pts_s: its time in seconds.

    Returns:
        The row; keys are those of `row_schema` and `kept`, what is carried through.
    """
    row = {"input": unit.input, **result.to_flat(), "frame": frame, "pts_s": pts_s}
    row["path"], row["error_message"] = text(row["path"]), text(row["error_message"])
    row["kept"] = unit.kept
    return row


def raise_if_gone(error: GiqaError | None) -> None:
    """Raise what is no fault of an input: the run ends, and going on scores it again.

    Raises:
        ServerError: the server is not there, or refuses all.
    """
    if isinstance(error, ServerUnavailableError | ServerRefusedError | OverloadedError):
        raise error


def text(value: str | None) -> str | None:
    """Text that Parquet can hold: undecodable bytes of file names become escapes."""
    return value and value.encode("utf-8", "backslashreplace").decode()


def flat(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Make a table of rows; what is carried through goes to the last columns."""
    import pyarrow as pa

    columns: list[list[Any]] = []
    own = len(rows[0]) - 1 if rows else 0
    for i, name in enumerate(schema.names):
        if i < own or not rows:
            columns.append([row[name] for row in rows])
        else:
            columns.append([row["kept"][i - own] if row["kept"] else None for row in rows])
    return pa.table(columns, schema=schema)


def encode(
    rows: Sequence[Row],
    address: str,
    kept: pa.DataType | None = None,
    stretches: Sequence[Mapping[str, Any]] = (),
    units: Sequence[tuple[str, int]] = (),
) -> bytes:
    """Make a shard's Parquet file.

    Args:
        rows: its rows.
        address: what decided them.
        kept: the struct of columns that are carried through, if there are any.
        stretches: what is to be known of its stretches of videos.
        units: its units' digests, each with its number of rows.

    Returns:
        The file's bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = flat(rows, row_schema(kept))
    about = {
        ADDRESS: address.encode(),
        FAILED: str(sum(row["status"] != "ok" for row in rows)).encode(),
        STRETCHES: json.dumps(stretches, sort_keys=True).encode(),
        UNITS: json.dumps(units).encode(),
    }
    about[ROWS_SHA256] = rows_digest(table, about[STRETCHES]).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(about), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def rows_digest(table: pa.Table, stretches: bytes) -> str:
    """SHA-256 over a table's rows as JSON lines, which no version of Parquet changes."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
    digest.update(stretches)
    return digest.hexdigest()


def counts(metadata: Mapping[bytes, bytes] | None, rows: int) -> tuple[int, int]:
    """Rows and errors of a shard, from its footer alone."""
    return rows, int((metadata or {}).get(FAILED, b"0"))
