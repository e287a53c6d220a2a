"""Rows written one by one into a file: complete up to whatever ended them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Generic, Protocol, TypeVar

from giqa.files import Output, storage

_R = TypeVar("_R", contravariant=True)


class Closable(Protocol[_R]):
    """What writes rows into a file."""

    def write(self, row: _R, /) -> None:
        """Write one."""
        ...

    def close(self) -> None:
        """Write what comes after the last; the file stays open."""
        ...


class _Rows(Generic[_R]):
    """Begins with the first row."""

    def __init__(self, output: Output, begin: Callable[[IO[bytes]], Closable[_R]]) -> None:
        self._output, self._begin = output, begin
        self._rows: Closable[_R] | None = None
        self.failed = False

    @property
    def begun(self) -> bool:
        return self._rows is not None

    def write(self, row: _R, /) -> None:
        try:
            with storage(self._output.path):
                if self._rows is None:
                    self._rows = self._begin(self._output.open())
                self._rows.write(row)
        except BaseException:
            self.failed = True
            raise

    def close(self) -> None:
        with storage(self._output.path):
            if self._rows is None:
                self._rows = self._begin(self._output.open())
            self._rows.close()


@contextmanager
def rows_into(output: Output, begin: Callable[[IO[bytes]], Closable[_R]]) -> Iterator[Closable[_R]]:
    """Write rows one by one.

    The file is opened with the first row; until then, and if writing fails, an old one is as it
    was. Whatever else ends it, an interruption included: rows written so far are kept, complete.

    Args:
        output: where to.
        begin: makes what writes rows into the open file.

    Yields:
        What takes the rows.
    """
    rows = _Rows(output, begin)
    try:
        yield rows
    except BaseException:
        if not rows.begun or rows.failed:
            output.discard()
        else:
            with output:
                rows.close()
        raise
    with output:
        rows.close()
