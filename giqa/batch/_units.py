"""Units of work: an image, or a stretch of a video; and the table that keeps them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from giqa.errors import GiqaError, all_errors

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["image", "video"]
_NAMES = ("name", "holder", "column")
"""Fields that are bytes in the table, as file systems have them."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work.

    Attributes:
        input: place of the input in the run, from 0; the stretches of a video share it.
        kind: `image` or `video`.
        name: the input as its rows name it.
        holder: the tar file or table that holds its bytes; None: `name` is a path or URI.
        column: the table's column; None: `holder` is a tar file.
        offset: where its bytes begin in the tar file; its row in the table.
        size: how many bytes it has in the tar file; its place in the list of the table's row.
        start_s: where a stretch of a video begins, in seconds; None: at the beginning.
        end_s: where it ends, exclusive; None: at the end.
        error_code: a failure found while planning, which becomes the row.
        error_message: its message.
        stamp: tells whether the bytes changed since: size and time, ETag or SHA-256.
        frames: how many frames of a video are to be scored, as far as it is known.
        mark: where reading a stretch begins, see `giqa.video.Bookmark`; JSON.
        kept: what the table says beside, in the order of the run's `keep`.
        gone: the input was not there any more when the run was updated.
    """

    input: int
    kind: Kind
    name: str
    holder: str | None = None
    column: str | None = None
    offset: int | None = None
    size: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    stamp: str | None = None
    frames: int | None = None
    mark: str | None = None
    kept: tuple[Any, ...] = ()
    gone: bool = False

    @classmethod
    def failed(cls, number: int, name: str, error: GiqaError) -> Unit:
        """Make the unit of an input that cannot be listed."""
        return cls(number, "image", name, error_code=error.code, error_message=error.message)

    @property
    def error(self) -> GiqaError | None:
        """The failure found while planning."""
        if self.error_code is None:
            return None
        return all_errors()[self.error_code](self.error_message or "", item=self.name)

    @property
    def identity(self) -> bytes:
        """All that decides its rows as bytes, for hashes."""
        return repr(astuple(replace(self, gone=False))).encode() + b"\n"

    @property
    def place(self) -> tuple[object, ...]:
        """Which input it is, whatever its number and content."""
        return self.name, self.holder, self.column, self.offset, self.size

    @property
    def weight(self) -> int:
        """How much work it is, in images."""
        return max(1, self.frames or 1) if self.kind == "video" else 1


_FIELDS = tuple(field.name for field in fields(Unit) if field.name != "kept")


def unit_schema(kept: pa.DataType | None = None) -> pa.Schema:
    """The Arrow schema of `inputs.parquet`; names are bytes, as the file system has them.

    Args:
        kept: the struct of columns that are carried through, if there are any.
    """
    import pyarrow as pa

    kinds = {
        "input": pa.int64(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "frames": pa.int64(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "gone": pa.bool_(),
        **dict.fromkeys(_NAMES, pa.binary()),
    }
    required = {"input", "kind", "name", "gone"}
    found = [pa.field("shard", pa.int64(), nullable=False)]
    for name in _FIELDS:
        found.append(pa.field(name, kinds.get(name, pa.string()), nullable=name not in required))
    return pa.schema(found + ([pa.field("kept", kept)] if kept is not None else []))


def to_table(units: Iterable[tuple[int, Unit]], schema: pa.Schema) -> pa.Table:
    """Make a table with `unit_schema` of units, each with its shard's number."""
    import pyarrow as pa

    kept = schema.field("kept").type.names if "kept" in schema.names else []
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for shard, unit in units:
        columns["shard"].append(shard)
        for name in _FIELDS:
            value = getattr(unit, name)
            if name in _NAMES:
                value = None if value is None else os.fsencode(value)
            elif name == "error_message" and value is not None:
                value = value.encode("utf-8", "backslashreplace").decode()
            columns[name].append(value)
        if kept:
            columns["kept"].append(dict(zip(kept, unit.kept, strict=True)) if unit.kept else None)
    return pa.table(list(columns.values()), schema=schema)


def from_table(table: pa.Table) -> Iterator[tuple[int, Unit]]:
    """Read units back, each with its shard's number."""
    for row in table.to_pylist():
        shard, kept = row.pop("shard"), row.pop("kept", None)
        for name in _NAMES:
            row[name] = None if row[name] is None else os.fsdecode(row[name])
        yield shard, Unit(**row, kept=() if kept is None else tuple(kept.values()))
