"""Paths and URIs: local ones with the standard library, others through fsspec."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from giqa.errors import (
    GiqaError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
    TooManyBytesError,
    UnreadableError,
)
from giqa.extras import importing
from giqa.files import coded

_T = TypeVar("_T")

_PIECE = 1 << 20
_TRIES = 4
_PAUSE_S = 0.2
_CONNECT_S, _READ_S, _WHOLE_S = 10, 30, 600
"""Seconds that a connection may take to be made, may say nothing, and a request may take."""
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
            system, inner = file_system(name)
            opened: IO[bytes] = system.open(inner, "rb")
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

    def once() -> bytes:
        with closing(open_uri(name, folder)) as file:
            try:
                _go_to(file, offset)
                return file.read(size)
            except MemoryError:
                raise
            except Exception as e:
                raise _coded(e, name) from e

    return once() if local_path(name, folder) is not None else retried(once)


def retried(action: Callable[[], _T]) -> _T:
    """Do something with a file on a network, again where trying again may help.

    Args:
        action: raises `UnreadableError` where it fails; called four times at most.

    Returns:
        What it returns.

    Raises:
        InputError: the last failure.
    """
    for left in range(_TRIES, 0, -1):
        try:
            return action()
        except UnreadableError as e:
            if left == 1 or not _passing(e):
                raise
            time.sleep(_PAUSE_S * 2 ** (_TRIES - left) * (0.5 + random.random()))
    raise AssertionError


def copy_uri(name: str, folder: str, target: IO[bytes], most: int | None) -> None:
    """Copy a file from any place into an open one, within a bound.

    Args:
        name: a path or URI.
        folder: where relative paths begin.
        target: written from its beginning.
        most: most bytes; None: any number.

    Raises:
        TooManyBytesError: it is larger.
        InputError: it cannot be read to its end.
    """

    def once() -> None:
        target.seek(0)
        target.truncate()
        with closing(open_uri(name, folder)) as file:
            copy_file(file, target, name, most)

    retried(once)


def copy_file(source: IO[bytes], target: IO[bytes], name: str, most: int | None) -> None:
    """Copy an open file within a bound; see `copy_uri`."""
    done = 0
    while True:
        try:
            piece = source.read(_PIECE)
        except MemoryError:
            raise
        except Exception as e:
            raise _coded(e, name) from e
        if not piece:
            return
        done += len(piece)
        if most is not None and done > most:
            raise TooManyBytesError(f"more than {most} bytes", item=name)
        target.write(piece)


def _go_to(file: IO[bytes], offset: int) -> None:
    """Seek; where a server has no ranges, what comes before is read."""
    try:
        file.seek(offset)
    except (ValueError, OSError):
        left = offset - file.tell()
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)


def _passing(error: UnreadableError) -> bool:
    """Whether a failure may be gone next time: not a refusal, nor a name that means nothing."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(cause, "status", None)
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
            return False
        if isinstance(cause, ValueError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


@cache
def _options(scheme: str) -> dict[str, Any]:
    """Bounds on how long a connection may say nothing, as each file system takes them."""
    if scheme in ("http", "https"):
        try:
            import aiohttp
        except ImportError:
            return {}
        # A request is a block of 5 MB where the server has ranges.
        bounds = aiohttp.ClientTimeout(total=_WHOLE_S, sock_connect=_CONNECT_S, sock_read=_READ_S)
        return {"client_kwargs": {"timeout": bounds}}
    if scheme in ("s3", "s3a"):
        own = {"max_attempts": 2}
        waits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": own}
        return {"config_kwargs": waits}
    return {}


def file_system(name: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, with bounds on how long it waits, and the name there."""
    options = _options(name.partition("://")[0].lower())
    system, inner = import_fsspec().core.url_to_fs(name, **options)
    return system, inner


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
