"""Files of other file systems, by fsspec: with bounds on every wait, and tried again."""

from __future__ import annotations

import io
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from giqa.errors import (
    GiqaError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
    UnreadableError,
)
from giqa.extras import importing
from giqa.files import coded, storage

_T = TypeVar("_T")
_PIECE = 1 << 20
_TRIES = 4
_PAUSE_S = 0.2
_CONNECT_S, _READ_S, _WHOLE_S = 10, 30, 600
"""Seconds that a connection may take to be made, may say nothing, and a request may take."""


def open_remote(name: str) -> io.RawIOBase:
    """Open a file of another file system; see `giqa.uris.open_uri`."""
    return _Remote(name)


class _Remote(io.RawIOBase):
    """A file of fsspec's.

    One that a server sends from its beginning alone is read on where that is enough; to go back in
    it, it is copied to a temporary file.
    """

    def __init__(self, name: str) -> None:
        self._name, self._at = name, 0
        self._file: Any = None
        self._where, self._copied = 0, False
        _retried(self._tried(self._reach))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = self._at if whence == os.SEEK_CUR else 0
        if whence == os.SEEK_END:
            base = _retried(self._tried(self._size))
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        def read() -> bytes:
            file = self._reach()
            try:
                data: bytes = file.read(len(buffer))
            except ValueError:  # fsspec's word for a server without ranges
                if self._copied or not self._at:
                    raise
                self._copy()
                data = self._file.read(len(buffer))
            self._where += len(data)
            return data

        data = _retried(self._tried(read))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _tried(self, action: Callable[[], _T]) -> Callable[[], _T]:
        """An action whose failures are coded; the next try begins with another connection."""

        def once() -> _T:
            try:
                return action()
            except (GiqaError, MemoryError):
                raise
            except Exception as e:  # every file system has errors of its own
                self._drop()
                raise find_error(e, self._name) from e

        return once

    def _drop(self) -> None:
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        self._file, self._where, self._copied = None, 0, False

    def _reach(self) -> Any:
        """The open file, where reading is to go on."""
        if self._file is None:
            system, inner = file_system(self._name)
            self._file = system.open(inner, "rb")
        if self._where != self._at:
            try:
                self._file.seek(self._at)
            except (ValueError, OSError):
                if self._at < self._where:
                    self._copy()
                while self._where < self._at and (
                    piece := self._file.read(min(self._at - self._where, _PIECE))
                ):
                    self._where += len(piece)
            self._where = self._at
        return self._file

    def _size(self) -> int:
        if getattr(self._reach(), "size", None) is None:
            self._copy()
        if (size := getattr(self._file, "size", None)) is None:
            size = os.fstat(self._file.fileno()).st_size
        return int(size)

    def _copy(self) -> None:
        """Go on with a temporary file."""
        system, inner = file_system(self._name)
        # As a stream: HTTP is read in ranges otherwise.
        options = {"block_size": 0} if urlsplit(self._name).scheme in ("http", "https") else {}
        copy: Any = tempfile.TemporaryFile(prefix="giqa-")  # noqa: SIM115
        with closing(system.open(inner, "rb", **options)) as source:
            while piece := source.read(_PIECE):
                with storage(Path(tempfile.gettempdir())):
                    copy.write(piece)
        self._drop()
        copy.seek(self._at)
        self._file, self._where, self._copied = copy, self._at, True


def _retried(action: Callable[[], _T]) -> _T:
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


def find_error(error: Exception, name: str) -> GiqaError:
    """Find the coded error for what a file system raised.

    Args:
        error: what it raised.
        name: the path or URI.

    Returns:
        An error of the tree; `UnreadableError` where nothing closer is known.
    """
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
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return UnreadableError(f"cannot be read: {said}", item=name)
