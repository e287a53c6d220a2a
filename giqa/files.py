"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from giqa.errors import (
    GiqaError,
    NotFoundError,
    PermissionDeniedError,
    StorageFullError,
    UnreadableError,
)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn "the disk is full" into `StorageFullError`.

    Args:
        path: what is written.

    Raises:
        StorageFullError: no space is left.
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError("no space left", item=str(path)) from e
        raise


@contextmanager
def replacing(path: Path, *, mark: str = "") -> Iterator[BinaryIO]:
    """Write a file under a temporary name; at the end it goes down to the disk and is renamed.

    Args:
        path: the file; the old one, if any, is untouched unless all went well.
        mark: makes the temporary name the writer's own, where several may write the same file.

    Yields:
        The temporary file, open for writing.

    Raises:
        StorageFullError: no space is left.
    """
    temporary = path.with_name(f".{path.name}{mark}.tmp")
    with storage(path):
        try:
            with temporary.open("wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write(path: Path, data: bytes, *, mark: str = "") -> None:
    """Write a file under a temporary name, down to the disk, and rename it; see `replacing`.

    Raises:
        StorageFullError: no space is left; the old file, if any, is untouched.
    """
    with replacing(path, mark=mark) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name when it is closed, complete.

    On any way out but a failure to write, what was written so far is kept.

    Args:
        path: the file, or an open binary stream (stdout), which is flushed.

    Yields:
        The file.

    Raises:
        StorageFullError: no space is left.
        OSError: the file cannot be written.
    """
    try:
        if not isinstance(path, Path):
            try:
                yield path
            finally:
                path.flush()
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with temporary.open("wb") as file:
                try:
                    yield file
                finally:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        except BaseException:
            temporary.replace(path)
            raise
        temporary.replace(path)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError("no space left", item=str(path)) from e
        raise


def coded(error: OSError | ValueError, name: str) -> GiqaError:
    """Find the error for what the system says.

    Args:
        error: what opening or reading raised.
        name: the item it concerns.

    Returns:
        `NotFoundError`, `PermissionDeniedError` or `UnreadableError`.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError("no such file", item=name)
    if number in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError("permission denied", item=name)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadableError(f"cannot be read: {reason}", item=name)
