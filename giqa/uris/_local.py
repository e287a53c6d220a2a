"""Names of files, and those on this machine."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from giqa.errors import UnreadableError
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


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "not a regular file")
