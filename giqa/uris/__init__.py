"""Paths and URIs: local ones with the standard library, others through fsspec."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import IO

from giqa.errors import GiqaError, TooManyBytesError
from giqa.uris._local import is_uri, local_path, open_file
from giqa.uris._remote import Remote, file_system, find_error, import_fsspec

__all__ = [
    "copy_file",
    "copy_uri",
    "file_system",
    "import_fsspec",
    "is_uri",
    "local_path",
    "open_file",
    "open_uri",
    "read_uri",
]

_PIECE = 1 << 20
_BUFFER = 1 << 16


def open_uri(name: str, folder: str) -> IO[bytes]:
    """Open a file for reading at any place.

    Reading raises `InputError` alone for what is not on this machine; what may pass is tried again.

    Args:
        name: a path or URI.
        folder: where relative paths begin.

    Returns:
        The open file; it can seek.

    Raises:
        NotFoundError: no such file.
        PermissionDeniedError: not readable for this user.
        UnreadableError: anything else.
        MissingExtraError: fsspec is needed and not installed.
    """
    path = local_path(name, folder)
    return io.BufferedReader(Remote(name) if path is None else open_file(Path(path), name), _BUFFER)


def read_uri(name: str, folder: str, offset: int = 0, size: int = -1) -> bytes:
    """Read a part of a file.

    Args:
        name: a path or URI.
        folder: where relative paths begin.
        offset: the first byte.
        size: most bytes; -1: all.

    Returns:
        The bytes; fewer than `size` where the file ends.

    Raises:
        InputError: see `open_uri`.
    """
    with closing(open_uri(name, folder)) as file:
        try:
            file.seek(offset)
            return file.read(size)
        except (OSError, ValueError) as e:
            raise find_error(e, name) from e


def copy_uri(name: str, folder: str, target: IO[bytes], most: int | None) -> None:
    """Copy a file from any place into an open one, within a bound.

    Args:
        name: a path or URI.
        folder: where relative paths begin.
        target: written to where it is.
        most: most bytes; None: any number.

    Raises:
        TooManyBytesError: it is larger.
        InputError: it cannot be read to its end.
    """
    with closing(open_uri(name, folder)) as file:
        copy_file(file, target, name, most)


def copy_file(source: IO[bytes], target: IO[bytes], name: str, most: int | None) -> None:
    """Copy an open file within a bound; see `copy_uri`."""
    done = 0
    while True:
        try:
            piece = source.read(_PIECE)
        except (GiqaError, MemoryError):
            raise
        except Exception as e:
            raise find_error(e, name) from e
        if not piece:
            return
        done += len(piece)
        if most is not None and done > most:
            raise TooManyBytesError(f"more than {most} bytes", item=name)
        target.write(piece)
