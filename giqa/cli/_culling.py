"""Which rows of a set come out, in which order, and a sheet to look through them with."""

from __future__ import annotations

import csv
import io
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final, Literal

from giqa.results import ImageResult, utf8

Order = Literal["worst", "best", "path"]
ORDERS: Final[tuple[Order, ...]] = ("worst", "best", "path")
SHEET: Final = ("file", "score", "band", "label", "error", "map", "thumbnail")
"""Columns of a sheet; `label` is for whoever fills it in."""


@dataclass(frozen=True)
class Found:
    """A row, and the files that were made for it.

    Attributes:
        result: the row.
        map: its map's picture or file; empty if there is none.
        thumbnail: a small copy; empty if there is none.
    """

    result: ImageResult
    map: str = ""
    thumbnail: str = ""


@dataclass
class Selection:
    """Chooses rows by their scores.

    Memory holds what has to wait: with `sort` all rows, with `worst` and `best` so many.

    Attributes:
        sort: order of the rows; None: that of the inputs, and from the worst where some are chosen.
        worst: how many of the lowest; None: see `best`.
        best: how many of the highest; None: all, unless `worst` is given.
        below: only scores below this.
        above: only scores of at least this.
    """

    sort: Order | None = None
    worst: int | None = None
    best: int | None = None
    below: float | None = None
    above: float | None = None
    _kept: list[tuple[float, int, Found]] = field(default_factory=list)
    _failed: list[Found] = field(default_factory=list)
    _count: int = 0

    @property
    def chooses(self) -> bool:
        """Rows are left out; those without a score are among them."""
        return any(x is not None for x in (self.worst, self.best, self.below, self.above))

    def add(self, row: Found) -> Iterator[Found]:
        """Take in a row; give those whose turn it is."""
        score = row.result.score
        if self.chooses and (
            score is None
            or (self.below is not None and not score < self.below)
            or (self.above is not None and not score >= self.above)
        ):
            return
        some = self.worst is not None or self.best is not None
        if self.sort is None and not some:
            yield row
            return
        row = replace(row, result=replace(row.result, quality_map=None, boxes=None))
        if score is None:
            self._failed.append(row)
            return
        self._count += 1
        insort(self._kept, (score, self._count, row), key=lambda entry: entry[:2])
        if some and len(self._kept) > (self.worst or 0) + (self.best or 0):
            del self._kept[self.worst or 0]  # neither end needs it

    def rest(self) -> Iterator[Found]:
        """Give the rows that waited, in their order."""
        rows = [row for _, _, row in self._kept]
        if self.sort == "best" or (self.sort is None and self.worst is None):
            rows.reverse()
        rows += self._failed
        if self.sort == "path":
            rows.sort(key=lambda row: row.result.path)
        self._kept, self._failed = [], []
        yield from rows


class Sheet:
    """Writes rows as a table for people: for spreadsheets, with a column to fill in.

    Args:
        file: where to.
        mark: begin with a byte order mark, without which some spreadsheets take the names of files
            for Latin-1.
    """

    def __init__(self, file: IO[bytes], *, mark: bool = False) -> None:
        self._file = file
        self._file.write(b"\xef\xbb\xbf" if mark else b"")
        self._put(SHEET)

    def write(self, row: Found, /) -> None:
        """Write a row."""
        result = row.result
        self._put(
            (
                _harmless(result.path),
                "" if result.score is None else f"{result.score:.2f}",
                result.band or "",
                "",
                "" if result.error is None else result.error.code,
                _harmless(row.map),
                _harmless(row.thumbnail),
            )
        )

    def close(self) -> None:
        """Nothing comes after the last row."""

    def _put(self, cells: tuple[str, ...]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        self._file.write(utf8(line.getvalue()))


def _harmless(cell: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"./{cell}" if cell[:1] in "=+-@\t\r" and cell else cell


def names_beside(folder: Path, sheet: str | None, *names: str) -> tuple[str, ...]:
    """Files of a folder as a sheet names them: seen from its own place."""
    import os

    start = os.path.dirname(os.path.abspath(sheet)) if sheet and sheet != "-" else os.getcwd()
    return tuple(name and os.path.relpath(folder / name, start) for name in names)
