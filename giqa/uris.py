"""Paths and URIs: local ones with the standard library, others through fsspec."""

from __future__ import annotations

import io
import os
import re
import stat
from contextlib import closing
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from giqa.errors import GiqaError, TooManyBytesError, UnreadableError
from giqa.files import coded
from giqa.remote import find_error, open_remote

_PIECE = 1 << 20
_BUFFER = 1 << 16
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(name: str) -> bool:
    """Whether a name is a URI and not a path."""
    return _SCHEME.match(name) is not None


def local_path(name: str, folder: str) -> str | None:
    """Find the file that a path or `file://` URI means.

    Args:
        name: the path or URI.
        folder: where relative paths begin.

    Returns:
        The path; None if it is somewhere else.
    """
    if not is_uri(name):
        return os.path.join(folder, name)
    parts = urlsplit(name)
    if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
        return None
    return unquote(name[len("file://") + len(parts.netloc) :], errors="surrogateescape")


def open_file(path: Path, name: str) -> io.FileIO:
    """Open a regular file for reading; never blocks on what is none.

    Args:
        path: the file.
        name: what errors call it.

    Returns:
        The open file, unbuffered.

    Raises:
        NotFoundError: no such file.
        PermissionDeniedError: not readable for this user.
        UnreadableError: not a regular file, or it cannot be opened.
    """
    try:
        # Non-blocking: opening a FIFO would otherwise wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as e:  # ValueError: a NUL byte in the name
        raise coded(e, name) from e
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UnreadableError(f"is {_kind(mode)}", item=name)
    return io.FileIO(descriptor, "rb")


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
    raw = open_remote(name) if path is None else open_file(Path(path), name)
    return io.BufferedReader(raw, _BUFFER)


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


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "not a regular file")
