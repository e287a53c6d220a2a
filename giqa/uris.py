"""Paths and URIs: local ones with the standard library, others through fsspec."""

from __future__ import annotations

import os
import re
from contextlib import closing
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from giqa.errors import (
    GiqaError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
    UnreadableError,
)
from giqa.extras import importing
from giqa.files import coded

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


def open_uri(name: str, folder: str) -> IO[bytes]:
    """Open a file for reading at any place.

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
    try:
        if path is None:
            opened: IO[bytes] = import_fsspec().open(name, "rb").open()
            return opened
        # Non-blocking: opening a FIFO would otherwise wait for its writer.
        return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (GiqaError, MemoryError):
        raise
    except Exception as e:  # every file system has errors of its own
        raise _coded(e, name) from e


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
        except MemoryError:
            raise
        except Exception as e:
            raise _coded(e, name) from e


def import_fsspec() -> Any:
    """Import fsspec.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("fsspec"):
        import fsspec
    return fsspec


def _coded(error: Exception, name: str) -> GiqaError:
    if isinstance(error, ImportError):  # a file system that needs a package of its own
        return MissingExtraError(str(error), item=name, remedy="pip install what it names")
    # Of file systems other than the local one, these come without an error number.
    cause = error.__cause__  # fsspec says "not found" whatever went wrong with HTTP
    status = getattr(cause, "status", None)
    if isinstance(error, FileNotFoundError) and cause is not None and status not in (404, 410):
        if status in (401, 403):
            return PermissionDeniedError(f"the server says {status}", item=name, remedy="")
        return UnreadableError(f"cannot be read: {cause}", item=name, remedy="check the address")
    if isinstance(error, FileNotFoundError):
        return NotFoundError("no such file", item=name)
    if isinstance(error, PermissionError):
        return PermissionDeniedError("permission denied", item=name)
    if isinstance(error, OSError | ValueError):
        return coded(error, name)
    return UnreadableError(f"cannot be read: {str(error) or type(error).__name__}", item=name)
