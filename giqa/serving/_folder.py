"""What a server has on this machine while it runs: a folder of its own, and shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "giqa-serve-"
_SHM = Path("/dev/shm")
_RESERVED = "triton_python_backend_shm_region_"
"""Servers with CVE-2025-23319 mended let no client register a region of such a name."""
_LOCK = ".lock"


class Folder:
    """A server's own folder, readable for its user alone, and locked while it is in use.

    Its name says which process it belongs to; the lock says whether that still lives, for others
    that share the storage but not the numbers of processes, as containers do.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        new = self.path / ".new"
        self._lock = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path / _LOCK)  # it is locked from its first moment

    def hide(self) -> None:
        """Let nobody else read the Python models' shared memory, which the backend lets all."""
        for region in _SHM.glob(f"{glob.escape(shm_prefix(self.path))}*"):
            with contextlib.suppress(OSError):
                region.chmod(0o600)

    def __enter__(self) -> Path:
        """Its path, until the end."""
        return self.path

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.remove()

    def remove(self) -> None:
        """Remove it and the shared memory of its Python models."""
        _remove(self.path)
        os.close(self._lock)


def shm_prefix(folder: Path) -> str:
    """How the names of the Python models' shared memory begin."""
    return f"{_RESERVED}{folder.name}-"


def sweep() -> None:
    """Remove what servers left that were killed; a folder that is locked is in use."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # it is just being made, or removed
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except OSError:
            pass  # in use
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    for leftover in _SHM.glob(f"{glob.escape(shm_prefix(folder))}*"):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
