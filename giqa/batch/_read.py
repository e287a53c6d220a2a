"""From units to items for a scorer, and to files for a decoder of videos."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from giqa.ahead import mapped
from giqa.batch._table import Cells
from giqa.batch._units import Unit
from giqa.errors import EmptyError, GiqaError, TooManyBytesError, TruncatedError
from giqa.files import storage
from giqa.types import Item, Limits
from giqa.uris import copy_uri, local_path, read_uri

_AHEAD = 16
"""Images that are read ahead from tar files and other places, and threads that do it."""
_PIECE = 8 << 20


def read_items(units: Iterable[Unit], folder: str, limits: Limits) -> Iterator[Item]:
    """Turn units into items, in order; at most 16 of them are held in memory.

    Plain files become items with a path: scorers read them while they infer.

    Args:
        units: images.
        folder: where relative paths begin.
        limits: `max_bytes` holds before reading.

    Yields:
        One item a unit; one that cannot be read carries its error.
    """
    with closing(Cells(folder)) as cells:

        def here(unit: Unit) -> bool:
            # Tables are read in order, by one thread.
            return unit.column is not None or _plain(unit, folder) is not None

        def fetch(unit: Unit) -> Item:
            return _plain(unit, folder) or _fetch(unit, folder, limits, cells)

        yield from mapped(fetch, units, workers=_AHEAD, here=here)


def _plain(unit: Unit, folder: str) -> Item | None:
    if (error := unit.error) is not None:
        return Item(unit.name, error=error)
    path = local_path(unit.name, folder) if unit.holder is None else None
    return None if path is None else Item(unit.name, Path(path))


def _fetch(unit: Unit, folder: str, limits: Limits, cells: Cells) -> Item:
    most = limits.max_bytes
    try:
        if unit.holder is None:  # one byte more shows the scorer that it is too large
            return Item(unit.name, data=read_uri(unit.name, folder, size=most + 1))
        if unit.column is not None:
            found = _cell(unit, cells)
            if isinstance(found, bytes):
                return Item(unit.name, data=found)
            path = local_path(found, folder)
            if path is not None:
                return Item(unit.name, Path(path))
            return Item(unit.name, data=read_uri(found, folder, size=most + 1))
        data = read_uri(unit.holder, folder, unit.offset or 0, _size(unit, most))
        if len(data) < (unit.size or 0):
            raise TruncatedError(f"{len(data)} of {unit.size} bytes", item=unit.name)
        return Item(unit.name, data=data)
    except GiqaError as e:
        return Item(unit.name, error=e)


def _size(unit: Unit, most: int | None) -> int:
    size = unit.size or 0
    if most is not None and size > most:
        raise TooManyBytesError(f"{size} bytes, the limit is {most}", item=unit.name)
    return size


def _cell(unit: Unit, cells: Cells) -> bytes | str:
    """What a table holds: bytes, or the path that stands in their place."""
    assert unit.holder is not None
    assert unit.column is not None
    value = cells.read(unit.holder, unit.column, unit.offset or 0, unit.size)
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not value:
        raise EmptyError(f"column {unit.column} is null there", item=unit.name)
    return value if isinstance(value, str) else bytes(value)


class Spool:
    """Videos that are in no file of their own, as files: the last one is kept for its next part.

    Args:
        folder: where relative paths begin.
        most: largest video in bytes; None: as the disk has room.
    """

    def __init__(self, folder: str, most: int | None) -> None:
        self._folder, self._most = folder, most
        self._cells = Cells(folder)
        self._place: tuple[object, ...] | None = None
        self._file: IO[bytes] | None = None

    def path(self, unit: Unit) -> str:
        """A file with a unit's video.

        Raises:
            InputError: it cannot be read, or is larger than the limit.
            StorageFullError: no space is left for it.
        """
        path = local_path(unit.name, self._folder) if unit.holder is None else None
        if path is not None:
            return path
        if self._place != unit.place:
            self.close()
            suffix = os.path.splitext(unit.name)[1][:9]
            # Its name goes with it where the system ends the process.
            self._file = tempfile.NamedTemporaryFile(prefix="giqa-", suffix=suffix)  # noqa: SIM115
            with storage(Path(self._file.name)):
                self._copy(unit, self._file)
                self._file.flush()
            self._place = unit.place
        assert self._file is not None
        return self._file.name

    def close(self) -> None:
        """Remove what is kept."""
        if self._file is not None:
            self._file.close()
        self._cells.close()
        self._file = self._place = None

    def _copy(self, unit: Unit, target: IO[bytes]) -> None:
        if unit.column is not None:
            found = _cell(unit, self._cells)
            if isinstance(found, str):
                copy_uri(found, self._folder, target, self._most)
            elif self._most is not None and len(found) > self._most:
                what = f"{len(found)} bytes, the limit is {self._most}"
                raise TooManyBytesError(what, item=unit.name)
            else:
                target.write(found)
        elif unit.holder is None:
            copy_uri(unit.name, self._folder, target, self._most)
        else:
            left, at = _size(unit, self._most), unit.offset or 0
            while left:
                piece = read_uri(unit.holder, self._folder, at, min(_PIECE, left))
                if not piece:
                    what = f"{left} of {unit.size} bytes are missing"
                    raise TruncatedError(what, item=unit.name)
                target.write(piece)
                left, at = left - len(piece), at + len(piece)
