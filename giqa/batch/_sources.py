"""From what a user names to the inputs of a run, lazily and in a fixed order."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from giqa.batch._columns import element, is_bytes, suffix
from giqa.batch._table import TABLES, Table, choose, open_table, rows
from giqa.batch._tar import members
from giqa.batch._units import Kind, Unit, from_table, unit_schema
from giqa.errors import EmptyError, GiqaError, InputError, NotFoundError, UsageError
from giqa.inputs import SUFFIXES, VIDEO_SUFFIXES, find
from giqa.remote import import_fsspec
from giqa.uris import is_uri, local_path, open_uri

if TYPE_CHECKING:
    import pyarrow as pa

    from giqa.batch._plan import Sources

LISTS = (".txt", ".lst")
TAR = ".tar"


class Listing:
    """Lists the inputs of a run; videos are not cut yet.

    Duplicates are kept: every input gives a row. What cannot be listed (an empty directory, list or
    table that was named, a damaged or empty tar file) becomes a unit with an error; what is no
    input by its suffix is counted.

    Args:
        sources: what the user named.
        stdin: where `-` reads.
        skip: the run's own folder, whose tables are no inputs.

    Attributes:
        passed: what was passed over, by suffix; complete after the last unit.

    Raises:
        InputError: a list or table cannot be read.
        MissingExtraError: fsspec is needed and not installed.
        UsageError: a table has no such column.
    """

    def __init__(
        self, sources: Sources, stdin: IO[bytes] | None = None, skip: str | None = None
    ) -> None:
        self.passed: Counter[str] = Counter()
        self._sources, self._stdin = sources, stdin
        self._skip = None if skip is None else os.path.join(os.path.abspath(skip), "")
        self._number = 0

    def __iter__(self) -> Iterator[Unit]:
        """List.

        Yields:
            Units, numbered from 0.
        """
        for argument in self._sources.inputs:
            for unit in self._argument(argument):
                yield replace(unit, input=self._number)
                self._number += 1

    def kept(self) -> pa.DataType | None:
        """The struct of columns that are carried through; None without any.

        Raises:
            UsageError: tables have them in different types, or there is no table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._sources.keep:
            return None
        found: dict[str, pa.DataType] = {}
        for name in self._tables():
            # What cannot be read is told when it is listed.
            with suppress(InputError), open_table(name, self._sources.folder) as table:
                for column in self._sources.keep:
                    if column not in table.schema.names:
                        continue
                    kind = table.kind(column, "--keep others")
                    if found.setdefault(column, kind) != kind:
                        raise UsageError(
                            f"column {column} is {kind}, elsewhere {found[column]}", item=name
                        )
        if missing := [c for c in self._sources.keep if c not in found]:
            raise UsageError(f"no table has a column {missing[0]}", item="--keep")
        kept = pa.struct([pa.field(c, found[c]) for c in self._sources.keep])
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema(list(kept))).close()
        except pa.ArrowException as e:
            raise UsageError(f"cannot be written to Parquet: {e}", item="--keep") from e
        return kept

    def _tables(self) -> Iterator[str]:
        for argument in self._sources.inputs:
            names = [argument] if is_uri(argument) else (n for n, _ in self._found(argument))
            for name in names:
                if name.lower().endswith(TABLES) and not self._own(name, argument):
                    yield name

    def _argument(self, argument: str) -> Iterator[Unit]:
        if argument == "-":
            yield from self._list(self._stdin, argument)
        elif is_uri(argument):
            yield from self._named(argument)
        else:
            for name, error in self._found(argument, self.passed):
                if error is not None:
                    yield Unit.failed(0, name, error)
                elif self._own(name, argument):
                    self.passed["of a run"] += 1
                else:
                    yield from self._named(name, named=_is_named(name, argument))

    def _found(
        self, argument: str, passed: Counter[str] | None = None
    ) -> Iterator[tuple[str, GiqaError | None]]:
        folder = self._sources.folder
        prefix = "" if os.path.isabs(argument) else os.path.join(folder, "")
        suffixes = SUFFIXES | VIDEO_SUFFIXES | {TAR, *TABLES}
        for item in find(
            [_rooted(argument, folder)],
            recursive=self._sources.recursive,
            suffixes=suffixes,
            passed=passed,
        ):
            yield item.name.removeprefix(prefix), item.error

    def _own(self, name: str, argument: str) -> bool:
        """Whether a table belongs to a run, whose folder lies among the inputs."""
        if not name.lower().endswith(TABLES) or _is_named(name, argument):
            return False
        path = os.path.abspath(os.path.join(self._sources.folder, name))
        if self._skip is not None and path.startswith(self._skip):
            return True
        above = os.path.dirname(path)
        return _is_run(os.path.dirname(above) if os.path.basename(above) == "shards" else above)

    def _named(self, name: str, *, named: bool = True) -> Iterator[Unit]:
        """What one file stands for."""
        kind, count = suffix(name), 0
        if kind == TAR:
            yield from members(name, self._sources.folder, 0, self.passed)
        elif kind in LISTS:
            with closing(open_uri(name, self._sources.folder)) as file:
                yield from self._list(file, name)
        elif kind in TABLES:
            try:
                for unit in self._table(name, named):
                    count += 1
                    yield unit
            except InputError as e:
                if named and not count:
                    raise
                yield Unit.failed(0, name, e)
        else:
            yield _unit(name)

    def _list(self, file: IO[bytes] | None, name: str) -> Iterator[Unit]:
        for item in find(["-"], stdin=file, null_separated=self._sources.null_separated):
            if item.error is not None:
                yield Unit.failed(0, name, item.error)
            elif suffix(item.name) in (TAR, *TABLES):
                yield from self._named(item.name, named=False)
            else:
                yield _unit(item.name)

    def _table(self, name: str, named: bool) -> Iterator[Unit]:
        keep = self._sources.keep
        with open_table(name, self._sources.folder) as table:
            if not any(n for _, n in table.lengths()):
                if named:
                    yield Unit.failed(0, name, NotFoundError("the table has no rows"))
                else:
                    self.passed[f"empty {suffix(name)}"] += 1
                return
            if set(unit_schema().names) <= set(table.schema.names):
                yield from _again(name, table, self._sources.folder)
                return
            try:
                column = choose(table, self._sources.column)
            except UsageError:
                if named:
                    raise
                self.passed[f"{suffix(name)} without inputs"] += 1
                return
            kind = table.schema.field(column).type
            files = is_bytes(element(kind))
            video: Kind = "video" if column.lower() in ("video", "clip", "mp4") else "image"
            for row, place, path, kept in rows(table, column, keep):
                own = f"{name}::{row}" + (f".{place}" if place is not None and place >= 0 else "")
                if place == -1 or (not files and not path):
                    what = "an empty list" if place == -1 else "no path"
                    unit = Unit.failed(0, own, EmptyError(f"column {column} has {what}"))
                    yield replace(unit, kept=kept)
                elif not files:
                    assert path is not None
                    nested = path.lower().endswith(TAR)
                    for unit in self._named(path) if nested else [_unit(path)]:
                        yield replace(unit, kept=kept)
                else:
                    end = suffix(path)
                    yield Unit(
                        0,
                        "video" if end in VIDEO_SUFFIXES else "image" if end in SUFFIXES else video,
                        f"{own}:{path}" if path else own,
                        holder=name,
                        column=column,
                        offset=row,
                        size=place,
                        kept=kept,
                    )


