"""Results: one row per input, one Arrow schema, four file formats.

JSON is a list of rows, JSON Lines one row a line; CSV and Parquet flatten `error` into
`error_code` and `error_message`, and CSV joins `notes` with `;`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from giqa import checks
from giqa.contract import Band, Profile, band
from giqa.errors import GiqaError
from giqa.files import Output
from giqa.rows import rows_into

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SCHEMA = "giqa.image/1"

Format = Literal["json", "jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("json", "jsonl", "csv", "parquet")
COLUMNS = (
    "schema",
    "path",
    "status",
    "score",
    "band",
    "error_code",
    "error_message",
    "bundle",
    "engine",
    "profile",
    "width",
    "height",
    "notes",
)


@dataclass(frozen=True)
class ImageResult:
    """The outcome for one input: a score or a coded error.

    Attributes:
        path: the input as it was named.
        bundle: name and version of the weights.
        engine: runtime and precision.
        profile: `fast` or `precise`.
        score: 0 (bad) .. 100 (excellent); None on error.
        error: what went wrong; None if it was scored.
        width: width of the upright picture in pixels; None if unknown.
        height: height of the upright picture in pixels; None if unknown.
        notes: remarks such as `first_frame`, `icc_converted`, `alpha_flattened`,
            `pillow_decoded`, `extreme_aspect`.
        boxes: (V, 4) int32, the views' regions x0, y0, x1, y1 in pixels; None on error.
        quality_map: (V, grid, grid) float32 on the score's scale, if asked for; not written.
    """

    path: str
    bundle: str
    engine: str
    profile: Profile
    score: float | None = None
    error: GiqaError | None = None
    width: int | None = None
    height: int | None = None
    notes: tuple[str, ...] = ()
    boxes: npt.NDArray[np.int32] | None = field(default=None, repr=False, compare=False)
    quality_map: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse rows that are neither or both."""
        if (self.score is None) == (self.error is None):
            raise ValueError("a result has a score or an error")

    @property
    def status(self) -> Literal["ok", "error"]:
        """`ok` or `error`."""
        return "ok" if self.error is None else "error"

    @property
    def band(self) -> Band | None:
        """The score's ACR category; None on error."""
        return None if self.score is None else band(self.score)

    def __iter__(self) -> Iterator[ImageResult]:
        """Itself, once: what reads the results of many reads the one of a single image."""
        yield self

    def _repr_html_(self) -> str:
        """The row as notebooks show it."""
        name = escape(printable(self.path))
        if self.error is not None:
            said = f"<b>{self.error.code}</b> {escape(self.error.message)}"
            said += f" <i>{escape(self.error.remedy)}</i>" if self.error.remedy else ""
        else:
            said = (
                f'<meter min="0" max="100" value="{self.score:.1f}"></meter> '
                f"<b>{self.score:.1f}</b> {self.band} ({self.width} x {self.height})"
            )
        return f"<p><code>{name}</code> {said}</p>"

    def to_json(self) -> dict[str, Any]:
        """The row as JSON writers give it."""
        error = None
        if self.error is not None:
            error = {
                "code": self.error.code,
                "message": self.error.message,
                "remedy": self.error.remedy,
            }
        return {
            "schema": IMAGE_SCHEMA,
            "path": self.path,
            "status": self.status,
            "score": self.score,
            "band": self.band,
            "error": error,
            "bundle": self.bundle,
            "engine": self.engine,
            "profile": self.profile,
            "width": self.width,
            "height": self.height,
            "notes": list(self.notes),
        }

    def to_flat(self) -> dict[str, Any]:
        """The row as CSV and Parquet give it; keys are `COLUMNS`."""
        row = self.to_json()
        error = row.pop("error")
        row["error_code"] = None if error is None else error["code"]
        row["error_message"] = None if error is None else error["message"]
        return {name: row[name] for name in COLUMNS}


