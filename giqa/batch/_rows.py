"""Rows of a batch run, and the files that keep them with their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from giqa.batch._units import Unit
from giqa.errors import GiqaError, OverloadedError, ServerRefusedError, ServerUnavailableError
from giqa.results import ImageResult, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

ADDRESS = b"giqa.address"
ROWS_SHA256 = b"giqa.rows_sha256"
FAILED = b"giqa.failed"
"""Keys of a shard's metadata: what decided its rows, their hash, how many are errors."""


def row_schema() -> pa.Schema:
    """The Arrow schema of a run's rows.

    `input` (the input's place in the run, from 0), then the columns of image rows, then `frame`
    and `pts_s` (a frame's number and time in seconds; null for images).
    """
    import pyarrow as pa

    first = pa.field("input", pa.int64(), nullable=False)
    last = [pa.field("frame", pa.int64()), pa.field("pts_s", pa.float64())]
    return pa.schema([first, *arrow_schema(), *last])


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
        The row; keys are those of `row_schema`.
    """
    row = {"input": unit.input, **result.to_flat(), "frame": frame, "pts_s": pts_s}
    row["path"], row["error_message"] = text(row["path"]), text(row["error_message"])
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


def encode(rows: Sequence[Row], address: str) -> bytes:
    """Make a shard's Parquet file.

    Args:
        rows: its rows.
        address: what decided them.

    Returns:
        The file's bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, row_schema())
    about = {
        ADDRESS: address.encode(),
        ROWS_SHA256: rows_digest(table).encode(),
        FAILED: str(sum(row["status"] != "ok" for row in rows)).encode(),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(about), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def rows_digest(table: pa.Table) -> str:
    """SHA-256 over a table's rows as JSON lines, which no version of Parquet changes."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def counts(metadata: Mapping[bytes, bytes] | None, rows: int) -> tuple[int, int]:
    """Rows and errors of a shard, from its footer alone."""
    return rows, int((metadata or {}).get(FAILED, b"0"))
