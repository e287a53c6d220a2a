"""Tables (Parquet, Arrow): paths, or pictures and videos themselves, a row an input or several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from giqa.errors import CorruptError, UsageError
from giqa.uris import open_uri

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".parquet", ".arrow", ".feather")
COLUMNS = ("uri", "url", "path", "image", "img", "picture", "photo", "bytes", "video")
"""Columns that are taken unless one is named: the first `{bytes, path}`, else of these."""
_ROWS = 1024
_CELLS = 8
"""Rows that are read at once, of paths and of pictures."""


class Table:
    """An open table.

    Args:
        name: its path or URI.
        file: the open file.

    Raises:
        CorruptError: it cannot be read.
    """

    def __init__(self, name: str, file: Any) -> None:
        self.name = name
        self._file = file
        self._parquet = name.lower().endswith(".parquet")
        self._open()

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._parquet:
                # Buffered: a column of pictures is not read as a whole.
                self._reader: Any = pq.ParquetFile(self._file, buffer_size=1 << 20)
                self.schema: pa.Schema = self._reader.schema_arrow
                return
            self._file.seek(0)
            magic = self._file.read(6)
            self._file.seek(0)
            opened = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
            self._reader = opened(self._file)
            self.schema = self._reader.schema
        except (pa.ArrowException, OSError, ValueError) as e:
            raise self.corrupt(e) from e

    def corrupt(self, error: Exception) -> CorruptError:
        """The error for what Arrow says."""
        return CorruptError(f"not a whole table: {error}", item=self.name)

    def part(self, column: str, name: str) -> list[str]:
        """How a part of a column of structs is asked for: alone in Parquet, if it is there."""
        if not self._parquet:
            return [column]
        found = [
            leaf.path for leaf in map(self._reader.schema.column, range(len(self._reader.schema)))
        ]
        return [p for p in found if p.startswith(f"{column}.") and p.endswith(f".{name}")]

    def lengths(self) -> Iterator[tuple[int, int]]:
        """First row and number of rows, part by part; nothing is decoded."""
        row = 0
        if self._parquet:
            groups = map(
                self._reader.metadata.row_group, range(self._reader.metadata.num_row_groups)
            )
            lengths = [group.num_rows for group in groups]
        else:
            lengths = [len(batch) for _, batch in self.batches(self.schema.names[:1], 0, _ROWS)]
        for length in lengths:
            yield row, length
            row += length

    def batches(self, columns: Sequence[str], first: int, size: int) -> Iterator[tuple[int, Any]]:
        """Read rows in order.

        Args:
            columns: names; `a.b` is a part of a struct, in Parquet alone.
            first: the first row, or one before it.
            size: most rows at once.

        Yields:
            The first row's number, and a batch with the columns.

        Raises:
            CorruptError: it cannot be read further.
        """
        import pyarrow as pa

        try:
            for row, batch in self._all(columns, first, size):
                if row + len(batch) > first:
                    yield row, batch
        except (pa.ArrowException, OSError) as e:
            raise self.corrupt(e) from e

    def _all(self, columns: Sequence[str], first: int, size: int) -> Iterator[tuple[int, Any]]:
        row = 0
        if self._parquet:
            groups = self._reader.metadata.num_row_groups
            lengths = [self._reader.metadata.row_group(i).num_rows for i in range(groups)]
            skip = 0
            while skip < groups and row + lengths[skip] <= first:
                row += lengths[skip]
                skip += 1
            wanted = list(range(skip, groups))
            source = self._reader.iter_batches(size, row_groups=wanted, columns=list(columns))
        else:
            self._open()  # a stream is read from its beginning
            names = [c.split(".")[0] for c in columns]
            source = (b.select(names).slice(i, size) for b, i in self._pieces(size))
        for batch in source:
            yield row, batch
            row += len(batch)

    def _pieces(self, size: int) -> Iterator[tuple[Any, int]]:
        if hasattr(self._reader, "get_batch"):
            whole: Any = map(self._reader.get_batch, range(self._reader.num_record_batches))
        else:
            whole = self._reader
        for batch in whole:
            for i in range(0, len(batch), size):
                yield batch, i


@contextmanager
def open_table(name: str, folder: str) -> Iterator[Table]:
    """Open a table.

    Raises:
        CorruptError: it cannot be read.
        InputError: see `giqa.uris.open_uri`.
    """
    with closing(open_uri(name, folder)) as file:
        yield Table(name, file)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds paths."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds files: bytes, or structs `{bytes, path}` of them."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        names = {field.name: field.type for field in kind}
        return "bytes" in names and is_bytes(names["bytes"])
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def element(kind: pa.DataType) -> pa.DataType:
    """The type of a list's elements, or the type itself."""
    import pyarrow as pa

    listy = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return kind.value_type if listy or pa.types.is_fixed_size_list(kind) else kind


def usable(kind: pa.DataType) -> bool:
    """Whether a column holds inputs."""
    return is_text(element(kind)) or is_bytes(element(kind))