def arrow_schema() -> pa.Schema:
    """The Arrow schema of image rows."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "score": pa.float32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "notes": pa.list_(pa.string()),
    }
    required = {"schema", "path", "status", "bundle", "engine", "profile"}
    return pa.schema(
        [pa.field(n, kinds.get(n, pa.string()), nullable=n not in required) for n in COLUMNS]
    )


@dataclass(frozen=True)
class Table:
    """A kind of rows.

    Attributes:
        columns: names of the flat columns, in order.
        schema: makes their Arrow schema.
    """

    columns: tuple[str, ...]
    schema: Callable[[], pa.Schema]


IMAGES = Table(COLUMNS, arrow_schema)


class Row(Protocol):
    """What a writer takes."""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON writers give it."""
        ...

    def to_flat(self) -> dict[str, Any]:
        """The row as CSV and Parquet give it."""
        ...


_R = TypeVar("_R", contravariant=True)


class Writer(Protocol[_R]):
    """Writes rows of some kind one by one."""

    def write(self, result: _R) -> None:
        """Write one row."""
        ...

    def close(self) -> None:
        """Finish the file; rows written so far are complete and readable."""
        ...


class _Json:
    def __init__(self, file: IO[bytes], _table: Table) -> None:
        self._file, self._any = file, False

    def write(self, result: Row) -> None:
        row = json.dumps(result.to_json(), ensure_ascii=False)
        self._file.write((",\n" if self._any else "[\n").encode() + utf8(row))
        self._any = True

    def close(self) -> None:
        self._file.write(b"\n]\n" if self._any else b"[]\n")


class _JsonLines:
    def __init__(self, file: IO[bytes], _table: Table) -> None:
        self._file = file

    def write(self, result: Row) -> None:
        self._file.write(utf8(json.dumps(result.to_json(), ensure_ascii=False)) + b"\n")

    def close(self) -> None:
        self._file.flush()


class _Csv:
    def __init__(self, file: IO[bytes], table: Table) -> None:
        self._file, self._columns = file, table.columns
        self._line: list[str] = []
        self._csv = csv.writer(self, lineterminator="\n")
        self._csv.writerow(self._columns)

    def write(self, result: Row | str) -> None:  # also the csv module's text sink
        if isinstance(result, str):
            self._file.write(utf8(result))
            return
        row = result.to_flat()
        cells = [row[name] for name in self._columns]
        self._csv.writerow([";".join(c) if isinstance(c, list) else c for c in cells])

    def close(self) -> None:
        self._file.flush()


class _Parquet:
    _GROUP = 4096

    def __init__(self, file: IO[bytes], table: Table) -> None:
        import pyarrow.parquet as pq

        self._schema = table.schema()
        self._writer = pq.ParquetWriter(file, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, result: Row) -> None:
        row = result.to_flat()
        self._rows.append(row | {"path": utf8(row["path"]).decode()})
        if len(self._rows) == self._GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def utf8(text: str) -> bytes:
    """UTF-8; undecodable bytes of file names (surrogates) are written as escapes."""
    return text.encode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """A name on one line of a table: control characters and undecodable bytes are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name
    )


_WRITERS: dict[Format, type[_Json | _JsonLines | _Csv | _Parquet]] = {
    "json": _Json,
    "jsonl": _JsonLines,
    "csv": _Csv,
    "parquet": _Parquet,
}


def open_writer(
    path: Path | IO[bytes] | Output, kind: Format, table: Table = IMAGES
) -> AbstractContextManager[Writer[Row]]:
    """Open a row writer, see `giqa.rows.rows_into`.

    Args:
        path: the file, an open binary stream (stdout), or what was made of it before.
        kind: `json`, `jsonl`, `csv` or `parquet`.
        table: what rows it takes.

    Returns:
        Gives the writer.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: the file cannot be written.
    """
    checks.one_of("kind", kind, FORMATS)
    output = path if isinstance(path, Output) else Output(path)
    return rows_into(output, lambda file: _WRITERS[kind](file, table))