def _again(name: str, table: Table, folder: str) -> Iterator[Unit]:
    """The inputs of another run's `inputs.parquet`, uncut; those that could not be listed, too."""
    last = -1
    there = _folder_of(name, folder)
    for _, batch in table.batches(table.schema.names, 0, 4096):
        import pyarrow as pa

        for _, unit in from_table(pa.Table.from_batches([batch])):
            if unit.input == last or unit.gone:
                continue
            last = unit.input
            yield replace(
                unit,
                name=_moved(unit.name, there) if unit.holder is None else unit.name,
                holder=None if unit.holder is None else _moved(unit.holder, there),
                start_s=None,
                end_s=None,
                stamp=None,
                frames=None,
                mark=None,
                kept=(),
            )


def _folder_of(name: str, folder: str) -> str:
    """Where the relative paths of another run begin; empty where they begin here, too."""
    path = local_path(name, folder)
    try:
        with open(os.path.join(os.path.dirname(path or ""), "plan.json"), "rb") as file:
            found = str(json.load(file)["sources"]["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if found == folder else found


def _moved(name: str, folder: str) -> str:
    return name if is_uri(name) or not folder else os.path.join(folder, name)


def _is_named(name: str, argument: str) -> bool:
    """Whether a file was named itself, not a directory that it is in."""
    return name == argument or glob.has_magic(argument)


def _is_run(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "plan.json"), "rb") as file:
            return b'"giqa.batch/' in file.read(200)
    except OSError:
        return False


def _rooted(argument: str, folder: str) -> str:
    """The argument seen from `folder`, whose own name is never a pattern."""
    joined = os.path.join(folder, argument)
    if glob.has_magic(argument) and not os.path.lexists(joined):
        return os.path.join(glob.escape(folder), argument)
    return joined


def _unit(name: str) -> Unit:
    if is_uri(name) and local_path(name, "") is None:
        import_fsspec()
    kind: Kind = "video" if suffix(name) in VIDEO_SUFFIXES else "image"
    return Unit(0, kind, name)
