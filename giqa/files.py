"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from giqa.errors import StorageFullError


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
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; at the end it goes down to the disk and is renamed.

    Args:
        path: the file; the old one, if any, is untouched unless all went well.

    Yields:
        The temporary file, open for writing.

    Raises:
        StorageFullError: no space is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
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


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, down to the disk, and rename it.

    Raises:
        StorageFullError: no space is left; the old file, if any, is untouched.
    """
    with replacing(path) as file:
        file.write(data)
