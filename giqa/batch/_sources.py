"""From what a user names to the inputs of a run, lazily and in a fixed order."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import IO, TYPE_CHECKING

from giqa.batch._tar import members
from giqa.batch._units import Kind, Unit
from giqa.errors import CorruptError, UsageError
from giqa.inputs import SUFFIXES, find
from giqa.uris import import_fsspec, is_uri, local_path, open_uri

if TYPE_CHECKING:
    from giqa.batch._plan import Sources

VIDEO_SUFFIXES = frozenset(
    f".{suffix}" for suffix in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts")
)
"""Suffixes (lower case) that make a file a video."""
LISTS = (".txt", ".lst")
TABLE = ".parquet"
TAR = ".tar"
COLUMNS = ("uri", "url", "path")
"""Columns of a table that may hold the URIs, the first that is there."""

_ROWS = 4096


def expand(sources: Sources, stdin: IO[bytes] | None = None) -> Iterator[Unit]:
    """List the inputs; videos are not cut yet.

    Duplicates are kept: every input gives a row. What cannot be listed (an empty directory, a
    damaged tar file) becomes a unit with an error.

    Args:
        sources: what the user named.
        stdin: where `-` reads.

    Yields:
        Units, numbered from 0.

    Raises:
        InputError: a list or table cannot be read.
        MissingExtraError: fsspec is needed and not installed.
        UsageError: a table has no such column.
    """
    number = 0
    for argument in sources.inputs:
        for unit in _argument(argument, sources, stdin, number):
            yield unit
            number = unit.input + 1


def listing_digest(units: Iterator[Unit]) -> str:
    """SHA-256 over inputs, to see whether they changed."""
    digest = hashlib.sha256()
    for unit in units:
        digest.update(unit.identity)
    return digest.hexdigest()


def _argument(
    argument: str, sources: Sources, stdin: IO[bytes] | None, number: int
) -> Iterator[Unit]:
    if argument == "-":
        items = find(["-"], stdin=stdin, null_separated=sources.null_separated)
        yield from (_unit(n, item.name) for n, item in zip(count(number), items, strict=False))
    elif is_uri(argument):
        yield from _named(argument, sources, number)
    else:
        folder = sources.folder
        prefix = "" if os.path.isabs(argument) else os.path.join(folder, "")
        for item in find(
            [_rooted(argument, folder)],
            recursive=sources.recursive,
            suffixes=SUFFIXES | VIDEO_SUFFIXES,
        ):
            name = item.name.removeprefix(prefix)
            if item.error is not None:
                yield Unit.failed(number, name, item.error)
                number += 1
                continue
            for unit in _named(name, sources, number):
                yield unit
                number = unit.input + 1


def _rooted(argument: str, folder: str) -> str:
    """The argument seen from `folder`, whose own name is never a pattern."""
    joined = os.path.join(folder, argument)
    if glob.has_magic(argument) and not os.path.lexists(joined):
        return os.path.join(glob.escape(folder), argument)
    return joined


def _named(name: str, sources: Sources, number: int) -> Iterator[Unit]:
    """What one file stands for."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix == TAR:
        yield from members(name, sources.folder, number)
    elif suffix in LISTS:
        with closing(open_uri(name, sources.folder)) as file:
            items = find(["-"], stdin=file, null_separated=sources.null_separated)
            yield from (_unit(n, item.name) for n, item in zip(count(number), items, strict=False))
    elif suffix == TABLE:
        names = _table(name, sources)
        yield from (_unit(n, one) for n, one in zip(count(number), names, strict=False))
    else:
        yield _unit(number, name)


def _table(name: str, sources: Sources) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with closing(open_uri(name, sources.folder)) as file:
        try:
            table = pq.ParquetFile(file)
            there = table.schema_arrow.names
            wanted = COLUMNS if sources.column is None else (sources.column,)
            column = next((c for c in wanted if c in there), None)
            if column is None:
                raise UsageError(
                    f"has none of the columns {', '.join(wanted)}",
                    item=name,
                    remedy=f"--column with one of: {', '.join(there)}",
                )
            for batch in table.iter_batches(_ROWS, columns=[column]):
                yield from (str(value or "") for value in batch.column(0).to_pylist())
        except (pa.ArrowException, OSError) as e:
            raise CorruptError(f"not a whole Parquet file: {e}", item=name) from e


def _unit(number: int, name: str) -> Unit:
    if is_uri(name) and local_path(name, "") is None:
        import_fsspec()
    suffix = os.path.splitext(name)[1].lower()
    kind: Kind = "video" if suffix in VIDEO_SUFFIXES else "image"
    return Unit(number, kind, name)
