"""Units of work: an image, or a stretch of a video; and the table that keeps them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Literal

from giqa.errors import GiqaError, all_errors

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work.

    Attributes:
        input: place of the input in the run, from 0; the stretches of a video share it.
        kind: `image` or `video`.
        name: the input as its rows name it.
        tar: the tar file that holds it; None: `name` is a path or URI.
        offset: where its bytes begin in the tar file.
        size: how many bytes it has there.
        start_s: where a stretch of a video begins, in seconds; None: at the beginning.
        end_s: where it ends, exclusive; None: at the end.
        error_code: a failure found while planning, which becomes the row.
        error_message: its message.
    """

    input: int
    kind: Kind
    name: str
    tar: str | None = None
    offset: int | None = None
    size: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    error_code: str | None = None
    error_message: str | None = None

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
        """All of it as bytes, for hashes."""
        return repr(astuple(self)).encode() + b"\n"


def unit_schema() -> pa.Schema:
    """The Arrow schema of `inputs.parquet`; names are bytes, as the file system has them."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("input", pa.int64(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("name", pa.binary(), nullable=False),
            pa.field("tar", pa.binary()),
            pa.field("offset", pa.int64()),
            pa.field("size", pa.int64()),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("error_code", pa.string()),
            pa.field("error_message", pa.string()),
        ]
    )


def to_table(units: Iterable[Unit]) -> pa.Table:
    """Make a table with `unit_schema` of units."""
    import pyarrow as pa

    columns: list[list[Any]] = [[] for _ in unit_schema()]
    for unit in units:
        row: list[Any] = [
            unit.input,
            unit.kind,
            os.fsencode(unit.name),
            unit.tar and os.fsencode(unit.tar),
        ]
        row += [unit.offset, unit.size, unit.start_s, unit.end_s, unit.error_code]
        message = unit.error_message
        row.append(message and message.encode("utf-8", "backslashreplace").decode())
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return pa.table(columns, schema=unit_schema())


def from_table(table: pa.Table) -> Iterator[Unit]:
    """Read units back."""
    columns = [column.to_pylist() for column in table.columns]
    for number, kind, name, tar, *rest in zip(*columns, strict=True):
        yield Unit(number, kind, os.fsdecode(name), tar and os.fsdecode(tar), *rest)
