"""Files that appear whole or not at all: the one way in which anything is written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase
from pathlib import Path
from typing import IO, BinaryIO, Self

from giqa.errors import (
    GiqaError,
    NotFoundError,
    PermissionDeniedError,
    StorageFullError,
    UnreadableError,
    UnwritableError,
    UsageError,
)

_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/(?:self|thread-self|\d+)/fd)/(\d+)")
_LONGEST = 200
"""Bytes of a name that are kept in the temporary one: file systems take 255."""


@contextmanager
def storage(path: str | Path) -> Iterator[None]:
    """Turn what the system says of writing into errors that name the path that was asked for.

    Args:
        path: what is written.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: anything else, but a reader that went away (`BrokenPipeError`).
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError("no space left", item=str(path)) from e
        raise UnwritableError(e.strerror or str(e), item=str(path)) from e


class Output:
    """A file that was asked for: nothing happens to it until it is opened, and then all or nothing.

    A regular file is written beside itself and takes the old one's place, with its mode, when all
    is written; symbolic links are followed. A FIFO, a device, and what a descriptor stands for
    (`/dev/fd/3`, `/dev/stdout`) are written to directly.

    As a context manager it is finished at the end, and given up if an exception ends it.

    Args:
        path: the file, or an open binary stream, which is flushed at the end.

    Attributes:
        path: the path that was asked for.

    Raises:
        UnwritableError: it is a directory, or its folder is missing or may not be written to.
        UsageError: it is neither a path nor a binary stream.
    """

    def __init__(self, path: str | Path | IO[bytes]) -> None:
        if isinstance(path, str | os.PathLike):
            self.path, self._stream = os.fspath(path), None
        else:
            self.path, self._stream = "-", path
        if not isinstance(self.path, str) or isinstance(path, TextIOBase):
            raise UsageError("is text or bytes where the other is wanted", item=repr(path))
        if self._stream is not None and not hasattr(path, "write"):
            raise UsageError(f"{type(path).__name__} instead of a path", item="path")
        self._file: IO[bytes] | None = None
        self._temporary: Path | None = None
        self._descriptor = None if self._stream else _descriptor(self.path)
        if not self.path or "\0" in self.path:
            raise UnwritableError("is no name of a file", item=self.path)
        self._target = Path(os.path.realpath(self.path))
        self._mode: int | None = None
        self._direct = self._stream is not None or self._descriptor is not None
        if self._stream is None:
            with storage(self.path):
                self._check()

    def _check(self) -> None:
        if self._descriptor is not None:
            os.fstat(self._descriptor)
            return
        try:
            self._mode = self._target.stat().st_mode
        except OSError:
            self._mode = None
        if (self._mode and stat.S_ISDIR(self._mode)) or self.path.endswith(os.sep):
            raise UnwritableError("is a directory", item=self.path, remedy="give a file's name")
        if self._target.is_symlink() or (self._mode and stat.S_ISSOCK(self._mode)):
            raise UnwritableError("is a socket, or a loop of links", item=self.path)
        self._direct = self._mode is not None and not stat.S_ISREG(self._mode)
        folder = self._target.parent
        if not self._direct and not folder.is_dir():
            raise UnwritableError(
                "its folder does not exist", item=self.path, remedy="make it first"
            )
        if not os.access(self._target if self._direct else folder, os.W_OK):
            raise UnwritableError("permission denied", item=self.path)

    @property
    def place(self) -> str:
        """What is written to, whatever it is called."""
        descriptor = self._descriptor
        if self._stream is not None:
            with suppress(OSError):  # one that a program made itself has none
                descriptor = self._stream.fileno()
        return str(self._target) if descriptor is None else f"descriptor {descriptor}"

    def open(self) -> IO[bytes]:
        """Open it, once.

        Raises:
            StorageFullError: no space is left.
            UnwritableError: it cannot be opened.
        """
        if self._file is None:
            with storage(self.path):
                self._file = self._opened()
        return self._file

    def _opened(self) -> IO[bytes]:
        if self._stream is not None:
            return self._stream
        if self._descriptor is not None:
            return os.fdopen(os.dup(self._descriptor), "wb")
        if self._direct:
            return os.fdopen(os.open(self._target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY), "wb")
        name = os.fsencode(self._target.name)[:_LONGEST] + f".{secrets.token_hex(4)}.tmp".encode()
        temporary = self._target.with_name(os.fsdecode(b"." + name))
        file = temporary.open("xb")
        self._temporary = temporary
        return file

    def finish(self) -> None:
        """Close it, and put it into its place, down to the disk.

        Raises:
            StorageFullError: no space is left; the old file, if any, is untouched.
            UnwritableError: as for any other reason.
        """
        file = self.open()
        try:
            with storage(self.path):
                file.flush()
                if self._direct:
                    if self._stream is None:
                        file.close()
                    return
                os.fsync(file.fileno())
                if self._mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(self._mode))
                file.close()
                assert self._temporary is not None
                self._move(self._temporary)
        except BaseException:
            self.discard()
            raise

    def _move(self, temporary: Path) -> None:
        try:
            temporary.replace(self._target)
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
            with temporary.open("rb") as source, self._target.open("wb") as target:
                shutil.copyfileobj(source, target)  # a file that is mounted itself
            temporary.unlink()

    def discard(self) -> None:
        """Close it; the old file, if any, stays."""
        if self._file is not None and self._stream is None:
            with suppress(OSError):
                self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish, or give up."""
        if kind is None:
            self.finish()
        else:
            self.discard()


def _descriptor(path: str) -> int | None:
    """The descriptor of this process that a path stands for."""
    for _ in range(40):
        if found := _DESCRIPTOR.fullmatch(os.path.abspath(path)):
            return int(found[1])
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except (OSError, ValueError):
            return None
    return None


def check_apart(outputs: Iterable[Output], inputs: Iterable[str] = ()) -> None:
    """Refuse outputs of which two are the same file, or one is an input.

    Raises:
        UsageError: they are.
    """
    sources = {os.path.realpath(name) for name in inputs if name and name != "-"}
    seen: dict[str, str] = {}
    for output in outputs:
        if output.place != os.devnull and output.place in seen:
            item = output.path if output.path != "-" else "stdout"
            raise UsageError("is asked for twice", item=item, remedy="give each output its own")
        if output.place in sources:
            raise UsageError("is an input, too", item=output.path, remedy="give another path")
        seen[output.place] = output.path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file, see `Output`.

    Args:
        path: the file; the old one, if any, is untouched unless all went well.

    Yields:
        The open file.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: it cannot be written.
    """
    with Output(path) as output:
        file = output.open()
        try:
            yield file  # type: ignore[misc]
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFullError("no space left", item=str(path)) from e
            raise


def write(path: Path | IO[bytes], data: bytes) -> None:
    """Write a file, see `Output`.

    Raises:
        StorageFullError: no space is left; the old file, if any, is untouched.
        UnwritableError: as for any other reason.
    """
    with Output(path) as output, storage(output.path):
        output.open().write(data)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
