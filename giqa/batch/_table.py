"""Tables (Parquet, Arrow): paths, or pictures and videos themselves, a row an input or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from giqa.batch._columns import element, is_bytes, is_list, is_struct, is_text, path_in, values
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

    def kind(self, column: str, remedy: str) -> pa.DataType:
        """A column's type.

        Raises:
            UsageError: there is none of the name, or several.
        """
        if (count := self.schema.names.count(column)) != 1:
            what = f"has {count} columns {column}" if count else f"has no column {column}"
            raise UsageError(what, item=self.name, remedy=remedy)
        return self.schema.field(column).type

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
            lengths = (group.num_rows for group in groups)
        else:
            lengths = (len(batch) for _, batch in self.batches(None, 0, _ROWS))
        for length in lengths:
            yield row, length
            row += length

    def batches(
        self, columns: Sequence[str] | None, first: int, size: int
    ) -> Iterator[tuple[int, Any]]:
        """Read rows in order.

        Args:
            columns: names; `a.b` is a part of a struct, in Parquet alone; None: all.
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

    def _all(
        self, columns: Sequence[str] | None, first: int, size: int
    ) -> Iterator[tuple[int, Any]]:
        row = 0
        if self._parquet:
            groups = self._reader.metadata.num_row_groups
            lengths = [self._reader.metadata.row_group(i).num_rows for i in range(groups)]
            skip = 0
            while skip < groups and row + lengths[skip] <= first:
                row += lengths[skip]
                skip += 1
            wanted = list(range(skip, groups))
            source = self._reader.iter_batches(
                size, row_groups=wanted, columns=columns and list(columns)
            )
        else:
            self._open()  # a stream is read from its beginning
            every = range(len(self.schema))
            places = every if columns is None else map(self.schema.get_field_index, columns)
            wanted = list(places)
            source = (b.select(wanted).slice(i, size) for b, i in self._pieces(size))
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
        kind = table.kind(wanted, remedy)
        if not usable(kind):
            raise UsageError(
                f"column {wanted} is {kind}: neither paths nor bytes nor {{bytes, path}}",
                item=table.name,
                remedy=remedy,
            )
        return wanted
    found = {field.name: field.type for field in schema if usable(field.type)}
    structs = [name for name, kind in found.items() if is_struct(element(kind))]
    named = [n for n in COLUMNS if n in found]
    if not structs and not named:
        names = ", ".join(COLUMNS)
        raise UsageError(f"has none of the columns {names}", item=table.name, remedy=remedy)
    first = (structs or named)[0]
    table.kind(first, remedy)
    return first


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
        value = values(self._batch.column(0).slice(row - self._row, 1))[0]
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
    for name in keep:
        table.kind(name, f"--keep some of: {', '.join(table.schema.names)}")
    kind = table.kind(column, "")
    if column in keep and is_bytes(element(kind)):
        raise UsageError(f"{column} holds the pictures themselves", item="--keep")
    inner, listed = element(kind), is_list(kind)
    wanted, files = [column], is_bytes(inner)
    if files:
        names = [field.name for field in inner] if is_struct(inner) else []
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
        kept = [_kept(table, batch.column(name), name) for name in keep]
        cells = values(batch.column(column)) if wanted else [None] * len(batch)
        for i, value in enumerate(cells):
            own = tuple(column[i] for column in kept)
            if not listed:
                yield first + i, None, path_in(value), own
                continue
            for place, one in enumerate(value or ()):
                yield first + i, place, path_in(one), own
            if not value:
                yield first + i, -1, None, own


def _kept(table: Table, cells: pa.Array, name: str) -> list[Any]:
    try:
        found: list[Any] = cells.to_pylist()
    except (UnicodeDecodeError, ValueError) as e:
        raise table.corrupt(ValueError(f"column {name}: {e}")) from e
    return found