def choose(table: Table, wanted: str | None) -> str:
    """Find the column that holds the inputs.

    Raises:
        UsageError: there is none, or it holds something else.
    """
    schema = table.schema
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    remedy = f"--column with one of: {there}"
    if wanted is not None and wanted not in schema.names:
        raise UsageError(f"has none of the columns {wanted}", item=table.name, remedy=remedy)
    if wanted is not None:
        if not usable(schema.field(wanted).type):
            raise UsageError(
                f"column {wanted} is {schema.field(wanted).type}: neither paths nor bytes nor "
                "{bytes, path}",
                item=table.name,
                remedy=remedy,
            )
        return wanted
    found = [field.name for field in schema if usable(field.type)]
    structs = [n for n in found if "struct" in str(element(schema.field(n).type))]
    named = [n for n in COLUMNS if n in found]
    if not structs and not named:
        names = ", ".join(COLUMNS)
        raise UsageError(f"has none of the columns {names}", item=table.name, remedy=remedy)
    return (structs or named)[0]


class Cells:
    """Reads files out of tables, best in order: the table stays open where it was read last.

    Args:
        folder: where relative paths begin.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._at: tuple[str, str] | None = None
        self._open: Any = None
        self._batches: Iterator[tuple[int, Any]] = iter(())
        self._row = 0
        self._batch: Any = None

    def read(self, name: str, column: str, row: int, place: int | None) -> Any:
        """Read a cell.

        Args:
            name: the table's path or URI.
            column: the column.
            row: the row.
            place: the place in the row's list, if it is one.

        Returns:
            Its value: bytes, `{bytes, path}`, or None.

        Raises:
            CorruptError: the table cannot be read there.
        """
        if self._at != (name, column):
            self.close()
            self._open = open_table(name, self._folder)
            self._table: Table = self._open.__enter__()
            self._at, self._batch = (name, column), None
        if self._batch is None or not self._row <= row < self._row + len(self._batch):
            following = self._batch is not None and row == self._row + len(self._batch)
            if not following:
                self._batches = self._table.batches([column], row, _CELLS)
            self._row, self._batch = next(self._batches, (0, None))
            while self._batch is not None and self._row + len(self._batch) <= row:
                self._row, self._batch = next(self._batches, (0, None))
        if self._batch is None:
            raise CorruptError(f"has no row {row}", item=name)
        value = self._batch.column(0)[row - self._row].as_py()
        if place is None:
            return value
        return value[place] if value and place < len(value) else None

    def close(self) -> None:
        """Close the table."""
        if self._open is not None:
            self._batches = iter(())
            self._open.__exit__(None, None, None)
        self._open = self._at = self._batch = None


def rows(
    table: Table, column: str, keep: Sequence[str]
) -> Iterator[tuple[int, int | None, Any, tuple[Any, ...]]]:
    """List a table's inputs; pictures themselves are not read.

    Args:
        table: the table.
        column: from `choose`.
        keep: columns that are carried through.

    Yields:
        Row, place in the row's list (None: it is none), path (None if there is none), and what is
        carried through; an empty list gives one with the place -1.

    Raises:
        UsageError: a column to be carried through is not there.
    """
    if missing := [name for name in keep if name not in table.schema.names]:
        raise UsageError(
            f"has no column {missing[0]}",
            item=table.name,
            remedy=f"--keep some of: {', '.join(table.schema.names)}",
        )
    kind = table.schema.field(column).type
    if column in keep and is_bytes(element(kind)):
        raise UsageError(f"{column} holds the pictures themselves", item="--keep")
    inner, listed = element(kind), element(kind) is not kind
    wanted, files = [column], is_bytes(inner)
    if files:
        names = [field.name for field in inner] if "struct" in str(inner) else []
        # Of structs in Parquet the path alone is read; lists of bytes are read for their lengths.
        wanted = table.part(column, "path") if "path" in names else []
        if listed and not wanted:
            wanted = [column]
    columns = [*wanted, *(name for name in keep if name != column)]
    if not columns:  # nothing but bytes: only their number counts
        for row, length in table.lengths():
            yield from ((row + i, None, None, ()) for i in range(length))
        return
    for first, batch in table.batches(
        columns, 0, _CELLS if wanted == [column] and files else _ROWS
    ):
        kept = [batch.column(name).to_pylist() for name in keep]
        values = batch.column(column).to_pylist() if wanted else [None] * len(batch)
        for i, value in enumerate(values):
            own = tuple(column[i] for column in kept)
            if not listed:
                yield first + i, None, _path(value), own
                continue
            for place, one in enumerate(value or ()):
                yield first + i, place, _path(one), own
            if not value:
                yield first + i, -1, None, own


def _path(value: Any) -> str | None:
    """The path in a cell; undecodable bytes are none."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) else None


def suffix(path: str | None) -> str:
    """A path's suffix, lower case; empty if there is none."""
    return os.path.splitext(path or "")[1].lower()
